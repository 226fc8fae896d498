"""The explorables: their numbers are bnlib's, and everybody can operate them.

The widgets run in Chromium on a small page of their own. Their sources are in explorables/; what a
reader loads is book/_static/explorables.js, which `make explorables` builds.
"""

import contextlib
import gzip
import hashlib
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from browsing import DESK, PHONE, look, open_context, page_faults
from building import build
from facts import ROOT

import bnlib
from bnlib.book import style
from tools.server import serve

SOURCES, STATIC = ROOT / "explorables", ROOT / "book/_static"
NAMES = sorted(path.stem for path in (SOURCES / "widgets").glob("*.js"))
TEXTS = {name: (STATIC / f"explorables/{name}.svg").read_text() for name in NAMES}
BUDGET = 24_000  # bytes, compressed: the script and its style sheet


@pytest.fixture(scope="module")
def browser(chromium):
    with open_context(chromium) as browser:
        browser.grant_permissions(["clipboard-read", "clipboard-write"])
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a page that holds every widget, as the book writes them."""
    folder = tmp_path_factory.mktemp("explorables")
    shutil.copytree(STATIC, folder / "_static")
    widgets = "".join(
        f'<bn-{name} id="explorable-{name}"><img class="still" width="560" '
        f'src="_static/explorables/{name}.svg" alt="{title(name)}"></bn-{name}>\n'
        for name in NAMES
    )
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Explorables</title>'
        '<link rel="icon" href="_static/favicon.svg">'
        '<link rel="stylesheet" href="_static/explorables.css">'
        "<style>body {margin: 16px} img {max-width: 100%; height: auto}</style>"
        '<script defer src="_static/explorables.js"></script>'
        f"<main><h1>Explorables</h1>{widgets}</main>"
    )
    return folder


@pytest.fixture(scope="module")
def base(folder):
    with serve(folder) as url:
        yield url


@pytest.fixture(scope="module")
def tabs(browser):
    """Keep the tabs of one test for the next: opening them takes longest."""
    errors, tabs = [], []

    def open_tab():
        tabs.append(browser.new_page())
        tabs[-1].on("pageerror", lambda error: errors.append(str(error)))

    return open_tab, tabs, errors


@pytest.fixture
def visit(tabs, base):
    """Open the page, anew at each call; an error in its script fails the test."""
    open_tab, pages, errors = tabs
    errors.clear()
    used = []

    def visit(query="", url=base):
        if len(used) == len(pages):
            open_tab()
        used.append(pages[len(used)])
        used[-1].goto("about:blank")
        used[-1].goto(url + query)
        return used[-1]

    yield visit
    for page in used:
        page.emulate_media(media="screen", reduced_motion="no-preference")
        page.set_viewport_size(DESK)
    assert errors == []


def title(name):
    return re.search("<title>(.*?)</title>", TEXTS[name], re.DOTALL)[1]


def numbers(page, name):
    """Return the numbers of a widget, unrounded: lists as arrays."""
    found = page.eval_on_selector(f"bn-{name}", "widget => widget.numbers")
    return {k: np.array(v) if isinstance(v, list) else v for k, v in found.items()}


def state(page, name):
    return page.eval_on_selector(f"bn-{name}", "widget => ({...widget.state})")


def says(page, name):
    return page.locator(f"bn-{name} .bn-says").inner_text()


def button(page, name, label):
    return page.locator(f"bn-{name}").get_by_role("button", name=label, exact=True)


def drag(page, locator, right, down):
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()


def saved(page, name):
    """Wait until the state has reached the address."""
    page.wait_for_function(f"!document.querySelector('bn-{name}').soon")
    assert f"{name}." in page.url
    return page.url


# The numbers are bnlib's: one operation to 1e-12, a trajectory to 1e-9

CORE = """async ([x, gradY, gamma, beta, mean, variance]) => {
  const core = await import("/core.js");
  return {
    moments: core.moments(x),
    training: core.batchNorm(x, gamma, beta).y,
    inference: core.batchNormInference(x, {mean, variance}, gamma, beta),
    backward: core.batchNormBackward(gradY, x),
    blend: core.blend({mean: 0.3, variance: 2}, {mean, variance}, 0.9),
  };
}"""


@pytest.fixture(scope="module")
def source_url():
    with serve(SOURCES) as url:
        yield url


@pytest.fixture(scope="module")
def sources(browser, source_url):
    """Open a page among the sources, which Chromium can import one by one."""
    page = browser.new_page()
    page.goto(source_url + "package.json")
    yield page
    page.close()


def core_faults(page, size):
    """List where the core differs from bnlib on random numbers."""
    rng = np.random.default_rng(size)
    x, grad_y = rng.normal(3, 2, size), rng.normal(size=size)
    gamma, beta, mean, variance = 1.7, -0.6, 2.5, 3.25
    arguments = [x.tolist(), grad_y.tolist(), gamma, beta, mean, variance]
    ours = page.evaluate(CORE, arguments)

    column, grad = x[:, np.newaxis], grad_y[:, np.newaxis]
    y, m, v = bnlib.batch_norm(column, [gamma], [beta])
    grad_x, grad_gamma, grad_beta = bnlib.batch_norm_backward(grad, column)
    direct, *_ = bnlib.batch_norm_inference_backward(grad, column, m, v)
    population = bnlib.Exponential(1, momentum=0.9)
    population.restore({**population.state(), "mean": [0.3], "variance": [2.0]})
    population.update(bnlib.Moments([mean], [variance], size))
    given = [mean], [variance], [gamma], [beta]
    theirs = {
        "moments": {"mean": m, "variance": v, "count": size},
        "training": y,
        "inference": bnlib.batch_norm_inference(column, *given),
        "backward": {
            "gradX": grad_x,
            "gradGamma": grad_gamma,
            "gradBeta": grad_beta,
            "direct": direct,
        },
        "blend": {"mean": population.mean, "variance": population.variance},
    }
    pairs = []
    for name, expected in theirs.items():
        if isinstance(expected, dict):
            pairs += [(f"{name}.{k}", ours[name][k], v) for k, v in expected.items()]
        else:
            pairs.append((name, ours[name], expected))
    return [
        name
        for name, one, other in pairs
        if not np.allclose(np.ravel(one), np.ravel(other), rtol=1e-12, atol=1e-12)
    ]


@pytest.mark.parametrize("size", [2, 3, 7, 144])
def test_the_core_computes_what_bnlib_does(sources, size):
    assert core_faults(sources, size) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "sum(values) / values.length",
            "sum(values) / (values.length - 1)",
            "moments.mean",
        ),
        ("rate = 1 - momentum", "rate = momentum", "blend.mean"),
        ("+ xHat[i] * gradGamma", "", "backward.gradX"),
        ("1e-3", "1e-5", "inference"),
        ("rough + residue", "rough", ""),
    ],
)
def test_a_fault_in_the_core_is_found(browser, source_url, old, new, found):
    text = (SOURCES / "core.js").read_text()
    assert old in text
    page = browser.new_page()
    page.route(
        "**/core.js",
        lambda route: route.fulfill(
            body=text.replace(old, new), content_type="text/javascript"
        ),
    )
    page.goto(source_url + "package.json")
    faults = core_faults(page, 7)
    assert (
        (found in faults) if found else faults == []
    )  # the second pass is for rounding
    page.close()


TRAINED = """async (state) => {
  await import("/widgets/network.js");
  const {fields, numbers, python} = (await import("/explorable.js")).WIDGETS.network;
  const start = Object.entries(fields).map(([key, field]) => [key, field.start]);
  const full = {...Object.fromEntries(start), ...state};
  return [numbers(full), python(full)];
}"""


def training_faults(page, **state):
    """List where 20 steps of the page's networks differ from those of bnlib's."""
    ours, code = page.evaluate(TRAINED, {"steps": 20, "scale": 1.4} | state)
    theirs, printed = run_python(code)
    ends = [value for net in ("plain", "normed") for value in ends_of(ours, net)]
    pairs = [(name, ours[name], theirs[name]) for name in ("plain", "normed")]
    return [
        name
        for name, one, other in [*pairs, ("ends", ends, printed)]
        if not np.allclose(one, other, rtol=1e-9, atol=1e-9)
    ]


def ends_of(numbers, net):
    return numbers["loss"][net], numbers["right"][net]


@pytest.mark.parametrize("activation", ["ReLU", "tanh"])
@pytest.mark.parametrize("batch", [2, 16, 128])
def test_the_networks_train_as_those_of_bnlib(sources, activation, batch):
    assert training_faults(sources, activation=activation, batch=batch, depth=3) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("+ xHat[i] * gradGamma[c]", "", ["normed", "ends"]),
        ("squares / count", "squares / (count - 1)", ["normed", "ends"]),
        ("y > 0 ? 1 : 0", "1", ["plain", "normed", "ends"]),
        ("if (hasBias)", "if (false)", ["plain", "normed", "ends"]),
        ("descend(gamma", "descend(beta", ["normed", "ends"]),
        ("- residue", "", []),  # the second pass is for rounding
    ],
)
def test_a_fault_in_the_networks_is_found(browser, source_url, old, new, found):
    text = (SOURCES / "network.js").read_text()
    assert old in text
    page = browser.new_page()
    page.route(
        re.compile(r"[0-9]/network\.js"),
        lambda route: route.fulfill(
            body=text.replace(old, new), content_type="text/javascript"
        ),
    )
    page.goto(source_url + "package.json")
    assert training_faults(page) == found
    page.close()


class Case(NamedTuple):
    """A widget: where it stands, and how its numbers and its program are compared."""

    chapter: str
    named: dict  # its numbers: what its program calls them
    printed: Callable  # its numbers -> what the program prints
    states: tuple = ("",)  # addresses to try
    tolerance: float = 1e-12


CASES = {
    "network": Case(
        "part1/01_network",
        {"plain": "plain", "normed": "normed"},
        lambda n: [*ends_of(n, "plain"), *ends_of(n, "normed")],
        (
            "",
            "network.steps=300",
            "network.steps=300&network.scale=1.4&network.seed=2",
            "network.steps=100&network.scale=1.4&network.batch=4&network.depth=3",
            "network.steps=300&network.scale=3&network.activation=tanh",
            "network.steps=1&network.depth=8&network.scale=0.1&network.seed=999",
        ),
        tolerance=1e-9,  # a trajectory
    ),
    "transform": Case(
        "part1/03_transform",
        {name: name for name in ("training", "inference", "mean", "variance")},
        lambda n: [n["training"][0], n["inference"][0]],
        (
            "",
            "transform.x=-4,6,0.1,0.2,-3.3,5.9&transform.gamma=1.7&transform.beta=-2",
            "transform.x=1,1,1,1,1,1.1&transform.gamma=0",
        ),
    ),
    "gradient": Case(
        "part1/04_gradient",
        {"gradX": "grad_x", "direct": "direct"},
        lambda n: [*n["gradX"], n["sum"], n["directSum"]],
        (
            "",
            "gradient.x=-3,3,0.1,0.2,-0.1,2.9&gradient.seed=7",
            "gradient.x=1,1,1,1,1,1.1&gradient.seed=999",
        ),
    ),
    "axes": Case(
        "part1/05_axes",
        {"x": "x", "y": "y"},
        lambda n: [n["mean"], n["variance"], n["means"]],
        (
            "",
            "axes.norm=batch&axes.batch=1&axes.c=0&axes.seed=2",
            "axes.norm=layer&axes.batch=3&axes.n=3&axes.c=1&axes.seed=3",
            "axes.norm=instance&axes.batch=2&axes.c=3&axes.seed=4",
            "axes.norm=group&axes.groups=1&axes.n=3&axes.c=3&axes.seed=5",
            "axes.norm=group&axes.groups=2&axes.n=0&axes.batch=3&axes.seed=6",
            "axes.norm=group&axes.groups=4&axes.batch=2&axes.c=1&axes.seed=999",
        ),
    ),
    "population": Case(
        "part1/06_population",
        {"fit": "fit", "predict": "predict"},
        lambda n: [*n["moving"].values(), *n["predict"]],
        (
            "",
            "population.momentum=0&population.steps=1",
            "population.momentum=0.999&population.steps=300&population.seed=12",
            "population.momentum=0.95&population.steps=300&population.fresh=90&population.seed=999",
            "population.momentum=0.9&population.steps=0&population.fresh=0",
            "population.momentum=0.9&population.steps=20&population.fresh=40",
        ),
        tolerance=1e-9,  # a trajectory
    ),
}


def run_python(code):
    """Run a copied program; return its names and the numbers that it prints."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed), np.printoptions(precision=17):
        exec(compile(code, "copied", "exec"), names)
    return names, [
        float(n) for n in re.findall(r"-?\d[\d.]*(?:e-?\d+)?", printed.getvalue())
    ]


