"""Draw the picture on the landing page and in the README: `python tools/picture.py`.

Four channels of one batch, as they come, normalised, then scaled and shifted. bnlib does the
arithmetic; what is written here by hand is the drawing, one SVG that follows light and dark.
"""

from pathlib import Path

import numpy as np

from bnlib import moments, normalize, scale_and_shift
from bnlib.book import style

TARGET = Path(__file__).resolve().parents[1] / "book/_static/story.svg"
TITLE = (
    "Four channels of one batch, three times. As they come they differ in place and in width. "
    "Normalised, each has mean 0 and deviation 1 and keeps its shape. "
    "Scaled by gamma and shifted by beta, each has the place and width that training gave it."
)
PANEL, GAP, LANE, TOP, REACH = (
    204,
    20,
    58,
    84,
    6.0,
)  # pixels; REACH in units of the data

FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
 <title>{title}</title>
 <style>
  svg {{--ink: {ink[0]}; --muted: {muted[0]}; --before: {before[0]}; --after: {after[0]}}}
  @media (prefers-color-scheme: dark) {{
   svg {{--ink: {ink[1]}; --muted: {muted[1]}; --before: {before[1]}; --after: {after[1]}}}
  }}
  text {{fill: var(--ink); font: 19px system-ui, sans-serif; text-anchor: middle}}
  .formula {{font: italic 19px "STIX Two Text", "Times New Roman", serif}}
  .tick {{fill: var(--muted); font-size: 15px}}
  .zero {{stroke: var(--muted); stroke-dasharray: 3 4}}
  .base {{stroke: var(--muted); stroke-width: .75}}
  .before {{fill: var(--before); stroke: var(--before)}}
  .after {{fill: var(--after); stroke: var(--after)}}
  path {{fill-opacity: .22; stroke-width: 1.75; stroke-linejoin: round}}
  .bar {{fill: none; stroke-width: 5}}
 </style>
{body}
</svg>
"""


def batch():
    """Return 300 examples of four channels that differ in place, width and shape."""
    rng = np.random.default_rng(0)
    x = np.stack(
        [
            rng.gamma(2.0, 0.35, 300) - 4.6,
            rng.normal(0.0, 0.8, 300) + rng.choice([-1.4, 2.2], 300),
            rng.uniform(1.9, 4.6, 300),
            1.2 - rng.gamma(1.5, 0.5, 300),
        ],
        axis=1,
    )
    mean, variance, _ = moments(x)
    x_hat = normalize(x, mean, variance)
    y = scale_and_shift(
        x_hat, gamma=np.array([1.2, 0.5, 0.9, 0.7]), beta=np.array([0.5, -3, 2, 0])
    )
    return x, x_hat, y


def density(values, at):
    """Estimate where the values lie, by a sum of small bells; the highest point is 1."""
    width = 0.3 * values.std()
    bells = np.exp(-0.5 * ((at[:, np.newaxis] - values) / width) ** 2).sum(axis=1)
    return bells / bells.max()


def lane(values, left, base, role):
    """Draw one channel: its outline, and a bar one deviation to each side of its mean."""

    def across(value):
        return left + PANEL / 2 + value * PANEL / (2 * REACH)

    low, high = values.mean() - values.std(), values.mean() + values.std()
    at = np.linspace(
        values.min() - 0.6 * values.std(), values.max() + 0.6 * values.std(), 61
    )
    outline = zip(across(at), base - 0.78 * LANE * density(values, at), strict=True)
    start, end = f"M{across(at[0]):.1f},{base}", f"{across(at[-1]):.1f},{base}"
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
    return [
        f' <path class="base" d="M{left} {base}h{PANEL}"/>',
        f' <path class="{role}" d="{start} {points} {end}"/>',
        f' <path class="bar {role}" d="M{across(low):.1f},{base}H{across(high):.1f}"/>',
    ]


def panel(values, left, name, formula, role):
    """Draw one stage: a name, a formula, a line at 0 and one lane for each channel."""
    middle, bottom = left + PANEL / 2, TOP + LANE * values.shape[1]
    parts = [
        f' <text x="{middle}" y="24">{name}</text>',
        f' <text x="{middle}" y="54" class="formula">{formula}</text>',
        f' <path class="zero" d="M{middle} {TOP - 12}V{bottom + 6}"/>',
        f' <text x="{middle}" y="{bottom + 24}" class="tick">0</text>',
    ]
    for channel, column in enumerate(values.T):
        parts += lane(column, left, TOP + LANE * (channel + 1), role)
    return parts


def draw():
    """Return the picture as text."""
    stages = [
        ("as they come", "x", "before"),
        (
            "normalised",
            "x\u0302 = (x \u2212 \u03bc) / \u221a(\u03c3\u00b2 + \u03b5)",
            "after",
        ),
        ("scaled, shifted", "y = \u03b3 x\u0302 + \u03b2", "after"),
    ]
    body = []
    for place, (values, stage) in enumerate(zip(batch(), stages, strict=True)):
        body += panel(values, place * (PANEL + GAP), *stage)
    colours = {name.lower(): role[:2] for name, role in style.ROLES.items()}
    size = {"width": 3 * PANEL + 2 * GAP, "height": TOP + 4 * LANE + 34}
    return FRAME.format(title=TITLE, body="\n".join(body), **size, **colours)


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
