"""`make notebooks` runs what changed, gives the same bytes each time, and loses nothing."""

import subprocess
import sys

import nbformat
import pytest
from building import plant
from facts import ROOT

from tools import notebooks
from tools.notebooks import check_all, fingerprint, make_all, read_text

CHAPTER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
myst:
  html_meta:
    description: A chapter about twice.
---

# Twice

Some *text* with $x_1$.

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: 'One: two.'
tags: [hide-input]
---
for i in range(3):
    print(i, flush=True)
```

```{code-cell} ipython3
import os
os.write(2, b"what a C library has to say")
```

```{code-cell} ipython3
2 * 21
```

```{code-cell} ipython3
2 * 21
```
"""


@pytest.fixture
def project(tmp_path):
    """Make a project of one chapter and a library."""
    plant(
        tmp_path,
        {
            "text/part1/01_twice.md": CHAPTER,
            "bnlib/twice.py": "def twice(x):\n    return 2 * x\n",
            "requirements.lock": "numpy==2.4.6\n",
        },
    )
    return tmp_path


def paths(root):
    return root / "text/part1/01_twice.md", root / "book/part1/01_twice.ipynb"


def pretend(monkeypatch, answer="the content"):
    """Replace the slow step, running cells, and collect which texts would run."""
    ran = []

    def execute(notebook, folder):
        ran.append(notebook.cells[0].source)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(notebooks, "execute", execute)
    return ran


# With a kernel


def test_a_second_run_changes_no_byte(project):
    _, path = paths(project)
    assert make_all(project) == {"stored": 1}
    first = path.read_bytes()
    assert make_all(project, everything=True) == {"unchanged": 1}
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["01_twice.ipynb"]
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    _, loop, chatter, *same = notebook.cells
    assert loop.outputs == [
        {"name": "stdout", "output_type": "stream", "text": "0\n1\n2\n"}
    ]
    assert [output.output_type for output in chatter.outputs] == ["execute_result"]
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3, 4]
    assert [cell.outputs[0].data["text/plain"] for cell in same] == ["42", "42"]
    assert notebook.metadata == {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        "myst": {"html_meta": {"description": "A chapter about twice."}},
    }
    assert loop.metadata == {
        "tags": ["hide-input"],
        "mystnb": {"figure": {"caption": "One: two."}},
    }


def test_a_failing_cell_is_shown_and_the_old_notebook_stays(project):
    text, path = paths(project)
    path.parent.mkdir(parents=True)
    path.write_text("the old notebook")
    text.write_text("# Fails\n\n```{code-cell}\nrows = 3\nrows / 0  # here\n```\n")
    command = [sys.executable, ROOT / "tools/notebooks.py", "--root", project]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert path.read_text() == "the old notebook"
    for shown in (
        "01_twice.md",
        "rows = 3\nrows / 0  # here",
        "ZeroDivisionError",
        "failed",
    ):
        assert shown in run.stdout


# What is run


def test_what_did_not_change_is_not_run_again(project, monkeypatch):
    ran = pretend(monkeypatch)
    assert make_all(project) == {"stored": 1}
    assert make_all(project) == {"up to date": 1}
    assert len(ran) == 1
    assert make_all(project, everything=True) == {"unchanged": 1}
    assert len(ran) == 2


@pytest.mark.parametrize(
    "name",
    [
        "text/part1/01_twice.md",
        "book/part1/01_twice.ipynb",
        "bnlib/twice.py",
        "bnlib/new.py",
        "requirements.lock",
        "requirements-torch.lock",
    ],
)
def test_what_the_outputs_depend_on_makes_them_stale(project, monkeypatch, name):
    ran = pretend(monkeypatch)
    make_all(project)
    with (project / name).open("a") as file:
        file.write("\n")
    make_all(project)
    assert len(ran) == 2
    make_all(project)
    assert len(ran) == 2


def test_a_lost_record_or_notebook_means_running(project, monkeypatch):
    ran = pretend(monkeypatch)
    make_all(project)
    (project / "_build/notebooks.json").unlink()
    assert make_all(project) == {"unchanged": 1}
    paths(project)[1].unlink()
    assert make_all(project) == {"stored": 1}
    assert len(ran) == 3


def pretend_to_check(monkeypatch, code=0):
    """Replace nbval, and collect the commands that would run it."""
    ran = []

    def run(command, cwd):
        ran.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(notebooks.subprocess, "run", run)
    return ran


def test_what_passed_is_not_checked_again(project, monkeypatch):
    ran = pretend_to_check(monkeypatch)
    assert check_all(project, ["-n", "2"]) == check_all(project, []) == 0
    [command] = ran
    assert command[-3:] == ["-n", "2", "book/part1/01_twice.ipynb"]
    (project / "text/part1/02_thrice.md").write_text("# Thrice\n")
    assert check_all(project, []) == 0
    assert ran[1][-1] == "book/part1/02_thrice.ipynb"
    assert "book/part1/01_twice.ipynb" not in ran[1]


