"""The three kernels of `bnlib.blocks` in NumPy: in blocks that fit the cache, dealt out to threads.

NumPy is slow on large arrays because each operation travels through memory once more. Here a block
is taken through all operations before the next is touched, in place, and in rows long enough for
the loops inside NumPy. x, grad and results are (before, channels, after); vectors are (channels,).
"""

import functools
import itertools
import os

import numpy as np

from bnlib.blocks._settings import most_threads

BLOCK = 1 << 17  # numbers in a block: 512 KiB of float32, two of which fit a cache
ROW = 1 << 13  # numbers in a row: each row costs a loop of its own
RUN = 16  # rows summed in float32 before float64 takes over
FEW = 8  # examples, below which rows are summed along their length
PIECE = 1 << 12  # numbers in a row that is summed along its length
SMALL = 1 << 11  # numbers in an example, below which several make a row
_mine = getattr(os, "sched_getaffinity", None)  # a container may have a few of many
# Asked once: each time costs as much as a small sum.
CORES = len(_mine(0)) if _mine else os.cpu_count() or 1
THREADED = 4  # blocks a thread, below which starting it takes longer than it saves


def work_dtype(x):
    """The dtype that blocks are computed in: float32, or float64 for float64."""
    return np.dtype(np.float32) if x.dtype == np.float16 else x.dtype


def sums(x, others, pilot):
    """Sum each of others, and each times x - pilot; None among them stands for x - pilot."""

    def work(grid, t, x, *rest):
        x = _centred(x, rest[-1], t[0])
        others = [x if a is None else a.astype(x.dtype, copy=False) for a in rest[:-1]]
        return [term for a in others for term in (grid.sum(a), grid.dot(a, x, t[1]))]

    dtype = x.dtype if pilot is None else pilot.dtype
    return _by_blocks(work, dtype, [x, *others], [pilot], terms=2 * len(others))


def affine(x, high, multiplier, shift, y):
    """Write (x - high) * multiplier + shift into y."""

    def work(grid, t, x, y, high, multiplier, shift):
        t = y if y.dtype == t[0].dtype else t[0]
        np.multiply(_centred(x, high, t), multiplier, out=t)
        np.add(t, shift, out=y, casting="same_kind")

    _by_blocks(work, work_dtype(x), [x, y], [high, multiplier, shift])


def combine(x, grad, high, slope, multiplier, shift, grad_x):
    """Write grad * multiplier - (x - high) * slope + shift into grad_x."""

    def work(grid, t, x, grad, grad_x, high, slope, multiplier, shift):
        t, u = t
        u = grad_x if grad_x.dtype == u.dtype else u
        np.multiply(_centred(x, high, t), slope, out=t)
        np.multiply(grad, multiplier, out=u)
        np.subtract(u, t, out=u)
        np.add(u, shift, out=grad_x, casting="same_kind")

    _by_blocks(work, work_dtype(x), [x, grad, grad_x], [high, slope, multiplier, shift])


def _centred(x, high, t):
    """Put x - high in t, or give x itself where there is nothing to take away."""
    return x if high is None else np.subtract(x, high, out=t)


def _by_blocks(work, dtype, arrays, vectors, terms=0):
    """Call `work(grid, scratch, *arrays, *vectors)` for each block; add up the terms it returns.

    The scratch is a pair of arrays of the block's shape.
    """
    before, channels, after = arrays[0].shape
    if channels == 1:
        before, after = 1, before * after
        arrays = [a if a is None else a.reshape(1, 1, after) for a in arrays]
    long = after >= 64 and channels * after >= SMALL
    grid = (Rows if long else Columns)(before, channels, after)
    vectors = [v if v is None else grid.repeat(v.astype(dtype)) for v in vectors]
    results = np.empty((terms, *grid.results))

    def share(blocks):
        scratch = np.empty((2, grid.largest), dtype)
        for block in blocks:
            parts = [a if a is None else grid.cut(a, block) for a in arrays]
            parts += [v if v is None else grid.pick(v, block) for v in vectors]
            t = [s[: parts[0].size].reshape(parts[0].shape) for s in scratch]
            for i, term in enumerate(work(grid, t, *parts) or ()):
                grid.store(results[i], block, term)

    _deal(grid.blocks, share)
    return results.reshape(terms, -1, channels).sum(1) if terms else None


