"""Draw the social card, what others show who link to the book: `python -m tools.card`.

It is the picture of the landing page under the title, as a PNG of the size that those who show such
cards ask for. The result is committed. It remembers the picture that it was drawn from, so that a
test can tell when it is out of date.
"""

import hashlib
import io
import tempfile
from pathlib import Path

from PIL import Image, PngImagePlugin

from bnlib.book import style
from tools import picture
from tools.browser import open_page

TARGET = picture.TARGET.with_name("card.png")
SIZE = {"width": 1200, "height": 630}
TITLE, SUBTITLE = (
    "Batch normalization, rebuilt",
    "A book of executable chapters, and the small tested library that they build",
)
PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>
 body {{margin: 0; padding: 46px 70px; box-sizing: border-box; width: 1200px; height: 630px;
  background: #ffffff; color: {ink}; font-family: system-ui, sans-serif; overflow: hidden;
  border-top: 12px solid {before}; border-bottom: 12px solid {after}}}
 h1 {{font-size: 58px; margin: 0; letter-spacing: -1px}}
 p {{font-size: 26px; margin: 8px 0 26px; color: {muted}}}
 svg {{display: block; height: 380px; margin: 0 auto}}
</style><h1>{title}</h1><p>{subtitle}</p>{svg}"""


def source() -> str:
    """Return the page that is drawn."""
    colours = {name.lower(): role[0] for name, role in style.ROLES.items()}
    return PAGE.format(title=TITLE, subtitle=SUBTITLE, svg=picture.draw(), **colours)


def fingerprint() -> str:
    """Return what identifies the page."""
    return hashlib.sha256(source().encode()).hexdigest()


def draw() -> bytes:
    """Return the card as the content of a PNG file."""
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder, "card.html")
        page_file.write_text(source(), encoding="utf-8")
        with open_page(page_file, viewport=SIZE) as page:
            shot = Image.open(io.BytesIO(page.screenshot()))
    few_colours = shot.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    note, out = PngImagePlugin.PngInfo(), io.BytesIO()
    note.add_text("drawn from", fingerprint())
    few_colours.save(out, "PNG", optimize=True, pnginfo=note)
    return out.getvalue()


if __name__ == "__main__":
    TARGET.write_bytes(draw())
