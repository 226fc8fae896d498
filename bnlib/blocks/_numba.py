"""The three kernels of `bnlib.blocks` as compiled loops, for `blocks.use("numba")`.

Same arguments, same results to rounding. x - high is never regrouped (no `fastmath` but fused
multiply-add), and every partial sum has its fixed place, so that the number of threads
changes nothing here too.
"""

import functools

import numba
import numpy as np

from bnlib.blocks._numpy import RUN
from bnlib.blocks._settings import most_threads

CHUNKS = 64  # places for partial sums: how finely the rows can be dealt out to threads
THREADED = 1 << 19  # numbers a thread, below which waking it takes longer than it saves

compiled = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"contract"}
)
threaded = numba.njit(
    parallel=True, cache=True, nogil=True, error_model="numpy", fastmath={"contract"}
)


def _in_threads(kernel):
    """Run a kernel in as many threads as x is worth, and leave numba's setting as it was."""

    @functools.wraps(kernel)
    def run(x, *arguments):
        before = numba.get_num_threads()
        most = most_threads(numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(max(1, min(most, x.size // THREADED)))
        try:
            return kernel(x, *arguments)
        finally:
            numba.set_num_threads(before)

    return run


@_in_threads
def sums(x, others, pilot):
    """As `_numpy.sums`."""
    before, channels, after = x.shape
    pilot = np.zeros(channels, x.dtype) if pilot is None else pilot
    grad, own = others[-1], others[0] is None
    given, grad, terms = grad is not None, x if grad is None else grad, 2 * len(others)
    if after == 1:
        results = np.zeros((min(CHUNKS, -(-before // RUN)), terms, channels))
        _sum_columns(x[..., 0], grad[..., 0], pilot, results, own, given)
    else:
        results = np.zeros((before, terms, channels))
        _sum_rows(x, grad, pilot, results, own, given)
    return results.sum(0)


@_in_threads
def affine(x, high, multiplier, shift, y):
    """As `_numpy.affine`."""
    high = np.zeros(x.shape[1], x.dtype) if high is None else high
    multiplier, shift = (v.astype(x.dtype) for v in (multiplier, shift))
    if x.shape[2] == 1:
        _affine_columns(x[..., 0], high, multiplier, shift, y[..., 0])
    else:
        _affine_rows(x, high, multiplier, shift, y)


@_in_threads
def combine(x, grad, high, slope, multiplier, shift, grad_x):
    """As `_numpy.combine`."""
    high = np.zeros(x.shape[1], x.dtype) if high is None else high
    slope, multiplier, shift = (v.astype(x.dtype) for v in (slope, multiplier, shift))
    if x.shape[2] == 1:
        _combine_columns(
            x[..., 0], grad[..., 0], high, slope, multiplier, shift, grad_x[..., 0]
        )
    else:
        _combine_rows(x, grad, high, slope, multiplier, shift, grad_x)


@compiled
def _add(x, grad, pilot, part, own, given):
    """Add one row to the partial sums, number by number: pilot and part run along with x."""
    if own:
        for c in range(x.size):
            centred = x[c] - pilot[c]
            part[0, c] += centred
            part[1, c] += centred * centred
    if given:
        for c in range(x.size):
            part[-2, c] += grad[c]
            part[-1, c] += grad[c] * (x[c] - pilot[c])


@threaded
def _sum_columns(x, grad, pilot, results, own, given):
    chunks = len(results)
    for i in numba.prange(chunks):
        first, last = len(x) * i // chunks, len(x) * (i + 1) // chunks
        part = np.zeros((results.shape[1], x.shape[1]), pilot.dtype)
        for a in range(first, last):
            _add(x[a], grad[a], pilot, part, own, given)
            if (a - first) % RUN == RUN - 1 or a == last - 1:
                results[i] += part
                part[:] = 0


@threaded
def _sum_rows(x, grad, pilot, results, own, given):
    before, channels, after = x.shape
    lanes = 64
    for i in numba.prange(before * channels):
        a, c = i // channels, i % channels
        part, pilots = (
            np.zeros((results.shape[1], lanes), pilot.dtype),
            np.full(lanes, pilot[c]),
        )
        for start in range(0, after, lanes):
            end = min(start + lanes, after)
            _add(x[a, c, start:end], grad[a, c, start:end], pilots, part, own, given)
            if start // lanes % RUN == RUN - 1 or end == after:
                for k in range(len(part)):
                    for lane in range(lanes):
                        results[a, k, c] += part[k, lane]
                part[:] = 0


@threaded
def _affine_columns(x, high, multiplier, shift, y):
    for a in numba.prange(x.shape[0]):
        for c in range(x.shape[1]):
            y[a, c] = (x[a, c] - high[c]) * multiplier[c] + shift[c]


@threaded
def _affine_rows(x, high, multiplier, shift, y):
    channels = x.shape[1]
    for i in numba.prange(x.shape[0] * channels):
        a, c = i // channels, i % channels
        for b in range(x.shape[2]):
            y[a, c, b] = (x[a, c, b] - high[c]) * multiplier[c] + shift[c]


@threaded
def _combine_columns(x, grad, high, slope, multiplier, shift, grad_x):
    for a in numba.prange(x.shape[0]):
        for c in range(x.shape[1]):
            along = (x[a, c] - high[c]) * slope[c]
            grad_x[a, c] = grad[a, c] * multiplier[c] - along + shift[c]


@threaded
def _combine_rows(x, grad, high, slope, multiplier, shift, grad_x):
    channels = x.shape[1]
    for i in numba.prange(x.shape[0] * channels):
        a, c = i // channels, i % channels
        for b in range(x.shape[2]):
            along = (x[a, c, b] - high[c]) * slope[c]
            grad_x[a, c, b] = grad[a, c, b] * multiplier[c] - along + shift[c]
