"""Batch norm of parts of a batch, and batch norm brought close to the population's."""

from bnlib._checks import as_floating, same_shape
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.gradient import batch_norm_backward
from bnlib.transform import batch_norm
from bnlib.variants._checks import as_channels, as_divisor

__all__: list[str] = []


def ghost_batch_norm(
    x: ArrayLike,
    size: int,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Array:
    """Cut a batch into ghosts of so many examples, and batch-normalise each apart.

    What each replica does when batch norm is not synchronised, on one device.

    Args:
        x: shape `(N, ..., C)`, the examples on axis 0.
        size: examples in a ghost, neighbours in x; must divide N. The paper's is 128.
        gamma: shape `(C,)`, the same for all ghosts; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, of the channels.
        epsilon: guard inside the root; 1e-3, as `bnlib.batch_norm`. The paper gives no value.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers, or size is no integer.
        ValueError: for a wrong shape, a size that does not divide N, or a negative epsilon.

    Paper: Hoffer, Hubara and Soudry (2017), algorithm 1, training phase.

    >>> ghost_batch_norm([[1.0], [3.0], [10.0], [50.0]], size=2, epsilon=0).ravel()
    array([-1.,  1., -1.,  1.])
    """
    x = as_floating("x", x)
    split, options = _haunted(x.shape, size, axis)
    y, *_ = batch_norm(x.reshape(split), gamma, beta, epsilon=epsilon, **options)
    return y.reshape(x.shape)


def ghost_batch_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    size: int,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `ghost_batch_norm`.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`.

    Raises: as `ghost_batch_norm`.

    >>> x = [[-1.0], [0.0], [1.0], [7.0], [8.0], [9.0]]
    >>> grad_y = [[0.0], [1.0], [5.0], [1.0], [1.0], [1.0]]
    >>> ghost_batch_norm_backward(grad_y, x, 3, epsilon=0)[0].ravel().round(3) + 0
    array([ 0.612, -1.225,  0.612,  0.   ,  0.   ,  0.   ])
    """
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    split, options = _haunted(x.shape, size, axis)
    grad_x, *grads = batch_norm_backward(
        grad_y.reshape(split), x.reshape(split), gamma, epsilon=epsilon, **options
    )
    return grad_x.reshape(x.shape), *grads


def _haunted(shape, size, axis):
    """Split the examples in two axes, ghosts and members; say what batch norm then does."""
    channels = tuple(a + 1 for a in as_channels(axis, len(shape)))
    size = as_divisor("size", size, shape[0], "examples")
    split = shape[0] // size, size, *shape[1:]
    averaged = tuple(a for a in range(1, len(split)) if a not in channels)
    return split, {"axis": channels, "axes": averaged}
