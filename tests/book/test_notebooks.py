"""Every notebook of the book is whole, clean and reproducible, and a planted fault goes red.

nbval runs the cells and compares their outputs; the rules here look at the rest of the file. Each
rule returns its faults as strings. It is asserted on the book, where it must find none, and on
planted faults, which it or nbval must find.
"""

import copy
import functools
import html
import os
import re
import shutil
import sys

import nbformat
import pytest
from building import run
from facts import ROOT

from tools import notebooks
from tools.notebooks import execute, read_text

TEXTS = sorted(ROOT.glob("text/**/*.md"))
NOTEBOOKS = [
    path
    for path in sorted(ROOT.glob("book/**/*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
]
BOOT = """
import sys
if "google.colab" in sys.modules:
    %pip install -q "bnlib-book[notebook]"
from bnlib.book.notebook import setup, show, show_source, show_table
setup()
""".strip()
SVG = "image/svg+xml"
LIMIT_KB = 500


# Reading a notebook


@functools.cache
def load(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def figures(cell):
    return [output.data for output in cell.outputs if SVG in output.get("data", {})]


# The rules


def not_run_in_order(notebook, text):
    counts = [cell.execution_count for cell in code(notebook)]
    in_order = counts == list(range(1, len(counts) + 1))
    return [] if in_order else [f"execution counts {counts}"]


def lost_output(notebook, text):
    """A cell that shows something has an output, and a figure for each `show(`."""
    faults = []
    for cell in code(notebook):
        calls = re.findall(r"^(show\w*|print)\(", cell.source, re.MULTILINE)
        if (calls and not cell.outputs) or calls.count("show") > len(figures(cell)):
            faults.append(f"cell {cell.id} calls {calls}, and an output is missing")
    return faults


def warning_or_error(notebook, text):
    kinds = [output.get("name", output.output_type) for output in outputs(notebook)]
    return [
        f"an output of kind {kind}" for kind in kinds if kind in ("stderr", "error")
    ]


def ends_in_semicolon(notebook, text):
    """nbval does not honour the semicolon that silences a last line."""
    ends = [cell for cell in code(notebook) if cell.source.rstrip().endswith(";")]
    return [f"cell {cell.id} ends in a semicolon" for cell in ends]


def wrong_boot_cell(notebook, text):
    first = code(notebook)[0]
    right = first.source == BOOT and first.metadata.get("tags") == ["hide-cell"]
    return [] if right else ["the first code cell is not the boot cell, hidden"]


def unlike_its_text(notebook, text):
    """The notebook is its text and nothing more, except for outputs."""
    keys = ("cell_type", "id", "source", "metadata")
    both = notebook, read_text(text)
    ours, its = ([[cell[key] for key in keys] for cell in each.cells] for each in both)
    faults = [f"only in the notebook: {cell}" for cell in ours if cell not in its]
    faults += [f"only in the text: {cell}" for cell in its if cell not in ours]
    if ours != its and not faults:
        faults.append("the cells are in another order")
    if both[0].metadata != both[1].metadata:
        faults.append(f"metadata {both[0].metadata}, not {both[1].metadata}")
    return faults


def poor_figure(notebook, text):
    """A figure is an SVG that says what it shows, under a caption."""
    faults = []
    for cell in code(notebook):
        forms = {form for output in cell.outputs for form in output.get("data", {})}
        if forms & {"image/png", "image/jpeg"}:
            faults.append(f"cell {cell.id} shows {forms}: use show(fig, alt)")
        for data in figures(cell):
            title = re.search(
                r'^<svg [^>]*role="img"[^>]*>\s*<title>(.+?)</title>', data[SVG]
            )
            if not title or html.unescape(title[1]) != data["text/plain"]:
                faults.append(f"cell {cell.id}: a figure without its description")
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figures(cell) and not (figure.get("caption") and figure.get("name")):
            faults.append(f"cell {cell.id}: a figure without caption and name")
    return faults


TRACES = {
    "path": r"(?:^|[\s\"'(=])(?:/[\w.-]+){2,}|\b[A-Z]:\\",
    "address": r"\b0x[0-9a-fA-F]{6,}",
    "time": r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b",
    "process": r"\bpid\b|ipykernel_\d+",
    "progress or duration": r"\bETA\b|\d ?(?:[mµn]s|s)/(?:step|epoch|it)\b|\bit/s\b",
}


def trace_of_the_machine(notebook, text):
    faults = []
    for output in outputs(notebook):
        for form in [output.get("text", ""), *output.get("data", {}).values()]:
            for kind, pattern in TRACES.items():
                if found := re.search(pattern, str(form)):
                    faults.append(f"a {kind} in an output: {found[0]!r}")
    return faults


def checks(cell):
    return bool(re.search(r"^\s*(assert |np\.testing\.)", cell.source, re.MULTILINE))


def silent_check(notebook, text):
    """A cell that only asserts is tagged, so that the page folds it behind its mark.

    In Part I an open cell asserts nothing: it is for what the chapter is about.
    """
    faults, lesson = [], text.parent.name == "part1"
    for cell in code(notebook):
        tagged = "checked" in cell.metadata.get("tags", [])
        if checks(cell) and not tagged and (lesson or not cell.outputs):
            faults.append(f"cell {cell.id} asserts, and is not tagged `checked`")
        if tagged and (cell.outputs or not checks(cell)):
            faults.append(
                f"cell {cell.id} is tagged `checked`, and shows or checks not"
            )
    return faults


EXERCISE = re.compile(
    r"^:::\{exercise\}([^\n]*)\n:label: (\S+)\n(.*?)^:::$", re.MULTILINE | re.DOTALL
)
KINDS = ("Write it", "Derive it", "Find the bug", "Try it", "Work it out")
LEVELS = ("warm-up", "medium", "hard")


def poor_exercise(notebook, text):
    """An exercise of Part I says its kind and how hard it is, has a hint, and is explained."""
    source = text.read_text(encoding="utf-8")
    exercises = EXERCISE.findall(source)
    if text.parent.name != "part1":
        return []
    faults = (
        [] if 3 <= len(exercises) <= 5 else [f"{len(exercises)} exercises, not 3 to 5"]
    )
    kinds = set()
    for title, label, _ in exercises:
        title = title.strip()
        kind, _, level = title.partition(": ")
        kinds.add(kind)
        if kind not in KINDS or level not in LEVELS:
            faults.append(f"{label}: {title!r} is not 'Write it: warm-up' or the like")
        _, _, after = source.partition(f":label: {label}\n")
        before, begins, rest = after.partition(f":::{{solution-start}} {label}\n")
        solution, ends, _ = rest.partition(":::{solution-end}")
        if not (begins and ends) or ":::{exercise}" in before:
            faults.append(f"{label}: no solution")
        if before.count(":::{hint}\n:class: dropdown\n") != 1:
            faults.append(f"{label}: not one hint that opens")
        prose = re.sub(
            r"```.*?^```$|^:.*?$", "", solution, flags=re.MULTILINE | re.DOTALL
        )
        if len(prose.split()) < 8:
            faults.append(f"{label}: its solution is not explained")
    if len(kinds) < 3:
        faults.append(f"exercises of {len(kinds)} kinds, not 3")
    return faults


def excused_from_nbval(notebook, text):
    marker = re.compile(r"nbval[-_]|raises-exception|validate_ignore", re.IGNORECASE)
    each = [f"{cell.source} {cell.metadata.get('tags', '')}" for cell in code(notebook)]
    return [
        f"nbval is told {marker.search(cell)[0]}"
        for cell in each
        if marker.search(cell)
    ]


def foreign_import(notebook, text):
    """A chapter is about bnlib, and a reader who downloads it lacks the author's tools."""
    source = "\n".join(cell.source for cell in code(notebook)[1:])
    imports = set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE))
    tools = imports & {"myst_nb", "pytest", "tests", "tools"}
    faults = [f"imports {name}, which a reader may lack" for name in tools]
    return faults if "bnlib" in imports else [*faults, "does not import bnlib"]


def no_description(notebook, text):
    page = notebook.metadata.get("myst", {}).get("html_meta", {}).get("description", "")
    fits = 50 <= len(page) <= 250
    return [] if fits else [f"a description of {len(page)} characters, not 50 to 250"]


def too_large(notebook, text):
    size = len(nbformat.writes(notebook).encode()) / 1000
    return [] if size < LIMIT_KB else [f"{size:.0f} kB, not under {LIMIT_KB} kB"]


RULES = [
    not_run_in_order,
    lost_output,
    warning_or_error,
    ends_in_semicolon,
    wrong_boot_cell,
    unlike_its_text,
    poor_figure,
    trace_of_the_machine,
    silent_check,
    poor_exercise,
    excused_from_nbval,
    foreign_import,
    no_description,
    too_large,
]


# The book


def stem(path, folder):
    return path.relative_to(ROOT / folder).with_suffix("").as_posix()


def test_every_text_has_a_notebook_and_the_reverse():
    assert len(NOTEBOOKS) >= 2
    assert [stem(path, "book") for path in NOTEBOOKS] == [
        stem(path, "text") for path in TEXTS
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_notebook(path, rule):
    assert rule(load(path), ROOT / "text" / f"{stem(path, 'book')}.md") == []


# Planted faults: what each does to a good notebook, and who must see it.

GOOD = f"""\
---
myst:
  html_meta:
    description: A small chapter in which everything is as it should be, until it is not.
---

# A chapter

```{{code-cell}} ipython3
:tags: [hide-cell]

{BOOT}
```

```{{code-cell}} ipython3
from bnlib.book import style

print("loss", 3.169, "after", 1320, "steps")
```

```{{code-cell}} ipython3
---
mystnb:
  figure:
    caption: A rise.
    name: fig-rise
---
fig, ax = style.figure()
ax.plot([0, 1, 2], [0, 1, 4], **style.points(style.AFTER))
ax.set_title("A rise")
show(fig, "Three points that rise faster and faster.")
```

```{{code-cell}} ipython3
show_table(["method", "loss"], [["plain", 0.5127], ["batch norm", 0.0]])
```
"""
LOSS, FIGURE, TABLE = 1, 2, 3


def put(notebook, cell, old, new):
    """Replace the one occurrence of `old` in every form of a cell's output that has it."""
    (output,) = code(notebook)[cell].outputs
    forms, found = output.get("data", output), 0
    for key in forms.keys() & {"text", "text/plain", "text/markdown", SVG}:
        found += forms[key].count(old)
        forms[key] = forms[key].replace(old, new)
    assert found, f"nothing to plant in: no {old!r}"


def move_point(notebook, by):
    (data,) = figures(code(notebook)[FIGURE])
    point = re.findall(r'<use [^>]*y="[\d.]+" style="fill: #b95b00', data[SVG])[1]
    moved = re.sub(r'y="([\d.]+)"', lambda m: f'y="{float(m[1]) + by:.6f}"', point)
    put(notebook, FIGURE, point, moved)


def strip(cells):
    for cell in cells:
        cell.update(outputs=[], execution_count=None)


def add_stream(notebook, name, text):
    stream = nbformat.v4.new_output("stream", name=name, text=text)
    code(notebook)[LOSS].outputs.append(stream)


def noise(notebook):
    put(notebook, LOSS, "3.169", "3.1705")
    move_point(notebook, 0.02)


ALL = {0, 1, 2, 3}
NBVAL = {  # name: (what to do, the cells that nbval must fail, the rules that must object)
    "untouched": (lambda n: None, set(), set()),
    "noise_of_half_a_per_mille": (noise, set(), set()),
    "number_off_by_3_percent": (
        lambda n: put(n, LOSS, "3.169", "3.264"),
        {LOSS},
        set(),
    ),
    "number_off_in_table": (lambda n: put(n, TABLE, "0.513", "0.528"), {TABLE}, set()),
    "count_off_by_one": (lambda n: put(n, LOSS, "1320", "1321"), {LOSS}, set()),
    "changed_word": (lambda n: put(n, LOSS, "after", "before"), {LOSS}, set()),
    "changed_word_in_table": (
        lambda n: put(n, TABLE, "plain", "plane"),
        {TABLE},
        set(),
    ),
    "changed_word_in_figure": (
        lambda n: put(n, FIGURE, "<!-- A rise -->", "<!-- A fall -->"),
        {FIGURE},
        set(),
    ),
    "moved_point": (lambda n: move_point(n, 3), {FIGURE}, set()),
    "stripped_notebook": (
        lambda n: strip(code(n)),
        ALL,
        {"not_run_in_order", "lost_output"},
    ),
    "stripped_cell": (
        lambda n: strip([code(n)[LOSS]]),
        {LOSS},
        {"not_run_in_order", "lost_output"},
    ),
    "deleted_figure": (
        lambda n: code(n)[FIGURE].update(outputs=[]),
        {FIGURE},
        {"lost_output"},
    ),
    "stderr": (
        lambda n: add_stream(n, "stderr", "UserWarning: careful\n"),
        {LOSS},
        {"warning_or_error"},
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Run the good notebook; return it with its text."""
    text = tmp_path_factory.mktemp("good") / "good.md"
    text.write_text(GOOD)
    notebook = read_text(text)
    execute(notebook, text.parent)
    return notebook, text


def faults_of(good, fault):
    """Plant a fault in a copy and return the copy with the names of the rules that object."""
    notebook, text = copy.deepcopy(good[0]), good[1]
    fault(notebook)
    return notebook, {rule.__name__ for rule in RULES if rule(notebook, text)}


# Each costs a kernel. So quick are one of each sort: a number, a word, a picture, what is missing.
QUICK = {
    "noise_of_half_a_per_mille",
    "number_off_by_3_percent",
    "changed_word_in_figure",
    "moved_point",
    "stripped_cell",
    "deleted_figure",
}


@pytest.fixture(scope="module")
def failed_cells(request, good, tmp_path_factory):
    """Run nbval once over a copy of the notebook for each fault; map each to its failed cells."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "book" / "conftest.py", folder)
    selected = [i for i in request.session.items if "failed_cells" in i.fixturenames]
    names = [item.callspec.params["name"] for item in selected]
    for name in names:
        nbformat.write(faults_of(good, NBVAL[name][0])[0], folder / f"{name}.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
    ]
    command += notebooks.NBVAL
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run(*command, folder, env=environment, timeout=300)
    results = re.findall(r"(\w+)\.ipynb::Cell (\d+) (PASSED|FAILED)", done.stdout)
    assert len(results) == len(names) * len(ALL), done.stdout + done.stderr
    failed = {(name, int(cell)) for name, cell, result in results if result == "FAILED"}
    return {name: {cell for other, cell in failed if other == name} for name in names}


@pytest.mark.slow_if(lambda name: name not in QUICK)
@pytest.mark.parametrize("name", NBVAL)
def test_nbval_and_the_rules_see_a_planted_fault(good, failed_cells, name):
    fault, cells, rules = NBVAL[name]
    assert failed_cells[name] == cells
    assert faults_of(good, fault)[1] == rules


# Faults that are not in what nbval compares


def set_source(notebook, source):
    code(notebook)[LOSS].source = source


def strip_output(notebook):
    code(notebook)[LOSS].outputs = []


def set_output(notebook, text):
    code(notebook)[LOSS].outputs[0].text = text


def untitle(notebook):
    (data,) = figures(code(notebook)[FIGURE])
    data[SVG] = re.sub("<title>.*?</title>", "", data[SVG])


def retitle(notebook):
    (data,) = figures(code(notebook)[FIGURE])
    data["text/plain"] = "Something else, in more than twenty characters."


def as_png(notebook):
    (data,) = figures(code(notebook)[FIGURE])
    data["image/png"] = data.pop(SVG)


def raise_error(notebook):
    error = nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])
    code(notebook)[LOSS].outputs.append(error)


EDITED = "unlike_its_text"
FILE = {  # name: (what to do, the rules that must object)
    "wrong_count": (
        lambda n: code(n)[LOSS].update(execution_count=7),
        {"not_run_in_order"},
    ),
    "repeated_count": (
        lambda n: code(n)[TABLE].update(execution_count=3),
        {"not_run_in_order"},
    ),
    "lost_print": (lambda n: code(n)[LOSS].update(outputs=[]), {"lost_output"}),
    "error": (raise_error, {"warning_or_error"}),
    "png": (as_png, {"lost_output", "poor_figure"}),
    "no_title": (untitle, {"poor_figure"}),
    "another_title": (retitle, {"poor_figure"}),
    "no_caption": (
        lambda n: code(n)[FIGURE].metadata["mystnb"]["figure"].pop("caption"),
        {"poor_figure", EDITED},
    ),
    "semicolon": (
        lambda n: set_source(n, code(n)[LOSS].source + ";"),
        {"ends_in_semicolon", EDITED},
    ),
    "edited_code": (lambda n: set_source(n, "import bnlib\nprint(3)"), {EDITED}),
    "edited_prose": (lambda n: n.cells[0].update(source="# Another"), {EDITED}),
    "swapped_cells": (
        lambda n: n.cells.insert(1, n.cells.pop(0)),
        {EDITED},
    ),
    "new_cell": (
        lambda n: n.cells.append(nbformat.v4.new_markdown_cell("More.")),
        {EDITED},
    ),
    "another_id": (lambda n: n.cells[0].update(id="other"), {EDITED}),
    "metadata": (lambda n: n.metadata.update(widgets={}), {EDITED}),
    "no_description": (
        lambda n: n.metadata.pop("myst"),
        {"no_description", EDITED},
    ),
    "edited_boot_cell": (
        lambda n: code(n)[0].update(source="from bnlib.book.notebook import show"),
        {"wrong_boot_cell", EDITED},
    ),
    "visible_boot_cell": (
        lambda n: code(n)[0].metadata.pop("tags"),
        {"wrong_boot_cell", EDITED},
    ),
    "ignore_tag": (
        lambda n: code(n)[LOSS].metadata.update(tags=["nbval-ignore-output"]),
        {"excused_from_nbval", EDITED},
    ),
    "raises_tag": (
        lambda n: code(n)[LOSS].metadata.update(tags=["raises-exception"]),
        {"excused_from_nbval", EDITED},
    ),
    "skip_comment": (
        lambda n: set_source(n, "# NBVAL_SKIP\nimport bnlib\nprint(3)"),
        {"excused_from_nbval", EDITED},
    ),
    "no_bnlib": (lambda n: set_source(n, "print(3)"), {"foreign_import", EDITED}),
    "glue": (
        lambda n: set_source(n, "import bnlib\nfrom myst_nb import glue\nprint(3)"),
        {"foreign_import", EDITED},
    ),
    "path": (lambda n: set_output(n, "in /srv/me/x.npz"), {"trace_of_the_machine"}),
    "windows_path": (lambda n: set_output(n, r"C:\Users"), {"trace_of_the_machine"}),
    "address": (
        lambda n: set_output(n, "<f at 0x7f3a5c1d2e80>"),
        {"trace_of_the_machine"},
    ),
    "time": (lambda n: set_output(n, "at 12:30:01"), {"trace_of_the_machine"}),
    "date": (lambda n: set_output(n, "on 2026-03-01"), {"trace_of_the_machine"}),
    "process": (lambda n: set_output(n, "pid 4242"), {"trace_of_the_machine"}),
    "progress": (lambda n: set_output(n, "8/8 1s 12ms/step"), {"trace_of_the_machine"}),
    "silent_check": (
        lambda n: (set_source(n, "import bnlib\nassert True"), strip_output(n)),
        {"silent_check", EDITED},
    ),
    "loud_check": (
        lambda n: code(n)[LOSS].metadata.update(tags=["checked"]),
        {"silent_check", EDITED},
    ),
    "half_a_megabyte": (lambda n: set_output(n, "x" * 500_000), {"too_large"}),
}


@pytest.mark.parametrize("name", FILE)
def test_the_rules_see_a_planted_fault(good, name):
    fault, rules = FILE[name]
    assert faults_of(good, fault)[1] == rules


LESSON = """\
:::{exercise} KIND: warm-up
:label: ex-lesson-NAME

What is 1 + 1?
:::

:::{hint}
:class: dropdown
Count.
:::

:::{solution-start} ex-lesson-NAME
:class: dropdown
:::

One and one more are two, as you find when you count.

:::{solution-end}
:::
"""
EXERCISES = "\n".join(
    LESSON.replace("KIND", kind).replace("NAME", name)
    for kind, name in [("Write it", "a"), ("Derive it", "b"), ("Try it", "c")]
)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", None),
        (":label: ex-lesson-a", ":label: ex-other-a", "ex-other-a: no solution"),
        (LESSON.replace("KIND", "Try it").replace("NAME", "c"), "", "2 exercises"),
        ("Derive it:", "Try it:", "exercises of 2 kinds, not 3"),
        ("Write it: warm-up", "Write it", "'Write it' is not"),
        ("Write it: warm-up", "Read it: hard", "'Read it: hard' is not"),
        (":::{hint}", ":::{note}", "ex-lesson-a: not one hint that opens"),
        (":class: dropdown\nCount", "Count", "ex-lesson-a: not one hint that opens"),
        (
            "as you find when you count.",
            "",
            "ex-lesson-a: its solution is not explained",
        ),
    ],
)
def test_a_poor_exercise_is_found(tmp_path, old, new, fault):
    text = tmp_path / "part1" / "01_lesson.md"
    text.parent.mkdir()
    text.write_text(EXERCISES.replace(old, new, 1) if old else EXERCISES)
    faults = "\n".join(poor_exercise(None, text))
    assert fault in faults if fault else faults == ""


def test_every_rule_has_a_planted_fault():
    planted = [rules for *_, rules in [*NBVAL.values(), *FILE.values()]]
    elsewhere = {"poor_exercise"}  # just above
    assert set().union(*planted) | elsewhere == {rule.__name__ for rule in RULES}