@pytest.mark.parametrize(
    ("name", "query"), [(name, q) for name in CASES for q in CASES[name].states]
)
def test_the_copied_program_gives_the_numbers_shown(visit, name, query):
    case, page = CASES[name], visit("?" + query)
    button(page, name, "Copy as Python").click()
    page.wait_for_selector(f"bn-{name} .bn-code:not([hidden])")
    code = page.evaluate("navigator.clipboard.readText()")
    assert code == page.locator(f"bn-{name} pre").inner_text()
    assert "from bnlib import" in code

    theirs, printed = run_python(code)
    ours, close = numbers(page, name), case.tolerance
    for mine, its in case.named.items():
        one, other = np.ravel(ours[mine]), np.ravel(theirs[its])
        np.testing.assert_allclose(one, other, rtol=close, atol=close)
    np.testing.assert_allclose(printed, case.printed(ours), rtol=1e-7, atol=1e-7)


def test_every_widget_has_its_case():
    assert list(CASES.keys() ^ set(NAMES)) == []


def shown(value, digits=2):
    return f"{value:.{digits}f}".replace("-", "\u2212")


def test_the_sentence_says_the_numbers(visit):
    page = visit()
    (transform, gradient, axes, population, network) = (
        (numbers(page, name), says(page, name))
        for name in ("transform", "gradient", "axes", "population", "network")
    )
    assert f"{shown(network[0]['spread']['normed'])} with it" in network[1]
    for value in (transform[0]["training"][0], transform[0]["inference"][0]):
        assert shown(value) in transform[1]
    assert f"add up to {shown(gradient[0]['directSum'])}" in gradient[1]
    assert "add up to 0.000" in gradient[1]
    assert f"the mean {shown(axes[0]['mean'])} and the variance" in axes[1]
    assert f"{100 * 0.99**60:.0f} % of the start is left" in population[1]
    assert f"{sum(population[0]['predict'] > 0)} of 16 in predict" in population[1]


