"""Give each page its buttons: open it in Colab or Binder, see its source, take the PDF.

They need the repository's address, which bnaddress finds. BOOK_PDF, in the environment, names a PDF
of the book that lies beside the site.
"""

import os


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


def setup(app):
    app.connect("html-page-context", add_buttons, priority=502)  # after the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
