"""The checks of the layer that readers build: the right one passes, a fault fails its check."""

import re

import numpy as np
import pytest

from bnlib import BatchNorm
from bnlib.book.exercises import build

RIGHT = """
class MyBatchNorm:
    def __init__(self, channels, *, momentum=0.99, epsilon=1e-3):
        self.momentum, self.epsilon = momentum, epsilon
        self.parameters = {"gamma": np.ones(channels), "beta": np.zeros(channels)}
        self.gradients = {}
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        self.axes, self.training = tuple(range(x.ndim - 1)), training
        if training:
            mean, variance = x.mean(self.axes), x.var(self.axes)
            self.moving_mean = self.blend(self.moving_mean, mean)
            self.moving_variance = self.blend(self.moving_variance, variance)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        self.s = np.sqrt(variance + self.epsilon)
        self.x_hat = (x - mean) / self.s
        return self.parameters["gamma"] * self.x_hat + self.parameters["beta"]

    def blend(self, old, new):
        return self.momentum * old + (1 - self.momentum) * new

    def backward(self, grad_y):
        self.gradients["beta"] = grad_y.sum(self.axes)
        self.gradients["gamma"] = (grad_y * self.x_hat).sum(self.axes)
        grad_x = grad_y
        if self.training:
            grad_x = (
                grad_y
                - grad_y.mean(self.axes)
                - self.x_hat * (grad_y * self.x_hat).mean(self.axes)
            )
        return self.parameters["gamma"] / self.s * grad_x

    def fold(self, kernel, bias):
        scale = self.parameters["gamma"] / np.sqrt(self.moving_variance + self.epsilon)
        bias = (bias - self.moving_mean) * scale + self.parameters["beta"]
        return kernel * scale, bias
"""
STAGES = {3: build.forward, 4: build.backward, 5: build.axes}
STAGES |= {6: build.population, 7: build.modes, 8: build.folded}


def made(code):
    """Run a class's code and return the class."""
    names = {"np": np}
    exec(code, names)
    return names["MyBatchNorm"]


@pytest.fixture(autouse=True)
def show_every_failure(monkeypatch):
    monkeypatch.setattr(build, "SHOWN", len(build.CHECKS))


def failing(check, maker, capsys):
    """Return what a checker says of each check that fails, by its name."""
    check(maker)
    printed = capsys.readouterr().out
    failed = re.findall(r"^  FAILS   \(\d\) (.*)\n {10}(.*)$", printed, re.MULTILINE)
    assert printed.startswith("Not yet." if failed else "Correct. All "), printed
    return dict(failed)


@pytest.mark.parametrize("chapter", STAGES)
@pytest.mark.parametrize("maker", [made(RIGHT), BatchNorm], ids=["mine", "library"])
def test_a_right_layer_passes(chapter, maker, capsys):
    assert failing(STAGES[chapter], maker, capsys) == {}


def test_each_chapter_asks_for_more(capsys):
    counts = []
    for check in STAGES.values():
        check(BatchNorm)
        printed = capsys.readouterr().out
        counts.append(int(re.search(r"All (\d+) checks", printed)[1]))
        own = re.findall(r"^  passes  \(\d\)", printed, re.MULTILINE)
        before = re.search(r"^  passes  (\d+) of", printed, re.MULTILINE)
        assert len(own) + int(before[1] if before else 0) == counts[-1]
    assert counts == [5, 9, 15, 18, 23, 25]


def test_before_chapter_7_there_is_one_mode(capsys):
    code = RIGHT.replace("*, training):", "):\n        training = True\n", 1)
    code = code.replace("def __call__(self, x, ):", "def __call__(self, x):")
    assert failing(build.population, made(code), capsys) == {}
    assert "in inference it uses what it remembers" in failing(
        build.modes, made(code), capsys
    )