# What each widget teaches happens


def test_neighbours_move_the_output_in_training_only(visit):
    page = visit()
    before = numbers(page, "transform")
    for act in (
        lambda grip: drag(page, grip, -120, 0),
        lambda grip: grip.press("PageDown"),
    ):
        act(page.get_by_label("neighbour 4, x"))
        after = numbers(page, "transform")
        assert abs(after["training"][0] - before["training"][0]) > 0.02
        assert after["inference"][0] == before["inference"][0]
        before = after
    assert "the second by 0.00" in says(page, "transform")


def test_one_x_moves_every_gradient_and_their_sum_stays_0(visit):
    page = visit()
    for act in (
        lambda grip: drag(page, grip, 0, -50),
        lambda grip: grip.press("ArrowDown"),
    ):
        before = numbers(page, "gradient")
        act(page.get_by_label("x 2", exact=True))
        after = numbers(page, "gradient")
        assert np.abs(after["gradX"] - before["gradX"]).min() > 1e-6
        assert abs(after["sum"]) < 1e-12 < abs(after["directSum"])
    assert says(page, "gradient").startswith("All six grad_x have changed.")


@pytest.mark.parametrize(
    ("query", "size", "means"),
    [
        ("axes.norm=batch", 4, 4),
        ("axes.norm=layer", 4, 4),
        ("axes.norm=instance", 1, 16),
        ("axes.norm=group", 2, 8),
        ("axes.norm=group&axes.groups=1", 4, 4),
        ("axes.norm=batch&axes.batch=1", 1, 4),
    ],
)
def test_the_maps_that_share_a_mean_are_coloured(visit, query, size, means):
    page = visit("?" + query)
    found = numbers(page, "axes")
    assert page.locator("bn-axes .pick[aria-label$='in the set']").count() == size
    assert (found["count"], found["means"]) == (9 * size, means)


