"""Experiments of Part III: one run under named settings and several seeds, kept as tidy records.

A short sweep runs in a notebook. A long one is run by a script of `benchmarks/`, which stores its
records with `keep`, and the notebook reads them. What is stored names the code that made it by a
fingerprint, and a test compares: a stored result is never older than its code.
"""

import argparse
import ast
import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnlib._extras import needed
from bnlib.book.timing import surroundings

with needed("bnlib.book.experiments", "notebook"):
    from rich.console import Console
    from rich.progress import track

__all__ = [
    "Best",
    "best_rate",
    "by_setting",
    "fingerprint",
    "keep",
    "store_parts",
    "sweep",
    "wins",
]

Record = dict[str, Any]

WING = Path(__file__).resolve().parent
STORED = WING / "stored"
UNCOUNTED = {
    WING / f"{name}.py"
    for name in ("experiments", "figures", "notebook", "style", "timing")
}


def sweep(
    run: Callable[..., Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    seeds: Iterable[int],
    *,
    progress: bool = False,
) -> list[Record]:
    """Run an experiment under each setting with each seed.

    All settings see the same seeds, so that they can be compared pair by pair.

    Args:
        run: called as `run(seed=seed, **setting)`; returns what it measured, by name.
        settings: the arguments of `run`, by a name for each setting.
        seeds: integers.
        progress: whether to show a progress bar; never in a stored output.

    Returns:
        One record for each run: `setting`, `seed`, and what was measured.

    Raises:
        ValueError: if `run` measures something called `setting` or `seed`, or nothing is to be run.

    >>> sweep(lambda seed, by: {"product": seed * by}, {"twice": {"by": 2}}, seeds=[1, 2])
    [{'setting': 'twice', 'seed': 1, 'product': 2}, {'setting': 'twice', 'seed': 2, 'product': 4}]
    """
    runs = [(name, seed) for seed in seeds for name in settings]
    if not runs:
        raise ValueError(
            "settings and seeds must hold at least one each; one of them is empty."
        )
    records = []
    for name, seed in track(runs, "runs", disable=not progress):
        measured = dict(run(seed=seed, **settings[name]))
        if taken := {"setting", "seed"} & measured.keys():
            raise ValueError(
                f"run must not measure {sorted(taken)}: the records have these already. "
                "Give it another name."
            )
        records.append({"setting": name, "seed": seed, **measured})
    order = list(settings)
    return sorted(records, key=lambda record: order.index(record["setting"]))


def by_setting(
    records: Iterable[Record], measure: str, *, missing: float | None = None
) -> dict[str, np.ndarray]:
    """Gather one measure: an array for each setting, with one entry for each seed.

    The seeds stand in the same order everywhere, so `found["a"] - found["b"]` is a difference pair
    by pair.

    Args:
        records: of `sweep`.
        measure: the name of what was measured.
        missing: what stands for a None, of a run that failed; default None itself.

    Returns:
        The arrays by setting, of shape `(seeds, ...)`.

    Raises:
        ValueError: if the settings do not have the same seeds.

    >>> by_setting([{"setting": "a", "seed": 0, "loss": 0.5}], "loss")
    {'a': array([0.5])}
    """
    found: dict[str, dict[int, Any]] = {}
    for record in records:
        value = missing if record[measure] is None else record[measure]
        found.setdefault(record["setting"], {})[record["seed"]] = value
    seeds = {name: sorted(values) for name, values in found.items()}
    if len(set(map(tuple, seeds.values()))) > 1:
        raise ValueError(f"all settings must have the same seeds; got {seeds}.")
    return {
        name: np.array([values[seed] for seed in seeds[name]])
        for name, values in found.items()
    }


class Best(NamedTuple):
    """The best of the rates that were tried under one name, as each seed has it.

    Attributes:
        rates: the rate picked for each seed.
        settings: the settings of these rates, `NAME RATE`.
        inside: whether a lower and a higher rate than any of them were tried too.
    """

    rates: tuple[float, ...]
    settings: tuple[str, ...]
    inside: bool

    def __str__(self) -> str:
        """Return the rate, or the lowest and the highest where seeds have different ones."""
        return " to ".join(
            f"{rate:g}" for rate in sorted({min(self.rates), max(self.rates)})
        )

    def of(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what each seed found, in these or other measures, at the rate picked for it.

        Args:
            found: arrays by setting, with one entry for each seed.

        Returns:
            An array with one entry for each seed.
        """
        return np.array(
            [found[setting][seed] for seed, setting in enumerate(self.settings)]
        )


def best_rate(
    found: Mapping[str, np.ndarray],
    name: str,
    *,
    least: bool = False,
    left_out: bool = True,
) -> Best:
    """Pick for each seed the rate with the best median over the other seeds.

    So no run helps to pick the rate that it is reported at. Of equal medians the lowest rate is
    taken.

    Args:
        found: what the seeds reached, by settings that are called `NAME RATE`: of `by_setting`.
        name: the one to pick for; settings of other names are left alone.
        least: whether the least is the best.
        left_out: False picks one rate for all seeds, with the best median over all of them.

    Returns:
        The `Best`.

    Raises:
        ValueError: if no setting has the name, or there are fewer than two seeds.

    >>> found = {"a 0.1": np.array([3, 4, 5]), "a 1": np.array([5, 6, 0])}
    >>> best = best_rate(found, "a")
    >>> best.rates, best.of(found)
    ((0.1, 0.1, 1.0), array([3, 4, 0]))
    """
    tried = {
        float(setting.rpartition(" ")[2]): setting
        for setting in found
        if setting.rpartition(" ")[0] == name
    }
    if not tried:
        raise ValueError(
            f"found must have settings called '{name} RATE'; got {sorted(found)}."
        )
    sign, seeds = 1 if least else -1, len(found[next(iter(tried.values()))])
    if left_out and seeds < 2:
        raise ValueError(
            "found must have two seeds or more, as each has the rate that is best on the others; "
            f"got {seeds}."
        )

    def rank(rate, seed):
        values = found[tried[rate]]
        others = np.delete(values, seed) if left_out else values
        return sign * np.median(others), rate

    rates = tuple(
        min(tried, key=lambda rate, seed=seed: rank(rate, seed))
        for seed in range(seeds)
    )
    inside = min(tried) < min(rates) and max(rates) < max(tried)
    return Best(rates, tuple(tried[rate] for rate in rates), inside)


def wins(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Count, pair by pair, where one is higher than the other, and where it is lower.

    Args:
        one: a number for each seed.
        other: likewise, the seeds in the same order.

    Returns:
        How many pairs of each kind; equal ones are in neither.

    >>> wins(np.array([1, 2, 3]), np.array([1, 1, 5]))
    (1, 1)
    """
    return int(np.sum(one > other + 1e-6)), int(np.sum(one < other - 1e-6))


def keep(path: str | Path, script: str | Path, **found: Any) -> None:
    """Store what a script found, with where, when and by which code.

    Args:
        path: the JSON file, written over.
        script: the script, whose fingerprint is stored: its `__file__`.
        **found: what was found, as lists, dicts, texts and numbers; NumPy's too.
    """
    about = {
        "surroundings": surroundings(),
        "date": datetime.date.today().isoformat(),
        "fingerprint": fingerprint(script),
    }
    text = json.dumps(about | found, default=lambda value: value.tolist())
    Path(path).write_text(text + "\n", encoding="utf-8")


def store_parts(
    script: str | Path,
    parts: Mapping[str, Callable[[], Any]],
    arguments: list[str] | None = None,
) -> None:
    """Run the parts of a script, all or those named on the command line, and store each at once.

    All parts of `NAME.py` go to one file, `bnlib/book/stored/NAME.json` or what `--json` names.
    Parts that the same code stored before are kept; where the code has changed since, they go.

    Args:
        script: the script: its `__file__`. The first line of its docstring says what it does.
        parts: by name a function that runs a part and returns what it found.
        arguments: those of the command line, if not `sys.argv`'s.
    """
    about = ast.get_docstring(ast.parse(Path(script).read_text(encoding="utf-8")))
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(parts))
    default = STORED / f"{Path(script).stem}.json"
    parser.add_argument("--json", type=Path, default=default, help="store it here")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(parts):
        parser.error(f"the parts are {' '.join(parts)}; got {' '.join(unknown)}.")
    found = {}
    if options.json.exists():
        found = json.loads(options.json.read_text(encoding="utf-8"))
        if found.get("fingerprint") != fingerprint(script):
            found = {}
    for name in options.parts or parts:
        Console(stderr=True).print(name)
        found[name] = parts[name]()
        keep(options.json, script, **{n: found[n] for n in parts if n in found})


def fingerprint(script: str | Path) -> str:
    """Digest the code of a script, and of all modules of the book's wing that it imports.

    Comments, docstrings and the layout of lines do not count. Nor do this module and those that
    take times and show things; nor the library outside the wing, whose results have tests of their
    own.

    Args:
        script: a Python file. What it imports from beside itself counts too.

    Returns:
        16 hexadecimal digits.
    """
    digest, seen = hashlib.sha256(), set()
    wanted = [Path(script)]
    while wanted:
        path = wanted.pop().resolve()
        if path in seen or path in UNCOUNTED:
            continue
        seen.add(path)
        wanted += _imported(ast.parse(path.read_text(encoding="utf-8")), path.parent)
    for path in sorted(seen, key=lambda path: path.name):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        digest.update(ast.dump(_without_docstrings(tree)).encode())
    return digest.hexdigest()[:16]


def _imported(tree, folder):
    """List the files, of the wing or of the folder, that a module imports."""
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            inside = name.removeprefix("bnlib.book.")
            place = WING if inside != name else folder
            file = place.joinpath(*inside.split(".")).with_suffix(".py")
            found += [file] if file.is_file() else []
    return found


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree
