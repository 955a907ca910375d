"""The keys of `propose`: which proposer a job has."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from raysearch.core.key_types import Keys
from raysearch.job.file_keys import PROPOSER, NamedFile, none_away
from raysearch.job.keys import OBJECT
from raysearch.proposers.registry import READY, names, options_words, schema_of_names
from raysearch.suggest import did_you_mean


def _known_proposer(name: str, info: ValidationInfo) -> str:
    """Refuses a name that neither we nor an installed package have; `info.context` says whether
    the proposer is on other machines (an `Away`)."""
    if name in READY or OBJECT.fullmatch(name) is not None:
        return name
    if name not in names() and not (info.context or none_away)(NamedFile(PROPOSER, name)):
        hint = did_you_mean(name, names())
        raise ValueError(
            f"{name!r} is no proposer; {hint}it may be {', '.join(names())} or my_file.py:Proposer"
        )
    return name


class _ProposerSchema:
    """Lists the proposers when the schema is asked for: packages may have added some."""

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return schema_of_names()


ProposerName = Annotated[str, AfterValidator(_known_proposer), _ProposerSchema()]


class ProposeKeys(Keys):
    """The proposer: which hypotheses to test next."""

    use: ProposerName = "exhaustive"
    options: dict[str, Any] = Field(
        default={},
        description=f"Keyword arguments of the proposer ({options_words()}).",
    )

    @property
    def file(self) -> str | None:
        """The file of a proposer that stands in one."""
        place, _, _ = self.use.rpartition(":")
        return place if place.endswith(".py") else None
