"""Tiny networks in NumPy, small enough to read, real enough to fail: dense and convolutional.

Everything is float64: unstable runs are the point of some experiments, and stable ones then repeat
to the printed digit on any machine.
"""

import itertools

import numpy as np

from bnlib._extras import needed

with needed("bnlib.book.network", "notebook"):
    from rich.progress import track


from bnlib.layer import BatchNorm
from bnlib.moments import merge_moments, moments

__all__ = [
    "Activation",
    "Conv2D",
    "Dense",
    "GlobalAverage",
    "Network",
    "accuracy",
    "batches",
    "convolutional",
    "dense",
    "recalibrate",
    "softmax_cross_entropy",
    "squared_error",
    "train",
]


class Dense:
    """y = x @ kernel + bias.

    Args:
        inputs: D.
        units: C.
        rng: a `numpy.random.Generator`.
        deviation: of the kernel's Gaussian; default 1 / sqrt(D).
        bias: the value that all biases start at; None for a layer without.

    Attributes:
        parameters: dict of arrays, `kernel` of shape `(D, C)`, and `bias` of shape `(C,)` if there
            is one; a step of gradient descent changes them in place.
        gradients: dict of the last `backward`, with the same names.
    """

    def __init__(self, inputs, units, rng, *, deviation=None, bias=0.0):
        deviation = inputs**-0.5 if deviation is None else deviation
        self.parameters = {"kernel": rng.normal(0, deviation, (inputs, units))}
        if bias is not None:
            self.parameters["bias"] = np.full(units, float(bias))
        self.gradients = {}

    def __call__(self, x, *, training):
        """Map `(N, D)` to `(N, C)`, and keep the input for `backward`.

        Args:
            x: shape `(N, D)`.
            training: changes nothing here; every layer is told.

        Returns:
            y, shape `(N, C)`.
        """
        self._x = x
        return x @ self.parameters["kernel"] + self.parameters.get("bias", 0)

    def backward(self, grad_y):
        """Propagate the loss gradient through the last call.

        Args:
            grad_y: gradient of the loss with respect to y, shape `(N, C)`.

        Returns:
            grad_x, shape `(N, D)`. The gradients of kernel and bias are left in `gradients`.
        """
        self.gradients = {"kernel": self._x.T @ grad_y, "bias": grad_y.sum(axis=0)}
        return grad_y @ self.parameters["kernel"].T


class Conv2D:
    """A convolution with a kernel of 3 x 3 and a border of zeros, channels last.

    Args:
        inputs: D, channels of the input.
        filters: C, channels of the output.
        rng: a `numpy.random.Generator`.
        stride: 1 keeps height and width; 2 halves them, rounding up.
        deviation: of the kernel's Gaussian; default 1 / sqrt(9 D).
        bias: the value that all biases start at; None for a layer without.

    Attributes:
        parameters: dict of arrays, `kernel` of shape `(3, 3, D, C)`, as Keras has it, and `bias` of
            shape `(C,)` if there is one.
        gradients: dict of the last `backward`, with the same names.
    """

    def __init__(self, inputs, filters, rng, *, stride=1, deviation=None, bias=0.0):
        deviation = (9 * inputs) ** -0.5 if deviation is None else deviation
        self.parameters = {"kernel": rng.normal(0, deviation, (3, 3, inputs, filters))}
        if bias is not None:
            self.parameters["bias"] = np.full(filters, float(bias))
        self.gradients, self.stride = {}, stride

    def __call__(self, x, *, training):
        """Map `(N, H, W, D)` to `(N, H', W', C)`, and keep the patches for `backward`.

        Args:
            x: shape `(N, H, W, D)`.
            training: changes nothing here; every layer is told.

        Returns:
            y; H' and W' are H and W divided by the stride, rounded up.
        """
        self._shape, kernel = x.shape, self.parameters["kernel"]
        bordered = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        seen = np.lib.stride_tricks.sliding_window_view(bordered, (3, 3), axis=(1, 2))
        seen = seen[:, :: self.stride, :: self.stride]  # (N, H', W', D, 3, 3)
        self._patches = seen.transpose(0, 1, 2, 4, 5, 3).reshape(
            -1, kernel[..., 0].size
        )
        y = self._patches @ kernel.reshape(-1, kernel.shape[-1])
        y += self.parameters.get("bias", 0)
        return y.reshape(*seen.shape[:3], -1)

    def backward(self, grad_y):
        """Propagate the loss gradient through the last call.

        Args:
            grad_y: gradient of the loss with respect to y, shape `(N, H', W', C)`.

        Returns:
            grad_x, shape `(N, H, W, D)`. The gradients of kernel and bias are left in `gradients`.
        """
        kernel, (n, h, w, d) = self.parameters["kernel"], self._shape
        rows = grad_y.reshape(-1, grad_y.shape[-1])
        grad_kernel = (self._patches.T @ rows).reshape(kernel.shape)
        self.gradients = {"kernel": grad_kernel, "bias": rows.sum(axis=0)}
        patches = rows @ kernel.reshape(-1, kernel.shape[-1]).T
        patches = patches.reshape(*grad_y.shape[:3], 3, 3, d)
        bordered = np.zeros((n, h + 2, w + 2, d))
        for i, j in np.ndindex(3, 3):  # each place of the kernel saw a shifted image
            place = bordered[:, i : i + h : self.stride, j : j + w : self.stride]
            place += patches[:, :, :, i, j]
        return bordered[:, 1:-1, 1:-1]


