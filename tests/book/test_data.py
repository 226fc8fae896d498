"""The loaders: offline by default, and never a wrong file in silence."""

import hashlib

import numpy as np
import pytest

from bnlib.book.data import curve, digits, mnist, stored
from tests.facts import ROOT
from tools.server import serve


@pytest.fixture
def served(tmp_path):
    """A tiny data set in MNIST's format, on a server of our own: (url, sha256)."""
    folder = tmp_path / "server"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.savez(
        folder / "mnist.npz",
        x_train=rng.integers(0, 256, (6, 28, 28), np.uint8),
        y_train=np.arange(6, dtype=np.uint8),
        x_test=rng.integers(0, 256, (2, 28, 28), np.uint8),
        y_test=np.arange(2, dtype=np.uint8),
    )
    sha256 = hashlib.sha256((folder / "mnist.npz").read_bytes()).hexdigest()
    with serve(folder) as url:
        yield f"{url}mnist.npz", sha256


def test_digits_are_split_evenly_over_the_classes():
    data = digits()
    assert data.x_train.shape == (1347, 8, 8)
    assert data.x_test.shape == (450, 8, 8)
    assert data.flat.x_test.shape == (450, 64)
    assert (data.x_train.min(), data.x_train.max()) == (0, 16)
    assert np.ptp(np.bincount(data.y_test)) <= 3
    again = digits()
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))
    assert not np.array_equal(data.y_test, digits(seed=1).y_test)


def test_no_image_is_in_both_parts():
    data = digits().flat
    train = {row.tobytes() for row in data.x_train}
    assert sum(row.tobytes() in train for row in data.x_test) == 0


def test_what_is_stored_says_where_it_was_measured_and_can_be_repeated():
    names = [path.stem for path in (ROOT / "bnlib/book/stored").glob("*.json")]
    assert names
    for name in names:
        assert {"cpu", "cores", "versions"} <= stored(name)["surroundings"].keys()
        scripts = {name, name.partition("_")[0]}  # core_avx2 is of core
        assert any((ROOT / "benchmarks" / f"{each}.py").exists() for each in scripts)


def test_what_is_not_stored_is_said_with_what_is():
    with pytest.raises(FileNotFoundError, match=r"'folt' is stored; there are .*fold"):
        stored("folt")


def test_the_curve():
    x, y = curve(20_000)
    assert (x[0, 0], x[-1, 0]) == (-7, 10)
    residue = y - (x**2 - 5)
    assert residue.mean() == pytest.approx(0, abs=0.2)
    assert residue.var() == pytest.approx(64, rel=0.03)


def test_mnist_is_fetched_once_and_kept(served, tmp_path):
    url, sha256 = served
    data = mnist(tmp_path / "cache", url=url, sha256=sha256)
    assert data.x_train.shape == (6, 28, 28)
    assert data.x_train.dtype == np.float64
    again = mnist(tmp_path / "cache", url="http://127.0.0.1:9/none", sha256=sha256)
    np.testing.assert_array_equal(again.x_train, data.x_train)


def test_without_network_it_says_so_and_gives_the_digits(tmp_path, capsys):
    data = mnist(tmp_path, url="http://127.0.0.1:9/none")
    assert data.x_train.shape == (1347, 8, 8)
    assert "these are the 8x8 digits" in capsys.readouterr().out


def test_a_wrong_file_from_the_network_is_refused(served, tmp_path):
    with pytest.raises(ValueError, match=r"(?i)hash"):
        mnist(tmp_path, url=served[0], sha256="0" * 64)
    assert not (tmp_path / "mnist.npz").exists()


def test_a_damaged_file_in_the_cache_is_refused_and_kept(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="Delete it"):
        mnist(tmp_path)
    assert (tmp_path / "mnist.npz").exists()
