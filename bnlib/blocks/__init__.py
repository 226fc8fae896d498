"""The fast way through large arrays: the formulas of the chapters, with float32 where that is safe.

The functions of the core that do the work (`moments.measure`, `transform.apply`,
`gradient.propagate`) have a twin in `_twins`, with the same arguments and results. There is one
door to the twins: the decorator `fast_way`. The loops are in `_numpy`, or in `_numba` if you ask
for it.

Accuracy. A float32 batch gets its variance to 1e-6 of itself, its mean to 4e-7 deviations, whatever
the processor: never more than 16 numbers, or 128 in eight sums side by side, are added up in
float32 before the sums are added in pairs or in float64. `benchmarks/accuracy.py` looks for the
worst case. Results do not depend on the number of threads: blocks are cut, and added up, in one
fixed order.
"""

import functools

from bnlib.blocks import _twins
from bnlib.blocks._settings import use

__all__ = ["use"]

SMALLEST = 24_000  # numbers in x; with few channels the twins pay from here, with 256 from 50,000


def fast_way(clear):
    """Let a function hand large batches to its twin, which has its name in `_twins`.

    What the twin refuses, the function does itself.
    """
    twin = getattr(_twins, clear.__name__)

    @functools.wraps(clear)
    def choose(batch, *arguments):
        if batch.x.size >= SMALLEST and _twins.suits(batch):
            try:
                return twin(batch, *arguments)
            except _twins.Unsuited:
                pass
        return clear(batch, *arguments)

    return choose
