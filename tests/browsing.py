"""Open pages of the built site in Chromium and list what is wrong with them.

`look` opens a page and notes what happens. Each function below it turns those notes into faults, as
strings: none for a page that is fit to be published.
"""

import contextlib
import functools
import gzip
import itertools
import re
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urldefrag, urlsplit

from axe_playwright_python.base import AXE_SCRIPT

LOCAL = ("file:", "data:", "blob:", "http://127.0.0.1:")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
THEMES, SIZES = ("light", "dark"), {"phone": PHONE, "desk": DESK}
LOOKS = tuple(itertools.product(THEMES, SIZES))
TRANSFER, SCRIPTS, SHIFT = 600_000, 180_000, 0.1  # bytes compressed, bytes, CLS

# What a page says about itself once its scripts have run.
FACTS = r"""() => {
  const all = selector => [...document.querySelectorAll(selector)];
  const text = (node, without) => {
    const copy = node.cloneNode(true);
    copy.querySelectorAll(without).forEach(part => part.remove());
    return copy.textContent;
  };
  return {
    links: all("a[href]").map(a => a.href),
    ids: all("[id]").map(node => node.id),
    images: all("img").map(img => ({alt: img.alt, src: img.src})),
    headings: all("h1, h2, h3, h4, h5, h6").filter(node => node.checkVisibility())
      .map(node => [+node.tagName[1], node.textContent]),
    math: all(".math").length,
    bare: all(".math").filter(node => !node.querySelector(".katex")).length,
    errors: all(".katex-error").map(node => node.textContent),
    prose: text(document.body, "pre, code, script, style, annotation"),
    cells: all("div.cell").map(cell => ({
      code: text(cell.querySelector(".cell_input pre"), "button"),
      images: [...cell.querySelectorAll(".cell_output img")].map(img => img.src),
      text: [...cell.querySelectorAll(".cell_output")]
        .map(node => text(node, "button, figcaption")).join("\n"),
    })),
  };
}"""

# How far things moved under the reader's eyes since the page began to load.
MOVED = """() => new Promise(done => {
  let moved = 0;
  new PerformanceObserver(list => list.getEntries().forEach(entry => moved += entry.value))
    .observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => setTimeout(() => done(moved), 50));
})"""

# WCAG 2, A and AA, and axe's best practices. One rule must be asked for by name. Contrast takes axe
# longest, so of all the texts whose elements are of the same kinds and classes it measures one.
AXE_STARTS = """() => {
  const look = node => !node ? "" : look(node.parentElement) + "/" + node.tagName + "." +
    node.className + (node.matches("tr:nth-child(even)") ? "even" : "");
  const speaks = node => node.checkVisibility() &&
    [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  const texts = new Map([...document.body.querySelectorAll("*")].filter(speaks)
    .reverse().map(node => [look(node.closest(".katex") || node), node]));
  const axeRuns = (where, settings) =>
    axe.run(where, {...settings, preload: false, resultTypes: ["violations"]})
      .then(({violations}) => violations.flatMap(({id, nodes}) =>
        nodes.map(node => `${id}: ${node.target.join(" ")}`)));
  const soon = new Promise(resolve => setTimeout(resolve)); // so that the other tab may start
  window.barriers = soon.then(async () => [
    ...await axeRuns([...texts.values()], {runOnly: {type: "rule", values: ["color-contrast"]}}),
    ...await axeRuns(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      rules: {"label-content-name-mismatch": {enabled: true}, "color-contrast": {enabled: false}},
    }),
  ]);
}"""


@dataclass
class Page:
    """What happened while a page was open."""

    url: str
    requests: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    messages: list = field(default_factory=list)
    overflow: int = 0
    shift: float = 0
    barriers: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)


@contextlib.contextmanager
def open_context(browser):
    """Yield a context; nothing that its pages ask of other hosts leaves this machine."""
    with browser.new_context(viewport=DESK) as context:
        context.route(
            lambda url: not url.startswith(LOCAL), lambda route: route.abort()
        )
        yield context


