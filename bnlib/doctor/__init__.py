"""Find and repair batch norm faults in whole Keras models.

`audit` names what is wrong, `recalibrate` puts the moving statistics right, `fold` takes batch norm
out of a model that is done with training. Each gives a `bnlib.reports.Report`. `swap_in`,
`swap_out` and `synchronize`, of `bnlib.keras`, exchange the layers.
"""

from bnlib.doctor.audit import RULES, Case, Fault, Finding, Rule, audit
from bnlib.doctor.fold import Folded, fold
from bnlib.doctor.recalibrate import Recalibrate, Recalibrated, recalibrate
from bnlib.keras import swap_in, swap_out, synchronize

__all__ = [
    "RULES",
    "Case",
    "Fault",
    "Finding",
    "Folded",
    "Recalibrate",
    "Recalibrated",
    "Rule",
    "audit",
    "fold",
    "recalibrate",
    "swap_in",
    "swap_out",
    "synchronize",
]
