"""The command line: what it prints, its exit codes, and that it never leaves half a file."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import json
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import bnlib
from bnlib import cli, conventions
from bnlib.conventions import _files

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__:DeprecationWarning"  # Keras with NumPy 2, when it saves or copies
)
layers = keras.layers


def bn(line):
    """Run a command, and return its result."""
    return CliRunner().invoke(cli.cli, line.split())


def sick(name="sick"):
    """A model whose statistics are far from what it is fed."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,), name="features"),
            layers.Dense(5, use_bias=False, name="dense"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, name="head"),
        ],
        name=name,
    )


def inputs(n=300):
    return np.random.default_rng(0).normal(3, 2, (n, 4)).astype("f4")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make the files once."""
    folder = tmp_path_factory.mktemp("made")
    sick().save(folder / "model.keras")
    np.savez(folder / "data.npz", x=inputs(), y=np.zeros(300))
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A folder with a model and data, in which the command runs."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What a user does


def test_from_a_sick_model_to_one_without_batch_norm(folder):
    found = bn("audit model.keras --data data.npz --json")
    assert found.exit_code == 1, found.output
    codes = [row["code"] for row in json.loads(found.stdout)["rows"]]
    assert "BN001" in codes

    done = bn("recalibrate model.keras --data data.npz --out well.keras")
    assert done.exit_code == 0, done.output
    assert "300 examples" in done.stdout
    well = keras.models.load_model("well.keras")
    fed = inputs() @ well.get_layer("dense").get_weights()[0]
    variance = well.get_layer("bn").moving_variance.numpy()
    np.testing.assert_allclose(variance, fed.var(0), rtol=1e-5)

    clean = bn("audit well.keras --data data.npz")
    assert clean.exit_code == 0, clean.output

    folded = bn("fold well.keras --out small.keras --data data.npz")
    assert folded.exit_code == 0, folded.output
    small = keras.models.load_model("small.keras")
    assert [layer.name for layer in small.layers] == ["dense", "head"]
    x = inputs()
    np.testing.assert_allclose(small(x), well(x), rtol=1e-4, atol=1e-5)
    written = ["data.npz", "model.keras", "small.keras", "well.keras"]
    assert names(folder) == written


def test_swap_there_and_back(folder):
    assert bn("swap model.keras --out ours.keras").exit_code == 0
    ours = keras.models.load_model("ours.keras").get_layer("bn")
    assert type(ours) is bnlib.keras.BatchNormalization
    done = bn("swap ours.keras --to keras --out ours.keras --force")
    assert done.exit_code == 0, done.output
    theirs = keras.models.load_model("ours.keras").get_layer("bn")
    assert type(theirs) is keras.layers.BatchNormalization


def test_the_level_decides_the_exit_code(folder):
    assert bn("audit model.keras --level error").exit_code == 1
    model = sick()
    model.get_layer("bn").set_weights(
        [np.ones(5), np.zeros(5), np.ones(5), 4 * np.ones(5)]
    )
    model.save("trained.keras")
    assert bn("audit trained.keras --level error").exit_code == 0


def test_data_for_several_inputs_go_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([a, b])
    keras.Model([a, b], layers.BatchNormalization(name="bn")(joined)).save("two.keras")
    rng = np.random.default_rng(0)
    first, second = rng.normal(5, 1, (40, 2)), rng.normal(-5, 1, (40, 3))
    np.savez("both.npz", b=second, a=first)
    done = bn("recalibrate two.keras --data both.npz --out new.keras")
    assert done.exit_code == 0, done.output
    mean = keras.models.load_model("new.keras").get_layer("bn").moving_mean.numpy()
    np.testing.assert_allclose(
        mean, np.concatenate([first, second], 1).mean(0), rtol=1e-5
    )


def test_layers_of_a_users_module(folder):
    (folder / "mine_cli.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine_cli')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    make = (
        "import keras, mine_cli\n"
        "keras.Sequential([keras.Input((4,)), mine_cli.Twice(),"
        " keras.layers.BatchNormalization()]).save('mine.keras')"
    )
    paths = [str(folder), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", make], check=True, env=environment)
    refused = bn("audit mine.keras")
    assert refused.exit_code == 2
    assert "--import MODULE" in refused.stderr
    command = [sys.executable, "-c", "from bnlib.cli import main; main()", "audit"]
    command += ["mine.keras", "--import", "mine_cli"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr
    assert "BN001" in done.stdout


def test_code_in_a_file_is_not_run_unless_asked_for(folder):
    parts = [
        keras.Input((4,)),
        layers.Lambda(lambda x: x + 1),
        layers.BatchNormalization(),
    ]
    keras.Sequential(parts).save("code.keras")
    refused = bn("audit code.keras")
    assert refused.exit_code == 2
    assert "--unsafe" in refused.stderr
    assert bn("audit code.keras --unsafe").exit_code == 1


def test_conformance(monkeypatch, tmp_path):
    passed = bn("conformance bnlib.conformance.adapters:NumPy")
    assert passed.exit_code == 0, passed.output
    assert "gradient_x" not in passed.stdout
    shown = bn("conformance bnlib.conformance.adapters:NumPy --only transform --all")
    assert "transform" in shown.stdout
    (tmp_path / "wrong_cli.py").write_text(
        "from bnlib.conformance import Adapter\n"
        "class Wrong(Adapter):\n"
        "    def forward(self, x, training):\n"
        "        return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    failed = bn("conformance wrong_cli:Wrong --only transform")
    assert failed.exit_code == 1
    assert "transform" in failed.stdout
    for maker in ("wrong_cli", "wrong_cli:Nobody", "no_such_module:x"):
        assert bn(f"conformance {maker}").exit_code == 2


# Bad input is one line, and leaves no trace


def pickled(path):
    np.savez(path, x=np.array([{}], dtype=object))


BAD = {
    "no such model": ("audit none.keras", "no such file"),
    "not a model": ("audit text.keras", "cannot be loaded"),
    "another ending": ("audit data.npz", "model.save"),
    "no batch norm": ("audit plain.keras", "has none"),
    "no such data": ("audit model.keras --data none.npz", "no such file"),
    "not data": ("audit model.keras --data model.keras", "plain arrays"),
    "pickled data": ("audit model.keras --data pickled.npz", "plain arrays"),
    "text": ("audit model.keras --data text.npz", "plain arrays"),
    "two arrays": (
        "audit model.keras --data two.npz",
        "must hold one array",
    ),
    "wrong shape": ("audit model.keras --data wide.npz", "bnlib: "),
    "no examples": ("audit model.keras --data empty.npz", "got none"),
    "NaN": ("audit model.keras --data nan.npz", "must be finite"),
    "over the input": (
        "recalibrate model.keras --data data.npz --out model.keras",
        "is the input",
    ),
    "over another": ("swap model.keras --out plain.keras", "there already"),
    "no such folder": (
        "swap model.keras --out no/new.keras",
        "no such folder",
    ),
    "odd ending": ("swap model.keras --out new.txt", "--out must end in"),
    "NaN in data to keep": (
        "recalibrate model.keras --data nan.npz --out new.keras",
        "must be finite",
    ),
    "no ending": ("convert data.npz --from torch --to keras --out k3", "must end in"),
    "swap without batch norm": ("swap plain.keras --out new.keras", "has none"),
    "no layers": (
        "convert data.npz --from torch --to keras --out new.npz",
        "running_mean",
    ),
}


@pytest.fixture(scope="module")
def poor(made, tmp_path_factory):
    """Make files that are of no use, once."""
    folder, x = tmp_path_factory.mktemp("poor"), inputs(8)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(folder / "plain.keras")
    (folder / "text.keras").write_text("hello")
    (folder / "text.npz").write_text("hello")
    pickled(folder / "pickled.npz")
    np.savez(folder / "two.npz", a=x, b=x)
    np.savez(folder / "wide.npz", x=np.ones((8, 7)))
    np.savez(folder / "empty.npz", x=x[:0])
    np.savez(folder / "nan.npz", x=np.where(x > 3, np.nan, x))
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input(poor, tmp_path, monkeypatch, case):
    shutil.copytree(poor, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path
    before = names(folder)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    line, words = BAD[case]
    done = bn(line)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(folder) == before
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == contents


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_what_was_there(folder, monkeypatch, force):
    (folder / "old.keras").write_text("precious")

    def full(self, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    monkeypatch.setattr(keras.Sequential, "save", full)
    out = "old.keras --force" if force else "new.keras"
    before = names(folder)
    done = bn(f"swap model.keras --out {out}")
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert names(folder) == before
    assert (folder / "old.keras").read_text() == "precious"


def test_debug_shows_where_it_went_wrong(folder):
    done = bn("--debug audit none.keras")
    assert isinstance(done.exception, ValueError)


# Layers in files


def test_from_pytorch_to_keras_and_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    state = {"conv.weight": rng.normal(size=(3, 3)), "conv.bias": rng.normal(size=3)}
    for name in ("bn1", "block.bn2"):
        state |= {
            f"{name}.weight": rng.normal(size=3),
            f"{name}.bias": rng.normal(size=3),
            f"{name}.running_mean": rng.normal(size=3),
            f"{name}.running_var": rng.random(3) + 0.5,
            f"{name}.num_batches_tracked": np.array(7),
        }
    np.savez("state.npz", **state)
    missing = bn("convert state.npz --from torch --to keras --out k.npz")
    assert missing.exit_code == 2
    assert "eps" in missing.stderr
    there = "convert state.npz --from torch --to keras --out k.npz --lose bessel"
    done = bn(f"{there} --set eps=1e-5 --set momentum=0.1")
    assert done.exit_code == 0, done.output
    assert done.stdout == "2 layers: bn1, block.bn2.\n"
    kept = dict(np.load("k.npz"))
    np.testing.assert_array_equal(kept["block/bn2/gamma"], state["block.bn2.weight"])
    assert kept["bn1/momentum"] == 0.9
    assert kept["bn1/axis"] == 1
    back = bn("convert k.npz --from keras --to torch --out t.npz --lose bessel")
    assert back.exit_code == 0, back.output
    again = dict(np.load("t.npz"))
    for name in ("bn1.weight", "block.bn2.running_var"):
        np.testing.assert_array_equal(again[name], state[name])
    assert again["bn1.eps"] == 1e-5
    assert again["bn1.momentum"] == 0.1


def test_a_framework_that_there_is_not(folder):
    done = bn("convert data.npz --from x --to keras --out new.npz")
    assert done.exit_code == 2
    assert "'contrib'" in done.stderr
    with pytest.raises(ValueError, match="must be one of caffe"):
        _files.read({}, "x", {})


def test_what_the_library_says_is_said_for_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = {"bn.running_mean": np.zeros(3), "bn.running_var": np.ones(3)}
    np.savez("state.npz", **state, **{"bn.eps": 1e-5, "bn.momentum": 0.1})
    done = bn("convert state.npz --from torch --to keras --out k.npz")
    assert done.exit_code == 0, done.output
    assert "--lose bessel" in done.stderr
    assert "ours=" not in done.stderr


@pytest.mark.parametrize("name", ["a/b", ""])
@pytest.mark.parametrize("framework", _files.FORMATS)
def test_each_format_reads_what_it_writes(framework, name):
    rng = np.random.default_rng(0)
    bessel = framework in ("torch", "caffe", "contrib")
    params = conventions.BNParams(
        rng.normal(size=3),
        rng.random(3) + 0.5,
        rng.normal(size=3),
        rng.normal(size=3),
        epsilon=1e-5,
        momentum=0.9,
        axis=1,
        bessel=bessel,
    )
    flat = _files.write({name: params}, framework)
    assert all(isinstance(value, np.ndarray) for value in flat.values())
    assert not any(value.dtype == object for value in flat.values())
    (again,) = _files.read(flat, framework, {}).values()
    assert conventions.compare({"": params}, {"": again}) == []
    assert again.axis == params.axis
    assert again.bessel == params.bessel


def test_settings_on_the_command_line():
    given = ["a=1", "b=0.5", "c=none", "d=True", "e=NCHW", "f=1e-3"]
    read = {"a": 1, "b": 0.5, "c": None, "d": True, "e": "NCHW", "f": 1e-3}
    assert dict(map(cli._setting, given)) == read
    with pytest.raises(ValueError, match="NAME=VALUE"):
        cli._setting("eps")


# What it costs


def test_help_is_quick_and_imports_no_framework():
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from bnlib.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "assert not {'tensorflow', 'keras', 'rich', 'torch'} & set(sys.modules)\n"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - start < 10  # .2 s on a quiet machine


def test_version():
    assert bnlib.__version__ in bn("--version").stdout
