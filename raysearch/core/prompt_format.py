"""How a text is put to a language model, and what of an answer counts.

Invariants: plain values, so that a wording crosses processes; what is left out leaves a text as it
is, and compares first tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.core.choices import Compare


@dataclass(frozen=True)
class PromptFormat:
    """`chat_template`: whether a text is what the user says in the tokenizer's chat template, and
    the model is to reply.

    `special_tokens`: whether the tokenizer puts its own before the text (None: it does, but not
    beside a chat template, which writes them). `aliases`: by answer, what else counts as it.
    """

    chat_template: bool = False
    special_tokens: bool | None = None
    compare: Compare = "first_token"
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def adds_special_tokens(self) -> bool:
        return not self.chat_template if self.special_tokens is None else self.special_tokens

    def meant(self, answer: str) -> str:
        """The answer that `answer` is an alias of, or itself."""
        return next((of for of, aliases in self.aliases.items() if answer in aliases), answer)


PLAIN = PromptFormat()
"""Texts as they are, first tokens compared."""
