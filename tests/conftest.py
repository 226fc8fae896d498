"""What tests share."""

from mended import pytest_terminal_summary, still

__all__ = ["pytest_terminal_summary", "still"]