class GlobalAverage:
    """The mean of each feature map: `(N, H, W, C)` to `(N, C)`.

    Attributes:
        parameters: an empty dict.
        gradients: an empty dict.
    """

    def __init__(self):
        self.parameters, self.gradients = {}, {}

    def __call__(self, x, *, training):
        """Average over height and width; `training` changes nothing here."""
        self._shape = x.shape
        return x.mean(axis=(1, 2))

    def backward(self, grad_y):
        """Return grad_x: each place of a map gets an equal part of its mean's gradient."""
        _, h, w, _ = self._shape
        return np.broadcast_to(grad_y[:, None, None] / (h * w), self._shape)


# name: (function of x, its derivative written in terms of the output y)
ACTIVATIONS = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: (y > 0) * 1.0),
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "sigmoid": (lambda x: 0.5 * (1 + np.tanh(x / 2)), lambda y: y * (1 - y)),
    "linear": (lambda x: x, np.ones_like),
}


class Activation:
    """A function applied to each number.

    Args:
        name: `relu`, `tanh`, `sigmoid` or `linear`.

    Raises:
        ValueError: for another name.
    """

    def __init__(self, name):
        if name not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {sorted(ACTIVATIONS)}; got {name!r}."
            )
        self.parameters, self.gradients = {}, {}
        self._function, self._derivative = ACTIVATIONS[name]

    def __call__(self, x, *, training):
        """Apply the function to each number; `training` changes nothing here."""
        self._y = self._function(x)
        return self._y

    def backward(self, grad_y):
        """Return grad_x: grad_y times the derivative, taken from the output of the last call."""
        return grad_y * self._derivative(self._y)