def test_the_clock_runs_and_recalibration_puts_predict_right(visit):
    page = visit()
    stale = numbers(page, "population")
    assert stale["left"] == pytest.approx(0.99**60)
    assert stale["predict"].min() > 0 > stale["fit"].min()
    button(page, "population", "Step").click()
    assert state(page, "population")["steps"] == 61
    button(page, "population", "Recalibrate").click()
    right = numbers(page, "population")
    assert right["moving"] == right["exact"]
    assert abs(right["predict"].mean()) < 0.2
    assert "recalibrated at step 61" in says(page, "population")
    button(page, "population", "Play").click()
    busy = page.locator("bn-population .bn-says[aria-busy=true]")
    busy.wait_for()
    page.wait_for_function("document.querySelector('bn-population').state.steps > 65")
    button(page, "population", "Pause").click()
    assert busy.count() == 0
    button(page, "population", "Reset").click()
    assert numbers(page, "population")["left"] == stale["left"]


def test_the_networks_train_on_a_click_and_not_before(visit):
    page = visit()
    page.wait_for_timeout(300)
    assert state(page, "network")["steps"] == 0
    assert says(page, "network").startswith("Nothing is trained yet.")
    assert len(numbers(page, "network")["plain"]) == 0
    button(page, "network", "Play").click()
    page.locator("bn-network .bn-says[aria-busy=true]").wait_for()
    page.wait_for_function("document.querySelector('bn-network').state.steps > 8")
    button(page, "network", "Pause").click()
    steps = state(page, "network")["steps"]
    page.wait_for_timeout(150)
    assert state(page, "network")["steps"] == steps
    assert page.locator("bn-network .bn-says[aria-busy=true]").count() == 0
    button(page, "network", "Step").click()
    button(page, "network", "100 steps").click()
    assert state(page, "network")["steps"] == steps + 101
    assert len(numbers(page, "network")["normed"]) == steps + 101
    assert f"After {steps + 101} steps" in says(page, "network")
    button(page, "network", "100 steps").click()
    button(page, "network", "100 steps").click()
    assert state(page, "network")["steps"] == 300
    assert button(page, "network", "Step").is_disabled()
    page.locator("bn-network").get_by_label("hidden layers").press("ArrowLeft")
    assert state(page, "network")["steps"] == 0  # other networks: from the start


