"""What the GPU page measures, tried on the CPU: the code works, and the records are whole."""

import json
import math

import pytest

from bnlib.book import gpu

CPU = "/CPU:0"


@pytest.fixture(scope="module")
def steps():
    return gpu.steps(
        [(4, 3, 3, 8), (16, 8)], ["float32", "float16"], rounds=1, place=CPU
    )


def test_every_candidate_is_timed_in_every_mode(steps):
    found = {(each["candidate"], each["mode"]) for each in steps}
    modes = ("eager", "tf.function", "XLA")
    for name in ("ours", "Keras", "fused kernel"):
        assert {(name, mode) for mode in modes} <= found
    assert {tuple(each["shape"]) for each in steps} == {(4, 3, 3, 8), (16, 8)}
    assert all(each["ms"] > 0 for each in steps)


def test_the_copy_is_the_unit(steps):
    for each in steps:
        if each["candidate"] == gpu.COPY:
            assert each["copies"] == 1
    one = [
        each
        for each in steps
        if each["shape"] == [16, 8] and each["dtype"] == "float16"
    ]
    [copy] = [each["ms"] for each in one if each["candidate"] == gpu.COPY]
    for each in one:
        assert each["copies"] == pytest.approx(each["ms"] / copy)


def test_the_copy_names_its_speed_and_the_table_has_a_row_for_each_array(steps):
    for each in steps:
        if each["candidate"] == gpu.COPY:
            size = {"float32": 4, "float16": 2}[each["dtype"]]
            read_and_written = 2 * size * math.prod(each["shape"])
            assert each["GB/s"] == pytest.approx(read_and_written / each["ms"] / 1e6)
    headings, rows = gpu.in_copies(steps)
    assert [row[:2] for row in rows] == [
        [shape, dtype]
        for shape in ("4x3x3x8", "16x8")
        for dtype in ("float32", "float16")
    ]
    [ours] = (k for k, name in enumerate(headings) if name == "ours")
    for row in rows:
        assert len(row) == len(headings)
        assert "-" not in row[ours]


def test_the_device_is_waited_for_once_in_a_round():
    said = []
    run = gpu._repeated(lambda: said.append("call"), lambda: said.append("wait"), 3)
    run()
    assert said == ["call", "call", "call", "wait"]


def test_the_errors_are_those_that_the_book_tells_of():
    errors = {
        (each["mean"], each["candidate"]): each["error"]
        for each in gpu.accuracy((1e2, 1e6), place=CPU)
    }
    assert errors[1e6, "ours"] < 1e-5
    assert errors[1e2, "Keras"] < 1e-2
    assert errors[1e6, "Keras"] > 0.1
    assert errors[1e6, "fused kernel"] > 0.1


def test_a_report_can_be_stored_and_names_its_gpu(steps):
    text = json.dumps(gpu.report(steps=steps))
    assert json.loads(text)["surroundings"]["gpu"] == "none"
