"""What is said of batch norm, weighed: each claim with an experiment and a verdict.

`LEDGER` holds the claims: `_ledger.py` has their words and predictions, the other files, one for
each family, the experiments. `weigh` makes a verdict of records by one rule.

>>> LEDGER["fourteen"].gist
'Batch norm needs 14 times fewer steps.'
"""

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.claims._ledger import LEDGER
from bnlib.book.claims._weighing import Claim, Weighed, verdict, weigh

__all__ = ["EXPERIMENTS", "LEDGER", "Claim", "Weighed", "verdict", "weigh"]
