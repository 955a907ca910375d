"""The format of prompts to a language model, and the part of an answer that counts.

Invariants: plain values, so that a format crosses processes; the default leaves a text unchanged
and compares first tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.core.option_names import Compare


@dataclass(frozen=True)
class PromptFormat:
    """The format in which a text is given to a language model.

    Args:
        chat_template: whether the text is the user's turn in the tokenizer's chat template, to
            which the model replies.
        special_tokens: whether the tokenizer adds its own before the text; None: it does, unless a
            chat template writes them.
        aliases: other texts that count as an answer, by answer.
    """

    chat_template: bool = False
    special_tokens: bool | None = None
    compare: Compare = "first_token"
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def adds_special_tokens(self) -> bool:
        return not self.chat_template if self.special_tokens is None else self.special_tokens

    def meant(self, answer: str) -> str:
        """Returns the answer that `answer` is an alias of, or `answer` itself."""
        return next((of for of, aliases in self.aliases.items() if answer in aliases), answer)


PLAIN = PromptFormat()
"""Texts unchanged, first tokens compared."""
