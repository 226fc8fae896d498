"""Tensors are summed as well on any processor: one sweep, in processes that imitate others.

Each runs the sweep of benchmarks/accuracy.py, and the batches of test_tf_ops.py whose sums round
the same way at each step. The core has test_processors.py.
"""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.accuracy import PAIRS, PROCESSORS, ROOT, imitate

# errors of y and of the mean in deviations, of the variance in itself; float32 is trusted with
# means of up to 16 deviations
BOUNDS = {"y": 3e-6, "mean": 4e-6, "variance": 1e-6}

SWEEP = """
import json
import test_tf_ops
from benchmarks.accuracy import LENGTHS, sweep

for shape, axis in test_tf_ops.LEVELS:
    test_tf_ops.test_float32_sums_of_two_levels(shape, axis)
test_tf_ops.test_many_values_per_channel(True)
print(json.dumps(sweep("tf_ops", LENGTHS[1:2])))
"""


def excesses(found):
    assert set(found) == set(BOUNDS)
    return {name: worst for name, worst in found.items() if worst[0] > BOUNDS[name]}


@pytest.mark.parametrize(
    "processor",
    [
        ("1 thread", "oneDNN off"),
        ("8 threads", "oneDNN off"),
        ("2 threads", "oneDNN on"),
        ("2 threads", "oneDNN on", "AVX2 (Haswell)"),
        ("8 threads", "oneDNN on", "SSE (Prescott)"),
    ],
    ids=", ".join,
)
def test_sums_are_right_on_other_processors(processor):
    environment, folders = dict(os.environ), [ROOT, ROOT / "tests"]
    for name in processor:
        environment |= PROCESSORS.get(name, {})  # not all are x86
    folders.append(ROOT / "tests/frameworks")
    ended = subprocess.run(
        [sys.executable, "-c", SWEEP],
        env=environment | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert excesses(json.loads(ended.stdout)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "subject"), [pair for pair in PAIRS if pair[1].startswith("tf_ops")]
)
def test_the_bounds_hold_on_every_processor(processor, subject):
    assert excesses(imitate(processor, subject)) == {}