class Network:
    """Layers in a row. The output of the last one is the logits, or the prediction.

    Args:
        layers: those of this module and `bnlib.BatchNorm`, in order, or any object like them:
            called as `layer(x, training=...)`, with `backward`, `parameters` and `gradients`.
    """

    def __init__(self, layers):
        self.layers = list(layers)

    def __call__(self, x, *, training, **options):
        """Run all layers.

        Args:
            x: shape `(N, D)`, or `(N, H, W, D)` if the first layer is a convolution.
            training: the mode, which every layer is told.
            **options: go to the batch norm layers, for example `update=False`.

        Returns:
            The output of the last layer.
        """
        return self.outputs(x, training=training, **options)[-1]

    def outputs(self, x, *, training, **options):
        """Run all layers, as a call does, and return the output of each, in order."""
        outputs = []
        for layer in self.layers:
            extra = options if isinstance(layer, BatchNorm) else {}
            x = layer(x, training=training, **extra)
            outputs.append(x)
        return outputs

    def backward(self, grad):
        """Propagate the loss gradient from the last layer to the input.

        Args:
            grad: gradient of the loss with respect to the output of the last layer.

        Returns:
            The gradient with respect to the input. Each layer keeps those of its parameters.
        """
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad

    def step(self, rate):
        """Take one step of plain gradient descent, in place, by the last gradients.

        Args:
            rate: the learning rate.
        """
        for layer in self.layers:
            for name, value in layer.parameters.items():
                value -= rate * layer.gradients[name]

    @property
    def norms(self):
        """The batch norm layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, BatchNorm)]


def dense(
    sizes, activation="relu", *, seed=0, norm=None, place="before", deviation=None
):
    """Make a network of dense layers, with or without a norm at each hidden layer.

    Args:
        sizes: of the input, of each hidden layer and of the output, as in `[64, 100, 100, 10]`.
        activation: behind each hidden layer, a name that `Activation` knows.
        seed: of the weights, which do not depend on `norm`.
        norm: called with the number of channels for each layer of norm; None for a network without.
        place: "before" or "after" the activation. The dense layer has no bias where a norm follows
            at once.
        deviation: of the weights: a number; None for He's sqrt(2 / D) with relu, and for
            sqrt(1 / D) with another activation, D inputs. The last layer has sqrt(1 / D), unless
            it is a number.

    Returns:
        The `Network`; it takes `(N, sizes[0])` and gives `(N, sizes[-1])`.

    Raises:
        ValueError: for another place.
    """
    if place not in ("before", "after"):
        raise ValueError(f"place must be 'before' or 'after'; got {place!r}.")
    rng, layers = np.random.default_rng(seed), []
    gain = 2 if activation == "relu" else 1
    for inputs, units in itertools.pairwise(sizes[:-1]):
        scale = (gain / inputs) ** 0.5 if deviation is None else deviation
        bias = None if norm and place == "before" else 0.0
        layers.append(Dense(inputs, units, rng, deviation=scale, bias=bias))
        both = [norm(units)] if norm else []
        both.insert(len(both) if place == "before" else 0, Activation(activation))
        layers += both
    return Network([*layers, Dense(*sizes[-2:], rng, deviation=deviation)])


def convolutional(seed=0, norm=BatchNorm):
    """Make the book's convolutional network for the digits: chapters 5 to 8 train it.

    Three convolutions of 8, 16 and 32 channels, the last two with stride 2, so that their maps have
    8 x 8, 4 x 4 and 2 x 2 places. Behind each comes a batch norm and a ReLU. The mean of each map
    goes to a dense layer with ten outputs. The convolutions have no bias where a norm follows.

    Args:
        seed: of the weights, which do not depend on `norm`.
        norm: called with the number of channels for each batch norm layer, as in
            `norm=lambda channels: BatchNorm(channels, momentum=0.9)`; None for a network without.

    Returns:
        The `Network`; it takes `(N, 8, 8, 1)` and gives logits `(N, 10)`.
    """
    rng, layers, inputs = np.random.default_rng(seed), [], 1
    for filters, stride in [(8, 1), (16, 2), (32, 2)]:
        # He's deviation, for ReLU
        options = {"stride": stride, "deviation": (2 / (9 * inputs)) ** 0.5}
        bias = None if norm else 0.0
        layers.append(Conv2D(inputs, filters, rng, bias=bias, **options))
        layers += [norm(filters)] if norm else []
        layers.append(Activation("relu"))
        inputs = filters
    return Network([*layers, GlobalAverage(), Dense(inputs, 10, rng)])


def accuracy(network, x, y, *, training=False, **options):
    """Compute the share of right answers.

    Args:
        network: the `Network`, or a model of TensorFlow's that is called alike.
        x: inputs, `(N, ...)`, in one batch.
        y: N labels.
        training: the mode; with True, say `update=False` too, to leave no trace.
        **options: go to the batch norm layers.

    Returns:
        A number from 0 to 1.
    """
    logits = network(x, training=training, **options)
    return np.mean(np.argmax(logits, axis=1) == y)


def recalibrate(network, batches):
    """Give each batch norm layer the exact statistics of its input, layer by layer.

    What goes on to the next layer has been normalised as it will be in inference, so the batches
    may be of any size and cut anywhere. No weight changes, and the layers keep their estimators,
    which go on from here if training does.

    Args:
        network: the `Network`, changed in place. Its batch norm layers are those of `bnlib`, or
            have `moving_mean` and `moving_variance`, and channels last.
        batches: arrays of inputs, `(N, ...)`; they are all kept in memory.

    Raises:
        ValueError: when there is no batch.
    """
    hidden = list(batches)
    if not hidden:
        raise ValueError("batches must hold at least one array of inputs; got none.")
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            population, exact = layer.population, _exact(hidden, layer.axis)
            population.restore(population.state() | exact._asdict())
        elif hasattr(layer, "moving_mean"):
            layer.moving_mean, layer.moving_variance, _ = _exact(hidden, -1)
        hidden = [layer(h, training=False) for h in hidden]


def _exact(batches, axis):
    """Return the moments of all values together."""
    return merge_moments([moments(batch, axis=axis) for batch in batches])


def softmax_cross_entropy(logits, labels):
    """Compute the mean cross-entropy and its gradient; stable for any logits.

    Args:
        logits: `(N, C)`.
        labels: N integers from 0 to C - 1.

    Returns:
        The loss, and its gradient with respect to the logits, `(N, C)`.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    loss = np.mean(log_total[:, 0] - shifted[rows, labels])
    grad = np.exp(shifted - log_total)
    grad[rows, labels] -= 1
    return loss, grad / len(labels)


