"""Prompt format: how a text becomes the model's input, and which part of an answer is compared.

Invariants: plain values that can cross processes; by default a text is unchanged and first tokens
are compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.core.choices import Compare


@dataclass(frozen=True)
class PromptFormat:
    """The format of prompts and answers. `chat_template`: whether the text is a user turn in the
    tokenizer's chat template, to which the model replies.

    `special_tokens`: whether the tokenizer adds its own before the text (None: yes, except with a
    chat template, which writes them). `aliases`: for an answer, other texts that count as it.
    """

    chat_template: bool = False
    special_tokens: bool | None = None
    compare: Compare = "first_token"
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def adds_special_tokens(self) -> bool:
        return not self.chat_template if self.special_tokens is None else self.special_tokens

    def meant(self, answer: str) -> str:
        """Returns the answer that `answer` is an alias of, or `answer`."""
        return next((of for of, aliases in self.aliases.items() if answer in aliases), answer)


PLAIN = PromptFormat()
"""Texts unchanged, first tokens compared."""
