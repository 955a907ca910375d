"""Each place that shows a verdict says whether its level is of any false accept or of their share, and
which level its intervals have."""

from typing import Any

import pytest

from raysearch.interventions.card import Finding
from raysearch.interventions.readme import _claim
from raysearch.report.claim import claim_words
from raysearch.report.sentences import _bound
from tests.report.test_claim import JOB

FDR = {**JOB, "test": {**JOB["test"], "control": "fdr"}}


@pytest.mark.parametrize(("job", "rate"), [(JOB, False), (FDR, True)])
def test_a_claim_says_what_its_level_bounds(job: dict[str, Any], rate: bool) -> None:
    for text in (claim_words(job, "these pairs", 9), _bound(job["test"])):
        assert ("false discovery rate" in text) == rate
        assert ("bounds no single accept" in text) == rate
        assert ("chance" in text) == (not rate)


@pytest.mark.parametrize("control", [None, "fwer", "fdr"])
def test_a_model_card_says_it_too_and_which_interval_is_corrected(control: str | None) -> None:
    finding = Finding(
        verdict="accept", n=50, matches=49, iia=0.98, low=0.9, high=1.0, false_accept=0.05, k=40,
        level=0.05 / 40, control=control, fcr_low=0.85, fcr_high=1.0, selected=3,
    )  # fmt: skip
    text = _claim(finding, is_ablation=False)
    assert ("false discovery rate" in text) == (control == "fdr")
    assert ("The chance that its search accepted any" in text) == (control != "fdr")
    assert "95 % interval 0.900 to 1.000" in text
    assert "corrected for the selection of 3 accepted hypotheses" in text
    assert "5 % are expected to miss at most: 0.850 to 1.000" in text
