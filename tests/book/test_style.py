"""The figure style: readable in both themes, in grey and for every eye; always the same bytes."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from bnlib.book import style

ALT = "Points & a line: variance < 1 in the first half, > 1 in the second."
DATA = ["BEFORE", "AFTER", "TRUTH", "WRONG", "MUTED", "INK"]
TEXT = ["BEFORE", "AFTER", "TRUTH", "WRONG", "INK"]  # dark enough to letter with


@pytest.fixture(autouse=True)
def book_style():
    with mpl.rc_context():
        style.use()
        yield
    plt.close("all")


def draw():
    """Draw a figure with every colour as fill, line and marker, and with formulas and pixels."""
    fig, (left, right) = style.figure(1, 2)
    for place, name in enumerate(DATA):
        colour = getattr(style, name)
        left.plot(
            [0, 1, 2], np.array([0, 1, 4]) + place, **style.line(colour), label=name
        )
        left.plot([0, 1, 2], np.array([0, 1, 4]) - place, **style.points(colour))
        right.bar(place, 1 + place, color=colour)
    right.imshow([[0.1, 0.9]], extent=(0, 1, 7, 8), aspect="auto")
    right.set(title=r"$\gamma \hat{x} + \beta$", xlabel="black", xlim=(-1, 6))
    right.xaxis.label.set_color("black")
    left.legend()
    return fig


# Colours


def linear(colour):
    """Convert "#rrggbb" to linear light, 0 to 1."""
    encoded = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(
        encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4
    )


XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def lab(light):
    """Convert linear light to CIE L*a*b*, where distances are roughly as large as they look."""
    x, y, z = np.cbrt(
        np.maximum(XYZ @ np.clip(light, 0, 1) / (0.9505, 1, 1.089), 0.008856)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(colour, background):
    """Compute the contrast ratio of WCAG 2."""
    dark, light = sorted(
        XYZ[1] @ linear(shade) + 0.05 for shade in (colour, background)
    )
    return light / dark


# Machado, Oliveira and Fernandes (2009): complete loss of one kind of cone, on linear light.
VISION = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152, 1.053, -0.205],
        [0.115, 0.786, 0.099],
        [-0.004, -0.048, 1.052],
    ],
    "deuteranopia": [
        [0.367, 0.861, -0.228],
        [0.280, 0.673, 0.047],
        [-0.012, 0.043, 0.969],
    ],
    "tritanopia": [
        [1.256, -0.077, -0.179],
        [-0.078, 0.931, 0.148],
        [0.005, 0.691, 0.304],
    ],
}


def test_contrast_is_the_one_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
class TestPalette:
    @pytest.mark.parametrize("name", DATA)
    def test_data_stands_out_from_the_paper(self, theme, name):
        paper = getattr(style.ROLES["PAPER"], theme)
        wanted = 4.5 if name in TEXT else 3
        assert contrast(getattr(style.ROLES[name], theme), paper) >= wanted

    def test_the_grid_stays_behind_the_data(self, theme):
        grid, paper = (getattr(style.ROLES[name], theme) for name in ("GRID", "PAPER"))
        assert 1.1 < contrast(grid, paper) < 1.5

    def test_colours_differ_in_grey(self, theme):
        lightness = sorted(
            lab(linear(getattr(style.ROLES[name], theme)))[0] for name in DATA
        )
        assert min(np.diff(lightness)) >= 6

    @pytest.mark.parametrize("vision", VISION)
    def test_colours_differ_for_every_eye(self, theme, vision):
        seen = [
            lab(VISION[vision] @ linear(getattr(style.ROLES[n], theme))) for n in DATA
        ]
        assert (
            min(np.linalg.norm(one - other) for one, other in combinations(seen, 2))
            >= 12
        )


def test_names_and_shades_agree():
    assert all(getattr(style, name) == role.light for name, role in style.ROLES.items())
    assert len({shade for role in style.ROLES.values() for shade in role[:2]}) == 16


def test_roles_differ_in_shape_too():
    assert len({style.ROLES[name].marker for name in DATA}) == len(DATA)
    assert (
        len(
            {
                str(style.line(colour)["linestyle"])
                for colour in (style.AFTER, style.TRUTH, style.WRONG)
            }
        )
        == 3
    )


@pytest.mark.parametrize("draw_with", [style.line, style.points])
@pytest.mark.parametrize("colour", ["#1f77b4", "before", style.PAPER])
def test_a_colour_without_a_role_is_refused(draw_with, colour):
    with pytest.raises(ValueError, match=rf"got '{colour}'\. Use style\.BEFORE"):
        draw_with(colour)


# Size


def test_text_is_legible_on_a_phone():
    sizes = {
        key: size
        for key, size in mpl.rcParams.items()
        if re.search(r"(label|title|font\.?)size$|font.size", key)
    }
    fonts = {
        key: mpl.font_manager.FontProperties(size=size).get_size_in_points()
        for key, size in sizes.items()
    }
    assert len(fonts) >= 8
    fig, _ = style.figure()
    pixels_per_point = 350 / (72 * fig.get_figwidth())
    assert {
        key: size for key, size in fonts.items() if size * pixels_per_point < 9
    } == {}


def test_figure_sets_height_and_passes_options_on():
    fig, axes = style.figure(2, 3, height=4, sharey=True)
    assert axes.shape == (2, 3)
    assert tuple(fig.get_size_inches()) == (style.WIDTH, 4)
    assert axes[0, 0].get_shared_y_axes().joined(axes[0, 0], axes[1, 2])


# The SVG


def test_svg_is_the_same_in_another_process():
    code = "from test_style import *; style.use(); sys.stdout.write(style.svg(draw(), ALT))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] == style.svg(draw(), ALT).encode()


def test_svg_names_no_machine_and_no_moment():
    svg = style.svg(draw(), ALT)
    assert not re.search(r"<metadata|<\?xml|<!DOCTYPE|[Mm]atplotlib|20\d\d-\d\d", svg)


def test_svg_says_what_it_shows():
    root = ElementTree.fromstring(style.svg(draw(), ALT))
    assert root.get("role") == "img"
    assert root[0].tag.endswith("title")
    assert root[0].text == ALT


def test_every_colour_has_a_dark_twin_in_the_style():
    svg = style.svg(draw(), ALT)
    sheet = re.search(
        r"@media \(prefers-color-scheme: dark\) \{(.*?)</style>", svg, re.DOTALL
    )[1]
    for role in style.ROLES.values():
        for paint in ("fill", "stroke"):
            assert (
                f'[style*="{paint}: {role.light}"] {{{paint}: {role.dark} !important}}'
                in sheet
            )


def test_two_figures_can_share_a_page():
    one, two = style.svg(draw(), ALT), style.svg(draw(), ALT + " Again.")
    for svg in (one, two):
        name = re.match(r'<svg id="(fig-[0-9a-f]{8})"', svg)[1]
        rules = re.findall(r"^\s*(?:<style>)?([^@\n]*?)\s*\{[\w-]+:", svg, re.MULTILINE)
        assert len(rules) >= 18
        assert all(rule.startswith(f"#{name}") for rule in rules)
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (one, two)]
    assert len(set(ids[0] + ids[1])) == len(ids[0]) + len(ids[1]) > 20


def test_every_reference_in_the_svg_is_met():
    svg = style.svg(draw(), ALT)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert len(used) > 10
    assert used <= set(re.findall(r'\bid="([^"]+)"', svg))


@pytest.mark.parametrize("colour", ["tab:blue", "black", "0.5"])
def test_a_colour_without_a_dark_twin_is_refused(colour):
    fig, ax = style.figure()
    ax.plot([0, 1], color=colour)
    with pytest.raises(
        ValueError, match=r"stay the same in the dark theme\. Draw with style\.BEFORE"
    ):
        style.svg(fig, ALT)


def test_a_heavy_figure_is_refused_and_rasterizing_cures_it():
    fig, ax = style.figure()
    (path,) = ax.plot(
        *np.random.default_rng(0).normal(size=(2, 20_000)), **style.points(style.BEFORE)
    )
    with pytest.raises(
        ValueError, match=r"at most 200 kB; got \d+ kB\. .* rasterized=True"
    ):
        style.svg(fig, ALT)
    path.set_rasterized(True)
    assert len(style.svg(fig, ALT)) < 200_000


# In a browser


@pytest.fixture(scope="module")
def pixels(chromium, tmp_path_factory):
    """Show the figure as the site does, in both themes, and return the colours of its pixels."""
    folder, colours = tmp_path_factory.mktemp("svg"), {}
    with mpl.rc_context():
        style.use()
        (folder / "figure.svg").write_text(style.svg(draw(), ALT))
    for theme in ("light", "dark"):
        (folder / "page.html").write_text(
            f'<html style="color-scheme: {theme}"><img src="figure.svg">'
        )
        with chromium.new_page(color_scheme=theme, device_scale_factor=2) as page:
            page.goto((folder / "page.html").as_uri())
            page.locator("img").screenshot(path=folder / f"{theme}.png")
        image = Image.open(folder / f"{theme}.png").convert("RGB")
        colours[theme] = {
            "#" + bytes(rgb).hex(): count for count, rgb in image.getcolors(1 << 24)
        }
    return colours


@pytest.mark.parametrize("name", style.ROLES)
def test_a_browser_switches_every_colour(pixels, name):
    role = style.ROLES[name]
    assert pixels["light"].get(role.light, 0) > 20
    assert role.dark not in pixels["light"]
    assert pixels["dark"].get(role.dark, 0) > 20
    assert role.light not in pixels["dark"]


def test_black_text_switches_too(pixels):
    assert "#000000" in pixels["light"]
    assert "#000000" not in pixels["dark"]


def test_members_of_a_family_share_a_colour_and_differ_in_grey():
    looks = [style.family(style.AFTER, member) for member in range(4)]
    assert {look["color"] for look in looks} == {style.AFTER}
    for key in ("linestyle", "alpha", "linewidth"):
        assert len({str(look[key]) for look in looks}) == 4
    with pytest.raises(ValueError, match="member must be 0 to 3; got 4"):
        style.family(style.AFTER, 4)
