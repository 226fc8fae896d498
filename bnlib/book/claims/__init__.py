"""What is said of batch norm, weighed: each claim with an experiment and a verdict.

`LEDGER` holds the claims: `_ledger.py` has their words and predictions, the other files, one for
each family, the experiments. `weigh` makes a verdict of records by one rule. `ELSEWHERE` holds the
claims that other chapters measure.

>>> LEDGER["deep"].gist
'Batch norm serves convolutions; deep dense networks still cannot be trained.'
"""

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.claims._ledger import ELSEWHERE, LEDGER
from bnlib.book.claims._weighing import Claim, Elsewhere, Weighed, verdict, weigh

__all__ = [
    "ELSEWHERE",
    "EXPERIMENTS",
    "LEDGER",
    "Claim",
    "Elsewhere",
    "Weighed",
    "verdict",
    "weigh",
]
