"""Say where the book is at home, and with what it was made.

One address is set by hand at most: that of the repository, as `repository: url` in `_config.yml` or
in the environment as BOOK_REPOSITORY. From it come the buttons that open a page in Colab or Binder,
the links to its source, and the address of the site, unless BOOK_URL or `html: baseurl` gives
another. The site's address brings canonical links, what others show who link here, and a sitemap.
Without an address there is none of it. BOOK_PDF names a PDF of the book that lies beside the site.
"""

import html
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError

import bnlib

ON_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")
CARD = "_static/card.png"  # drawn by tools/card.py
INDEX = "The terms of the book in English and Chinese, its functions and classes, from A to Z."


# Addresses


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


# Buttons


def buttons(repository, branch, document, source):
    """Return the groups of buttons for one page.

    `document` is the file that the page was made of, `source` the one to change: both are paths
    in the repository, and differ for a notebook.
    """
    name = repository.removeprefix("https://github.com/")
    launch = {
        "Open in Colab": f"https://colab.research.google.com/github/{name}/blob/{branch}/{document}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{document}",
    }
    home = {
        "Repository": repository,
        "Source of this page": f"{repository}/blob/{branch}/{source}",
        "Report a fault": f"{repository}/issues",
    }
    if document.endswith(".ipynb"):
        yield group("launch-buttons", "Run this page", "fas fa-rocket", launch)
    yield group("source-buttons", "Where this page is from", "fab fa-github", home)


def group(label, tooltip, icon, links):
    entries = [
        {"type": "link", "text": text, "url": url} for text, url in links.items()
    ]
    return {
        "type": "group",
        "label": label,
        "tooltip": tooltip,
        "icon": icon,
        "buttons": entries,
    }


def add_buttons(app, pagename, templatename, context, doctree):
    repository = app.config.book_repository
    if pdf := os.environ.get("BOOK_PDF"):
        whole = {
            "type": "link",
            "text": "The whole book, .pdf",
            "url": context["pathto"](pdf, 1),
        }
        for known in context["header_buttons"]:
            if known.get("label") == "download-buttons":
                known["buttons"].append(whole)
    if not repository or doctree is None:
        return
    branch = app.config.html_theme_options.get("repository_branch") or "main"
    document = source = f"book/{pagename}{context['page_source_suffix']}"
    if document.endswith(".ipynb"):
        source = f"text/{pagename}.md"
    elif pagename == "changelog":
        source = "CHANGELOG.md"
    context["header_buttons"] += buttons(repository, branch, document, source)


# What others see


def address_of(app, pagename):
    """Return a page's address; the home page has that of the site."""
    page = (
        "" if pagename == app.config.root_doc else app.builder.get_target_uri(pagename)
    )
    return app.config.html_baseurl + page


def describe(app, pagename, templatename, context, doctree):
    """Add what is shown where somebody links to the page, and its one address."""
    tags, title = context.get("metatags", ""), context.get("title")
    if pagename == "genindex":
        tags, title = f'<meta content="{INDEX}" name="description" />\n', "Index"
        context["metatags"] = tags
    if not app.config.html_baseurl or pagename not in app.env.all_docs:
        context["pageurl"] = None
        return
    context["pageurl"] = address_of(app, pagename)
    description = re.search(r'<meta content="([^"]*)" name="description"', tags)
    facts = {
        "og:type": "website",
        "og:site_name": app.config.html_title,
        "og:title": re.sub(r"<[^>]+>", "", title or app.config.html_title),
        "og:url": context["pageurl"],
        "og:description": html.unescape(description[1]) if description else "",
        "og:image": app.config.html_baseurl + CARD,
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "Channels that differ in place and width, before and after batch norm",
    }
    lines = [
        f'<meta property="{name}" content="{html.escape(html.unescape(value))}" />'
        for name, value in facts.items()
        if value
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] = tags + "\n".join(lines) + "\n"


def write_sitemap(app, exception):
    """List the pages for those who search the web."""
    if exception or app.builder.format != "html" or not app.config.html_baseurl:
        return
    pages = sorted(app.env.all_docs)
    urls = [
        f" <url><loc>{html.escape(address_of(app, page))}</loc></url>" for page in pages
    ]
    text = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">',
        *urls,
        "</urlset>\n",
    ]
    Path(app.outdir, "sitemap.xml").write_text("\n".join(text), encoding="utf-8")


# The index


def index_chinese(app, doctree):
    """List the Chinese words of the glossary in the index, under one heading."""
    index = app.env.get_domain("index").entries
    for term in doctree.findall(nodes.term):
        definition = term.next_node(nodes.definition, descend=False, siblings=True)
        if not (term["ids"] and definition):
            continue
        for words in re.findall(r'<span lang="zh">(.*?)</span>', definition.astext()):
            entry = f"{words} ({term.astext()})"
            index[app.env.docname].append(("single", entry, term["ids"][0], "", "中文"))


# The versions


def versions(root):
    """Return the version of the library, and those of what ran the chapters, as the lock says."""
    lock = root / "requirements.lock"
    if not lock.is_file():
        return {}  # a book on its own, as the tests build them
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", lock.read_text()))
    return {
        "bnlib": bnlib.__version__,
        "TensorFlow": pins["tensorflow"],
        "Keras": pins["keras"],
    }


def add_versions(app, pagename, templatename, context, doctree):
    """Put the versions below every page, with the way to what changed."""
    if found := versions(Path(app.srcdir).parent):
        library = f"bnlib {found['bnlib']}"
        if "changelog" in app.env.all_docs:
            library = f'<a href="{context["pathto"]("changelog")}">{library}</a>'
        context["theme_extra_footer"] = (
            f"<p>{library}. The chapters were executed with "
            f"TensorFlow {found['TensorFlow']} and Keras {found['Keras']}.</p>"
        )


def ask_for_the_doi(app, uri):
    """Ask whether a DOI exists. The publishers behind them turn away what is no browser."""
    home = "https://doi.org/"
    return uri.replace(home, f"{home}api/handles/", 1) if uri.startswith(home) else None


def for_paper_only(app, pagename, templatename, context, doctree):
    """Let no screen wait for the style sheet of the printed page."""
    for style in context["css_files"]:
        if style.filename == "_static/print.css":
            style.attributes["media"] = "print"


def setup(app):
    app.add_config_value("book_repository", "", "html", [str])
    app.connect("config-inited", find_addresses)
    app.connect("doctree-read", index_chinese)
    app.connect("html-page-context", add_buttons, priority=502)  # after the theme's
    app.connect("html-page-context", describe)
    app.connect("html-page-context", add_versions)
    app.connect("html-page-context", for_paper_only)
    app.connect("linkcheck-process-uri", ask_for_the_doi)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
