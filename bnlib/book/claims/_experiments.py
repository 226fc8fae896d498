"""All experiments by name, without a word of what they are taken to show.

`benchmarks/claims.py` runs them and stores the records; the fingerprint of that store covers this
file and what it imports, so that a verdict may be reworded without running anything again.
"""

from bnlib.book.claims._cause import HALVES, LANDSCAPE, SHIFTED
from bnlib.book.claims._depth import DEEP
from bnlib.book.claims._noise import GHOSTS, OVERFITTED
from bnlib.book.claims._rate import DECAYED, STARTS, TUNED
from bnlib.book.claims._shift import ATTACKED, MOVED
from bnlib.book.claims._statistics import WHOLE

EXPERIMENTS = {
    "shifted": SHIFTED,
    "landscape": LANDSCAPE,
    "halves": HALVES,
    "starts": STARTS,
    "tuned": TUNED,
    "decayed": DECAYED,
    "deep": DEEP,
    "overfitted": OVERFITTED,
    "ghosts": GHOSTS,
    "whole": WHOLE,
    "attacked": ATTACKED,
    "moved": MOVED,
}
