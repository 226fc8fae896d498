"""The command line: audit, recalibrate, fold and swap whole Keras models; check and convert layers.

A command exits with 0 when all is well, with 1 when it found something at or above `--level`, and
with 2 when it could not run. What it writes is written beside its place first, and then moved
there. TensorFlow is imported by the commands that need it.
"""

import contextlib
import importlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from bnlib import __version__
from bnlib._extras import needed
from bnlib.conventions import _files
from bnlib.reports import LEVELS, Report

with needed("the command bnlib", "tools"):
    import click

__all__ = ["main"]

File = click.Path(dir_okay=False, path_type=Path)
MODEL_FILES = ".keras", ".h5", ".hdf5"

model_file = click.argument("model", type=File)
data_file = click.option(
    "--data",
    type=File,
    metavar="FILE",
    help="Inputs: .npy; or .npz with one array, with x, or with the names of the model's inputs.",
)
out_file = click.option(
    "--out", type=File, metavar="FILE", required=True, help="Where the new model goes."
)
force = click.option("--force", is_flag=True, help="Overwrite what is there.")
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="How many inputs at a time.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
least = click.option(
    "--level",
    type=click.Choice(LEVELS[1:]),
    default="warning",
    show_default=True,
    help="Exit with 1 from this level on.",
)
modules = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import this first: it registers the model's own layers. May be given again.",
)
frameworks = click.Choice(list(_files.FORMATS), case_sensitive=False)
unsafe = click.option(
    "--unsafe", is_flag=True, help="Load code that is stored in the file: trust it."
)


def main() -> None:
    """Run the command line; what `bnlib` in a shell calls.

    Raises:
        SystemExit: always, with the code.
    """
    sys.path.insert(0, "")  # for --import, and for makers: modules of this folder
    cli(prog_name="bnlib")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def cli(debug):
    """Find and repair batch norm faults in Keras models, and check and convert layers."""


@cli.command()
@model_file
@data_file
@batch_size
@least
@as_json
@modules
@unsafe
def audit(model, data, batch_size, level, as_json, modules, unsafe):
    """Say which batch norm faults a model has; with data, more of them."""
    with _refusals():
        loaded = _load(model, modules, unsafe)
        given = _data(data, loaded)
        from bnlib import doctor

        report = doctor.audit(loaded, given, batch_size=batch_size)
    _show(report, as_json)
    _exit(report, level)


@cli.command()
@model_file
@click.option("--data", type=File, metavar="FILE", required=True, help="As for audit.")
@out_file
@click.option(
    "--method",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="Layer by layer, or all in one walk.",
)
@batch_size
@force
@as_json
@modules
@unsafe
def recalibrate(model, data, out, method, batch_size, force, as_json, modules, unsafe):
    """Measure the moving statistics anew, on training data."""
    with _refusals():
        _free(out, model, force, MODEL_FILES)
        loaded = _load(model, modules, unsafe)
        given = _data(data, loaded)
        from bnlib import doctor

        report = doctor.recalibrate(loaded, given, method=method, batch_size=batch_size)
        _save(loaded, out)
    _show(report, as_json)


@cli.command()
@model_file
@out_file
@data_file
@force
@as_json
@modules
@unsafe
def fold(model, out, data, force, as_json, modules, unsafe):
    """Take batch norm out of a model that is done with training."""
    with _refusals():
        _free(out, model, force, MODEL_FILES)
        loaded = _load(model, modules, unsafe)
        given = _data(data, loaded)
        from bnlib import doctor

        folded, report = doctor.fold(loaded, given)
        _save(folded, out)
    _show(report, as_json)


@cli.command()
@model_file
@out_file
@click.option(
    "--to",
    type=click.Choice(["bnlib", "keras"]),
    default="bnlib",
    show_default=True,
    help="Whose batch norm layers the new model has.",
)
@force
@modules
@unsafe
def swap(model, out, to, force, modules, unsafe):
    """Exchange Keras's batch norm layers for ours, or ours for Keras's."""
    with _refusals():
        _free(out, model, force, MODEL_FILES)
        loaded = _load(model, modules, unsafe)
        from bnlib import doctor
        from bnlib.doctor._layers import batch_norms
        from bnlib.keras._models import is_graph

        count = len(batch_norms(loaded))
        exchange = doctor.swap_in if to == "bnlib" else doctor.swap_out
        swapped = exchange(loaded, in_place=not is_graph(loaded))
        _save(swapped, out)
    whose = {"bnlib": "bnlib's", "keras": "Keras's"}
    click.echo(f"{out}: all {count} batch norm layers are {whose[to]}.")


@cli.command()
@click.argument("maker", metavar="MODULE:NAME")
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Run this check. Again for more."
)
@click.option("--skip", multiple=True, metavar="CHECK", help="Leave out this check.")
@click.option("--all", "whole", is_flag=True, help="Show what passed, too.")
@least
@as_json
def conformance(maker, only, skip, whole, level, as_json):
    """Check that a batch norm is one; MODULE:NAME is a bnlib.conformance.Adapter."""
    with _refusals():
        from bnlib.conformance import check_batch_norm

        report = check_batch_norm(
            _named(maker), only=only or None, skip=skip, name=maker
        )
    failed = tuple(row for row in report if row.outcome == "failed")
    shown = report if whole or as_json else replace(report, rows=failed)
    _show(shown, as_json)
    _exit(report, level)


