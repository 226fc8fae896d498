"""The claims: who says what, what would refute it, what it predicts, and the verdict stated."""

import numpy as np

from bnlib.book.claims._rate import FACTORS
from bnlib.book.claims._shift import PUSHES, TARGETS
from bnlib.book.claims._weighing import (
    FAILS,
    PARTLY,
    UNTOLD,
    Claim,
    Elsewhere,
)

__all__ = ["ELSEWHERE", "LEDGER"]

SIZE = FACTORS.index
NETWORKS = {
    "relu 5": "ReLU, 5 layers",
    "tanh 5": "tanh, 5 layers",
    "sigmoid 2": "sigmoid, 2 layers",
}
NOISES = "0.5", "1.0", "1.5"
PARTS = 2, 4, 8, 16
MEMORIES = [f"momentum {m}, {s} steps" for m in (0.9, 0.99) for s in (210, 630)]
HIDDEN = [f"hidden {rate}, last 0.1" for rate in (0.1, 1.0, 10.0, 100.0)]


def above(measure, one, other, by=0.02):
    """Predict that a measure is higher under one setting than under another, by a margin."""
    return lambda of: of(measure, one) > of(measure, other) + by


def all_of(predicates):
    """Predict all of several at once."""
    predicates = list(predicates)
    return lambda of: np.all([predicate(of) for predicate in predicates], axis=0)


def flatter(what, network, times=1.2):
    """Predict that a measure of the landscape is smaller with batch norm."""
    return lambda of: (
        of(what, f"{network}, none") > times * of(what, f"{network}, batch norm")
    )


def learns(norm, factor, least=0.9):
    """Predict an accuracy from weights of one size."""
    return lambda of: of("accuracy", norm)[:, SIZE(factor)] >= least


def forgives(factor, by=0.1):
    """Predict that weights of one size are better with batch norm than without."""
    return lambda of: (
        of("accuracy", "batch norm")[:, SIZE(factor)]
        > of("accuracy", "none")[:, SIZE(factor)] + by
    )


def near(memory, by=0.02):
    """Predict that means, in deviations, and deviations, relatively, are off by little."""
    return lambda of: (
        np.maximum(of("mean off", memory), of("deviation off", memory)) < by
    )