def test_what_failed_is_checked_again(project, monkeypatch):
    ran = pretend_to_check(monkeypatch, code=1)
    assert check_all(project, []) == check_all(project, []) == 1
    assert len(ran) == 2


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("bnlib/twice.py", True),
        ("book/part1/01_twice.ipynb", True),
        ("book/conftest.py", False),
        ("tools/tolerance.py", False),
        ("tests/nbval_sanitize.cfg", False),
    ],
)
def test_making_and_checking_go_stale_apart(project, monkeypatch, name, made):
    """How outputs are compared has no part in making them, and who makes has not compared."""
    made_now, checked_now = pretend(monkeypatch), pretend_to_check(monkeypatch)
    for _ in range(2):
        make_all(project)
        check_all(project, [])
    assert (len(made_now), len(checked_now)) == (1, 1)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    with (project / name).open("a") as file:
        file.write("\n")
    check_all(project, [])
    make_all(project)
    assert (len(made_now), len(checked_now)) == (1 + made, 2)


def test_the_rest_of_the_command_line_is_for_pytest(project, monkeypatch):
    ran = pretend_to_check(monkeypatch, code=3)
    command = ["notebooks.py", "--root", str(project), "--test", "-n", "2", "-x"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(notebooks, "ENVIRONMENT", {})
    assert notebooks.main() == 3
    assert ran[0][-4:-1] == ["-n", "2", "-x"]


def test_moving_a_byte_from_one_file_to_the_next_is_a_change(project):
    text, path = paths(project)
    before = fingerprint(project, text, path)
    lock, library = project / "requirements.lock", project / "bnlib/twice.py"
    content = library.read_text()
    lock.write_text(lock.read_text() + content[0])
    library.write_text(content[1:])
    assert fingerprint(project, text, path) != before


def test_one_failure_does_not_stop_the_others(project, monkeypatch):
    (project / "text/part1/00_before.md").write_text("# Before\n")
    (project / "text/part1/02_after.md").write_text("# After\n")

    def execute(notebook, folder):
        if notebook.cells[0].source == "# Before":
            raise notebooks.DeadKernelError("Kernel died")
        return "content"

    monkeypatch.setattr(notebooks, "execute", execute)
    assert make_all(project) == {"failed": 1, "stored": 2}
    assert make_all(project) == {"failed": 1, "up to date": 2}


def test_check_says_what_would_change_and_changes_nothing(project, monkeypatch):
    _, path = paths(project)
    pretend(monkeypatch)
    assert make_all(project, check=True) == {"would change": 1}
    assert not path.exists()
    make_all(project)
    assert make_all(project, check=True) == {"unchanged": 1}
    pretend(monkeypatch, "other content")
    assert make_all(project, check=True) == {"would change": 1}
    assert path.read_text() == "the content"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("stored", 0),
        ("unchanged", 0),
        ("up to date", 0),
        ("failed", 1),
        ("would change", 1),
    ],
)
def test_the_exit_code(monkeypatch, outcome, code):
    monkeypatch.setattr(
        notebooks, "make_all", lambda root, **_: notebooks.Counter([outcome])
    )
    monkeypatch.setattr(sys, "argv", ["notebooks.py"])
    monkeypatch.setattr(notebooks, "ENVIRONMENT", {})
    assert notebooks.main() == code


def test_nothing_to_do_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--root", str(tmp_path)])
    monkeypatch.setattr(notebooks, "ENVIRONMENT", {})
    assert notebooks.main() == 1


# Text and notebook


def test_identifiers_belong_to_the_cells(project):
    text, _ = paths(project)
    before = [cell.id for cell in read_text(text).cells]
    assert len(set(before)) == len(before) == 5
    text.write_text(
        CHAPTER.replace("Some *text*", "```{code-cell}\nnew = 1\n```\n\nSome *text*")
    )
    after = [cell.id for cell in read_text(text).cells]
    assert after[-4:] == before[-4:]


def test_jupyter_writes_the_text_as_it_was(project):
    """Saving the notebook in Jupyter changes in the text what was changed, and nothing else."""
    text, path = paths(project)
    (project / "jupytext.toml").write_bytes((ROOT / "jupytext.toml").read_bytes())
    notebook = read_text(text)
    notebook.metadata.language_info["version"] = "3.11.7"
    notebook.cells[0].source += " More."
    notebook.cells[1].metadata.update(scrolled=True, editable=True)
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    subprocess.run(
        [sys.executable, "-m", "jupytext", "--quiet", "--sync", path],
        check=True,
        timeout=60,
    )
    assert text.read_text() == CHAPTER.replace("$x_1$.", "$x_1$. More.")
