"""Draw a figure as one SVG that follows light and dark and says what it shows."""

import hashlib
import html
import io
import re

LIMIT_KB = 200
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def adaptive_svg(fig, alt, *, dark, ink):
    """Draw `fig` as one SVG for both themes, with `alt` as its title.

    The same figure gives the same bytes. Identifiers and style rules carry a name made from `alt`,
    so several figures can share one page. A viewer without style sheets shows the light figure.

    Args:
        fig: A matplotlib figure.
        alt: What the figure shows, for those who do not see it.
        dark: The dark twin of each colour that the figure may use.
        ink: The colour of text.

    Returns:
        The `<svg>` element as text.

    Raises:
        ValueError: If the figure uses another colour, or takes more than 200 kB.
    """
    name = "fig-" + hashlib.sha256(alt.encode()).hexdigest()[:8]
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # an SVG inside a page takes no XML prologue
    svg = re.sub(r' \n(?=[LQCz"])', " ", svg)  # each path on one line
    _check_colours(svg, dark)
    svg = _rename(_let_markers_inherit(svg), name).replace(
        '<style type="text/css">*', f"<style>#{name} *"
    )
    head = f'<svg id="{name}" role="img" style="max-width: 100%; height: auto"'
    body = f">\n <title>{html.escape(alt)}</title>\n{_dark_rules(name, dark, ink)}"
    svg = svg.replace("<svg", head, 1).replace(">", body, 1)
    _check_size(svg)
    return svg


def _let_markers_inherit(svg):
    """Drop the stroke of shared shapes: style rules reach `<use>`, and not the shape behind it."""

    def undyed(shapes):
        return re.sub(r"stroke: #\w{6};? ?", "", shapes[0])

    return re.sub(r"<defs>.*?</defs>", undyed, svg, flags=re.DOTALL)


def _rename(svg, name):
    """Number the identifiers in use, drop the rest: matplotlib hashes unrounded numbers."""
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    new = {old: f"{name}-{place}" for place, old in enumerate(used)}
    svg = re.sub(
        r' id="([^"]+)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", svg
    )
    return re.sub(r'(href="#|url\(#)([^")]+)', lambda m: m[1] + new[m[2]], svg)


def _dark_rules(name, dark, ink):
    """Write the style sheet that gives each colour its dark twin in the dark theme."""
    rules = [f"#{name} {{fill: {dark[ink]}}}"]  # black text has no fill of its own
    for light, twin in dark.items():
        for paint in ("fill", "stroke"):
            rules.append(
                f'#{name} [style*="{paint}: {light}"] {{{paint}: {twin} !important}}'
            )
    lines = "\n".join(f"   {rule}" for rule in rules)
    return (
        f" <style>\n  @media (prefers-color-scheme: dark) {{\n{lines}\n  }}\n </style>"
    )


def _check_colours(svg, dark):
    strange = sorted(set(re.findall(r"(?:fill|stroke): (#\w{6})", svg)) - set(dark))
    if strange:
        raise ValueError(
            f"fig must have the colours of bnlib.book.style; got {', '.join(strange)}, which would "
            "stay the same in the dark theme. Draw with style.BEFORE, AFTER, TRUTH, WRONG, MUTED, "
            "INK, GRID or PAPER (and alpha= for a tint)."
        )


def _check_size(svg):
    size = len(svg.encode()) / 1000
    if size > LIMIT_KB:
        raise ValueError(
            f"fig must take at most {LIMIT_KB} kB; got {size:.0f} kB. Draw fewer points, or pass "
            "rasterized=True to the artist that has the most."
        )
