"""What an accept says, in the same words everywhere: population, threshold, level, K, and what was not
shown."""

from typing import Any

import pytest

from raysearch.report.claim import claim_words, read_claim
from tests.cli.conftest import QUICKSTART
from tests.once import Once

JOB: dict[str, Any] = {
    "test": {"threshold": 0.8, "indifference": 0.05, "false_accept": 0.05, "score": "matches"},
    "propose": {"use": "exhaustive"},
    "space": {},
}


@pytest.mark.parametrize(
    ("use", "hypotheses", "said"),
    [
        ("exhaustive", 540, "over all K = 540 hypotheses together"),
        (
            "refine",
            40,
            "over all hypotheses that the job could have tested, of which these 40 were",
        ),
        ("mine.py:Proposer", 0, "over all hypotheses that it may propose"),
    ],
)
def test_a_claim_names_its_population_level_and_family(
    use: str, hypotheses: int, said: str
) -> None:
    text = claim_words({**JOB, "propose": {"use": use}}, "the test pairs at hand", hypotheses)
    assert "IIA above 0.75 on the test pairs at hand; " in text
    assert f"the chance of any false accept is at most 0.05, {said}. " in text
    assert "nowhere else, nor anything of inputs that this sampler does not make" in text


def test_the_claim_of_a_run_is_read_from_its_folder(once: Once) -> None:
    text = read_claim(once.searched(QUICKSTART))
    assert "IIA above 0.8 on all pairs of this sampler that the model solves on both sides" in text
    assert "over all K = 120 hypotheses together" in text


def test_a_claim_says_that_the_run_was_continued_and_by_how_many_pairs() -> None:
    text = claim_words(JOB, "these pairs", 3, (), {"1": 40, "2": 300})
    assert " Continued 2 times, by up to 40, 300 further test pairs for each hypothesis" in text
    assert "Continued" not in claim_words(JOB, "these pairs", 3)


def test_where_nothing_was_accepted_that_is_said_first_with_the_other_verdicts() -> None:
    none = ["reject", "undecided", "reject", "failed"]
    text = claim_words(JOB, "these pairs", 4, verdicts=none)
    said = "No hypothesis was accepted: 2 rejected, 1 undecided, 1 failed. An accept would say: "
    assert text.startswith(said)
    assert "Accepted" not in text
    assert "fcr_low" not in text
    begun = claim_words(JOB, "these pairs", 4, verdicts=[*none, None])
    assert begun.startswith("No hypothesis is accepted yet: 2 rejected, 1 undecided, 1 failed, 1 ")
    assert claim_words(JOB, "these pairs", 4, verdicts=[*none, "accept"]).startswith("Accepted: ")