@pytest.mark.parametrize("name", ["network", "population"])
def test_what_plays_stops_where_nobody_looks(visit, name):
    page = visit()
    stopped = f"!document.querySelector('bn-{name}').playing"
    button(page, name, "Play").click()
    assert not page.evaluate(stopped)
    page.evaluate(f"document.querySelector('bn-{name}').style.marginBottom = '300vh'")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(stopped)

    button(page, name, "Play").click()
    assert not page.evaluate(stopped)
    page.evaluate("""() => {
      Object.defineProperty(document, "hidden", {value: true, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }""")
    assert page.evaluate(stopped)


def test_a_training_that_diverges_says_so(visit):
    page = visit("?network.scale=5&network.rate=10&network.steps=20")
    assert "without batch norm training diverged at step" in says(page, "network")
    word = page.locator("bn-network .bn-picture text", has_text="diverged")
    assert word.count() == 1
    assert word.get_attribute("fill") == "var(--bn-wrong)"
    page = visit("?network.scale=5&network.rate=0.1&network.depth=8")
    first = numbers(page, "network")["loss"]["plain"]
    assert (
        first > 100
    )  # the loss of random weights, before any step: nothing has diverged
    assert "diverged" not in page.locator("bn-network").inner_text()


@pytest.mark.parametrize(
    ("query", "verdict"),
    [
        ("network.steps=100", "The network with batch norm is ahead."),
        ("network.steps=300&network.scale=1.4", "Both have learned the spirals"),
        (
            "network.steps=300&network.scale=1.4&network.batch=4",
            "The network without batch norm is ahead.",
        ),
        ("network.steps=5&network.activation=tanh&network.batch=2", "Neither"),
    ],
)
def test_the_verdict_follows_the_numbers(visit, query, verdict):
    page = visit("?" + query)
    assert verdict in says(page, "network")


def test_the_start_tells_the_truth_for_other_weights_too(sources):
    """Twelve seeds: batch norm learns from small weights, and nothing happens without it."""
    for seed in range(1, 13):
        small, _ = sources.evaluate(TRAINED, {"steps": 100, "seed": seed})
        assert abs(small["loss"]["plain"] - np.log(2)) < 0.01
        assert small["loss"]["normed"] < 0.03
        assert small["right"]["normed"] == 1


