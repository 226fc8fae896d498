"""Is your batch norm really batch norm? Named checks for anybody's layer or function.

Write an `Adapter` around it, or take one of `bnlib.conformance.adapters`, and call
`check_batch_norm`. For pytest there is the fixture `bn_conformance`. It costs NumPy; a framework is
imported by its own adapter.
"""

from bnlib.conformance._adapter import Adapter, Setting
from bnlib.conformance._run import Checked, check_batch_norm, names

__all__ = ["Adapter", "Checked", "Setting", "check_batch_norm", "names"]