def pages_of(site):
    """List the built pages, relative to the site; what lies in _static is no page."""
    paths = (path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html")))
    return [path for path in paths if not path.startswith("_static/")]


def look(browser, url, looks=()):
    """Open a page on a phone and note what happens.

    In each of the looks, such as `("dark", "desk")`, axe searches for what shuts readers out.
    """
    return next(look_at_all(browser, {url: looks}))


def look_at_all(browser, wanted):
    """Look at pages, given as `{url: looks}`; axe is busy with one while the next is opened."""
    begun = None
    for url, looks in wanted.items():
        following = _begin(browser, url, looks)
        if begun:
            yield _finish(*begun)
        begun = following
    yield _finish(*begun)


class _Tab:
    """A tab that shows one page after another; a new one would take twice as long."""

    idle: ClassVar = weakref.WeakKeyDictionary()  # those of each context

    def __init__(self, browser):
        self.browser, self.seen, self.page = browser, None, browser.new_page()
        self.page.on("request", lambda request: self.seen.requests.append(request.url))
        self.page.on(
            "requestfailed", lambda request: self.seen.failed.append(request.url)
        )
        self.page.on("response", self._note_response)
        self.page.on(
            "pageerror", lambda e: self.seen.messages.append(f"page error: {e}")
        )
        self.page.on("console", self._note_message)

    @classmethod
    def open(cls, browser, seen, theme):
        """Open a page on a phone, in one theme."""
        idle = cls.idle.setdefault(browser, [])
        tab = idle.pop() if idle else cls(browser)
        tab.seen = seen
        tab.page.set_viewport_size(PHONE)
        tab.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        tab.page.goto(seen.url)
        tab.page.evaluate("document.fonts.ready.then(() => 0)")
        return tab

    def close(self):
        """Leave the page; what it still does is noted with it, not with the next."""
        self.page.goto("about:blank")
        self.idle[self.browser].append(self)

    def _note_response(self, response):
        if response.status >= 400:
            self.seen.failed.append(response.url)

    def _note_message(self, message):
        # Of a resource that is missing, `failed` has the name.
        missing = "Failed to load resource" in message.text
        if message.type in ("error", "warning") and not missing:
            self.seen.messages.append(f"console {message.type}: {message.text}")


def _begin(browser, url, looks):
    """Open a page in each theme, as tabs and thus processes of their own, and let axe begin."""
    seen = Page(url)
    themes = dict.fromkeys(theme for theme, _ in looks) or THEMES[:1]
    tabs = {theme: _Tab.open(browser, seen, theme) for theme in themes}
    page = next(iter(tabs.values())).page
    seen.facts = page.evaluate(FACTS)
    seen.shift = page.evaluate(MOVED)
    seen.overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    rounds = []
    for size in SIZES:
        asked = {theme: tab for theme, tab in tabs.items() if (theme, size) in looks}
        rounds += [(size, asked)] if asked else []
    if rounds:
        for tab in tabs.values():
            tab.page.evaluate(f"{AXE_SCRIPT}; 0")
        _start_axe(*rounds[0])
    return seen, tabs, rounds


def _start_axe(size, tabs):
    for tab in tabs.values():
        tab.page.set_viewport_size(SIZES[size])
        tab.page.evaluate(AXE_STARTS)


def _finish(seen, tabs, rounds):
    """Wait for axe, let it look at the other sizes, and leave the page."""
    for number, (size, asked) in enumerate(rounds):
        if number:
            _start_axe(size, asked)
        for theme, tab in asked.items():
            place = f"in the {theme} on a {size}"
            faults = tab.page.evaluate("barriers")
            seen.barriers += [f"{fault}, {place}" for fault in faults]
    for tab in tabs.values():
        tab.close()
    return seen


# Faults of one page


def outside_requests(page):
    """List what the page asks of other hosts."""
    return [
        f"asks another host: {url}"
        for url in page.requests
        if not url.startswith(LOCAL)
    ]


def failed_resources(page):
    return [f"cannot load: {url}" for url in page.failed if url.startswith(LOCAL)]


def console_messages(page):
    return list(page.messages)


def raw_mathematics(page):
    """List mathematics that reached the reader as TeX."""
    facts = page.facts
    faults = [f"KaTeX could not render: {text}" for text in facts["errors"]]
    if facts["bare"]:
        faults.append(f"{facts['bare']} formulas without KaTeX")
    pattern = r"\\\(|\\\[|\$\$|\$[^\s$][^$\n]*\$|\\(?:frac|sqrt|sigma|mu|hat)\b"
    return faults + [f"raw TeX: {tex}" for tex in re.findall(pattern, facts["prose"])]


def poor_alternatives(page):
    """List images whose alternative text does not say what they show."""
    faults = []
    for image in page.facts["images"]:
        name, alt = Path(urlsplit(image["src"]).path).name, image["alt"]
        if len(alt) < 20 or name in alt:
            faults.append(f"alt text of {name}: {alt!r}")
    return faults


def phone_overflow(page):
    too_wide = page.overflow
    return [f"{too_wide} px wider than a phone's screen"] if too_wide > 0 else []


def shifting_layout(page):
    too_far = page.shift >= SHIFT
    return [f"the layout shifts by {page.shift:.3f} while it loads"] if too_far else []


def disordered_headings(page):
    """List what is wrong with the headings as a table of contents."""
    headings = page.facts["headings"]
    titles = [text for level, text in headings if level == 1]
    faults = [] if len(titles) == 1 else [f"{len(titles)} headings h1: {titles}"]
    for (above, _), (level, text) in itertools.pairwise(headings):
        if level > above + 1:
            faults.append(f"h{level} follows h{above}: {text!r}")
    return faults


def barriers(page):
    """List what axe found, if it was asked to look."""
    return [f"shuts readers out: {fault}" for fault in page.barriers]


PAGE_RULES = (
    outside_requests,
    failed_resources,
    console_messages,
    raw_mathematics,
    poor_alternatives,
    phone_overflow,
    shifting_layout,
    disordered_headings,
    barriers,
)


def page_faults(page):
    """List everything that is wrong with one page."""
    found = dict.fromkeys(fault for rule in PAGE_RULES for fault in rule(page))
    return [f"{page.url}: {fault}" for fault in found]


# Faults of what a page is made of: its files


def weigh(page, folder):
    """Return the bytes that a page asks of its site, compressed, and those of its scripts, not.

    The index of the search is no script but data; only the page of results loads it.
    """
    urls = {urldefrag(url)[0].split("?")[0] for url in page.requests}
    paths = [folder / unquote(urlsplit(url).path).lstrip("/") for url in urls]
    files = [path for path in paths if path.is_file()]
    scripts = [f for f in files if f.suffix == ".js" and f.name != "searchindex.js"]
    return sum(_transfer(file, file.stat().st_mtime_ns) for file in files), sum(
        file.stat().st_size for file in scripts
    )


@functools.cache
def _transfer(file, _changed):
    data = file.read_bytes()
    return len(data if file.suffix in (".png", ".woff2") else gzip.compress(data))


def heavy(page, folder):
    """List the limits that a page exceeds."""
    transfer, scripts = weigh(page, folder)
    faults = []
    if transfer > TRANSFER:
        faults.append(f"{transfer} bytes to transfer, {TRANSFER} are allowed")
    if scripts > SCRIPTS:
        faults.append(f"{scripts} bytes of scripts, {SCRIPTS} are allowed")
    return [f"{page.url}: {fault}" for fault in faults]


# Faults between pages, and between a page and its notebook


def broken_links(pages, folder, base):
    """List the links to files of the site, or to places on its pages, that do not exist."""
    ids = {page.url: set(page.facts["ids"]) for page in pages}
    faults = []
    for page in pages:
        for link in sorted(set(page.facts["links"])):
            target, anchor = urldefrag(link)
            if not target.startswith(base):
                continue
            file = folder / unquote(urlsplit(target).path).lstrip("/")
            anchors = ids.get(target.split("?")[0])
            if not file.is_file():
                faults.append(f"{page.url}: no such page: {link}")
            elif anchor and anchors is not None and unquote(anchor) not in anchors:
                faults.append(f"{page.url}: no such place: {link}")
    return faults


def output_faults(page, notebook, folder):
    """List the cells of a page that do not show what the notebook stores."""
    shown = page.facts["cells"]
    stored = [cell for cell in notebook.cells if cell.cell_type == "code"]
    faults = [f"{len(shown)} cells, stored are {len(stored)}"] * (
        len(shown) != len(stored)
    )
    for number, (here, cell) in enumerate(zip(shown, stored, strict=False), 1):
        bundles = [output.get("data", {}) for output in cell.outputs]
        figures = [
            data["image/svg+xml"].strip() for data in bundles if "image/svg+xml" in data
        ]
        files = [folder / urlsplit(src).path.lstrip("/") for src in here["images"]]
        texts = [_text(output) for output in cell.outputs]
        if here["code"].strip() != cell.source.strip():
            faults.append(f"cell {number}: the code differs")
        if [file.read_text(encoding="utf-8").strip() for file in files] != figures:
            faults.append(f"cell {number}: the figures differ")
        if _words(here["text"]) != _words("\n".join(texts)):
            faults.append(f"cell {number}: the text differs")
    return [f"{page.url}: {fault}" for fault in faults]


def _text(output):
    """Return what a reader sees of an output, apart from its figure."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return (
        ""
        if "image/svg+xml" in data
        else data.get("text/markdown", data.get("text/plain"))
    )


def _words(text):
    """Split into words and numbers, so that marks of Markdown and targets of links do not count."""
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    return re.findall(r"[-+]?\w[\w.]*", re.sub(r"(?m)^[|: -]+$|^```.*$", "", text))
