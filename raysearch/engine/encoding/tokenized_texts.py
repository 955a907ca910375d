"""Tokenized texts: each distinct text is tokenized once, in the prompt format.

Invariants: special tokens that the tokenizer adds before the text stay and count; those after it
are removed, since the model is to continue the text; each token has its characters; a chat template
adds text before and after and leaves the text unchanged, or it is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from raysearch.causal import Span
from raysearch.core.events import Ids
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.engine.encoding.chat_template import check_length, check_template
from raysearch.errors import ModelError, PairsError
from raysearch.visible_text import one_line

_MARK = "\N{SNOWMAN}raysearch\N{SNOWMAN}"
"""A text that no template contains."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The ids of a text, including special tokens before it; `spans` are the characters of those
    from `first` on."""

    ids: Ids
    spans: tuple[Span, ...]

    @property
    def first(self) -> int:
        """The index of the text's own first token."""
        return len(self.ids) - len(self.spans)

    def span(self, token: int) -> Span:
        """Returns the characters [start, end) of the token at index `token`."""
        return self.spans[token - self.first]

    def within(self, span: Span) -> Ids:
        """Returns the indices of the tokens that share a character with `span`, and of those
        between them.

        A token between them may be white space whose span has no characters (byte-level tokenizers
        trim it).
        """
        start, end = span
        at = [i for i, (s, e) in enumerate(self.spans) if s < end and e > start]
        return tuple(range(self.first + at[0], self.first + at[-1] + 1)) if at else ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The model's input as `text`, in which the original text begins at character `start`."""

    text: str
    start: int


class TokenizedTexts:
    """Tokenizes texts and keeps the results. `inputs`: the texts that a chat template will get.
    Raises: ModelError for a tokenizer without offsets, or without a chat template if the prompt
    format needs one."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: PromptFormat = PLAIN,
        inputs: Iterable[str] = (),
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} does not say where its tokens stand in the text; "
                "need a fast tokenizer (tokenizer.json in the model's folder)"
            )
        self._tokenizer = tokenizer
        self._prompt_format = prompt_format
        self._inputs = tuple(dict.fromkeys((_MARK, *inputs)))
        self._frame = (
            self._frame_of(_MARK).split(_MARK) if prompt_format.chat_template else ["", ""]
        )
        if len(self._frame) != 2:
            raise ModelError(
                f"the chat template of this {type(tokenizer).__name__} does not say what the user "
                f"says exactly once, as it is; "
                "set model.prompt.chat_template to false, and write the whole prompt in the texts"
            )
        self._tokens: dict[str, TokenizedText] = {}
        self._prompts: dict[str, Prompt] = {}

    def __getitem__(self, text: str) -> TokenizedText:
        if not isinstance(text, str):
            raise PairsError(f"got {text!r:.60}, which is no text; give a text")
        if text not in self._tokens:
            self.read((text,))
        return self._tokens[text]

    def prompt(self, text: str) -> Prompt:
        """Returns the prompt of `text`. Raises: PairsError if the chat template changes it."""
        if text not in self._prompts:
            self._prompts[text] = self._put(text)
        return self._prompts[text]

    def _put(self, text: str) -> Prompt:
        before, after = self._frame
        whole = f"{before}{text}{after}"
        if self._prompt_format.chat_template and (got := self._frame_of(text)) != whole:
            raise PairsError(
                f"the chat template changes the text {text!r} (it makes "
                f"{got[len(before) :][: len(text) + 20]!r} of it), so that positions would be "
                "lost; write the text as the template leaves it, without blanks at its ends"
            )
        return Prompt(whole, len(before))

    def _frame_of(self, text: str) -> str:
        """Renders the user turn `text`, up to the start of the reply. Raises: ModelError."""
        try:
            if text is _MARK:
                used: Any = self._tokenizer
                check_template(used.get_chat_template(), self._inputs, used.special_tokens_map)
            rendered = self._rendered(text)
            check_length(len(rendered))
        except Exception as e:  # templates are foreign code: errors of jinja2, ValueError, ...
            line = one_line(e)
            raise ModelError(
                f"model.prompt.chat_template: the tokenizer's chat template cannot be used "
                f"({type(e).__name__}: {line}); set it to false"
            ) from e
        return rendered

    def _rendered(self, text: str) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        )

    def read(self, texts: Iterable[str]) -> None:
        """Tokenizes all texts that are new, at once."""
        new = [t for t in dict.fromkeys(texts) if t not in self._tokens]
        if not new:
            return
        try:
            batch = self._tokenized(new)
        except Exception as e:  # `tokenizers` raises a bare Exception that does not name the text
            raise PairsError(
                f"the tokenizer cannot read {_shown(self._unreadable(new))} ({e}); give texts of "
                f"its vocabulary"
            ) from e
        columns = batch["input_ids"], batch["offset_mapping"], batch["special_tokens_mask"]
        for text, ids, spans, special in zip(new, *columns, strict=True):
            self._tokens[text] = _tokens(ids, spans, special)

    def _tokenized(self, texts: list[str]) -> BatchEncoding:
        encoding: BatchEncoding = self._tokenizer(
            texts,
            add_special_tokens=self._prompt_format.adds_special_tokens,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        return encoding

    def _unreadable(self, texts: list[str]) -> str:
        """Returns the first of `texts` that the tokenizer refuses."""
        for text in texts:
            try:
                self._tokenized([text])
            except Exception:  # noqa: BLE001  (as above; the caller reports it)
                return text
        return texts[0]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:196]} ...")


def _tokens(ids: list[int], spans: list[Span], special: list[int]) -> TokenizedText:
    own = [at for at, is_special in enumerate(special) if not is_special]
    if not own:
        return TokenizedText(tuple(ids), ())
    first, end = own[0], own[-1] + 1
    return TokenizedText(tuple(ids[:end]), tuple((s, e) for s, e in spans[first:end]))
