"""The claims: who says what, what each predicts, and the verdict stated."""

import numpy as np

from bnlib.book.claims._cause import LEARNS
from bnlib.book.claims._shift import PUSHES, TARGETS
from bnlib.book.claims._weighing import FAILS, PARTLY, UNTOLD, Claim, Elsewhere

__all__ = ["ELSEWHERE", "LEDGER"]

NETWORKS = {
    "relu 5": "ReLU, 5 layers",
    "tanh 5": "tanh, 5 layers",
    "sigmoid 2": "sigmoid, 2 layers",
}
NOISES = "noise 0.5, 0.1 each", "noise 0.5, 0.5 each", "noise 1.0", "noise 1.5"
DIM = TARGETS.index("dim")
PARTS = 2, 4, 8, 16
HIDDEN = [f"hidden {rate}, last 0.1" for rate in (0.1, 1.0, 10.0, 100.0)]
SIZES = {0.1: "a tenth", 10.0: "ten times", 100.0: "a hundred times", 0.0: "all equal"}


def above(measure, one, other, by=0.02):
    """Predict that a measure is higher under one setting than under another, by a margin."""
    return lambda of: of(measure, one) > of(measure, other) + by


def all_of(predicates):
    """Predict all of several at once."""
    predicates = list(predicates)
    return lambda of: np.all([predicate(of) for predicate in predicates], axis=0)


def shared(network):
    """Return the rates at which a network learns with batch norm and without."""
    with_it = LEARNS[f"{network}, batch norm"]
    return [rate for rate in LEARNS[f"{network}, none"] if rate in with_it]


def flatter(network, rates=None, what="gradient change", times=1.2):
    """Predict that a measure of the landscape is smaller with batch norm, at each shared rate."""
    return all_of(
        lambda of, rate=rate: (
            of(what, f"{network}, none, {rate:g}")
            > times * of(what, f"{network}, batch norm, {rate:g}")
        )
        for rate in rates or shared(network)
    )


def learns(name, factor, least=0.9):
    """Predict an accuracy from weights of one size."""
    return lambda of: of("accuracy", f"{factor:g}, {name}") >= least


def forgives(factor, by=0.1):
    """Predict that weights of one size are better with batch norm than without."""
    return above("accuracy", f"{factor:g}, batch norm", f"{factor:g}, none", by=by)


def near(memory, by=0.02):
    """Predict that means, in deviations, and deviations, relatively, are off by little."""
    return lambda of: (
        np.maximum(of("mean off", memory), of("deviation off", memory)) < by
    )


def spread(names, times):
    """Predict that effective rates end less than so many times apart."""
    return lambda of: (
        np.ptp(np.log([of("effective", name) for name in names]), axis=0)
        < np.log(times)
    )


def rises(target, by=0.02):
    """Predict that re-estimation raises the accuracy on a target; below 0, that it costs less."""
    place = TARGETS.index(target)

    def predicate(of):
        before, after = (
            of(when, "batch norm")[:, place] for when in ("before", "after")
        )
        return after > before + by

    return predicate


FIT = all_of(
    (lambda of, name=name: of("on its own", name) > 0.99)
    for name in (
        "none",
        "none, dropout",
        "batch norm",
        "batch norm, dropout",
        "none, pixels 0 to 16",
        "none, pixels 0 to 1",
    )
)
BOTH = above("accuracy", "batch norm, dropout", "none", by=0.005)

