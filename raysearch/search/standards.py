"""Standards: what hypotheses are judged by, once screening has told which pairs the model solves.

Invariants: fixed before the first intervention is measured; a function of the pairs and of the model's own outputs alone.
"""

from collections.abc import Mapping
from dataclasses import replace

from raysearch.errors import PairsError
from raysearch.search.blocks import Expected, check_variables
from raysearch.search.controls import arbitrary_labels
from raysearch.search.events import Ids
from raysearch.search.hypothesis import Hypothesis
from raysearch.search.screening import Screening
from raysearch.search.sequential import SequentialTest


class Standards:
    """`base_match`: the share in [0, 1] of all screened test pairs that match without intervention;
    `labels`: what each counterfactual is called where labels are arbitrary.

    `fitting`: whether subspaces are to be fit.

    Raises: PairsError where no pair is left, a variable never matters, or two cannot be told apart.
    """

    def __init__(
        self,
        screening: Screening,
        pairs: Mapping[int, Expected],
        test: SequentialTest,
        these_pairs: bool,
        fitting: bool,
    ) -> None:
        _check_solved(screening, fitting)
        used = [pairs[p] for p in screening.usable("test")]
        check_variables(used, f"{len(used)} test pairs that the model solves")
        screened = [(e, out) for p, e in pairs.items() if e.split == "test" and (out := screening.output(p))]
        self._tests: dict[str, SequentialTest] = {}
        self._relabelled: dict[str, SequentialTest] = {}
        self.base_match: dict[str, float | None] = {}
        self.labels: dict[str, Mapping[Ids, Ids]] = {}
        for v in used[0].counterfactual:
            population = sum(e.changes(v) for e in used)
            self._tests[v] = replace(test, population=population) if these_pairs else test
            matches = sum(out == e.counterfactual[v] for e, out in screened)
            self.base_match[v] = matches / len(screened) if screened else None
            self.labels[v] = labels = arbitrary_labels(e.counterfactual[v] for e in pairs.values())
            relabelled = sum(labels[e.counterfactual[v]] != e.base for e in used)
            self._relabelled[v] = replace(test, population=relabelled) if these_pairs else test

    def test_of(self, hypothesis: Hypothesis) -> SequentialTest:
        """The test of its variable; under arbitrary labels other pairs are change pairs."""
        arbitrary = hypothesis.intervention.control == "arbitrary_labels"
        return (self._relabelled if arbitrary else self._tests)[hypothesis.variable]


def _check_solved(screening: Screening, fitting: bool) -> None:
    screened, solved, _ = screening.counts("test")
    if not screening.blocks("test"):
        raise PairsError(
            f"the model solves {solved} of the {screened} test pairs that it was given, without any intervention; "
            "a search needs pairs whose base and source it answers as the causal model does: "
            "change the problem or the model (is the leading blank of the answers there?), or set pairs.solved_only: false"
        )
    if fitting and not screening.blocks("fit"):
        screened, solved, _ = screening.counts("fit")
        raise PairsError(
            f"the model solves {solved} of the {screened} fit pairs that it was given; subspaces are fit to pairs that it solves: "
            "raise pairs.fit, or set pairs.solved_only: false"
        )
