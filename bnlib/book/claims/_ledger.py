"""The claims: who says what, what would refute it, what it predicts, and the verdict stated."""

import numpy as np

from bnlib.book.claims._rate import FACTORS, RATES
from bnlib.book.claims._shift import PUSHES, TARGETS
from bnlib.book.claims._weighing import FAILS, HOLDS, PARTLY, UNTOLD, Claim

__all__ = ["LEDGER"]

RATE, SIZE = RATES.index, FACTORS.index


def flatter(what, network, times=1.2):
    """Predict that a measure of the landscape is smaller with batch norm."""
    return lambda of: (
        of(what, f"{network}, none") > times * of(what, f"{network}, batch norm")
    )


def above(measure, one, other, by=0.02):
    """Predict that a measure is higher under one setting than under another, by a margin."""
    return lambda of: of(measure, one) > of(measure, other) + by


def fourteen(network):
    """Predict fourteen times the steps without batch norm."""
    return lambda of: (
        of("steps", f"{network}, none") >= 14 * of("steps", f"{network}, batch norm")
    )


def learns(norm, place, least=0.9):
    """Predict an accuracy at one place of a row of settings."""
    return lambda of: of("accuracy", norm)[:, place] >= least


def hidden(of, measure):
    """Return a measure at each rate of the hidden layers, shape `(rates, seeds)`."""
    rates = 0.1, 1.0, 10.0, 100.0
    return np.array([of(measure, f"hidden {rate}, last 0.1") for rate in rates])