@cli.command()
@click.argument("values", type=File)
@click.option("--from", "source", required=True, type=frameworks, help="Whose it is.")
@click.option(
    "--to", "target", required=True, type=frameworks, help="Whose it becomes."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the file lacks, in the words of the source, such as eps=1e-5. Again for more.",
)
@click.option("--lose", multiple=True, metavar="NAME", help="What may be lost.")
@click.option("--out", type=File, metavar="FILE", required=True, help="A .npz.")
@force
def convert(values, source, target, settings, lose, out, force):
    """Translate the batch norm layers in a .npz between frameworks.

    Names are those of the framework, behind the layer's: conv1.bn.running_mean for PyTorch,
    bn/moving_mean for contrib. Arrays that belong to no batch norm layer are left out.
    """
    with _refusals():
        _free(out, values, force, (".npz",))
        chosen = dict(map(_setting, settings))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            layers = _files.read(_arrays(values), source, chosen)
            written = _files.write(layers, target, lose)
        for each in dict.fromkeys(_for_the_shell(str(w.message)) for w in said):
            click.echo(f"bnlib: {each}", err=True)
        with _placed(out) as path:
            np.savez(path, **written)
    click.echo(f"{len(layers)} layers: {', '.join(layers)}.")


# What goes wrong is one line


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn an error into one line and the code 2, whoever raised it; --debug lets it through."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        if click.get_current_context().find_root().params["debug"]:
            raise
        click.echo(f"bnlib: {_in_one_line(error)}", err=True)
        raise SystemExit(2) from None


def _in_one_line(error):
    """Say an error in one line, with the options of the command for those of the library."""
    return _for_the_shell(_first_words(error))


def _for_the_shell(text):
    text = re.sub(
        r"(To say that you know, )?pass lose=\[\'(\w+)\'\]", r"pass --lose \2", text
    )
    text = re.sub(r"[^.]*ours=True\. ", " ", text)
    return " ".join(text.split())


def _first_words(error):
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


# Files


def _load(path, modules, unsafe):
    """Load a Keras model, safely unless the user says otherwise."""
    if not path.exists():
        raise ValueError(f"no such file: {path}.")
    if path.suffix not in MODEL_FILES:
        raise ValueError(
            f"{path} must be a Keras model in one file ({', '.join(MODEL_FILES)}). Save it with "
            "model.save('model.keras')."
        )
    if path.suffix == ".keras" and not is_zipfile(path):
        raise ValueError(f"{path} cannot be loaded: it is damaged, or no .keras file.")
    for name in modules:
        importlib.import_module(name)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    import bnlib.keras  # noqa: F401 (its layers are registered by this)

    try:
        return keras.models.load_model(path, safe_mode=not unsafe)
    except Exception as error:  # Keras raises many kinds
        hint = ""
        if "register_keras_serializable" in str(error):
            hint = " (--import MODULE registers layers of your own.)"
        if "unsafe" in str(error) or "safe_mode" in str(error):
            hint = " (--unsafe loads code that is stored in the file, if you trust it.)"
        raise ValueError(
            f"{path} cannot be loaded: {_in_one_line(error)[:300]}{hint}"
        ) from error


def _arrays(path):
    """Read a .npz or .npy, without pickles."""
    if not path.exists():
        raise ValueError(f"no such file: {path}.")
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(
            f"{path} must be a .npy or a .npz of plain arrays. Save it with numpy.savez."
        )
    try:
        if path.suffix == ".npy":
            return {"x": np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"{path} must be a .npy or a .npz of plain arrays; it is damaged, or holds objects. "
            "Save it with numpy.savez."
        ) from error


def _data(path, model):
    """Return what the model is fed: one array, or one for each input; None without a path."""
    if path is None:
        return None
    arrays = _arrays(path)
    names = [each.name for each in getattr(model, "inputs", None) or []]
    if len(names) > 1 and set(names) <= set(arrays):
        return [arrays[name] for name in names]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if len(names) <= 1 and ("x" in arrays or set(names) & set(arrays)):
        return arrays["x"] if "x" in arrays else arrays[names[0]]
    raise ValueError(
        f"{path} must hold one array, or x, or the inputs of the model ({', '.join(names)}); got "
        f"{', '.join(arrays)}."
    )


def _free(out, source, force, endings):
    """Refuse to write over anything, or to a file of no such kind, before any work is done."""
    if out.suffix not in endings:
        raise ValueError(f"--out must end in {' or '.join(endings)}; got {out}.")
    if out.is_symlink():
        raise ValueError(f"{out} is a link. Name the file itself.")
    if out.exists() and not force:
        same = out.resolve() == source.resolve()
        raise ValueError(
            f"{out} is {'the input' if same else 'there already'}. Choose another --out, or pass "
            "--force."
        )
    if not out.parent.is_dir():
        raise ValueError(f"no such folder: {out.parent}.")


def _save(model, out):
    with _placed(out) as path:
        model.save(path)


@contextlib.contextmanager
def _placed(out) -> Iterator[Path]:
    """Give a path to write to, in the same folder, and move it to its place when all is there."""
    folder = Path(tempfile.mkdtemp(prefix=".bnlib-", dir=out.parent))
    try:
        path = folder / out.name
        yield path
        os.replace(path, out)
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


# Words on the command line


def _named(text) -> Any:
    """Import what `module:name` names."""
    module, colon, name = text.partition(":")
    if not colon:
        raise ValueError(f"the maker must be MODULE:NAME; got {text!r}.")
    return getattr(importlib.import_module(module), name)


def _setting(text):
    """Read one NAME=VALUE: a number, yes or no, or a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set must be NAME=VALUE; got {text!r}.")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return name, kind(value)
    return name, value


def _show(report: Report[Any], as_json: bool) -> None:
    if as_json:
        click.echo(report.to_json())
        return
    from rich.console import Console

    Console().print(report)


def _exit(report: Report[Any], level: str) -> None:
    sys.exit(1 if report.at_least(level) else 0)