def test_a_guess_is_asked_before_the_first_touch(visit):
    page = visit()
    asked = page.locator("bn-transform .bn-question")
    assert asked.inner_text().count("?") == 1
    asked.get_by_role("button", name="both").click()
    height = asked.bounding_box()["height"]
    assert asked.get_by_role("button", pressed=True).inner_text() == "both"
    page.get_by_label("neighbour 4, x").press("ArrowLeft")
    assert asked.inner_text().startswith("You said: both. ")
    assert asked.bounding_box()["height"] == pytest.approx(height, abs=1)
    assert page.locator(".bn-answers").count() == len(NAMES) - 1


# The address


def test_the_address_holds_the_whole_state(visit):
    page = visit("?other=1#explorable-axes")
    page.get_by_label("neighbour 4, x").press("PageUp")
    page.locator("bn-transform").get_by_label("gamma").press("ArrowRight")
    saved(page, "transform")
    button(page, "gradient", "Other grad_y").click()
    saved(page, "gradient")
    page.locator("bn-axes").get_by_label("group", exact=True).check()
    page.get_by_label("example 2, channel 0").click()
    saved(page, "axes")
    page.locator("bn-network").get_by_label("tanh").check()
    page.locator("bn-network").get_by_label("batch size").press("ArrowLeft")
    button(page, "network", "Step").click()
    saved(page, "network")
    button(page, "population", "Step").click()
    button(page, "population", "Recalibrate").click()
    url = saved(page, "population")

    assert "?other=1&" in url
    assert url.endswith("#explorable-axes")
    again = visit(url=url)
    for name in NAMES:
        assert state(again, name) == state(page, name)
        assert numbers(again, name).keys() == numbers(page, name).keys()
        assert says(again, name) == says(page, name)
        button(again, name, "Reset").click()
    again.wait_for_function("location.search === '?other=1'", timeout=5000)


@pytest.mark.parametrize(
    "query",
    [
        "transform.x=1,2",
        "transform.x=1,2,3,4,5,&transform.gamma=NaN",
        "axes.norm=weight&axes.groups=3&axes.shown=yes",
        "population.momentum=2&population.steps=&population.seed=x",
        "axes.norm=constructor&axes.shown=toString",
        "network.rate=0.2&network.batch=3&network.depth=many&network.activation=relu",
    ],
)
def test_an_unsound_address_is_the_start(visit, query):
    page, start = visit("?" + query), visit()
    assert [state(page, n) for n in NAMES] == [state(start, n) for n in NAMES]


def test_what_is_out_of_range_is_brought_into_it(visit):
    page = visit("?transform.gamma=1e9&transform.x=-99,99,0,0,0,0.04")
    assert state(page, "transform")["gamma"] == 2
    assert state(page, "transform")["x"] == [-4, 6, 0, 0, 0, 0]


# Everybody


def test_the_keyboard_reaches_and_operates_everything(visit):
    page = visit()
    reached = set()
    describe = """() => {
      const node = document.activeElement, widget = node.closest("[id^=explorable]");
      const label = node.ariaLabel || node.labels?.[0]?.innerText || node.innerText;
      return widget ? `${widget.localName}: ${label.split("\\n")[0]}` : "";
    }"""
    for _ in range(100):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(describe))
    for wanted in (
        *(f"bn-transform: neighbour {i}, x" for i in range(1, 6)),
        "bn-transform: marked example, x",
        "bn-transform: gamma",
        *(f"bn-gradient: x {i}" for i in range(1, 7)),
        "bn-axes: example 1, channel 2, in the set",
        "bn-axes: batch",
        "bn-axes: show the values after normalising",
        "bn-population: momentum",
        *(f"bn-population: {b}" for b in ("Step", "Play", "Recalibrate", "Reset")),
        *(f"bn-network: {b}" for b in ("Play", "Step", "100 steps", "Other weights")),
        "bn-network: learning rate",
        "bn-network: initial scale",
        "bn-network: hidden layers",
        "bn-network: batch size",
        *(f"bn-{name}: Copy as Python" for name in NAMES),
    ):
        assert wanted in reached

    grip = page.get_by_label("x 3", exact=True)
    for key, value in [
        ("ArrowUp", 1.7),
        ("ArrowRight", 1.8),
        ("ArrowDown", 1.7),
        ("PageDown", 0.7),
        ("Home", -3),
        ("ArrowLeft", -3),
        ("End", 3),
    ]:
        grip.press(key)
        assert state(page, "gradient")["x"][2] == value
        assert grip.get_attribute("aria-valuenow") == str(value)
    picked = page.locator("bn-axes .pick[aria-checked=true]")
    for key, place in [
        ("ArrowRight", (1, 3)),
        ("ArrowRight", (1, 0)),
        ("ArrowUp", (0, 0)),
    ]:
        picked.press(key)
        assert picked.get_attribute("aria-label").startswith(
            "example {}, channel {}".format(*place)
        )
        assert picked.evaluate("node => node === document.activeElement")


