"""Tell others about the pages: one address each, what is shown where somebody links, a sitemap.

They need the site's address, which bnaddress finds.
"""

import html
import re
from pathlib import Path

CARD = "_static/card.png"  # drawn by tools/card.py
INDEX = "The terms of the book in English and Chinese, its functions and classes, from A to Z."


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


def setup(app):
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
