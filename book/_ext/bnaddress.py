"""Say where the book is at home.

One address is set by hand at most: that of the repository, as `repository: url` in `_config.yml` or
in the environment as BOOK_REPOSITORY. From it come the buttons that open a page in Colab or Binder,
the links to its source (bnbuttons), and the address of the site, unless BOOK_URL or `html: baseurl`
gives another. The site's address brings canonical links, what others show who link here, and a
sitemap (bnshared). Without an address there is none of it.
"""

import os
import re

from sphinx.errors import ExtensionError

ON_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")


def find_repository(value):
    """Return the address of a repository in one form, or say what is wrong with it."""
    address = value.strip().rstrip("/").removesuffix(".git")
    if address and not ON_GITHUB.fullmatch(address):
        raise ExtensionError(
            "The repository's address should be like https://github.com/owner/name, and is "
            f"{value!r}. Correct BOOK_REPOSITORY, or repository: url in _config.yml."
        )
    return address


def find_site(value, repository):
    """Return the address of the site, by default the one that GitHub Pages gives."""
    site = value.strip().rstrip("/")
    if site and not re.fullmatch(r"https?://\S+", site):
        raise ExtensionError(
            f"The site's address should be like https://example.org/book, and is {value!r}. "
            "Correct BOOK_URL, or html: baseurl in _config.yml."
        )
    if not site and repository:
        owner, name = (
            part.lower() for part in ON_GITHUB.fullmatch(repository).groups()
        )
        site = f"https://{owner}.github.io"
        site += f"/{name}" * (name != f"{owner}.github.io")
    return site and f"{site}/"


def find_addresses(app, config):
    options, said = config.html_theme_options, os.environ
    config.book_repository = find_repository(
        said.get("BOOK_REPOSITORY") or options.get("repository_url") or ""
    )
    config.html_baseurl = find_site(
        said.get("BOOK_URL") or config.html_baseurl or "", config.book_repository
    )


def setup(app):
    app.add_config_value("book_repository", "", "html", [str])
    app.connect("config-inited", find_addresses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
