"""The data of the experiments: handwritten digits, a noisy curve, and what was measured before.

`digits` is the default everywhere: 1,797 images that ship inside scikit-learn and need no network.
`mnist` is the bigger one that the literature used, fetched once, checked, and kept.
`stored` reads what takes too long, or depends too much on the machine, to run in a chapter.
"""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnlib._extras import needed

__all__ = ["Split", "curve", "digits", "mnist", "stored"]

NO_NETWORK = "MNIST is not here and the network is silent: these are the 8x8 digits."
MNIST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


class Split(NamedTuple):
    """A data set cut in two.

    Attributes:
        x_train: images, `(N, H, W)` float64.
        y_train: labels, `(N,)` integers.
        x_test: as x_train.
        y_test: as y_train.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def flat(self) -> "Split":
        """The same with each image as one row, `(N, H * W)`."""
        x_train, x_test = (x.reshape(len(x), -1) for x in (self.x_train, self.x_test))
        return self._replace(x_train=x_train, x_test=x_test)


def digits(*, seed: int = 0) -> Split:
    """Load the 8x8 digits that ship inside scikit-learn: 1,347 to train on, 450 to test.

    Args:
        seed: of the split, which keeps the classes balanced.

    Returns:
        The `Split`; pixels from 0 to 16, as they are. Whether they are divided by 16 decides
        whether sigmoid units saturate, so each experiment says what it does.

    >>> digits().x_train.shape
    (1347, 8, 8)
    """
    with needed("bnlib.book.data", "notebook"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split(
        data.images, data.target, test_size=450, random_state=seed, stratify=data.target
    )
    x_train, x_test, y_train, y_test = parts
    return Split(x_train, y_train, x_test, y_test)


def mnist(
    folder: str | os.PathLike[str] | None = None,
    *,
    url: str = MNIST,
    sha256: str = MNIST_SHA256,
) -> Split:
    """Load MNIST: from `folder` if it is there, else from the network; else the digits, and say so.

    Args:
        folder: where the file is kept; default the environment's BNLIB_DATA, else `~/.cache/bnlib`.
        url: where it comes from.
        sha256: what it must be.

    Returns:
        The `Split`, 60,000 and 10,000 images of 28x28, pixels from 0 to 255; or `digits()`.

    Raises:
        ValueError: when a file is there, or arrives, and is not the one expected.
    """
    with needed("bnlib.book.data", "notebook"):
        import pooch

    folder = Path(
        folder or os.environ.get("BNLIB_DATA") or Path.home() / ".cache/bnlib"
    )
    path = folder / "mnist.npz"
    if not path.exists():
        try:
            pooch.retrieve(url, f"sha256:{sha256}", path.name, folder)
        except OSError:  # what every kind of missing network raises
            print(NO_NETWORK)  # noqa: T201
            return digits()
    if pooch.file_hash(path) != sha256:
        raise ValueError(
            f"{path.name} in the cache is not MNIST: its SHA-256 differs from "
            f"{sha256[:12]}... Delete it and call again."
        )
    with np.load(path) as file:
        split = Split(*(file[name] for name in Split._fields))
    return split._replace(
        x_train=split.x_train.astype(float), x_test=split.x_test.astype(float)
    )


def curve(n: int = 500, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw Mofan's curve: y = x^2 - 5 + noise, x from -7 to 10, noise of deviation 8.

    Args:
        n: how many points.
        seed: of the noise.

    Returns:
        `(x, y)`, each `(n, 1)`. No model can fit better than the noise's variance, 64.

    Source: Mofan Zhou's tutorial on batch normalization in TensorFlow.

    >>> curve()[0].shape
    (500, 1)
    """
    x = np.linspace(-7, 10, n)[:, np.newaxis]
    noise = np.random.default_rng(seed).normal(0, 8, x.shape)
    return x, x**2 - 5 + noise


def stored(name: str) -> dict[str, Any]:
    """Load measurements that a script of `benchmarks/` made earlier.

    Args:
        name: of the measurement, and of the script that repeats it: `benchmarks/<name>.py`.

    Returns:
        What the script stored. `surroundings` says where: processor, cores, versions, settings.

    Raises:
        FileNotFoundError: if nothing is stored under that name.

    >>> sorted(stored("fold"))
    ['milliseconds', 'surroundings']
    """
    folder = files("bnlib.book") / "stored"
    file = folder / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(each.name[:-5] for each in folder.iterdir()))
        raise FileNotFoundError(
            f"no measurement {name!r} is stored; there are {known}."
        )
    return json.loads(file.read_text(encoding="utf-8"))