def test_what_is_not_written_yet_is_named(capsys):
    build.forward(...)
    assert capsys.readouterr().out == "Not yet. Put your class where the ... stands.\n"
    code = RIGHT[: RIGHT.index("    def backward")]
    said = failing(build.backward, made(code), capsys)
    assert set(said.values()) == {
        "The layer has no method `backward` yet.",
        "Your code raised AttributeError: 'MyBatchNorm' object has no attribute 'backward'",
    }


def test_one_fault_behind_many_failures_is_told_briefly(capsys, monkeypatch):
    monkeypatch.setattr(build, "SHOWN", 3)
    trained = "self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)\n"
    code = RIGHT.replace(
        trained,
        f'{trained}        self.parameters["moving_mean"] = self.moving_mean\n',
    )
    build.population(made(code))
    printed = capsys.readouterr().out
    assert printed.startswith("Not yet. 0 of 18 checks pass.\n")
    assert printed.count("`parameters` also holds moving_mean: an optimiser would") == 3
    assert printed.endswith("  FAILS   15 more\n")


def test_parameters_of_other_names_are_asked_for(capsys):
    code = RIGHT.replace('"gamma": np.ones', '"scale": np.ones')
    said = failing(build.forward, made(code), capsys)
    assert "a dict with `gamma` and `beta`" in said["epsilon is added inside the root"]