def _deal(blocks, share):
    """Call `share` on equal parts of the blocks, each part in a thread, the first in this one."""
    threads = min(most_threads(CORES), -(-len(blocks) // THREADED))
    if threads == 1:
        return share(blocks)
    cuts = [len(blocks) * i // threads for i in range(threads + 1)]
    handlers = np.geterr()  # NumPy keeps them for each thread

    def guarded(start, stop):
        with np.errstate(**handlers):
            share(blocks[start:stop])

    pool = _pool(os.getpid(), threads)
    others = [pool.submit(guarded, *ends) for ends in itertools.pairwise(cuts[1:])]
    share(blocks[: cuts[1]])
    return [other.result() for other in others]


@functools.cache
def _pool(process, threads):
    """The threads of this process; a forked child must make its own."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads)


@functools.lru_cache(maxsize=64)  # a network has few shapes
class Columns:
    """Channels last, or little behind them: blocks (index, start, stop, width) of wide rows.

    Narrow rows take what is left.
    """

    def __init__(self, before, channels, after):
        self.channels, self.after, row = channels, after, channels * after
        self.times = max(1, ROW // row)
        wide, size = row * self.times, row * before
        step, body = wide * RUN, size - size % wide
        ends = [(i, min(i + step, body), wide) for i in range(0, body, step)]
        ends += [(body, size, row)] if body < size else []
        self.blocks = [(i, *block) for i, block in enumerate(ends)]
        self.results = len(ends), channels
        self.largest = max(stop - start for start, stop, _ in ends)

    def cut(self, array, block):
        _, start, stop, width = block
        return array.reshape(-1)[start:stop].reshape(-1, width)

    def repeat(self, vector):
        row = np.empty((self.times, self.channels, self.after), vector.dtype)
        row[...] = vector[:, np.newaxis]
        return row.reshape(-1)

    def pick(self, row, block):
        return row[: block[3]]

    def sum(self, part):
        return np.add.reduce(part, axis=0, dtype=_sum_dtype(part))

    def dot(self, part, other, _):
        return np.einsum("rc,rc->c", part, other, dtype=_sum_dtype(part))

    def store(self, result, block, term):
        term = term.reshape(-1, self.channels, self.after)
        np.add.reduce(term, axis=(0, 2), dtype=np.float64, out=result[block[0]])


def _sum_dtype(part):
    """Float64 at once for the narrow rows at the end, which may be thousands."""
    return np.float64 if len(part) > RUN else part.dtype


@functools.lru_cache(maxsize=64)
class Rows:
    """Channels first: blocks (index, examples, channels, columns), some of each.

    Up to 16 examples are added in float32, number by number, and then their columns in float64. A
    batch of few is summed along its rows by `np.add.reduce`, which adds in pairs. BLAS's dot
    product would be faster there, but how many numbers it adds up one after another depends on the
    processor: of 4096 they are 64 with AVX-512 and 256 with SSE.
    """

    def __init__(self, before, channels, after):
        examples, longest = _even(before, RUN), PIECE if before < FEW else ROW
        length = _even(after, longest)
        some = min(channels, max(1, BLOCK // (examples * length)))
        self.blocks = [
            (i, slice(e, e + examples), slice(c, c + some), slice(a, a + length))
            for i, (e, a) in enumerate(
                itertools.product(range(0, before, examples), range(0, after, length))
            )
            for c in range(0, channels, some)
        ]
        self.results = self.blocks[-1][0] + 1, channels
        self.largest = examples * some * length

    def cut(self, array, block):
        return array[block[1:]]

    def repeat(self, vector):
        return vector[:, np.newaxis]

    def pick(self, column, block):
        return column[block[2]]

    def sum(self, part):
        if len(part) < FEW:
            return np.add.reduce(part, axis=2).sum(axis=0, dtype=np.float64)
        return np.add.reduce(part, axis=0).sum(axis=1, dtype=np.float64)

    def dot(self, part, other, products):
        if len(part) < FEW:
            return self.sum(np.multiply(part, other, out=products))
        return np.einsum("eca,eca->ca", part, other).sum(axis=1, dtype=np.float64)

    def store(self, result, block, term):
        result[block[0], block[2]] = term


def _even(number, most):
    """Return the size of the fewest pieces that are about equal and hold at most so many."""
    return -(-number // -(-number // most))
