"""Checkers for the chapter on finding and mending faults of whole models."""

from bnlib._extras import needed
from bnlib.book.data import stored
from bnlib.book.exercises import NotYet, checker
from bnlib.doctor import RULES, Fault, Rule, audit
from bnlib.doctor._rules import case_of

with needed("bnlib.book.exercises.doctor", "tf"):
    import keras
    from keras import layers

__all__ = ["reports", "rule", "walks"]


def show_reports() -> None:
    """Print the findings of four audits: of three networks with one fault, and one with two."""
    faults = stored("doctor")["faults"]
    names = "axis 1", "momentum 0.999", "training=True", "training=True, dropout"
    for number, name in enumerate(names, 1):
        print(f"Model {number}")
        for code, _, where, message in faults[name][0]["report"]:
            print("  ", code, where)
            print("     ", message)


@checker
def reports(answer):
    """Check who needs recalibration (a), a new graph (b), training (c); what goes first (d)."""
    if not isinstance(answer, dict) or set(answer) != set("abcd"):
        raise NotYet('Give a dict such as {"a": 1, "b": 2, "c": 3, "d": "BN008"}.')
    if {answer[letter] for letter in "abc"} != {1, 2, 3}:
        raise NotYet("Each of the models 1 to 3 needs one of the three.")
    if answer["c"] != 1:
        raise NotYet(
            "One finding says nothing against the answers: its owner can wait. Can new "
            "statistics or another call mend it?"
        )
    if answer["a"] != 2:
        raise NotYet("Recalibration changes moving statistics. Can it change a call?")
    if answer["d"] == "BN008":
        raise NotYet(
            "With the dropout layer gone from there, what will norm_3 be told by model(x)?"
        )
    if answer["d"] != "BN006":
        raise NotYet("d: one of the two codes of model 4.")
    return "The memory, the graph, and what the weights have learned to live with."


@checker
def rule(answer):
    """Check `answer(case)`: a fault for each layer whose epsilon is unusual."""

    def model(*epsilons):
        parts = [
            layers.BatchNormalization(epsilon=e, name=f"norm_{k}") for k, e in epsilons
        ]
        return keras.Sequential([keras.Input((3,)), *parts])

    mine = Rule("warning", "MY001", "epsilons differ", "", RULES[0].link, answer)

    def found(*epsilons):
        case = case_of(model(*enumerate(epsilons)))
        faults = answer(case)
        if faults is None:
            raise NotYet(
                "The function returns nothing: yield a Fault for each odd layer."
            )
        if not all(isinstance(fault, Fault) for fault in faults):
            raise NotYet("Yield Fault(path, message, evidence).")
        rows = audit(model(*enumerate(epsilons)), rules=[mine]).rows
        return [layer for row in rows for layer in row.layers], rows

    said, _ = found(1e-5, 1e-5, 1e-5)
    if said:
        raise NotYet("All epsilons agree in one model, and you find a fault there.")
    said, rows = found(1e-5, 1e-3, 1e-5, 1e-5)
    if not said:
        raise NotYet("Nothing is found where norm_1 has 0.001 and the others 0.00001.")
    if set(said) == {"norm_0", "norm_2", "norm_3"}:
        raise NotYet("These are the usual ones. Which is the odd one out?")
    if said != ["norm_1"]:
        raise NotYet(f"norm_1 is the odd one; you name {', '.join(said)}.")
    if not all(isinstance(row.message, str) and row.message for row in rows):
        raise NotYet("The message must be a sentence.")
    said, _ = found(1e-3, 1e-5, 1e-5)
    if said != ["norm_0"]:
        raise NotYet("The first layer may be the odd one: ask what most of them have.")
    said, _ = found(1e-3, 1e-3, 1e-3, 1e-5, 1e-3, 1e-6)
    if set(said) != {"norm_3", "norm_5"}:
        raise NotYet("Two layers may be odd, and the usual epsilon may be 0.001.")
    said, _ = found(1e-3, 1e-3, 1e-4, 1e-5, 1e-6)
    if set(said) != {"norm_2", "norm_3", "norm_4"}:
        raise NotYet("Which epsilon do most layers have? The middle one is another.")
    return "It finds the odd layer, and nothing where all agree."


@checker
def walks(answer):
    """Check how many walks over all layers at once still move something, of three layers."""
    if answer == 1:
        raise NotYet(
            "One walk puts the first layer right. What was the second fed while it was measured?"
        )
    said = {
        0: "The statistics are 0 and 1. Are the layers fed values of mean 0 and variance 1?",
        2: "After two walks norm_2 is right. What was norm_3 fed while the second measured it?",
        4: "The fourth walk is the first in which nothing moves.",
    }
    if answer in said:
        raise NotYet(said[answer])
    if answer != 3:
        raise NotYet(
            "Each walk puts at least one more layer right, and no right one wrong: "
            "how many can there be at most?"
        )
    return "Three: each walk puts one more layer right."
