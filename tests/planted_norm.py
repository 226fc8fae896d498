"""A small batch norm that passes every check, and faults of it: what each changes, who finds it."""

import numpy as np

from bnlib.conformance import Adapter


class Reference(Adapter):
    """Batch norm in float64, in small steps, so that a fault is another step."""

    bessel, debiased = False, False

    def __init__(self, setting):
        self.setting, self.frozen, self.seen = setting, False, 0
        self.gamma, self.beta = setting.vectors()
        self.mean, self.variance = np.zeros(3), np.ones(3)

    # The transform

    def axes(self, x):
        return tuple(a for a in range(x.ndim) if a != self.setting.axis % x.ndim)

    def spread(self, vector, x):
        shape = [1] * x.ndim
        shape[self.setting.axis] = 3
        return vector if vector.ndim == x.ndim else vector.reshape(shape)

    def read(self, x):
        return x.astype(np.float64)

    def statistics(self, x):
        mean = x.mean(self.axes(x), keepdims=True)
        variance = ((x - mean) ** 2).mean(self.axes(x), keepdims=True)
        return mean, variance

    def root(self, variance):
        return np.sqrt(variance + self.setting.epsilon)

    def normalise(self, x, mean, variance):
        return (x - self.spread(mean, x)) / self.root(self.spread(variance, x))

    def scale_and_shift(self, x_hat):
        return self.spread(self.gamma, x_hat) * x_hat + self.spread(self.beta, x_hat)

    def write(self, y, x):
        return y.astype(x.dtype)

    # The modes

    def forward(self, x, training):
        if x.size == 0:
            return self.empty(x)
        training = training and not self.frozen
        statistics = self.train(x) if training else self.moving(x)
        y = self.scale_and_shift(self.normalise(self.read(x), *statistics))
        return self.write(y, x)

    def empty(self, x):
        return x.copy()

    def train(self, x):
        mean, variance = self.statistics(self.read(x))
        self.update(mean.ravel(), variance.ravel(), x.size // 3)
        return mean, variance

    def moving(self, x):
        return self.mean, self.variance

    def update(self, mean, variance, count):
        rate, self.seen = 1 - self.setting.momentum, self.seen + 1
        self.mean = self.mean + rate * (mean - self.mean)
        self.variance = self.variance + rate * (variance - self.variance)

    def freeze(self):
        self.frozen = True

    def masked(self, x, mask):
        y = np.zeros_like(x)
        y[mask] = self.forward(x[mask], True)
        return y

    def replicated(self, parts):
        y = self.forward(np.concatenate(parts), True)
        return np.split(y, len(parts))

    # The gradient

    def gradient(self, x, grad_y, held=None):
        """Go back; `held` is a mean that stands still inside the variance."""
        mean, variance = self.statistics(x)
        away = x - mean
        if held is not None:
            away = x - held
            variance = (away**2).mean(axis=0, keepdims=True)
        inverse = 1 / self.root(variance)
        grad = grad_y * self.gamma
        through_mean, through_variance = self.paths(grad, x - mean, away, inverse)
        grad_x = inverse * (grad - through_mean - through_variance)
        x_hat = (x - mean) * inverse
        return grad_x, self.grad_gamma(x, x_hat, grad_y), grad_y.sum(axis=0)

    def paths(self, grad, centred, away, inverse):
        along = (grad * centred).mean(axis=0)
        return grad.mean(axis=0), away * inverse**2 * along

    def grad_gamma(self, x, x_hat, grad_y):
        return (grad_y * x_hat).sum(axis=0)

    def hold(self, x):
        return None

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the product of gradient and direction by each value of x."""
        result, held = np.zeros_like(x), self.hold(x)
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = 0.1
            up, down = (
                np.sum(self.gradient(near, grad_y.copy(), held)[0] * direction)
                for near in (x + step, x - step)
            )
            result[place] = (up - down) / 0.2
        return result

    # The state

    def state(self):
        return self.mean.copy(), self.variance.copy()

    def set_state(self, moving_mean, moving_variance):
        self.mean, self.variance = moving_mean, moving_variance

    def reloaded(self):
        other = type(self)(self.setting)
        other.mean, other.variance, other.seen = self.saved()
        return other

    def saved(self):
        return *self.state(), self.seen


# The faults: another step in place of the reference's, and the checks that fail for it.

FAULTS = []


def fails(*checks):
    """Enter a faulty class, with the checks that it fails."""

    def enter(faulty):
        FAULTS.append((faulty, set(checks)))
        return faulty

    return enter


@fails("transform", "float64", "gradient_x", "gradient_gamma_beta")
class BesselsVarianceInY(Reference):
    def train(self, x):
        mean, variance = super().train(x)
        count = x.size // 3
        return mean, variance * count / max(count - 1, 1)


@fails("epsilon", "float64")
class EpsilonOutsideTheRoot(Reference):
    def root(self, variance):
        return np.sqrt(variance) + self.setting.epsilon


@fails("gamma_and_beta", "inference", "gradient_gamma_beta")
class BetaBeforeGamma(Reference):
    def scale_and_shift(self, x_hat):
        return self.spread(self.gamma, x_hat) * (x_hat + self.spread(self.beta, x_hat))


@fails("channels_last", "channels_first")
class EachPlaceForItself(Reference):
    def statistics(self, x):
        mean = x.mean(axis=0, keepdims=True)
        return mean, ((x - mean) ** 2).mean(axis=0, keepdims=True)

    def update(self, mean, variance, count):
        if mean.size == 3:
            super().update(mean, variance, count)


@fails("channels_first")
class Axis1IsTakenForTheLast(Reference):
    def axes(self, x):
        return tuple(range(x.ndim - 1))

    def spread(self, vector, x):
        return vector

    def update(self, mean, variance, count):
        if mean.size == 3:
            super().update(mean, variance, count)


@fails("float32", "float16", "float16_range", "bfloat16")
class YIsFloat64(Reference):
    def write(self, y, x):
        return y


@fails("float64")
class Float64InFloat32(Reference):
    def read(self, x):
        return super().read(x).astype(np.float32).astype(np.float64)


def _narrow(x):
    return x.dtype.itemsize == 2  # float16 or bfloat16


@fails("float16", "float16_range", "bfloat16")
class SumsIn16Bits(Reference):
    def read(self, x):
        return x if _narrow(x) else super().read(x)

    def statistics(self, x):
        if not _narrow(x):
            return super().statistics(x)
        one = x.dtype.type(1 / len(x))
        mean = np.cumsum(x, axis=0, dtype=x.dtype)[-1:] * one
        return mean, np.cumsum((x - mean) ** 2, axis=0, dtype=x.dtype)[-1:] * one


@fails("float16_range")
class VarianceIn16Bits(Reference):
    def train(self, x):
        mean, variance = super().train(x)
        narrow = x.dtype == np.float16
        return mean, variance.astype(np.float16).astype(float) if narrow else variance


@fails("gradient_x")
class GammaIgnoredInTheGradient(Reference):
    def gradient(self, x, grad_y, held=None):
        gamma, self.gamma = self.gamma, np.ones(3)
        grads = super().gradient(x, grad_y, held)
        self.gamma = gamma
        return grads


@fails("gradient_x", "gradient_sum")
class DetachedMean(Reference):
    def paths(self, grad, centred, away, inverse):
        return 0, super().paths(grad, centred, away, inverse)[1]


@fails("gradient_x", "gradient_orthogonal")
class DetachedVariance(Reference):
    def paths(self, grad, centred, away, inverse):
        return super().paths(grad, centred, away, inverse)[0], 0


@fails("gradient_x", "gradient_sum", "gradient_orthogonal")
class BothDetached(Reference):
    def paths(self, grad, centred, away, inverse):
        return 0, 0


@fails("gradient_gamma_beta")
class GammasGradientByX(Reference):
    def grad_gamma(self, x, x_hat, grad_y):
        return (grad_y * x).sum(axis=0)


@fails("second_derivative")
class AMeanThatStandsStillInTheVariance(Reference):
    def hold(self, x):
        return x.mean(axis=0)


@fails("moving_mean", "momentum")
class MovingMeanWithoutDecay(Reference):
    def update(self, mean, variance, count):
        old = self.mean
        super().update(mean, variance, count)
        self.mean = old + (1 - self.setting.momentum) * mean


@fails("moving_mean", "momentum")
class MovingMeanStandsStill(Reference):
    def update(self, mean, variance, count):
        super().update(self.mean, variance, count)


@fails("moving_variance")
class MovingAverageOfTheDeviation(Reference):
    def update(self, mean, variance, count):
        root = np.sqrt(self.variance)
        super().update(mean, variance, count)
        rate = 1 - self.setting.momentum
        self.variance = (root + rate * (np.sqrt(variance) - root)) ** 2


@fails("bessel")
class BesselsVarianceKeptAndNotSaid(Reference):
    def update(self, mean, variance, count):
        super().update(mean, variance * count / max(count - 1, 1), count)


@fails("momentum")
class MomentumOfTheNewBatch(Reference):
    def update(self, mean, variance, count):
        kept = self.setting
        self.setting = type(kept)(3, momentum=1 - kept.momentum)
        super().update(mean, variance, count)
        self.setting = kept


@fails("first_update", "moving_mean", "moving_variance")
class DebiasedAndNotSaid(Reference):
    def update(self, mean, variance, count):
        if self.seen == 0:
            self.mean, self.variance = mean, variance
        super().update(mean, variance, count)


@fails("first_update", "moving_mean", "moving_variance")
class SaidToBeDebiasedAndIsNot(Reference):
    debiased = True


@fails("training")
class LaggingStatisticsInTraining(Reference):
    def train(self, x):
        mean, variance = super().train(x)
        if self.seen == 1:
            return mean, variance
        return (mean + self.mean) / 2, (variance + self.variance) / 2


@fails("inference", "inference_alone")
class InferenceByTheBatch(Reference):
    def moving(self, x):
        return self.statistics(self.read(x)) if not self.frozen else super().moving(x)


@fails("inference_keeps_state")
class InferenceTakesTheBatchIn(Reference):
    def moving(self, x):
        known = self.state()
        if not self.frozen:
            self.train(x)
        return known


@fails("freezing")
class FreezingDoesNothing(Reference):
    def freeze(self):
        pass


@fails("freezing")
class AFrozenLayerGoesOnCounting(Reference):
    def moving(self, x):
        known = self.state()
        if self.frozen:
            self.train(x)
        return known


@fails("masks")
class PaddingIsAveragedIn(Reference):
    def masked(self, x, mask):
        return self.forward(x, True)


@fails("masks")
class MaskedPlacesCount(Reference):
    def masked(self, x, mask):
        return self.forward(np.where(mask[..., None], x, 0), True)


@fails("replicas")
class EachReplicaForItself(Reference):
    def replicated(self, parts):
        return [self.forward(part, True) for part in parts]


@fails("replicas")
class MeanOfTheReplicasVariances(Reference):
    def replicated(self, parts):
        found = [self.statistics(self.read(part)) for part in parts]
        self.statistics = lambda x: tuple(np.mean(found, axis=0))
        return super().replicated(parts)


@fails("replicas")
class OneReplicasStatisticsAreKept(Reference):
    def replicated(self, parts):
        y = type(self)(self.setting).forward(np.concatenate(parts), True)
        self.forward(parts[0], True)
        return np.split(y, len(parts))


@fails("save_and_load")
class TheVarianceIsNotSaved(Reference):
    def saved(self):
        return self.mean, np.ones(3), self.seen


FAR = "mean_1e2", "mean_1e4", "mean_1e6", "mean_1e8"


@fails("float64", "values_of_1e25", *FAR)
class OnePassInFloat32(Reference):
    def train(self, x):
        super().train(x)
        x = self.read(x).astype(np.float32)
        count = np.float32(x.size // 3)
        rows = np.moveaxis(x, self.setting.axis, -1).reshape(-1, 3)
        mean, square = (np.cumsum(v, axis=0)[-1] / count for v in (rows, rows**2))
        return mean, np.maximum(square - mean**2, 0)


@fails("float64", "constant_channel", "mean_1e4", "mean_1e6", "mean_1e8")
class MeanInFloat32(Reference):
    def statistics(self, x):
        if x.ndim > 2:
            return super().statistics(x)
        mean = np.cumsum(x.astype(np.float32), axis=0)[-1:] / np.float32(len(x))
        return mean, ((x - mean) ** 2).mean(axis=0, keepdims=True)


@fails("values_of_1e25", "float64")
class VarianceInFloat32(Reference):
    def train(self, x):
        mean, variance = super().train(x)
        return mean, variance.astype(np.float32)


@fails("inference_mean_1e6")
class InferenceAsXScaleShift(Reference):
    def forward(self, x, training):
        if training or x.dtype != np.float32:
            return super().forward(x, training)
        scale = self.gamma / self.root(self.variance)
        shift = self.beta - self.mean * scale
        scale, shift = (self.spread(v.astype(np.float32), x) for v in (scale, shift))
        return x * scale + shift


@fails("nan_in_its_channel")
class NaNLeaks(Reference):
    def scale_and_shift(self, x_hat):
        return super().scale_and_shift(x_hat) + 0 * x_hat.sum()


@fails("batch_of_one")
class InfinityForOneValue(Reference):
    def update(self, mean, variance, count):
        super().update(mean, variance if count > 1 else variance / 0.0, count)


@fails("empty_batch")
class NaNKeptOfAnEmptyBatch(Reference):
    def empty(self, x):
        self.mean = self.mean * np.nan
        return x.copy()


@fails("empty_batch")
class AnEmptyBatchGivesOneRow(Reference):
    def empty(self, x):
        return np.zeros((1, 3), x.dtype)


@fails("non_contiguous")
class ReadInTheOrderOfTheMemory(Reference):
    def read(self, x):
        fortran = not x.flags.c_contiguous and x.flags.f_contiguous
        return super().read(x.T.reshape(x.shape) if fortran else x)


@fails("input_untouched")
class TheInputIsOverwritten(Reference):
    def write(self, y, x):
        x[...] = y
        return x.copy()


@fails("input_untouched")
class TheGradientIsOverwritten(Reference):
    def gradient(self, x, grad_y, held=None):
        grads = super().gradient(x, grad_y, held)
        grad_y[...] = grads[0]
        return grads