def fooled(kind, k, by=0.02):
    """Predict that batch norm is less often right at one size of push."""
    return lambda of: (
        of("pushed", f"{kind}, batch norm")[:, k]
        < of("pushed", f"{kind}, none")[:, k] - by
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


CLAIMS = [
    Claim(
        key="shift",
        gist="Batch norm works because it keeps the inputs of layers from shifting.",
        who="Ioffe and Szegedy, 2015; against: Santurkar et al., 2018",
        section="claims-cause",
        refuted_if="noise that shifts the channels more than they shift without batch norm costs"
        " less than two points",
        experiment="shifted",
        core=above("accuracy", "batch norm", "noise 0.5"),
        circumstances={
            f"noise {noise} costs two points": above(
                "accuracy", "batch norm", f"noise {noise}"
            )
            for noise in NOISES[1:]
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
        conditions="Shifted more than it is without batch norm, it learns as well. Shifted at"
        " least twice as much, it loses 12 to 31 points.",
    ),
    Claim(
        key="smooth",
        gist="Batch norm makes the loss smoother.",
        who="Santurkar et al., 2018",
        section="claims-cause",
        refuted_if="in one of three networks the gradient, in training, changes along a step by"
        " more than 1 / 1.2 of what it changes without",
        experiment="landscape",
        core=all_of(flatter("gradient change", network) for network in NETWORKS),
        circumstances={
            f"{what}, {name}": flatter(measure, network)
            for what, measure in (
                ("loss in training", "loss range"),
                ("gradient at step 0", "gradient change at step 0"),
            )
            for network, name in NETWORKS.items()
        },
        stated=PARTLY,
        conditions="The gradient, in training. Before the first step the tanh network is less"
        " smooth with it, and in the sigmoid network the loss moves more.",
    ),
    Claim(
        key="variance",
        gist="Removing the variance, the noise, is what makes learning faster.",
        who="said under a figure of R2RT's",
        section="claims-cause",
        refuted_if="dividing alone needs more than 1.25 times the steps of batch norm",
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
            for noise in NOISES
        },
        control={
            "batch norm saves a third": lambda of: (
                of("steps", "batch norm") < of("steps", "none") / 1.5
            )
        },
        stated=FAILS,
        conditions="It takes both halves, each saves more than half of the steps. Noise put back"
        " costs 5 steps of 155 at 0.5, and 30 at 1.5.",
    ),
    Claim(
        key="starts",
        gist="With batch norm the initial weights matter less.",
        who="Ioffe and Szegedy, 2015",
        section="claims-rates",
        refuted_if="from a tenth of the weights, or from ten times the weights, it is less than"
        " ten points ahead",
        experiment="starts",
        core=all_of([forgives(0.1), forgives(10.0)]),
        circumstances={
            "a tenth: 90 %": learns("batch norm", 0.1),
            "ten times: 90 %": learns("batch norm", 10.0),
            "a hundred times: 90 %": learns("batch norm", 100.0),
            "all equal: 90 %": learns("batch norm", 0.0),
        },
        control={
            "He's weights: both 90 %": all_of(
                learns(norm, 1.0) for norm in ("none", "batch norm")
            )
        },
        stated=PARTLY,
        conditions="Small weights are forgiven, large ones in part, as they lower the effective"
        " rate; equal ones are not.",
    ),
    Claim(
        key="tuned",
        gist="Batch norm tunes the learning rate by itself.",
        who="Arora, Li and Lyu, 2019",
        section="claims-rates",
        refuted_if="of hidden layers at rates 1000 times apart, the effective rates end more than"
        " 100 times apart",
        experiment="tuned",
        core=lambda of: (
            np.ptp(np.log([of("effective", name) for name in HIDDEN]), 0) < np.log(100)
        ),
        circumstances={
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
        stated=PARTLY,
        conditions="For weights that batch norm follows. The last layer has no such protection.",
    ),
    Claim(
        key="decay",
        gist="Weight decay before batch norm acts through the learning rate only.",
        who="van Laarhoven, 2017; Zhang et al., 2019; Li and Arora, 2020",
        section="claims-rates",
        refuted_if="with epsilon near 0, no decay and a rate that grows give other answers than"
        " decay, by more than a millionth",
        experiment="decayed",
        core=lambda of: of("answers differ", "epsilon 1e-12") < 1e-6,
        circumstances={
            f"epsilon {epsilon}": (
                lambda of, epsilon=epsilon: (
                    of("answers differ", f"epsilon {epsilon}") < 1e-6
                )
            )
            for epsilon in ("1e-5", "1e-3")
        },
        control={
            "without batch norm they differ by 0.05": lambda of: (
                of("answers differ", "none") > 0.05
            ),
            "with it, decay against none differs by 0.05": lambda of: (
                of("without decay", "epsilon 1e-12") > 0.05
            ),
        },
        stated=PARTLY,
        conditions="With plain gradient descent and epsilon near 0. At Keras's 0.001 answers"
        " differ by about 0.01.",
    ),
    Claim(
        key="deep",
        gist="Batch norm serves convolutions; deep dense networks still cannot be trained.",
        who="an overview on the web; Klambauer et al., 2017",
        section="claims-depth",
        refuted_if="20 dense layers, of sigmoid or of ReLU, reach 70 % with batch norm",
        experiment="deep",
        core=all_of(
            (lambda of, name=name: of("accuracy", f"{name} 20, batch norm") < 0.7)
            for name in ("sigmoid", "relu")
        ),
        circumstances={
            f"{name} below 70 %": (
                lambda of, name=name: of("accuracy", f"{name}, batch norm") < 0.7
            )
            for name in ("sigmoid 20", "relu 20", "relu 50")
        },
        control={
            "20 sigmoid layers without it guess": lambda of: (
                of("accuracy", "sigmoid 20, none") < 0.2
            )
        },
        stated=FAILS,
        conditions="Twenty layers learn. Fifty of ReLU learn in 150 steps neither with batch norm"
        " nor without.",
    ),
    Claim(
        key="regularises",
        gist="Batch norm regularises.",
        who="Ioffe and Szegedy, 2015; Luo et al., 2019",
        section="claims-noise",
        refuted_if="of networks that fit their 200 digits, those with batch norm are less than a"
        " point ahead on others",
        experiment="overfitted",
        core=above("accuracy", "batch norm", "none", by=0.01),
        control={
            "all fit": lambda of: (
                np.min(
                    [
                        of("on its own", name)
                        for name in ("none", "none, dropout", "batch norm")
                    ],
                    axis=0,
                )
                > 0.99
            ),
            "dropout, a known means, gains a point": above(
                "accuracy", "none, dropout", "none", by=0.01
            ),
        },
        stated=UNTOLD,
        conditions="On these 200 digits dropout alone, a known means, shows no gain either.",
    ),
    Claim(
        key="noise",
        gist="The noise of small batches helps to generalise.",
        who="Hoffer et al., 2017; Luo et al., 2019",
        section="claims-noise",
        refuted_if="statistics of 4, 8 or 16 examples gain less than half a point on those of 64,"
        " on average",
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
            "dropout, a known means, gains a point": above(
                "accuracy", "ghost 64, dropout", "ghost 64", by=0.01
            ),
        },
        stated=UNTOLD,
        conditions="On these 200 digits dropout, a known means, does not gain a point in enough"
        " seeds.",
    ),
    Claim(
        key="whole",
        gist="In inference, batch norm uses the mean and deviation of the whole training set.",
        who="overviews on the web",
        section="claims-statistics",
        refuted_if="after 630 steps with Keras's momentum, means or deviations are off by more than"
        " two hundredths of a deviation",
        experiment="whole",
        core=near(MEMORIES[-1]),
        circumstances={memory: near(memory) for memory in MEMORIES[:-1]},
        stated=PARTLY,
        conditions="Nearly, after enough steps. After 210 with momentum 0.99 the initial values"
        " still count.",
    ),
    Claim(
        key="adversary",
        gist="Batch norm makes networks easier to fool.",
        who="Galloway et al., 2019",
        section="claims-shift",
        refuted_if="in the convolutional network it costs less than two points, on average over"
        " three sizes of push",
        experiment="attacked",
        core=lambda of: (
            of("pushed", "images, batch norm").mean(axis=1)
            < of("pushed", "images, none").mean(axis=1) - 0.02
        ),
        circumstances={
            f"{kind}, push {push}": fooled(kind, k)
            for kind in ("images", "dense")
            for k, push in enumerate(PUSHES)
        },
        control={
            f"{kind}: equally right unpushed": (
                lambda of, kind=kind: (
                    np.abs(
                        of("clean", f"{kind}, none")
                        - of("clean", f"{kind}, batch norm")
                    )
                    < 0.03
                )
            )
            for kind in ("images", "dense")
        },
        stated=UNTOLD,
        conditions="In the convolutional network it costs two points in three seeds of eight.",
    ),
    Claim(
        key="target",
        gist="Statistics estimated anew on another domain adapt a network to it.",
        who="Li et al., 2016; Schneider et al., 2020",
        section="claims-shift",
        refuted_if="on dim images it gains less than two points",
        experiment="moved",
        core=rises("dim"),
        circumstances={
            "inverted: gains two points": rises("inverted"),
            "noisy: gains two points": rises("noisy"),
            "dim, only 0 and 1: gains two points": rises("dim, only 0 and 1"),
            "only 0 and 1: costs less than two points": rises(
                "same, only 0 and 1", by=-0.02
            ),
        },
        stated=PARTLY,
        conditions="Where contrast or noise changed, from a sample mixed as in training. Signs"
        " that turned it does not mend, and a sample of two classes does harm.",
    ),
]

LEDGER = {claim.key: claim for claim in CLAIMS}

ELSEWHERE = [
    Elsewhere(
        gist="Batch norm needs 14 times fewer steps.",
        who="Ioffe and Szegedy, 2015, on ImageNet",
        where="[chapter 13](13_experiments.ipynb), seven comparisons",
        found="It depends on the start. With inputs, weights and rate mended, three sigmoid layers"
        " keep a factor of three to five, two ReLU or tanh layers save a quarter to over a third.",
    ),
    Elsewhere(
        gist="Batch norm allows higher learning rates.",
        who="Ioffe and Szegedy, 2015; Bjorck et al., 2018",
        where="[chapter 13](13_experiments.ipynb), rates times 1, 5 and 30",
        found="It learns at 30 times the rate, where the network without it fails. It does not end"
        " higher for it.",
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
        gist="Normalising the inputs prevents overfitting.",
        who="an overview on the web",
        where="[above](#claims-noise), not weighed",
        found="Not weighed: on these digits dropout alone shows no gain either.",
    ),
    Elsewhere(
        gist="Batch norm makes each layer's values Gaussian.",
        who="overviews on the web",
        where="[above](#claims-statistics), an identity",
        found="It sets the mean to 0 and the variance to 1. The shape stays what it was.",
    ),
]
