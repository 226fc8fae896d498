"""Compare a stored notebook output with a computed one: text exactly, numbers nearly.

Processors add in different orders, so the last digits of a result differ from machine to machine.
Words, whole numbers and identifiers (float32, x2, #1f77b4) do not differ, and must agree exactly.
"""

import re
from collections.abc import Callable
from itertools import zip_longest

RELATIVE = 1e-3
ABSOLUTE = 1e-6  # for rounding errors; but "exactly 0" is a statement, and stays exact
ON_PAPER = 0.05  # points, for the coordinates in a figure: a fiftieth of a millimetre

NUMBER = re.compile(
    r"(?<![\w.#])"  # not inside an identifier, a version or a colour
    r"([-+−]?(?>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?>(?:[eE][-+]?[0-9]+)?))"
    r"(?!\w|\.[0-9])"
)
# What a figure says in words: its title, and the comment that matplotlib puts at each text.
LETTERING = re.compile(r"<title>.*?</title>|<!--.*?-->", re.DOTALL)


def difference(stored: str, computed: str) -> str | None:
    """Describe the first place where two outputs disagree.

    Args:
        stored: The output in the notebook.
        computed: The output of running the cell again.

    Returns:
        One line that shows both sides, or None where they agree.

    >>> difference("loss 0.3127", "loss 0.3128")
    >>> difference("loss 0.3127", "loss 0.3221")
    "after 'loss ': stored '0.3127', computed '0.3221'"
    """
    if not stored.lstrip().startswith("<svg"):
        return _first(stored, computed, _near)
    lettering = ("\n".join(LETTERING.findall(svg)) for svg in (stored, computed))
    return _first(*lettering, _near) or _first(stored, computed, _near_on_paper)


def _first(stored: str, computed: str, near: Callable[[str, str], bool]) -> str | None:
    """Split both into text, number, text, number... and compare them piece by piece."""
    pieces = NUMBER.split(stored)
    pairs = zip_longest(pieces, NUMBER.split(computed), fillvalue="")
    for place, (old, new) in enumerate(pairs):
        both_numbers = place % 2 and old and new
        if old != new and not (both_numbers and near(old, new)):
            same = 0 if both_numbers else _shared(old, new)
            before = "".join(pieces[:place]) + old[:same]
            old, new = old[same : same + 60], new[same : same + 60]
            return f"after {before[-60:]!r}: stored {old!r}, computed {new!r}"
    return None


def _shared(one: str, other: str) -> int:
    """Count the characters with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _near(old: str, new: str) -> bool:
    a, b = _value(old), _value(new)
    whole = [text.lstrip("+-−").isdigit() for text in (old, new)]
    if all(whole) or (any(whole) and a == b):
        return False  # whole numbers count things, and 3 is not of the type of 3.0
    return abs(a - b) <= RELATIVE * abs(a) + (ABSOLUTE if a and b else 0)


def _near_on_paper(old: str, new: str) -> bool:
    return abs(_value(old) - _value(new)) <= ON_PAPER


def _value(text: str) -> float:
    return float(text.replace("−", "-"))
