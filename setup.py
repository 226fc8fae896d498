"""What pyproject.toml cannot know: where this build is at home.

BOOK_REPOSITORY says it, as it does to the book, and BOOK_URL the site's address. From them come the
links of the package's page, and those inside README.md become absolute, as that page needs them.
Without an address no link is invented.
"""

import os
import re
from pathlib import Path

from setuptools import setup

repository = os.environ.get("BOOK_REPOSITORY", "").strip().rstrip("/")
site = os.environ.get("BOOK_URL", "").strip()
readme = Path("README.md").read_text(encoding="utf-8")
urls = {"Documentation": site} if site else {}
if repository:
    urls["Repository"] = repository
    urls["Changelog"] = f"{repository}/blob/HEAD/CHANGELOG.md"
    urls["Issues"] = f"{repository}/issues"
    here = r"\]\((?!https?:|mailto:|#)(.+?)\)"
    readme = re.sub(f"(!\\[[^\\]]*){here}", rf"\1]({repository}/raw/HEAD/\2)", readme)
    readme = re.sub(here, rf"]({repository}/blob/HEAD/\1)", readme)

setup(
    long_description=readme,
    long_description_content_type="text/markdown",
    project_urls=urls,
)
