"""Layer, instance and group norm: `batch_norm` over other axes, and nothing else."""

from bnlib._checks import as_floating, per_channel_or_none, same_shape
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.axes import layout
from bnlib.gradient import batch_norm_backward
from bnlib.transform import batch_norm
from bnlib.variants._checks import as_channel, as_divisor, space

__all__: list[str] = []


def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-5,
) -> Array:
    """Normalise each example by its own mean and variance, then scale and shift.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Args:
        x: shape `(N, ..., C)`, any real dtype. Never modified.
        gamma: the shape of the normalised axes, in ascending order; None means 1.
        beta: likewise; None means 0.
        axis: the axis, or tuple of axes, averaged over: gamma and beta run along the same ones. It
            says what `axes` says in `batch_norm`.
        epsilon: guard inside the root. The paper has none; PyTorch and ONNX use 1e-5, Keras 1e-3,
            Flax 1e-6.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, nothing to average, or a negative epsilon.

    Paper: Ba, Kiros and Hinton (2016), section 3, equations 3 and 4.

    >>> layer_norm([[1.0, 3.0], [10.0, 50.0]], epsilon=0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return batch_norm(x, gamma, beta, axis=axis, axes=axis, epsilon=epsilon)[0]


def layer_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `layer_norm`.

        g      = gamma * grad_y
        grad_x = (g - mean(g) - x_hat * mean(g * x_hat)) / sqrt(variance + epsilon)

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`.

    Raises: as `layer_norm`.

    >>> grads = layer_norm_backward([[0.0, 1.0, 5.0]], [[-1.0, 0.0, 1.0]], epsilon=0)
    >>> grads[0].round(3), grads[2]
    (array([[ 0.612, -1.225,  0.612]]), array([0., 1., 5.]))
    """
    options = {"axis": axis, "axes": axis, "epsilon": epsilon}
    return batch_norm_backward(grad_y, x, gamma, **options)


def instance_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-5,
) -> Array:
    """Normalise each channel of each example over its space, then scale and shift.

    Args:
        x: shape `(N, ..., C)`, with at least one axis of space.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis of the channels: -1 for channels last, 1 for channels first.
        epsilon: guard inside the root. The paper gives no value; PyTorch and ONNX use 1e-5, Flax
            1e-6.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, no axis of space, or a negative epsilon.

    Paper: Ulyanov, Vedaldi and Lempitsky (2016), section 2.

    >>> x = [[[1.0, 10.0], [3.0, 50.0]]]  # one example, two places, two channels
    >>> instance_norm(x, epsilon=0)
    array([[[-1., -1.],
            [ 1.,  1.]]])
    """
    x = as_floating("x", x)
    axes = space(x.shape, axis)
    return batch_norm(x, gamma, beta, axis=axis, axes=axes, epsilon=epsilon)[0]


def instance_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `instance_norm`.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`.

    Raises: as `instance_norm`.

    >>> x = [[[-1.0], [0.0], [1.0]]]
    >>> instance_norm_backward([[[0.0], [1.0], [5.0]]], x, epsilon=0)[0].ravel().round(3)
    array([ 0.612, -1.225,  0.612])
    """
    x = as_floating("x", x)
    options = {"axis": axis, "axes": space(x.shape, axis), "epsilon": epsilon}
    return batch_norm_backward(grad_y, x, gamma, **options)


def group_norm(
    x: ArrayLike,
    groups: int,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> Array:
    """Normalise each example over space and groups of neighbouring channels.

    With one group it is `layer_norm` over space and channels, but for gamma; with a group for each
    channel it is `instance_norm`.

    Args:
        x: shape `(N, ..., C)`.
        groups: how many; must divide C. The paper's default is 32, as Keras's.
        gamma: shape `(C,)`: one for each channel, not each group. None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis of the channels: -1 for channels last, 1 for channels first.
        epsilon: guard inside the root. The paper's code has 1e-5, as PyTorch and ONNX; Keras 1e-3,
            Flax 1e-6.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers, or groups is no integer.
        ValueError: for a wrong shape, groups that do not divide the channels, nothing to average,
            or a negative epsilon.

    Paper: Wu and He (2018), section 3.1, equation 7; its code is figure 3.

    >>> group_norm([[1.0, 3.0, 10.0, 50.0]], groups=2, epsilon=0)
    array([[-1.,  1., -1.,  1.]])
    """
    x = as_floating("x", x)
    split, options = _grouped(x.shape, groups, axis)
    gamma, beta = (
        _as_grouped(name, value, x.shape, groups, axis)
        for name, value in (("gamma", gamma), ("beta", beta))
    )
    y, *_ = batch_norm(x.reshape(split), gamma, beta, epsilon=epsilon, **options)
    return y.reshape(x.shape)


def group_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    groups: int,
    gamma: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `group_norm`.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`.

    Raises: as `group_norm`.

    >>> x = [[-1.0, 0.0, 1.0, 7.0, 8.0, 9.0]]
    >>> grad_x, _, _ = group_norm_backward([[0.0, 1.0, 5.0, 1.0, 1.0, 1.0]], x, 2, epsilon=0)
    >>> grad_x.round(3) + 0
    array([[ 0.612, -1.225,  0.612,  0.   ,  0.   ,  0.   ]])
    """
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    split, options = _grouped(x.shape, groups, axis)
    gamma = _as_grouped("gamma", gamma, x.shape, groups, axis)
    grad_x, *grads = batch_norm_backward(
        grad_y.reshape(split), x.reshape(split), gamma, epsilon=epsilon, **options
    )
    return grad_x.reshape(x.shape), *(grad.ravel() for grad in grads)


def _grouped(shape, groups, axis):
    """Split the channels in two axes, groups and members; say what batch norm then does."""
    channel = as_channel(axis, len(shape))
    groups = as_divisor("groups", groups, shape[channel], "channels")
    members = channel + 1
    split = *shape[:channel], groups, shape[channel] // groups, *shape[members:]
    averaged = tuple(a for a in range(1, len(split)) if a != channel)
    return split, {"axis": (channel, members), "axes": averaged}


def _as_grouped(name, value, shape, groups, axis):
    """Check gamma or beta, and split it as the channels."""
    value = per_channel_or_none(name, value, layout(shape, axis))
    return None if value is None else value.reshape(groups, -1)
