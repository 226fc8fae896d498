"""Every question of the sources has a section that answers it by running code.

The list is book/rows.toml. A row names sections of the book; each must be in the stored notebook,
and hold a cell that was run and shows something.
"""

import json
import re
from collections import Counter

import pytest
from facts import ROOT

from tools.rows import anchor, read_groups, read_sections, write_tables

# How many rows each letter has: what the sources ask, and what was found in them later (X).
COUNTS = {"T": 20, "L": 18, "H": 17, "V": 6, "E": 15, "Q": 10, "N": 8, "X": 14}
IDS = [f"{letter}{k}" for letter, count in COUNTS.items() for k in range(1, count + 1)]


def row_faults(root, ids):
    """Compare the list with the ids that it must have and with the notebooks."""
    rows = [row for _, rows in read_groups(root) for row in rows]
    found = Counter(row.id for row in rows)
    faults = [f"{name}: no row" for name in ids if name not in found]
    faults += [f"{name}: not a row of the sources" for name in found if name not in ids]
    faults += [f"{name}: twice" for name, count in found.items() if count > 1]
    sections = {}
    for row in rows:
        if not row.at:
            faults.append(f"{row.id}: no section")
        for place in row.at:
            page, _, name = place.partition("#")
            notebook = root / f"book/{page}.ipynb"
            if not notebook.is_file():
                faults.append(f"{row.id}: no page {page}")
                continue
            if page not in sections:
                sections[page] = read_sections(notebook)
            section = sections[page].get(name)
            if section is None:
                faults.append(f"{row.id}: no section #{name} in {page}")
            elif section.level == 1:
                faults.append(f"{row.id}: {place} is the whole page")
            elif not section.runs:
                faults.append(f"{row.id}: nothing is run in {place}")
    return faults


def test_every_question_is_answered_by_running_code():
    assert len(IDS) == 94 + 14
    assert row_faults(ROOT, IDS) == []


# The faults that must be found

CELLS = [
    ("markdown", "# Moments\n\nText.\n\n## Weights & other `things`\n\nA weight."),
    ("code", "print(1)"),
    ("markdown", "### A part\n\n```\n## no heading\n```\n\n## Words\n\nNothing runs."),
    ("markdown", "## Words"),
    ("code", "assert True"),
]
ROWS = """
[[group]]
title = "One"
rows = [
  { id = "A1", asks = "Why?", at = ["part1/02_moments#weights--other-things"] },
  { id = "A2", asks = "How?", at = ["part1/02_moments#weights--other-things"] },
]
"""


@pytest.fixture
def book(tmp_path):
    """Make a book of one notebook, with two rows."""
    cells = [
        {
            "cell_type": kind,
            "source": source.splitlines(keepends=True),
            "execution_count": 1,
            "outputs": [{"output_type": "stream"}] if "print" in source else [],
        }
        for kind, source in CELLS
    ]
    folder = tmp_path / "book/part1"
    folder.mkdir(parents=True)
    (folder / "02_moments.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "book/rows.toml").write_text(ROWS)
    return tmp_path


def test_a_sound_list_has_no_fault(book):
    assert row_faults(book, ["A1", "A2"]) == []
    sections = read_sections(book / "book/part1/02_moments.ipynb")
    assert list(sections) == [
        "moments",
        "weights--other-things",
        "a-part",
        "words",
        "words-1",
    ]
    assert [section.runs for section in sections.values()] == [
        True,
        True,
        False,
        False,
        False,
    ]
    written = write_tables(book, {"part1/02_moments": ("2", "Moments")})
    link = "(part1/02_moments.ipynb#weights--other-things)"
    assert f"| Why? | 2 | [Weights & other `things`]{link} |" in written


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("#weights--other-things", "#weight", "A1: no section #weight in"),
        ("#weights--other-things", "", "A1: no section # in part1/02_moments"),
        ("#weights--other-things", "#moments", "A1: .* is the whole page"),
        ("#weights--other-things", "#words", "A1: nothing is run in"),  # no cell at all
        ("#weights--other-things", "#words-1", "A1: nothing is run in"),  # only asserts
        (
            "#weights--other-things",
            "#a-part",
            "A1: nothing is run in",
        ),  # after the cell
        ("part1/02_moments", "part1/03_moments", "A1: no page part1/03_moments"),
        ('"A1"', '"A2"', "A1: no row"),
        ('"A1"', '"A2"', "A2: twice"),
        ('"A1"', '"A9"', "A9: not a row of the sources"),
        ('["part1/02_moments#weights--other-things"]', "[]", "A1: no section"),
    ],
)
def test_a_planted_fault_is_found(book, old, new, fault):
    assert old in ROWS
    (book / "book/rows.toml").write_text(ROWS.replace(old, new, 1))
    assert re.search(fault, "\n".join(row_faults(book, ["A1", "A2"])))


def test_a_section_that_was_never_run_is_found(book):
    notebook = book / "book/part1/02_moments.ipynb"
    notebook.write_text(
        notebook.read_text().replace('"execution_count": 1', '"execution_count": null')
    )
    assert len(row_faults(book, ["A1", "A2"])) == 2


def test_anchors_are_those_of_the_site():
    assert anchor("`reuse`: the same layer twice") == "reuse-the-same-layer-twice"
    assert anchor("98 %, 50 %. Why?") == "98--50--why"