def squared_error(prediction, target):
    """Compute the mean squared error and its gradient.

    Args:
        prediction: any shape.
        target: the same shape.

    Returns:
        The loss, and its gradient with respect to the prediction.
    """
    difference = prediction - target
    return np.mean(difference**2), 2 * difference / difference.size


def train(
    network, x, y, loss, *, rate, steps, batch=None, seed=0, after=None, progress=False
):
    """Train by plain gradient descent.

    Args:
        network: the `Network`, changed in place.
        x: inputs, `(N, ...)`.
        y: targets or labels, N of them.
        loss: `softmax_cross_entropy` or `squared_error`.
        rate: learning rate.
        steps: how many.
        batch: examples per step, drawn without repetition within an epoch; None means all of them.
        seed: of the order.
        after: called as `after(step)` before the first step and after each.
        progress: whether to show a progress bar; never in a stored output.

    Returns:
        The loss at every step, before its update, shape `(steps,)`.

    Raises:
        ValueError: when a batch is to have more examples than there are.
    """
    size = len(x) if batch is None else batch
    if size > len(x):
        raise ValueError(f"batch must be at most the {len(x)} examples; got {size}.")
    order, losses = batches(len(x), size, np.random.default_rng(seed)), []
    after = after or (lambda step: None)
    after(0)
    for step in track(range(1, steps + 1), "training", disable=not progress):
        rows = next(order)
        value, grad = loss(network(x[rows], training=True), y[rows])
        network.backward(grad)
        network.step(rate)
        losses.append(value)
        after(step)
    return np.array(losses)


def batches(examples, size, rng):
    """Yield index arrays for ever; each epoch drops the rest that does not fill a batch.

    Args:
        examples: how many there are.
        size: of a batch.
        rng: a `numpy.random.Generator`; not asked where a batch holds all examples, in order.

    Yields:
        The rows of a batch, shape `(size,)`.

    Returns:
        Nothing: it never ends.
    """
    while True:
        order = np.arange(examples) if size == examples else rng.permutation(examples)
        for start in range(0, examples - size + 1, size):
            yield order[start : start + size]
