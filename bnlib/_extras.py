"""What to install where a package that is not required is not there."""

from contextlib import contextmanager

DISTRIBUTION = "bnlib-book"  # `bnlib` on PyPI is another project
NAMES = {
    "IPython": "IPython",
    "click": "click",
    "keras": "Keras",
    "matplotlib": "Matplotlib",
    "numba": "numba",
    "pooch": "Pooch",
    "rich": "Rich",
    "sklearn": "scikit-learn",
    "tensorflow": "TensorFlow",
}


@contextmanager
def needed(user, extra):
    """Say, around imports, how to get what is missing.

    A package that is there but does not work keeps its own error.

    Args:
        user: the module that imports.
        extra: which of our extras brings what it imports.

    Raises:
        ModuleNotFoundError: with the command that installs the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NAMES or "pip install" in str(error):
            raise
        raise ModuleNotFoundError(
            f'{user} needs {NAMES[package]}: pip install "{DISTRIBUTION}[{extra}]".',
            name=package,
        ) from error
