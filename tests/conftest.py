"""What tests share."""

import pytest
from browsing import open_context

from tools.browser import start


@pytest.fixture(scope="session")
def chromium():
    """Start the one browser of all tests."""
    with start() as browser:
        yield browser


@pytest.fixture(scope="module")
def browser(chromium):
    """Open a context, from which nothing that is asked of other hosts leaves this machine."""
    with open_context(chromium) as context:
        yield context
