"""Reads token ids as text: answers as the pairs have them, other tokens by the model's
tokenizer.json where it lies on this machine.

Invariants: nothing is executed or fetched: tokenizer.json is data; an id that nothing names has no
text.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from raysearch.visible_text import visible

FILE = "tokenizer.json"


class TokenTexts:
    """Texts of token ids.

    Args:
        job: the keys of the job, whose `model.path` is where the tokenizer may be.
        pairs: rows of pairs.parquet.
    """

    def __init__(self, job: Mapping[str, Any], pairs: Iterable[Mapping[str, Any]]) -> None:
        self._model = job.get("model")
        self._known = {ids: text for pair in pairs for ids, text in _answers(pair)}

    def text(self, ids: tuple[int, ...]) -> str | None:
        """Returns what ids read as, made visible; None where nothing names them."""
        known = self._known.get(ids)
        if known is None and self._tokenizer is not None and ids:
            decode = partial(self._tokenizer.decode, list(ids), skip_special_tokens=False)
            known = _tried(decode) or None
        return None if known is None else visible(known)

    def spans(self, text: str, ids: list[int]) -> list[tuple[int, int]] | None:
        """Returns the characters [start, end) of each token; None unless the tokenizer cuts the
        text into just these."""
        if self._tokenizer is None:
            return None
        for special in (True, False):
            cut = _tried(partial(self._tokenizer.encode, text, add_special_tokens=special))
            if cut is not None and cut.ids == ids:
                return list(cut.offsets)
        return None

    @cached_property
    def _tokenizer(self) -> Any:
        path = self._model.get("path") if isinstance(self._model, dict) else self._model
        if not isinstance(path, str) or not (file := Path(path) / FILE).is_file():
            return None
        from tokenizers import Tokenizer  # a tenth of a second

        return _tried(partial(Tokenizer.from_file, str(file)))


def _tried(call: Callable[[], Any]) -> Any:
    """Returns what a call of the library gives; None where it cannot, which it says by a bare
    Exception: a file of another kind, a text that its vocabulary cannot write."""
    try:
        return call()
    except Exception as e:
        if type(e) is not Exception:
            raise
        return None


def _answers(pair: Mapping[str, Any]) -> Iterable[tuple[tuple[int, ...], str]]:
    """Yields the ids and texts of a pair's answers."""
    both = [(pair["base_answer_ids"], pair["base_answer"])]
    both += [(s["answer_ids"], s["answer"]) for s in pair["sources"]]
    both += [(c["ids"], c["answer"]) for c in pair["counterfactual"]]
    choices = zip(pair.get("choice_ids") or (), pair.get("choices") or (), strict=False)
    both += [([token], text) for token, text in choices]
    return [(tuple(ids), text) for ids, text in both if ids is not None and text is not None]