def helps(target, by=0.02):
    """Predict that re-estimation raises the accuracy on a target."""
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
        refuted_if="networks learn as well when each step shifts the normalised values at random",
        experiment="shifted",
        control={
            "the noise shifts more than no norm does": lambda of: (
                of("moved", "batch norm, then noise") > of("moved", "none")
            ),
        },
        predicts={
            "ReLU, 8 layers: noise costs 2 points": above(
                "accuracy", "batch norm", "batch norm, then noise"
            ),
        },
        stated=FAILS,
        conditions="With more shift than a network without batch norm has, it learns as well.",
    ),
    Claim(
        key="smooth",
        gist="Batch norm makes the loss smoother.",
        who="Santurkar et al., 2018",
        section="claims-cause",
        refuted_if="along the gradient, loss and gradient change as much as without",
        experiment="landscape",
        predicts={
            "ReLU, 5 layers, gradient": flatter("gradient change", "relu 5"),
            "ReLU, 5 layers, loss": flatter("loss range", "relu 5"),
            "tanh, 5 layers, gradient": flatter("gradient change", "tanh 5"),
            "tanh, 5 layers, loss": flatter("loss range", "tanh 5"),
            "sigmoid, 2 layers, loss": flatter("loss range", "sigmoid 2"),
            "tanh, 5 layers, at step 0": flatter("gradient change at step 0", "tanh 5"),
        },
        stated=PARTLY,
        conditions="In the course of training, most of all with ReLU. Before the first step the"
        " tanh network is less smooth with it.",
    ),
    Claim(
        key="variance",
        gist="Removing the variance, the noise, is what makes learning faster.",
        who="said under a figure of R2RT's",
        section="claims-cause",
        refuted_if="dividing alone is slower than batch norm, or noise put back costs nothing",
        experiment="halves",
        control={
            "batch norm is faster": lambda of: (
                of("steps", "batch norm") < of("steps", "none") / 1.5
            )
        },
        predicts={
            "dividing alone is as fast": lambda of: (
                of("steps", "only the variance") <= 1.25 * of("steps", "batch norm")
            ),
            "noise put back makes it slow": lambda of: (
                of("steps", "batch norm, then noise") >= 0.9 * of("steps", "none")
            ),
        },
        stated=FAILS,
        conditions="It takes both halves, and noise put back costs little.",
    ),
    Claim(
        key="fourteen",
        gist="Batch norm needs 14 times fewer steps.",
        who="Ioffe and Szegedy, 2015, on ImageNet",
        section="claims-rates",
        refuted_if="a network reaches 90 % in less than 14 times the steps without it",
        experiment="speed",
        predicts={
            name: fourteen(name)
            for name in (
                "sigmoid, small weights",
                "sigmoid, large weights",
                "ReLU, He's weights",
            )
        },
        stated=PARTLY,
        conditions="More than 14 times where training begins on a plateau; 1.5 to 8 times"
        " elsewhere.",
    ),
    Claim(
        key="rates",
        gist="Batch norm allows higher learning rates.",
        who="Ioffe and Szegedy, 2015; Bjorck et al., 2018",
        section="claims-rates",
        refuted_if="it fails at the rates at which the network without it fails",
        experiment="rates",
        control={
            "at 2.5 there is no learning without": lambda of: (
                of("accuracy", "none")[:, RATE(2.5)] < 0.5
            )
        },
        predicts={
            "rate 2.5": learns("batch norm", RATE(2.5)),
            "rate 12.5": learns("batch norm", RATE(12.5)),
        },
        stated=PARTLY,
        conditions="Five times higher here, not any rate: at 12.5 the last layer, which nothing"
        " normalises, diverges.",
    ),
    Claim(
        key="starts",
        gist="With batch norm the initial weights matter less.",
        who="Ioffe and Szegedy, 2015",
        section="claims-rates",
        refuted_if="weights of another size keep it from learning as they do without it",
        experiment="starts",
        control={
            "a tenth, none": lambda of: of("accuracy", "none")[:, SIZE(0.1)] < 0.5,
            "ten times, none": lambda of: of("accuracy", "none")[:, SIZE(10.0)] < 0.5,
        },
        predicts={
            "a tenth of the weights": learns("batch norm", SIZE(0.1)),
            "ten times the weights": learns("batch norm", SIZE(10.0)),
            "all weights equal": learns("batch norm", SIZE(0.0)),
        },
        stated=PARTLY,
        conditions="Small weights are forgiven. Large ones slow it, as they lower the effective"
        " rate; equal ones stop it.",
    ),
    Claim(
        key="tuned",
        gist="Batch norm tunes the learning rate by itself.",
        who="Arora, Li and Lyu, 2019",
        section="claims-rates",
        refuted_if="effective rates stay as far apart as the rates, or a high rate fails",
        experiment="tuned",
        predicts={
            "hidden layers, 0.1 to 100": lambda of: (
                np.min(
                    [
                        of("accuracy", f"hidden {r}, last 0.1")
                        for r in (0.1, 1.0, 10.0, 100.0)
                    ],
                    0,
                )
                >= 0.9
            ),
            "rates 1000 times apart, effective rates 50 times": lambda of: (
                np.ptp(
                    np.log(
                        [
                            of("effective", f"hidden {r}, last 0.1")
                            for r in (0.1, 1.0, 10.0, 100.0)
                        ]
                    ),
                    0,
                )
                < np.log(50)
            ),
            "all layers, 10": lambda of: (
                of("accuracy", "hidden 10.0, last 10.0") >= 0.9
            ),
        },
        stated=PARTLY,
        conditions="For weights that batch norm follows. The last layer has no such protection.",
    ),
    Claim(
        key="decay",
        gist="Weight decay before batch norm acts through the learning rate only.",
        who="van Laarhoven, 2017; Zhang et al., 2019; Li and Arora, 2020",
        section="claims-rates",
        refuted_if="no schedule of the rate gives the answers that decay gives",
        experiment="decayed",
        control={
            "without batch norm the answers differ": lambda of: (
                of("answers differ", "none") > 0.05
            ),
            "decay changes the answers": lambda of: (
                of("without decay", "batch norm") > 0.05
            ),
        },
        predicts={
            "equal answers without decay": lambda of: (
                of("answers differ", "batch norm") < 1e-6
            )
        },
        stated=HOLDS,
        conditions="For the weights that batch norm follows, with plain gradient descent.",
    ),
    Claim(
        key="deep",
        gist="Batch norm serves convolutions; deep dense networks still cannot be trained.",
        who="an overview on the web; Klambauer et al., 2017",
        section="claims-depth",
        refuted_if="a deep dense network learns with batch norm",
        experiment="deep",
        control={
            "20 sigmoid layers, none": lambda of: (
                of("accuracy", "sigmoid 20, none") < 0.2
            )
        },
        predicts={
            "20 sigmoid layers below 0.7": lambda of: (
                of("accuracy", "sigmoid 20, batch norm") < 0.7
            ),
            "20 ReLU layers below 0.7": lambda of: (
                of("accuracy", "relu 20, batch norm") < 0.7
            ),
            "50 ReLU layers below 0.7": lambda of: (
                of("accuracy", "relu 50, batch norm") < 0.7
            ),
        },
        stated=PARTLY,
        conditions="Twenty layers learn. Fifty of ReLU, without skips, do not in 120 steps.",
    ),
    Claim(
        key="explode",
        gist="In deep networks with batch norm and no skips, gradients explode.",
        who="Yang et al., 2019",
        section="claims-depth",
        refuted_if="the gradient keeps its size through 40 layers",
        experiment="gradients",
        control={
            "ReLU, none: level": lambda of: of("all layers", "relu, none") < 10,
        },
        predicts={
            "ReLU": lambda of: of("all layers", "relu, batch norm") > 10,
            "ReLU grows by 1.21 a layer": lambda of: (
                np.abs(of("growth", "relu, batch norm") - np.sqrt(np.pi / (np.pi - 1)))
                < 0.03
            ),
            "tanh": lambda of: of("all layers", "tanh, batch norm") > 10,
            "sigmoid": lambda of: of("all layers", "sigmoid, batch norm") > 10,
        },
        stated=PARTLY,
        conditions="With ReLU, and slower with tanh; not with sigmoid. Skips slow it.",
    ),
    Claim(
        key="vanish",
        gist="Batch norm keeps gradients from vanishing and exploding.",
        who="Ioffe and Szegedy, 2015, and most overviews",
        section="claims-depth",
        refuted_if="the gradient changes its size tenfold through 40 layers",
        experiment="gradients",
        control={
            "sigmoid, none: vanishes": lambda of: (
                of("all layers", "sigmoid, none") < 1e-10
            ),
        },
        predicts={
            "sigmoid": lambda of: (
                np.abs(np.log10(of("all layers", "sigmoid, batch norm"))) < 1
            ),
            "ReLU": lambda of: (
                np.abs(np.log10(of("all layers", "relu, batch norm"))) < 1
            ),
        },
        stated=PARTLY,
        conditions="It cures what vanishes with sigmoid; with ReLU it makes grow what was level.",
    ),
    Claim(
        key="recurrent",
        gist="Batch norm is great for recurrent networks.",
        who="overviews on the web; Cooijmans et al., 2017; doubts: Laurent et al., 2016",
        section="claims-depth",
        refuted_if="the same recurrent network reaches as much without it",
        experiment="recurrent",
        predicts={
            "8 times": above("accuracy", "8 times, batch norm", "8 times, none"),
            "24 times": above("accuracy", "24 times, batch norm", "24 times, none"),
            "24 times, one statistic for all": lambda of: (
                of("shared", "24 times, batch norm")
                > of("accuracy", "24 times, none") + 0.02
            ),
        },
        stated=PARTLY,
        conditions="For long sequences, if each time has statistics of its own.",
    ),
    Claim(
        key="regularises",
        gist="Batch norm regularises.",
        who="Ioffe and Szegedy, 2015; Luo et al., 2019",
        section="claims-noise",
        refuted_if="networks that fit their few examples score as well without it",
        experiment="overfitted",
        control={
            "all fit": lambda of: (
                np.minimum(of("on its own", "none"), of("on its own", "batch norm"))
                > 0.99
            )
        },
        predicts={
            "batches of 32": above("accuracy", "batch norm", "none", by=0.01),
            "full batch": above(
                "accuracy", "batch norm, full batch", "none, full batch", by=0.01
            ),
        },
        stated=UNTOLD,
        conditions="Of networks that learn 200 digits, those with batch norm score no higher.",
    ),
    Claim(
        key="dropout",
        gist="Dropout before batch norm harms, since it shifts the variance.",
        who="Li et al., 2019",
        section="claims-noise",
        refuted_if="the moving variance fits, or the misfit costs nothing",
        experiment="overfitted",
        predicts={
            "variances a fifth too large": lambda of: (
                of("variance ratio", "batch norm, dropout") > 1.2
            ),
            "costs a point": lambda of: (
                of("moving", "batch norm, dropout")
                < of("accuracy", "batch norm, dropout") - 0.01
            ),
        },
        stated=PARTLY,
        conditions="The moving variance is 1.7 to 1.8 times too large; on the digits it costs"
        " nothing.",
    ),
    Claim(
        key="instead",
        gist="With batch norm, dropout is not needed.",
        who="Ioffe and Szegedy, 2015",
        section="claims-noise",
        refuted_if="dropout beside batch norm scores higher than batch norm alone",
        experiment="overfitted",
        predicts={
            "200 digits: dropout adds no point": lambda of: (
                of("accuracy", "batch norm, dropout")
                < of("accuracy", "batch norm") + 0.01
            ),
        },
        stated=UNTOLD,
        conditions="Dropout adds a point in two seeds of eight.",
    ),
    Claim(
        key="noise",
        gist="The noise of small batches helps to generalise.",
        who="Hoffer et al., 2017; Luo et al., 2019",
        section="claims-noise",
        refuted_if="statistics of fewer examples do not score higher",
        experiment="ghosts",
        predicts={
            f"parts of {n} against 64": (
                lambda of, n=n: (
                    of("accuracy", f"ghost {n}") > of("accuracy", "ghost 64") + 0.002
                )
            )
            for n in (2, 4, 8, 16)
        },
        stated=UNTOLD,
        conditions="Parts of 8 or 16 gain half a point on average, not in enough seeds; parts of"
        " 2 harm.",
    ),
    Claim(
        key="inputs",
        gist="Normalising the inputs prevents overfitting.",
        who="an overview on the web",
        section="claims-noise",
        refuted_if="of networks that fit their examples, normalised inputs make none better",
        experiment="inputs",
        control={
            "all fit": lambda of: (
                np.min(
                    [
                        of("on its own", way)
                        for way in ("raw", "scaled", "standardised")
                    ],
                    0,
                )
                > 0.99
            )
        },
        predicts={
            "pixels / 16 against raw": above("accuracy", "scaled", "raw"),
            "pixels / 16 against raw, first weights / 16": above(
                "accuracy", "scaled", "raw, weights to match"
            ),
            "each pixel standardised against / 16": above(
                "accuracy", "standardised", "scaled"
            ),
        },
        stated=PARTLY,
        conditions="Only as it sets the size of the first sums: small first weights do the same."
        " Pixel by pixel it made things worse.",
    ),
    Claim(
        key="gaussian",
        gist="Batch norm makes each layer's values Gaussian.",
        who="overviews on the web",
        section="claims-statistics",
        refuted_if="the kurtosis is no nearer to a Gaussian's afterwards",
        experiment="shapes",
        control={
            place: (lambda of, place=place: of("mean", place) < 1e-6)
            for place in ("pixels", "sums", "behind ReLU")
        },
        predicts={
            place: (
                lambda of, place=place: (
                    np.abs(of("kurtosis after", place))
                    < np.abs(of("kurtosis before", place)) - 0.01
                )
            )
            for place in ("pixels", "sums", "behind ReLU")
        },
        stated=FAILS,
        conditions="It sets the mean to 0 and the variance to 1. The shape stays what it was.",
    ),
    Claim(
        key="whole",
        gist="In inference, batch norm uses the mean and deviation of the whole training set.",
        who="overviews on the web",
        section="claims-statistics",
        refuted_if="the layer's means are off by more than a hundredth of a deviation",
        experiment="whole",
        predicts={
            name: (lambda of, name=name: of("off", name) < 0.01)
            for name in ("momentum 0.9", "momentum 0.99", "recalibrated")
        },
        stated=PARTLY,
        conditions="After recalibration. A moving average remembers the last batches.",
    ),
    Claim(
        key="small",
        gist="Batch norm fails with small batches.",
        who="Ioffe, 2017; Wu and He, 2018",
        section="claims-statistics",
        refuted_if="it scores as well as group norm at the same size",
        experiment="small",
        predicts={
            "dense, 2": above("accuracy", "group, batches of 2", "batch, batches of 2"),
            "dense, 64": above(
                "accuracy", "group, batches of 64", "batch, batches of 64"
            ),
            "images, 2": above(
                "accuracy", "group, images, batches of 2", "batch, images, batches of 2"
            ),
        },
        stated=PARTLY,
        conditions="With two examples and one value of each; with images, where each example brings"
        " many, it cannot be told.",
    ),
    Claim(
        key="group",
        gist="Group norm is the cure for small batches.",
        who="Wu and He, 2018",
        section="claims-statistics",
        refuted_if="it scores no higher than batch norm, or lower than no norm",
        experiment="small",
        predicts={
            "2: above batch norm": above(
                "accuracy", "group, batches of 2", "batch, batches of 2"
            ),
            "2: above no norm": above(
                "accuracy", "group, batches of 2", "none, batches of 2"
            ),
            "64: no lower than batch norm": lambda of: (
                of("accuracy", "group, batches of 64")
                > of("accuracy", "batch, batches of 64") - 0.005
            ),
        },
        stated=PARTLY,
        conditions="It is far ahead of batch norm at 2, and behind it at 64. At 2, no norm is"
        " ahead of both.",
    ),
    Claim(
        key="adversary",
        gist="Batch norm makes networks easier to fool.",
        who="Galloway et al., 2019",
        section="claims-shift",
        refuted_if="of two networks equally right, the one without is fooled as often",
        experiment="attacked",
        control={
            f"{kind}: equally right": (
                lambda of, kind=kind: (
                    np.abs(
                        of("clean", f"{kind}, none")
                        - of("clean", f"{kind}, batch norm")
                    )
                    < 0.03
                )
            )
            for kind in ("dense", "images")
        },
        predicts={
            f"{kind}, moves of {push}": (
                lambda of, kind=kind, k=k: (
                    of("pushed", f"{kind}, batch norm")[:, k]
                    < of("pushed", f"{kind}, none")[:, k] - 0.02
                )
            )
            for kind in ("dense", "images")
            for k, push in enumerate(PUSHES[:2])
        },
        stated=PARTLY,
        conditions="In the convolutional network, at moves of 0.2; not in the dense one.",
    ),
    Claim(
        key="target",
        gist="Statistics estimated anew on another domain adapt a network to it.",
        who="Li et al., 2016; Schneider et al., 2020",
        section="claims-shift",
        refuted_if="the accuracy there rises by less than two points",
        experiment="moved",
        predicts={
            "dim": helps("dim"),
            "inverted": helps("inverted"),
            "noisy": helps("noisy"),
            "dim, only two of the digits": helps("dim, only 0 and 1"),
            "nothing changed, only two of the digits": helps("same, only 0 and 1"),
        },
        stated=PARTLY,
        conditions="Where contrast or noise changed. Not where signs turned; where classes are more"
        " frequent than they were, it harms.",
    ),
]

LEDGER = {claim.key: claim for claim in CLAIMS}