CLAIMS = [
    Claim(
        key="shift",
        gist="Batch norm works because it keeps the inputs of layers from shifting.",
        who="Ioffe and Szegedy, 2015; against: Santurkar et al., 2018",
        section="claims-cause",
        predicts="noise of 0.5, which shifts channels more than they shift without batch norm,"
        " costs two points",
        experiment="shifted",
        core=above("accuracy", "batch norm", "noise 0.5"),
        circumstances={
            f"{name} costs two points": above("accuracy", "batch norm", name)
            for name in NOISES
        }
        | {
            "none, at its best rate, is two points behind": above(
                "accuracy", "batch norm", "none"
            ),
        },
        control={
            "at rate 0.3, none is two points behind": above(
                "accuracy", "batch norm", "none, rate 0.3"
            ),
            "noise 0.5 shifts more than none at either rate": lambda of: (
                of("moved", "noise 0.5")
                > np.maximum(of("moved", "none"), of("moved", "none, rate 0.3"))
            ),
        },
        stated=FAILS,
        conditions="Shifted more than it is without batch norm, it loses half a point. Shifted"
        " at least twice as much, it loses 13 to 28 points.",
    ),
    Claim(
        key="smooth",
        gist="Batch norm makes the loss smoother.",
        who="Santurkar et al., 2018",
        section="claims-cause",
        predicts="at every rate at which both learn, the gradient changes less along a step, by a"
        " factor of 1.2, in all three networks",
        experiment="landscape",
        core=all_of(flatter(network) for network in NETWORKS),
        circumstances={
            f"{name}, rate {rate:g}": flatter(network, [rate])
            for network, name in NETWORKS.items()
            for rate in shared(network)
        }
        | {
            f"before the first step: {name}": flatter(
                network, what="gradient change at step 0"
            )
            for network, name in NETWORKS.items()
        },
        control={
            "at these rates all have learned: 70 %": all_of(
                (
                    lambda of, name=f"{network}, {norm}, {rate:g}": (
                        of("accuracy", name) > 0.7
                    )
                )
                for network in NETWORKS
                for norm in ("none", "batch norm")
                for rate in shared(network)
            )
        },
        stated=FAILS,
        conditions="At a shared rate mostly yes, of ReLU by a factor of 5 to 12. But a tanh network"
        " is less smooth with it at a low rate, and before the first step.",
    ),
    Claim(
        key="variance",
        gist="Removing the variance, the noise, is what makes learning faster.",
        who="said under a figure of R2RT's",
        section="claims-cause",
        predicts="dividing alone needs at most 1.25 times the steps of batch norm",
        experiment="halves",
        core=lambda of: (
            of("steps", "only the size") <= 1.25 * of("steps", "batch norm")
        ),
        circumstances={
            "subtracting alone saves less than a tenth": lambda of: (
                of("steps", "only the mean") >= 0.9 * of("steps", "none")
            ),
        }
        | {
            f"with noise {noise} less than a tenth is saved": (
                lambda of, noise=noise: (
                    of("steps", f"noise {noise}") >= 0.9 * of("steps", "none")
                )
            )
            for noise in ("0.5", "1.0", "1.5")
        },
        control={
            "batch norm saves a third": lambda of: (
                of("steps", "batch norm") < of("steps", "none") / 1.5
            )
        },
        stated=FAILS,
        conditions="It takes both halves, each saves more than half of the steps. Noise put back"
        " costs none of the 160 saved at 0.5, and 35 at 1.5, by medians.",
    ),
    Claim(
        key="starts",
        gist="With batch norm the initial weights matter less.",
        who="Ioffe and Szegedy, 2015",
        section="claims-rates",
        predicts="from a tenth of the weights, and from ten times the weights, it is ten points"
        " ahead",
        experiment="starts",
        core=all_of([forgives(0.1), forgives(10.0)]),
        circumstances={
            f"{name}: 90 %": learns("batch norm", factor)
            for factor, name in SIZES.items()
        },
        control={
            "He's weights: both 90 %": all_of(
                learns(norm, 1.0) for norm in ("none", "batch norm")
            )
        },
        stated=PARTLY,
        conditions="Forgiven: a tenth; ten times in seven seeds, a hundred times in three. Equal"
        " ones are not.",
    ),
    Claim(
        key="tuned",
        gist="Batch norm tunes the learning rate by itself.",
        who="Arora, Li and Lyu, 2019",
        section="claims-rates",
        predicts="of hidden layers at rates 1000 times apart, the effective rates end less than 100"
        " times apart",
        experiment="tuned",
        core=spread(HIDDEN, 100),
        circumstances={
            "rates 0.1 and 1 end less than three times apart": spread(HIDDEN[:2], 3),
        }
        | {
            f"{name}: 90 %": (lambda of, name=name: of("accuracy", name) >= 0.9)
            for name in HIDDEN
        }
        | {
            f"all {rate}: 90 %": (
                lambda of, rate=rate: (
                    of("accuracy", f"hidden {rate}, last {rate}") >= 0.9
                )
            )
            for rate in (10.0, 100.0)
        },
        control={
            f"without batch norm, {name}: guesses": (
                lambda of, name=name: of("accuracy", f"none, {name}") < 0.2
            )
            for name in HIDDEN[2:]
        },
        stated=PARTLY,
        conditions="From a rate of 1 upwards, for weights that batch norm follows. The last layer"
        " has no such protection.",
    ),
    Claim(
        key="deep",
        gist="Batch norm serves convolutions; deep dense networks still cannot be trained.",
        who="an overview on the web, after Klambauer et al., 2017",
        section="claims-depth",
        predicts="20 dense layers, of sigmoid and of ReLU, stay below 70 % with batch norm",
        experiment="deep",
        core=all_of(
            (lambda of, name=name: of("accuracy", f"{name} 20, batch norm") < 0.7)
            for name in ("sigmoid", "relu")
        ),
        circumstances={
            f"{name} below 70 %": (lambda of, name=name: of("accuracy", name) < 0.7)
            for name in ("relu 50, batch norm", "relu 50, batch norm, 450 steps")
        },
        control={
            "20 sigmoid layers without it guess": lambda of: (
                of("accuracy", "sigmoid 20, none") < 0.2
            )
        },
        stated=FAILS,
        conditions="Twenty layers learn. Fifty of ReLU hardly learn in 450 steps, with batch norm"
        " or without.",
    ),
    Claim(
        key="regularises",
        gist="Batch norm regularises.",
        who="Ioffe and Szegedy, 2015; Luo et al., 2019",
        section="claims-noise",
        predicts="of networks that fit their 100 digits, those with batch norm are half a point"
        " ahead on others",
        experiment="overfitted",
        core=above("accuracy", "batch norm", "none", by=0.005),
        circumstances={
            "dropout alone is half a point ahead": above(
                "accuracy", "none, dropout", "none", by=0.005
            ),
            "with dropout, batch norm is half a point ahead": above(
                "accuracy", "batch norm, dropout", "none, dropout", by=0.005
            ),
            "with batch norm, dropout is half a point ahead": above(
                "accuracy", "batch norm, dropout", "batch norm", by=0.005
            ),
        },
        control={"all fit": FIT, "both together are half a point ahead": BOTH},
        stated=UNTOLD,
        conditions="Half a point in five seeds of eight, and 0.6 points on average. With dropout as"
        " well, in seven.",
    ),
    Claim(
        key="inputs",
        gist="Normalising the inputs prevents overfitting.",
        who="an overview on the web",
        section="claims-noise",
        predicts="of networks that fit their 100 digits, those with standardised pixels are half a"
        " point ahead on others of those with pixels from 0 to 16",
        experiment="overfitted",
        core=above("accuracy", "none", "none, pixels 0 to 16", by=0.005),
        circumstances={
            "half a point ahead of pixels from 0 to 1 too": above(
                "accuracy", "none", "none, pixels 0 to 1", by=0.005
            )
        },
        control={"all fit": FIT, "both together are half a point ahead": BOTH},
        stated=PARTLY,
        conditions="Against pixels from 0 to 16. Pixels from 0 to 1, with no mean subtracted, do at"
        " least as well.",
    ),
    Claim(
        key="noise",
        gist="The noise of small batches helps to generalise.",
        who="Hoffer et al., 2017; Luo et al., 2019",
        section="claims-noise",
        predicts="statistics of 4, 8 or 16 examples gain half a point on those of 64, on average",
        experiment="ghosts",
        core=lambda of: (
            np.mean([of("accuracy", f"ghost {n}") for n in PARTS[1:]], axis=0)
            > of("accuracy", "ghost 64") + 0.005
        ),
        circumstances={
            f"parts of {n}": above("accuracy", f"ghost {n}", "ghost 64", by=0.005)
            for n in PARTS
        },
        control={
            "dropout gains half a point": above(
                "accuracy", "ghost 64, dropout", "ghost 64", by=0.005
            ),
        },
        stated=UNTOLD,
        conditions="On average parts of 4 lose 0.9 points and parts of 8 half a point, parts of 16"
        " gain 0.2. But dropout gains half a point in four seeds of eight only.",
    ),
    Claim(
        key="whole",
        gist="In inference, batch norm uses the mean and deviation of the whole training set.",
        who="overviews on the web",
        section="claims-statistics",
        predicts="after 630 steps with Keras's momentum, means and deviations are off by less than"
        " two hundredths of a deviation",
        experiment="whole",
        core=near("momentum 0.99, 630 steps"),
        circumstances={"after 210 steps too": near("momentum 0.99, 210 steps")},
        control={
            "the statistics of one batch are off by more": lambda of: (
                ~near("the last batch alone")(of)
            )
        },
        stated=PARTLY,
        conditions="Nearly, after enough steps. After 210 with momentum 0.99 the initial values"
        " still count.",
    ),
    Claim(
        key="adversary",
        gist="Batch norm makes networks easier to fool.",
        who="Galloway et al., 2019",
        section="claims-shift",
        predicts="in the convolutional network it costs two points, on average over three sizes of"
        " push",
        experiment="attacked",
        core=lambda of: (
            of("pushed", "batch norm").mean(axis=1)
            < of("pushed", "none").mean(axis=1) - 0.02
        ),
        circumstances={
            f"push {push} costs two points": (
                lambda of, k=k: (
                    of("pushed", "batch norm")[:, k] < of("pushed", "none")[:, k] - 0.02
                )
            )
            for k, push in enumerate(PUSHES)
        },
        control={
            "equally right unpushed": lambda of: (
                np.abs(of("clean", "none") - of("clean", "batch norm")) < 0.03
            ),
            "a push of 0.4 costs both ten points more than random signs do": lambda of: (
                np.min(
                    [
                        of("random", name) - of("pushed", name)[:, -1]
                        for name in ("none", "batch norm")
                    ],
                    axis=0,
                )
                > 0.1
            ),
        },
        stated=UNTOLD,
        conditions="In the convolutional network it costs two points in two seeds of eight.",
    ),
    Claim(
        key="target",
        gist="Statistics estimated anew on another domain adapt a network to it.",
        who="Li et al., 2016; Schneider et al., 2020",
        section="claims-shift",
        predicts="on dim images they gain two points",
        experiment="moved",
        core=rises("dim"),
        circumstances={
            "inverted: gain two points": rises("inverted"),
            "noisy: gain two points": rises("noisy"),
            "dim, only 0 and 1: gain two points": rises("dim, only 0 and 1"),
            "only 0 and 1: cost less than two points": rises(
                "same, only 0 and 1", by=-0.02
            ),
        },
        control={
            "on dim images, statistics of noisy ones gain less than half as much": (
                lambda of: (
                    of("crossed", "batch norm") - of("before", "batch norm")[:, DIM]
                    < (of("after", "batch norm") - of("before", "batch norm"))[:, DIM]
                    / 2
                )
            )
        },
        stated=PARTLY,
        conditions="Where contrast changed, from a sample mixed as in training; where noise was"
        " added, by two points in six seeds of eight. Signs that turned it does not mend, and a"
        " sample of two classes does harm, unless the images are dim.",
    ),
]