# the fault: (what becomes of the text, the checks that fail, what one of them says)
IMAGES = [f"{kind}, backward" for kind in build.SHAPES]
FORWARD = [f"{kind}, shape {shape}, forward" for kind, shape in build.SHAPES.items()]
TRAINS = "it trains a convolutional network as the library's does"
SEES_CONSTANTS = "in inference, backward sees two constants"
GRAD_X = "the gradient of x has all its paths"
LAST = "backward belongs to the last call, and adds nothing up"
SCALES = "gamma scales, then beta shifts"
EPSILON = "epsilon is added inside the root"
MOVING = "            mean, variance = self.moving_mean, self.moving_variance"
FAULTS = {
    "Bessel's variance": (
        ("x.var(self.axes)", "x.var(self.axes, ddof=1)"),
        "each channel gets mean 0 and deviation 1",
        "not by m - 1",
    ),
    "epsilon outside": (
        ("np.sqrt(variance + self.epsilon)", "np.sqrt(variance) + self.epsilon"),
        EPSILON,
        "Add it to the variance",
    ),
    "no epsilon": (
        ("np.sqrt(variance + self.epsilon)", "np.sqrt(variance)"),
        "a constant channel becomes beta",
        "epsilon keeps the root above 0",
    ),
    "beta inside": (
        (
            'self.parameters["gamma"] * self.x_hat + self.parameters["beta"]',
            'self.parameters["gamma"] * (self.x_hat + self.parameters["beta"])',
        ),
        SCALES,
        "Beta is added last",
    ),
    "the input changed": (
        ("(x - mean) / self.s\n", "(x - mean) / self.s\n        x -= mean\n"),
        "the input is left as it was",
        "changed x itself",
    ),
    "swapped gradients": (
        (
            'self.gradients["beta"] = grad_y.sum(self.axes)\n'
            '        self.gradients["gamma"] =',
            'self.gradients["gamma"] = grad_y.sum(self.axes)\n'
            '        self.gradients["beta"] =',
        ),
        "the gradient of beta adds up grad_y",
        "swapped",
    ),
    "mean for sum": (
        (
            "(grad_y * self.x_hat).sum(self.axes)\n        grad_x",
            "(grad_y * self.x_hat).mean(self.axes)\n        grad_x",
        ),
        "the gradient of gamma adds up grad_y * x_hat",
        "Sum grad_y * x_hat",
    ),
    "no path through the mean": (
        ("- grad_y.mean(self.axes)\n", "\n"),
        GRAD_X,
        "path through the mean is missing",
    ),
    "no path through the variance": (
        ("- self.x_hat * (grad_y * self.x_hat).mean(self.axes)", ""),
        GRAD_X,
        "path through the variance is missing",
    ),
    "detached": (
        ("if self.training:\n            grad_x", "if False:\n            grad_x"),
        GRAD_X,
        "direct path alone",
    ),
    "added up": (
        (
            'self.gradients["gamma"] = (',
            'self.gradients["gamma"] = self.gradients.get("gamma", 0) + (',
        ),
        LAST,
        "do not add",
    ),
    "over the examples only": (
        ("tuple(range(x.ndim - 1))", "0"),
        FORWARD[0],
        "average over space too",
    ),
    "momentum turned round": (
        (
            "self.momentum * old + (1 - self.momentum) * new",
            "(1 - self.momentum) * old + self.momentum * new",
        ),
        "one batch moves them by 1 - momentum of the way",
        "momentum weighs the old value",
    ),
    "Bessel in memory": (
        (
            "self.blend(self.moving_variance, variance)",
            "self.blend(self.moving_variance, x.var(self.axes, ddof=1))",
        ),
        "one batch moves them by 1 - momentum of the way",
        "divides by m, as Keras does",
    ),
    "a start at 0": (
        (
            "np.zeros(channels), np.ones(channels)\n\n",
            "np.zeros(channels), np.zeros(channels)\n\n",
        ),
        "the moving statistics start at 0 and 1",
        "starts at 1",
    ),
    "always the batch": (
        (
            MOVING,
            "            mean, variance = x.mean(self.axes), x.var(self.axes)",
        ),
        "in inference it uses what it remembers",
        "the batch's own",
    ),
    "an update in inference": (
        (
            MOVING,
            f"{MOVING}\n            self.moving_mean = self.blend(mean, x.mean(self.axes))",
        ),
        "inference changes nothing that it remembers",
        "belongs to training",
    ),
    "one gradient for both modes": (
        ("if self.training:\n            grad_x", "if True:\n            grad_x"),
        SEES_CONSTANTS,
        "gradient of training",
    ),
    "no gamma in inference": (
        (
            'return self.parameters["gamma"] / self.s',
            'return (self.parameters["gamma"] if self.training else 1) / self.s',
        ),
        SEES_CONSTANTS,
        "Which paths from x to y are left",
    ),
    "a fold for two axes only": (
        ("return kernel * scale, bias", "return (kernel.T * scale[:, None]).T, bias"),
        "folded into a convolution",
        "",
    ),
    "the root of the last batch": (
        (
            "np.sqrt(self.moving_variance + self.epsilon)\n        bias",
            "self.s\n        bias",
        ),
        "folded into a dense layer",
        "root of the last batch",
    ),
    "an epsilon of one's own in the fold": (
        (
            "np.sqrt(self.moving_variance + self.epsilon)\n        bias",
            "np.sqrt(self.moving_variance + 1e-3)\n        bias",
        ),
        "folded into a dense layer",
        "the layer's own",
    ),
    "the old bias unscaled": (
        ("(bias - self.moving_mean) * scale", "bias - self.moving_mean * scale"),
        "folded into a dense layer",
        "scale it",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_the_check_that_is_about_it(name, capsys):
    (old, new), check, words = FAULTS[name]
    assert RIGHT.count(old) == 1, f"nothing to plant in: {old!r}"
    said = failing(build.folded, made(RIGHT.replace(old, new)), capsys)
    assert words in said[check]


def test_a_wrong_formula_does_not_look_like_an_old_batch(capsys):
    for name in (
        "detached",
        "no path through the mean",
        "no path through the variance",
    ):
        (was, now), *_ = FAULTS[name]
        assert set(failing(build.backward, made(RIGHT.replace(was, now)), capsys)) == {
            GRAD_X
        }
    kept = "self.s = np.sqrt(variance + self.epsilon)"
    old = f'{kept}\n        self.s = vars(self).setdefault("first", self.s)'
    said = failing(build.backward, made(RIGHT.replace(kept, old)), capsys)
    assert "each call must keep anew" in said[LAST]


def test_every_check_fails_for_some_fault(capsys):
    found = set()
    for (old, new), *_ in FAULTS.values():
        found |= set(failing(build.folded, made(RIGHT.replace(old, new)), capsys))
    assert found == {says for _, says, _ in build.CHECKS}
