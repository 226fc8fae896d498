"""Sweeps give tidy records, and what is stored was made by the code that is here."""

import json

import numpy as np
import pytest

from bnlib.book import experiments
from bnlib.book.experiments import (
    best_rate,
    by_setting,
    fingerprint,
    keep,
    store_parts,
    sweep,
    wins,
)
from tests.facts import ROOT

STORED = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "bnlib/book/stored").glob("*.json"))
}


def measure(seed, by):
    return {"product": seed * by, "curve": [seed, by]}


def test_each_setting_meets_each_seed():
    records = sweep(measure, {"b": {"by": 3}, "a": {"by": 5}}, seeds=range(2))
    assert [(r["setting"], r["seed"], r["product"]) for r in records] == [
        ("b", 0, 0),
        ("b", 1, 3),
        ("a", 0, 0),
        ("a", 1, 5),
    ]


def test_measures_are_gathered_pair_by_pair():
    records = sweep(measure, {"b": {"by": 3}, "a": {"by": 5}}, seeds=[2, 1])
    found = by_setting(records, "product")
    np.testing.assert_array_equal(found["a"] - found["b"], [2, 4])
    assert by_setting(records, "curve")["a"].shape == (2, 2)


def test_pairs_are_by_seed_whatever_the_order_of_the_records():
    runs = [("b", 2, 6), ("b", 4, 12), ("a", 4, 20), ("a", 2, 10)]
    records = [
        dict(zip(("setting", "seed", "product"), run, strict=True)) for run in runs
    ]
    found = by_setting(records, "product")
    np.testing.assert_array_equal(found["b"], [6, 12])
    np.testing.assert_array_equal(found["a"], [10, 20])
    records[-1]["seed"] = 3
    with pytest.raises(ValueError, match="the same seeds"):
        by_setting(records, "product")


def test_settings_with_other_seeds_are_refused():
    records = sweep(measure, {"a": {"by": 1}, "b": {"by": 2}}, seeds=range(2))[:-1]
    with pytest.raises(ValueError, match="the same seeds"):
        by_setting(records, "product")


def test_a_run_that_failed_can_count_as_infinite():
    records = sweep(lambda seed: {"steps": seed or None}, {"a": {}}, seeds=[0, 4])
    assert list(by_setting(records, "steps", missing=np.inf)["a"]) == [np.inf, 4]
    assert list(by_setting(records, "steps")["a"]) == [None, 4]


RATES = {
    "a, b 0.01": np.array([4, 5, 6, 0]),
    "a, b 0.1": np.array([1, 5, 6, 9]),
    "a, b 1": np.array([0, 1, 2, 1]),
    "c 3": np.array([7, 7, 7, 7]),
    "c 2": np.array([7, 7, 7, 7]),
}


def test_each_seed_has_the_rate_that_is_best_on_the_others():
    best = best_rate(RATES, "a, b")
    # medians of the others: 5, 4, 4, 5 at 0.01; 6, 6, 5, 5 at 0.1
    assert best.rates == (0.1, 0.1, 0.1, 0.01)
    assert list(best.of(RATES)) == [1, 5, 6, 0]
    assert list(best.of({name: -values for name, values in RATES.items()})) == [
        -1,
        -5,
        -6,
        0,
    ]
    assert str(best) == "0.01 to 0.1"
    assert not best.inside
    assert best_rate(RATES, "a, b", left_out=False).rates == (0.1, 0.1, 0.1, 0.1)


def test_of_equal_medians_the_lowest_rate_is_taken():
    assert best_rate(RATES, "c").rates == (2, 2, 2, 2)
    assert str(best_rate(RATES, "c")) == "2"


def test_the_least_can_be_the_best_and_a_failed_run_is_infinite():
    steps = {"a 1": [9, 9, 9], "a 2": [5, np.inf, 5], "a 4": [np.inf, 8, np.inf]}
    best = best_rate({n: np.array(v) for n, v in steps.items()}, "a", least=True)
    assert best.rates == (1, 2, 1)
    assert list(best.of({n: np.array(v) for n, v in steps.items()})) == [9, np.inf, 9]


def test_a_rate_inside_has_others_on_either_side():
    high = {"a 1": [1, 1, 1], "a 2": [5, 5, 5], "a 4": [0, 0, 0]}
    assert best_rate({n: np.array(v) for n, v in high.items()}, "a").inside


def test_what_was_not_tried_has_no_best_rate():
    with pytest.raises(ValueError, match="settings called 'd RATE'"):
        best_rate(RATES, "d")
    with pytest.raises(ValueError, match="two seeds or more"):
        best_rate({"a 1": np.array([1])}, "a")


