"""Plant one fault in the library, in memory, and see what becomes of a named test.

The tree is never touched. A module with the fault in it is imported in place of the real one, in a
process of its own, forked from one that has started pytest, TensorFlow and Keras already. So each
test meets the library fresh, without waiting for them.
"""

import contextlib
import gc
import io
import multiprocessing
import os
import sys
import tempfile
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRELOADED = ["pytest", "hypothesis.extra.numpy", "keras"]
METHOD = "forkserver" if hasattr(os, "fork") else "spawn"  # then each test starts all


class Faulty(SourceFileLoader):
    """Load a module from its source with one edit, never from compiled files, nor into them."""

    def __init__(self, file, text, fault):
        """Find the text that is to be replaced, which must be there once, and compile the edit."""
        path = ROOT / "bnlib" / file
        parts = path.relative_to(ROOT).with_suffix("").parts
        super().__init__(".".join(parts).removesuffix(".__init__"), str(path))
        source = path.read_text()
        if source.count(text) != 1:
            raise ValueError(f"the fault no longer fits {file}: {text!r}")
        self.code = compile(source.replace(text, fault), self.path, "exec")
        self.used = False

    def find_spec(self, name, path=None, target=None):
        """Stand in for the loader of the one module, among Python's finders."""
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec:
            spec.loader = self
        return spec

    def get_code(self, fullname):
        self.used = True
        return self.code


@contextlib.contextmanager
def planted(file, text, fault, package="bnlib"):
    """Import the package anew, with a fault in one file; afterwards all is as it was."""
    loader = Faulty(file, text, fault)
    parent, _, name = package.rpartition(".")
    before = _forget(package)
    sys.meta_path.insert(0, loader)
    try:
        yield loader
    finally:
        sys.meta_path.remove(loader)
        _forget(package)
        sys.modules.update(before)
        if parent and package in before:
            setattr(sys.modules[parent], name, before[package])


def _forget(package):
    """Take a package and its modules out of those that are loaded, and return them."""
    names = [n for n in sys.modules if f"{n}.".startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


class Witness:
    """Note, for pytest, by which exception each test ended that did not pass, and when."""

    def __init__(self):
        self.ended = []

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo:
            self.ended.append((call.when, call.excinfo.type.__name__))


def outcome(tests, edit=None):
    """Run tests in a process of their own, with one edit of the library: `(file, text, fault)`.

    Returns:
        `(code, ended, said)`: the exit code of pytest, `(phase, exception)` of the first test that
        did not pass, in a list, and what pytest printed. A fault that does not fit, is not Python,
        or is in a module that the test does not import, is an error here.
    """
    context = multiprocessing.get_context(METHOD)
    context.set_forkserver_preload(PRELOADED)
    ours, its = context.Pipe()
    process = context.Process(target=_answer, args=(its, tests, edit), daemon=True)
    process.start()
    its.close()
    try:
        if not ours.poll(300):
            raise TimeoutError(f"{tests} with {edit} has not ended in five minutes")
        answer = ours.recv()
    finally:
        process.kill()
        process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(pipe, tests, edit):
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
            if edit and edit[1] != edit[2]:
                # What numba compiles with a fault in it must not be kept.
                os.environ["NUMBA_CACHE_DIR"] = folder
            pipe.send(_run(tests, edit))
    except Exception as problem:
        pipe.send(problem)


def _path_of(test):
    """Find `test_moments.py::test_one` in its folder."""
    (file,) = (ROOT / "tests").rglob(test.partition("::")[0])
    return str(file.relative_to(ROOT)) + test.removeprefix(file.name)


def _run(tests, edit):
    import pytest

    gc.freeze()  # pytest collects garbage after each test: not TensorFlow's
    os.chdir(ROOT)
    said, witness = io.StringIO(), Witness()
    options = ["-q", "-x", "--tb=native", "-p", "no:cacheprovider", "-p", "no:nbval"]
    # Since bnlib brings a plugin, pytest would load it to rewrite its asserts, before the planter.
    options += ["--assert=plain"]
    loader = planted(*edit) if edit else contextlib.nullcontext()
    with (
        loader as planter,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        code = pytest.main([*options, *map(_path_of, tests)], [witness])
    if edit and not planter.used:
        raise RuntimeError(f"{tests} never imported {edit[0]}:\n{said.getvalue()}")
    return int(code), witness.ended, said.getvalue()