@pytest.mark.parametrize("width", [PHONE["width"], 1280])
def test_targets_are_large_and_nothing_is_too_wide(visit, width):
    page = visit("?axes.norm=group")
    page.set_viewport_size({"width": width, "height": 844})
    for name in NAMES:
        button(page, name, "Copy as Python").click()
    page.wait_for_function(
        f"document.querySelectorAll('.bn-code:not([hidden])').length === {len(NAMES)}"
    )
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    sizes = page.evaluate("""() => [...document.querySelectorAll(
      ".bn-live :is(button, .target, input[type=range], label)")]
      .filter(node => node.getClientRects().length).map(node => {
        const box = node.getBoundingClientRect();
        return [node.outerHTML.slice(0, 60), box.width, box.height];
      })""")
    assert len(sizes) > 50
    assert [each for each in sizes if min(each[1:]) < 43.9] == []
    inside = page.evaluate("""() => [...document.querySelectorAll(".bn-picture *")].filter(node => {
      const box = node.getBoundingClientRect();
      const all = node.closest("svg").getBoundingClientRect();
      return node.localName === "text" && (box.left < all.left - 2 || box.right > all.right + 2);
    }).map(node => node.textContent)""")
    assert inside == []


def test_both_themes_have_the_colours_of_the_figures(visit):
    page = visit()
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        for name, role in style.ROLES.items():
            colour = page.evaluate(
                f"getComputedStyle(document.documentElement).getPropertyValue('--bn-{name.lower()}')"
            )
            assert colour == getattr(role, theme)
            assert all(getattr(role, theme) in text for text in TEXTS.values())


def test_reduced_motion_jumps_to_the_end(visit):
    page = visit()
    page.emulate_media(reduced_motion="reduce")
    button(page, "population", "Play").click()
    assert state(page, "population")["steps"] == 300
    assert button(page, "network", "Play").count() == 0
    button(page, "network", "100 steps").click()
    assert state(page, "network")["steps"] == 100
    assert not page.evaluate("document.querySelector('bn-network').playing")


def test_what_plays_stops_where_motion_becomes_unwanted(visit):
    page = visit()
    button(page, "network", "Play").click()
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function("!document.querySelector('bn-network').playing")
    button(page, "network", "Play").wait_for(state="detached")


def test_touch_drags(browser, base):
    context = browser.browser.new_context(has_touch=True, viewport=PHONE)
    page = context.new_page()
    page.goto(base)
    grip = page.get_by_label("x 2", exact=True)
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(page)
    for kind, points in [
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x, "y": y + 40}]),
        ("touchEnd", []),
    ]:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("document.querySelector('bn-gradient').state.x[1] < -0.8")
    context.close()


# Without a script, and on paper


def test_a_still_picture_without_scripts_and_on_paper(browser, visit, base):
    context = browser.browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(base)
    assert page.locator("img.still:visible").count() == len(NAMES)
    context.close()

    page = visit()
    assert page.locator("img.still:visible").count() == 0
    assert page.locator(".bn-picture:visible").count() == len(NAMES)
    page.emulate_media(media="print")
    assert page.locator("img.still:visible").count() == len(NAMES)
    assert page.locator(".bn-live:visible").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_stills_are_described_and_follow_the_theme(name):
    assert 20 <= len(title(name)) <= 300
    assert "prefers-color-scheme: dark" in TEXTS[name]
    assert len(TEXTS[name]) < 30_000


# A page is fit to be published, from a server and from disk


def test_the_page_is_fit_to_be_published(browser, base, folder):
    for url in (base, (folder / "index.html").as_uri()):
        assert page_faults(look(browser, url)) == []


def test_widgets_work_from_disk(visit, folder):
    page = visit(url=(folder / "index.html").as_uri())
    before = numbers(page, "transform")["training"][0]
    page.get_by_label("neighbour 4, x").press("End")
    assert numbers(page, "transform")["training"][0] != before
    again = visit(url=saved(page, "transform"))
    assert state(again, "transform") == state(page, "transform")


