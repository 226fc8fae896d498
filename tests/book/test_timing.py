"""How times are taken, and what is told beside them."""

import time

from bnlib.book.timing import in_turn, surroundings


def test_calls_take_turns_and_the_first_round_does_not_count():
    order = []

    def call(name, seconds):
        order.append(name)
        if order.count(name) == 1:
            time.sleep(0.05)  # compiles
        time.sleep(seconds)

    calls = {"a": lambda: call("a", 0), "b": lambda: call("b", 0.003)}
    times = in_turn(calls, 3)
    assert order == ["a", "b"] * 4
    assert times["a"] < times["b"] < 40


def test_surroundings_name_versions_and_not_the_machine():
    about = surroundings()
    assert {"numpy", "bnlib"} <= about["versions"].keys()
    assert about.keys() == {"versions", "cpu", "cores", "settings"}
