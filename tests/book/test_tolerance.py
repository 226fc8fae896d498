"""The comparison of stored and computed outputs: numbers nearly, everything else exactly."""

import doctest
import runpy
import string

import pytest
from facts import ROOT
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tools import tolerance
from tools.tolerance import difference

FORMATS = ["{!r}", "{:#.9g}", "{:.9e}", "{:+.7f}"]
SENTENCES = [
    "{}",
    "mean {} after 3 steps",
    "[1.5 {}]",
    "| x | {} |",
    "({}, nan)",
    "acc={}%",
    "-> {}.",
]

numbers = st.floats(0.01, 1e6).flatmap(lambda x: st.sampled_from([x, -x]))
formats, sentences = st.sampled_from(FORMATS), st.sampled_from(SENTENCES)


def svg(body):
    return f'<svg id="fig-1a2b3c4d" width="403.2pt"><title>A line.</title>{body}</svg>'


def test_examples_in_the_module_run():
    results = doctest.testmod(tolerance)
    assert (results.failed, results.attempted) == (0, 2)


@given(st.text())
@example("float32 1e-05 #1f77b4 2.21.0 3. .5 -3.2 nan inf 98% 1e400 ٣")
def test_an_output_agrees_with_itself(text):
    assert difference(text, text) is None
    assert difference(svg(text), svg(text)) is None


@given(numbers, st.floats(-5e-4, 5e-4), formats, sentences)
def test_noise_passes(x, noise, form, sentence):
    stored, computed = (
        sentence.format(form.format(value)) for value in (x, x * (1 + noise))
    )
    assert difference(stored, computed) is None


@given(numbers, st.floats(2e-3, 10), st.sampled_from([1, -1]), formats, sentences)
def test_an_error_of_two_per_mille_fails(x, error, sign, form, sentence):
    stored, computed = (
        sentence.format(form.format(v)) for v in (x, x * (1 + sign * error))
    )
    assert difference(stored, computed) is not None


@given(st.text(), st.text(string.ascii_letters, min_size=1), st.text(), st.data())
def test_a_changed_letter_fails(before, word, after, data):
    place = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters))
    assume(letter != word[place])
    changed = word[:place] + letter + word[place + 1 :]
    assume(letter not in "eE" and word[place] not in "eE")  # 1e5 and 1E5 are one number
    assert difference(before + word + after, before + changed + after) is not None


@given(st.integers(), st.integers())
@example(1_000_000, 1_000_001)
def test_whole_numbers_are_exact(one, other):
    assume(one != other)
    assert difference(f"shape ({one}, 3)", f"shape ({other}, 3)") is not None


@given(
    st.sampled_from(
        ["float{}", "x{}", "#{}", "v1.{}.0", "{}px", "dense_{}", "#1f{}b4", "1.5.{}"]
    )
)
@example("10{}x")
def test_digits_in_identifiers_are_text(name):
    assert difference(name.format(1000), name.format(1001)) is not None


@given(numbers, st.floats(-0.04, 0.04))
def test_a_hair_in_a_figure_passes(x, shift):
    stored, computed = (
        svg(f'<path d="M {value:.6f} 20 L 3 4"/>') for value in (x, x + shift)
    )
    assert difference(stored, computed) is None


@given(numbers, st.floats(0.06, 400), st.sampled_from([1, -1]))
def test_a_moved_point_in_a_figure_fails(x, shift, sign):
    stored, computed = (
        svg(f'<use x="{v:.6f}" y="20"/>') for v in (x, x + sign * shift)
    )
    assert "stored" in difference(stored, computed)


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("loss 3.169", "loss 3.1691"),
        ("loss 3.169", "loss 3.166"),
        ("1e-05", "1.0004e-05"),
        ("residual 3.1e-17", "residual -2.2e-16"),
        ("0.0", "-0.0"),
        ("−0.5004", "−0.5005"),
        ("residual −3.1e-17", "residual 2.2e-16"),
        ("[1. 2.5]", "[1.0001 2.5]"),
        ("[nan inf -inf]", "[nan inf -inf]"),
        ("98.76%", "98.77%"),
        (svg('<path d="M 72 20.5"/>'), svg('<path d="M 71.999999 20.52"/>')),
        (svg("<!-- 0.5004 -->"), svg("<!-- 0.5 -->")),
    ],
)
def test_agree(stored, computed):
    assert difference(stored, computed) is None


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("loss 3.169", "loss 3.269"),
        ("loss 3.169", "loss -3.169"),
        ("loss 3.169", "loss −3.169"),
        ("0", "1e-17"),
        ("0.0", "4e-07"),
        ("1e-05", "1.3e-05"),
        ("nan", "0.5"),
        ("0.5", "nan"),
        ("inf", "-inf"),
        ("1.5", "1.5 1.5"),
        ("1.5 1.5", "1.5"),
        ("1.5", ""),
        ("[1. 2.]", "[1 2]"),
        ("3", "3.0"),
        ("98%", "97%"),
        ("the mean grows", "the mean shrinks"),
        ("a  b", "a b"),
        ("2.21.0", "2.22.0"),
        ("float32", "float64"),
        ("2 of 3", "2 of 3 "),
        (svg("<title>5 lines</title>"), svg("<title>4 lines</title>")),
        (svg("<!-- 0.02 -->"), svg("<!-- 0.04 -->")),
        (svg("<!-- mean -->"), svg("<!-- mode -->")),
        (svg('<use href="#fig-1a2b3c4d-3"/>'), svg('<use href="#fig-1a2b3c4d-4"/>')),
        (svg('style="fill: #163c98"'), svg('style="fill: #163c99"')),
        (svg('<path d="M 1 2 L 3 4"/>'), svg('<path d="M 1 2 L 3 4 L 5 6"/>')),
        (svg(""), svg("").replace("403.2pt", "403.21pt")),
        (svg(""), "<b>A line.</b>"),
    ],
)
def test_disagree(stored, computed):
    assert "stored" in difference(stored, computed)


def test_the_first_difference_is_shown_in_its_place():
    stored = "The deviation of channel 3 is 0.512 here, and 7.1 there."
    assert difference(stored, stored.replace("0.512", "0.531").replace("7.1", "9")) == (
        "after 'The deviation of channel 3 is ': stored '0.512', computed '0.531'"
    )
    assert difference(stored, stored.replace("channel", "chancel")) == (
        "after 'The deviation of chan': stored 'nel ', computed 'cel '"
    )


def start_after(failures):
    """Make a start that fails so often, as nbval's does when a port is taken; count its calls."""
    calls = []

    def start(*args, **kwargs):
        calls.append((args, kwargs))
        if len(calls) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return "kernel"

    return start, calls


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (1, 2), (2, 3)])
def test_a_kernel_that_died_at_its_start_starts_anew(failures, tries):
    again = runpy.run_path(str(ROOT / "book/conftest.py"))["again"]
    start, calls = start_after(failures)
    assert again(start)("python", cwd="here") == "kernel"
    assert calls == [(("python",), {"cwd": "here"})] * tries


def test_a_kernel_that_dies_at_each_start_is_an_error():
    again = runpy.run_path(str(ROOT / "book/conftest.py"))["again"]
    start, calls = start_after(9)
    with pytest.raises(RuntimeError, match="Kernel died"):
        again(start)()
    assert len(calls) == 3