# The bundle


def test_the_bundle_is_small():
    files = ("explorables.js", "explorables.css")
    sizes = [len(gzip.compress((STATIC / file).read_bytes())) for file in files]
    assert sum(sizes) <= BUDGET


def fingerprint(sources):
    """As explorables/build.mjs computes it."""
    files = [
        path.relative_to(sources).as_posix()
        for path in [*sources.glob("*"), *sources.glob("widgets/*.js")]
        if path.suffix in (".js", ".mjs") or path.name == "package-lock.json"
    ]
    text = "".join(f"{name}\n{(sources / name).read_text()}" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_bundle_is_built_from_the_sources(tmp_path):
    built = (STATIC / "explorables.js").read_text()
    assert fingerprint(SOURCES) in built.splitlines()[0], "run `make explorables`"
    if shutil.which("node") and (SOURCES / "node_modules/esbuild").is_dir():
        command = ["node", str(SOURCES / "build.mjs"), str(tmp_path)]
        subprocess.run(command, check=True, timeout=60)
        assert (tmp_path / "explorables.js").read_text() == built
        for name, text in TEXTS.items():
            assert (tmp_path / f"explorables/{name}.svg").read_text() == text


def test_a_stale_bundle_is_found(tmp_path):
    ignored = shutil.ignore_patterns("node_modules")
    shutil.copytree(SOURCES, tmp_path / "explorables", ignore=ignored)
    assert fingerprint(tmp_path / "explorables") == fingerprint(SOURCES)
    with (tmp_path / "explorables/widgets/axes.js").open("a") as file:
        file.write("\n")
    assert fingerprint(tmp_path / "explorables") != fingerprint(SOURCES)


def test_the_stills_are_drawn_by_the_widgets(sources):
    """Where there is no node to build with, this is what keeps the pictures true."""
    for name in NAMES:
        drawn = sources.evaluate(
            f"""async () => {{
              await import("/widgets/{name}.js");
              return (await import("/explorable.js")).WIDGETS.{name}.still();
            }}"""
        )
        assert drawn == TEXTS[name]


def test_nothing_names_another_host():
    texts = [(STATIC / f).read_text() for f in ("explorables.js", "explorables.css")]
    hosts = set(
        re.findall(r"https?://[^\"'`/\s]+", " ".join([*texts, *TEXTS.values()]))
    )
    assert hosts == {"http://www.w3.org"}  # the name of SVG, not a request
    assert "resolved" not in (SOURCES / "package-lock.json").read_text()


# In the book


@pytest.mark.parametrize("name", NAMES)
def test_each_widget_stands_in_its_chapter(name):
    text = (ROOT / f"text/{CASES[name].chapter}.md").read_text()
    picture = rf"^!\[.{{20,}}\]\(\.\./_static/explorables/{name}\.svg\)\n\*.+\*$"
    assert len(re.findall(picture, text, re.MULTILINE)) == 1


def test_the_landing_page_shows_the_training():
    text = (ROOT / "book/index.md").read_text()
    picture = r"^!\[.{20,}\]\(_static/explorables/network\.svg\)\n\*.+\*$"
    assert len(re.findall(picture, text, re.MULTILINE)) == 1


def test_a_page_of_the_book_comes_to_life(browser, tmp_path):
    image = "![The transform.](_static/explorables/transform.svg)\n*For notebooks.*\n"
    done = build(tmp_path, f"# A book\n\nBy {{cite:t}}`ioffe2015`.\n\n{image}")
    assert done.returncode == 0, done.stderr
    site = tmp_path / "_build/html"
    html = (site / "index.html").read_text()
    assert re.search(r'<script defer="defer" src="_static/explorables\.js', html)
    assert "For notebooks" not in html
    for other in ("search.html", "genindex.html"):
        assert "explorables" not in (site / other).read_text()
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_selector(f"html[data-theme={theme}]")
        fill = page.locator("bn-transform .bn-picture").evaluate(
            "e => getComputedStyle(e).fill"
        )
        ink = getattr(style.ROLES["INK"], theme)
        assert fill == "rgb({}, {}, {})".format(*bytes.fromhex(ink[1:]))
    page.close()
