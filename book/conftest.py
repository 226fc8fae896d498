"""Teach nbval the book's comparison: text exactly, numbers nearly, and no cell left unexecuted."""

import functools

import nbval.kernel
from nbval.plugin import IPyNbCell

from tools.tolerance import difference


class Output(str):
    """One output of a cell; equal to another when `difference` finds none."""

    def __eq__(self, other):
        return difference(self, other) is None

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


class Cell(IPyNbCell):
    """A cell whose stored and computed outputs are compared with a tolerance."""

    def sanitize(self, s):
        s = super().sanitize(s)
        return Output(s) if isinstance(s, str) else s

    def format_output_compare(self, key, left, right):
        self.comparison_traceback.append(f"{key} differs {difference(left, right)}")

    def runtest(self):
        super().runtest()
        if self.cell.execution_count is None:  # nbval lets it pass
            self.raise_cell_error("stored without being run: `make notebooks` runs it")


def again(start, tries=3):
    """Let a kernel that dies before it has run anything start anew.

    Its ports are chosen as free ones and bound a second or two later; with several workers another
    program may have taken one by then.
    """

    @functools.wraps(start)
    def start_again(*args, **kwargs):
        for _ in range(tries - 1):
            try:
                return start(*args, **kwargs)
            except RuntimeError:  # "Kernel died before replying to kernel_info"
                continue
        return start(*args, **kwargs)

    return start_again


nbval.kernel.start_new_kernel = again(nbval.kernel.start_new_kernel)


def pytest_itemcollected(item):
    """Make every cell that nbval collects one of ours."""
    if isinstance(item, IPyNbCell):
        item.__class__ = Cell