LEDGER = {claim.key: claim for claim in CLAIMS}

ELSEWHERE = [
    Elsewhere(
        gist="Batch norm needs 14 times fewer steps.",
        who="Ioffe and Szegedy, 2015, on ImageNet",
        where="[chapter 13](13_experiments.ipynb), seven comparisons",
        found="It depends on the start. With inputs, weights and rate mended, three sigmoid layers"
        " keep a factor of about three, two tanh or ReLU layers save a quarter to over two fifths;"
        " under Adam two networks saved nothing beyond chance.",
    ),
    Elsewhere(
        gist="Batch norm allows higher learning rates.",
        who="Ioffe and Szegedy, 2015; Bjorck et al., 2018",
        where="[chapter 13](13_experiments.ipynb), rates times 1, 5 and 30",
        found="It learns at 30 times the rate, where the network without it fails. At 5 times the"
        " rate it ends a hundredth higher than at the usual one; 30 times add nothing.",
    ),
    Elsewhere(
        gist="Dropout before batch norm harms, and is not needed beside it.",
        who="Li et al., 2019; Ioffe and Szegedy, 2015",
        where="[chapter 13](13_experiments.ipynb), with dropout",
        found="The variance shifts, as said, and no harm is seen. On 150 digits either alone is"
        " level with the other, and together they help.",
    ),
    Elsewhere(
        gist="Batch norm keeps gradients from vanishing and exploding.",
        who="Ioffe and Szegedy, 2015; against: Yang et al., 2019",
        where="[chapter 1](../part1/01_network.ipynb), level forwards, not level backwards",
        found="It cures what vanishes with sigmoid. With ReLU it makes the gradient grow by 1.21 a"
        " layer, where it had been level.",
    ),
    Elsewhere(
        gist="Batch norm is great for recurrent networks.",
        who="overviews on the web; Cooijmans et al., 2017; doubts: Laurent et al., 2016",
        where="[chapter 14](14_variants.ipynb), a recurrent network",
        found="Over eight steps neither better nor worse, if each step has statistics of its own;"
        " worse with batches of 4.",
    ),
    Elsewhere(
        gist="Batch norm fails with small batches, and group norm is the cure.",
        who="Ioffe, 2017; Wu and He, 2018",
        where="[chapter 14](14_variants.ipynb), small batches",
        found="In a dense network it fails with 2 examples, and group norm does not; nor does the"
        " network without a norm. From 8 on batch norm is as good.",
    ),
    Elsewhere(
        gist="Weight decay before batch norm acts through the learning rate only.",
        who="van Laarhoven, 2017; Zhang et al., 2019; Li and Arora, 2020",
        where="[above](#only-the-direction-counts), a theorem",
        found="So it is, with plain gradient descent and epsilon 0. At Keras's epsilon of 0.001"
        " answers differ by less than 0.01 in seven seeds, by 0.36 in one.",
    ),
    Elsewhere(
        gist="Batch norm makes each layer's values Gaussian.",
        who="overviews on the web",
        where="[above](#claims-statistics), an identity",
        found="It sets the mean to 0 and the variance to 1. The shape stays what it was.",
    ),
]
