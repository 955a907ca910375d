"""Defines the card of a saved intervention, and its JSON. Imports no torch.

Invariants: read_card(card_text(c)) == c; any other form is refused in one line that names the key;
the id on a card is that of its intervention.
"""

import json
from dataclasses import asdict, dataclass

from raysearch.core.codec import from_json_values
from raysearch.core.hypothesis import Intervention
from raysearch.errors import StoreError

FORMAT_VERSION = 1
"""Version of the format of card and tensors."""


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """The model that an intervention was found on. `path`: the job's; `digest`: of its files."""

    path: str
    revision: str | None = None
    digest: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The results of a search for a saved intervention, named as in the table `verdicts`.

    None means unknown; numbers are finite. `threshold` and `false_accept` belong to the test.
    `score`: the score whose mean `iia`, `low`, `high` and `holdout_iia` are; None: matches. `run`:
    the run's id; `hypothesis`: its id in that run. `population`: what the verdict is about, in
    words. `k`: number of hypotheses that share `false_accept` (0: open-ended); `level`: the share
    of it that this one spent. `control`: what `false_accept` bounds, "fwer" or "fdr". `fcr_low`,
    `fcr_high`: the interval corrected for the selection of `selected` accepted hypotheses.
    `distinct`: number of different pairs among the n. `warnings`: those of the row, in words.
    """

    run: str | None = None
    hypothesis: str | None = None
    verdict: str | None = None
    n: int | None = None
    matches: int | None = None
    iia: float | None = None
    low: float | None = None
    high: float | None = None
    fcr_low: float | None = None
    fcr_high: float | None = None
    selected: int | None = None
    holdout_n: int | None = None
    holdout_iia: float | None = None
    holdout_low: float | None = None
    holdout_high: float | None = None
    claim: str | None = None
    population: str | None = None
    distinct: int | None = None
    level: float | None = None
    k: int | None = None
    threshold: float | None = None
    false_accept: float | None = None
    control: str | None = None
    score: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """The content of intervention.json.

    `raysearch`: the version that saved it; `id`: the intervention's; `tensors_digest`: SHA-256
    (hex) of the tensors' file.
    """

    raysearch: str
    id: str
    intervention: Intervention
    tensors_digest: str
    model: ModelOrigin | None = None
    variable: str | None = None
    finding: Finding | None = None
    format_version: int = FORMAT_VERSION


def card_text(card: Card) -> str:
    """Formats the card as JSON. Raises: StoreError for a number that is not finite."""
    try:
        return json.dumps(asdict(card), indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as e:
        raise StoreError(
            f"intervention {card.id}: its card cannot be written ({e}); give plain, finite values"
        ) from e


def read_card(text: str | bytes, where: str) -> Card:
    """Parses a card; `where` names it in errors. Raises: StoreError in one line."""
    try:
        raw = json.loads(text)
    except ValueError as e:  # includes UnicodeDecodeError
        raise StoreError(
            f"{where}: is no JSON ({e}); it is truncated or damaged: save or fetch it again"
        ) from e
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if found != FORMAT_VERSION or isinstance(found, bool):
        raise StoreError(
            f"{where}: format_version is {found!r}, this version reads {FORMAT_VERSION}; use the "
            f"raysearch that saved it"
        )
    card = from_json_values(Card, raw, where)
    if card.id != card.intervention.id:
        raise StoreError(
            f"{where}: id is {card.id}, but its intervention has {card.intervention.id}; the card "
            f"was edited, or written by a raysearch (its own word: {card.raysearch}) that names "
            "contents otherwise"
        )
    return card
