"""What all frameworks need: read named values strictly, refuse what would be lost, fill gaps."""

import warnings

import numpy as np

REMEDY = {
    "axis": "Move the channels of your data there, as np.moveaxis does",
    "bessel": "Inference does not change; training feeds the moving variance with another "
    "factor, see variance_factor",
    "gamma": "It can be written as ones, which the framework will train",
    "beta": "It can be written as zeros, which the framework will train",
}


def read(framework, values, required, optional=(), hint=""):
    """Return the values asked for, by name; None for an optional one that is missing.

    Raises:
        TypeError: when `values` is not a dict.
        ValueError: when a required name is missing, or a name is unknown.
    """
    if not hasattr(values, "items"):
        raise TypeError(
            f"{framework} values must be a dict by name; got {type(values).__name__}. "
            f"It holds {', '.join(required)}."
        )
    missing = [name for name in required if name not in values]
    unknown = [name for name in values if name not in (*required, *optional)]
    if missing or unknown:
        raise ValueError(
            f"{framework} values must hold {', '.join(required)}"
            + (f", and may hold {', '.join(optional)}" if optional else "")
            + f"; missing: {missing}, unknown: {unknown}. "
            + (hint or "Use the framework's own names, without prefixes.")
        )
    return {name: values.get(name) for name in (*required, *optional)}


def one_layer(framework, values, arrays, marker, separator, word, chosen):
    """Return the values of one layer, without the prefix that its names share.

    Args:
        framework: its name, for the error.
        values: the dict; names may have a prefix, and those without one are kept.
        arrays: the names, without prefix, that belong to a layer.
        marker: the one of them that only batch norm layers have.
        separator: what stands between the prefix and the name.
        word: what the framework calls the prefix.
        chosen: the prefix that the user asked for; None takes the one that all share.

    Raises:
        ValueError: when there are several and none is chosen, or the chosen one is not there.
    """
    if not hasattr(values, "items"):
        return values  # `read` says what is wrong
    plain, groups = {}, {}
    for name, value in values.items():
        prefix, _, leaf = str(name).rpartition(separator)
        if prefix:
            groups.setdefault(prefix, {})[leaf] = value
        else:
            plain[name] = value
    layers = [prefix for prefix, group in groups.items() if marker in group]
    shown = ", ".join(map(repr, layers[:20])) + (", ..." if len(layers) > 20 else "")
    if chosen is None:
        alone = len(groups) == 1 and set(groups[layers[0]] if layers else ()) <= set(
            arrays
        )
        if marker in plain or not layers:
            return values
        if not alone:
            raise ValueError(
                f"{framework} values must be those of one layer; got names of several. Choose one "
                f"of {shown}: pass {word}={layers[0]!r}."
            )
        chosen = layers[0]
    chosen = chosen.rstrip(separator)
    if chosen not in layers:
        raise ValueError(
            f"{word} must be that of a batch norm layer; got {chosen!r}. "
            + (f"There are {shown}." if layers else "There is none: no name has one.")
        )
    return groups[chosen] | {n: v for n, v in plain.items() if n not in arrays}


def refuse_losses(params, framework, lose, hint="", **fixed):
    """Refuse a setting that the framework cannot hold, unless its name is in `lose`.

    Bessel's factor changes no output, and is not refused: its loss is a warning.

    Args:
        params: the `BNParams`.
        framework: its name, for the error.
        lose: names of the settings that may be lost.
        hint: what else can be done about Bessel's factor.
        **fixed: for each setting the one value that the framework has.

    Raises:
        ValueError: when a setting differs from the fixed one.

    Warns:
        UserWarning: when Bessel's factor differs.
    """
    for name, value in fixed.items():
        got = getattr(params, name)
        if got == value or name in lose:
            continue
        message = f"{framework} has {name}={value!r} only; got {name}={got!r}. {REMEDY[name]}. "
        message += hint
        if name != "bessel":
            raise ValueError(f"{message}If you accept that, pass lose=[{name!r}].")
        warnings.warn(
            f"{message}To say that you know, pass lose=[{name!r}].", stacklevel=3
        )


def known_momentum(params, framework):
    """Return the momentum, which the framework has no None for."""
    if params.momentum is None:
        raise ValueError(
            f"{framework} keeps an exponential average, and needs a momentum; got None, the plain "
            "average of all batches. Choose one: dataclasses.replace(params, momentum=0.99)."
        )
    return params.momentum


def filled(params, name, value, framework, lose):
    """Return a copy of gamma or beta, or of a vector of `value` if losing its None is accepted."""
    array = getattr(params, name)
    if array is None and name not in lose:
        raise ValueError(
            f"{framework} cannot leave out {name} alone; got {name}=None. {REMEDY[name]}. "
            f"If you accept that, pass lose=[{name!r}]."
        )
    return np.full_like(params.moving_mean, value) if array is None else np.array(array)


def copies(**arrays):
    """Return copies, which the caller may write to, of the arrays that are not None."""
    return {name: np.array(a) for name, a in arrays.items() if a is not None}
