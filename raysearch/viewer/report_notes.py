"""The sentences that stand below the tables of a report."""

from collections.abc import Collection

from raysearch.core.claims import operations
from raysearch.report.labels import ScoreLabel

EFFECTS = (
    "What an interchange at a site would do to first order, reckoned on fit pairs before anything "
    "was tested: the share of the lead of the base's answer over the counterfactual that it would "
    "move. An outline: hypotheses there were asked about. A site without one was not tested, which "
    "is not a reject. Effects err where the network is far from linear between base and source."
)
SETS = (
    "Parts of the pairs of the verdict, at its stopping time: they decide nothing by themselves, "
    "and a set with few pairs says little: its interval is its own, and holds at 95 % for each by "
    "itself."
)
FITS = (
    "On fit pairs alone; the best seed by validation is the one that was tested, and counts once. "
    "No claim that no better subspace exists."
)
COST = (
    "Seconds of replicas on the measurements that were counted; loading, screening and training "
    "are not in it."
)


def none_accepted(waiting: bool, ablates: Collection[bool]) -> str:
    """Says what it means that nothing was accepted."""
    shown = " or ".join(words.shown for words in operations(ablates))
    was = "has been accepted yet" if waiting else "was accepted"
    return (
        f"No hypothesis {was}. That says that of no site of this space it was shown that it is "
        f"{shown} above this threshold. It does not say that the model has no "
        "such variable: what is undecided or failed was not told apart, a true site is rejected "
        "with the chance of a miss, and other sites were not asked."
    )


def score_note(score: ScoreLabel, ablates: Collection[bool]) -> str:
    """Says what a score is, of interchanges or ablations."""
    if not score.counted:
        return score.description
    return "; of an ablation, ".join(words.score for words in operations(ablates))


def alignment_note(
    score: ScoreLabel,
    ablates: Collection[bool],
    levels: str,
    every_threshold: str,
    as_well: bool,
    fixed: bool,
) -> str:
    """Says what the columns of the alignment are; `fixed`: the test looks once."""
    ablated = " (of an ablation: whose answer should change and did)"
    keep = (
        f"share of pairs that should stay and did{ablated * (True in ablates)}"
        if score.counted
        else "the same of pairs that should stay"
    )
    said_above = " Where it is not shown to do better than a control, that is said above."
    return (
        f"{score.name[:1].upper()}{score.name[1:]}: {score_note(score, ablates)}, "
        f"{'over all pairs of the test' if fixed else 'at the stopping time'}. "
        f"{levels} That of the holdout is 95 % of a number of pairs that was settled by the test "
        f"pairs. {every_threshold} Keep IIA: {keep}. Copies: outputs "
        f"equal to the source's own answer. Controls ({score.name}): no intervention (of the test "
        "pairs that count), the base's own activation put in, a random other source's (it stops "
        "once it is told apart: read its margin, not its mean); baseline: the best policy that "
        "looks into no network; more where the job names them. Small figures below a control: the "
        f"95 % interval of the hypothesis's {score.name} minus the control's, on the same pairs (a "
        f"paired test).{said_above * as_well}"
    )


def scores(score: ScoreLabel) -> str:
    """Says what the scores are, and which decided."""
    decided = (
        "None of them decided anything."
        if score.counted
        else f"The test was on the {score.name}; the others decided nothing."
    )
    return (
        "Means over the pairs of the verdict, at its stopping time. Probability of the "
        "counterfactual; logit difference: its logit minus that of the base's answer; kl: minus "
        "the logarithm of the probability, in nats; squared error: from the counterfactual alone. "
        f"{decided}"
    )
