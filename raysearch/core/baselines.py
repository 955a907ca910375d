"""Baselines: what pure policies, which look into no network, score on the pairs of a variable.

A site that only carries an answer, or anything else that a policy gives, is accepted as the
variable where the two agree on the pairs. So each hypothesis is held against the best policy.

Invariants: a policy is a function of what a pair expects, never of what a model answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PolicyName = Literal["copy", "act", "always", "keep"]
POLICIES: Mapping[PolicyName, str] = {
    "copy": "gives the answer of the source {of}",
    "act": "acts on {of} in its place",
    "always": "always gives one answer",
    "keep": "keeps the base's answer",
}
"""Each policy in words."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A policy, and its score on the pairs that count for a variable.

    Args:
        of: the source that is copied, or the variable that is acted on; empty otherwise.
        share: share in [0, 1] of `pairs` pairs on which it gives the variable's counterfactual.
        same: whether it gives the counterfactual on every pair of the run that counts, so that
            nothing can beat it: the variable is that policy.
    """

    variable: str
    policy: PolicyName
    of: str
    share: float
    pairs: int
    same: bool = False

    @property
    def words(self) -> str:
        """The policy in words, such as "gives the answer of the source"."""
        of = "" if self.of == "source" and self.policy == "copy" else self.of
        return POLICIES[self.policy].format(of=of).strip()

    @property
    def line(self) -> str:
        """The share that the policy scores, in words."""
        told = f"{self.share:.2f} by what {self.words}"
        return f"{told}; the variable is that, and nothing can beat it" if self.same else told