def test_wins_are_counted_pair_by_pair():
    assert wins(np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.5, 0.8])) == (1, 1)
    assert wins(np.zeros(6), np.arange(6)) == (0, 5)


def test_nothing_to_run_is_refused():
    with pytest.raises(ValueError, match="one of them is empty"):
        sweep(measure, {}, seeds=range(3))


def test_a_measure_must_not_hide_the_seed():
    with pytest.raises(ValueError, match="another name"):
        sweep(lambda seed: {"seed": 3}, {"a": {}}, seeds=[0])


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ('"""Other words."""\n\nfrom beside import y\n\nx = 1  # remark\n', True),
        ("from beside import y\nx = 2\n", False),
    ],
)
def test_a_fingerprint_is_that_of_the_code(tmp_path, code, same):
    script, beside = tmp_path / "script.py", tmp_path / "beside.py"
    beside.write_text("y = 1\n")
    script.write_text('"""Words."""\nfrom beside import y\nx = 1\n')
    before = fingerprint(script)
    script.write_text(code)
    assert (fingerprint(script) == before) == same
    script.write_text("from beside import y\nx = 1\n")
    beside.write_text("y = 2\n")
    assert fingerprint(script) != before


@pytest.mark.parametrize(
    "line",
    [
        "import bnlib.book.inner",
        "from bnlib.book import inner",
        "from bnlib.book.inner import y",
        "import beside",
        "from beside import y",
    ],
    ids=["name", "module", "value", "beside", "value beside"],
)
def test_no_way_of_importing_escapes_a_fingerprint(tmp_path, monkeypatch, line):
    """Nor a module that is imported by an imported one."""
    wing, folder = tmp_path / "wing", tmp_path / "folder"
    for each in (wing, folder):
        each.mkdir()
    monkeypatch.setattr(experiments, "WING", wing)
    script = folder / "script.py"
    script.write_text(f"{line}\n")
    (wing / "inner.py").write_text("from bnlib.book.innermost import z\ny = 1\n")
    (folder / "beside.py").write_text("import bnlib.book.innermost\ny = 1\n")
    seen = {fingerprint(script)}
    innermost = wing / "innermost.py"
    innermost.write_text("z = 1\n")
    seen.add(fingerprint(script))
    innermost.write_text("z = 2\n")
    seen.add(fingerprint(script))
    for file in (wing / "inner.py", folder / "beside.py"):
        file.write_text(file.read_text() + "more = 1\n")
    seen.add(fingerprint(script))
    assert len(seen) == 4


def test_what_is_kept_says_when_and_by_which_code(tmp_path):
    keep(tmp_path / "found.json", __file__, shares=np.array([0.5, 1]))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["fingerprint"] == fingerprint(__file__)
    assert found["shares"] == [0.5, 1]
    assert {"surroundings", "date"} <= found.keys()


def test_parts_stored_by_the_same_code_are_kept(tmp_path):
    script, path = tmp_path / "script.py", tmp_path / "found.json"
    script.write_text('"""Words."""\nx = 1\n')
    to_path = ["--json", str(path)]

    def parts_with(value):
        return {"a": lambda: [value], "b": lambda: [10 * value]}

    def kept():
        found = json.loads(path.read_text())
        return {name: found[name] for name in "ab" if name in found}

    store_parts(script, parts_with(1), to_path)
    assert kept() == {"a": [1], "b": [10]}
    store_parts(script, parts_with(2), ["b", *to_path])
    assert kept() == {"a": [1], "b": [20]}
    script.write_text('"""Words."""\nx = 2\n')
    store_parts(script, parts_with(3), ["b", *to_path])
    assert kept() == {"b": [30]}
    with pytest.raises(SystemExit):
        store_parts(script, parts_with(4), ["c", *to_path])


def test_a_part_is_stored_before_the_next_one_runs(tmp_path):
    script, path = tmp_path / "script.py", tmp_path / "found.json"
    script.write_text('"""Words."""\n')

    def broken():
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        store_parts(script, {"a": lambda: [1], "b": broken}, ["--json", str(path)])
    assert path.exists()
    assert json.loads(path.read_text())["a"] == [1]


@pytest.mark.parametrize("name", [n for n in STORED if "fingerprint" in STORED[n]])
def test_no_stored_result_is_older_than_its_code(name):
    script = ROOT / f"benchmarks/{name}.py"
    assert STORED[name]["fingerprint"] == fingerprint(script), (
        f"the code that made {name}.json has changed: run "
        f"{script.relative_to(ROOT)} again, which stores it"
    )
