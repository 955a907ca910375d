"""From pairs to tokens: ids, positions as token indices, answers as the ids that are compared.

Invariants: equal pairs and tokenizer, equal encoding, on every machine (`encoding_digest` shows it); token indices
start at 0 and count the special tokens before the text; nothing depends on padding, or on which other pairs there are.
"""

import hashlib
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from raysearch.causal import LAST, Input, Pair, Span, Stimulus, index_of
from raysearch.engine.positions import Side, located
from raysearch.engine.texts import Texts, Tokens
from raysearch.errors import PairsError, PositionError
from raysearch.search.events import Encoded, Given, Ids
from raysearch.search.hypothesis import canonical_json


def encode(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, positions: Sequence[str], variables: Sequence[str]
) -> tuple[Encoded, ...]:
    """The pairs as the model sees them, with `positions` (and "last") and the counterfactuals of `variables`.

    The compared tokens of an answer are those that tokenize(text + answer) has after the text's own; the first of them
    is kept (answer.compare: first_token). Counterfactuals follow the base's text.

    Raises: PositionError for a position that matches no token, cuts one, or has another number of tokens in base and
    source; PairsError for a tensor, or an answer that is missing, empty, or changes the text's own tokens; ModelError for a
    tokenizer that does not say where its tokens stand.
    """
    for pair in pairs:
        _check_is_text(pair)
    texts = Texts(tokenizer)
    texts.read(text for pair in pairs for text in _texts_of(pair, variables))
    return tuple(_Encoder(pair, texts).encoded(positions, variables) for pair in pairs)


def encoding_digest(encoded: Sequence[Encoded]) -> str:
    """The SHA-256 (64 hex digits) of the content: equal for two replicas exactly where they see the same pairs."""
    whole = hashlib.sha256()
    for e in encoded:
        base, sources = _plain(e.base), {name: _plain(source) for name, source in e.sources.items()}
        content = (e.index, base, sources, e.base_positions, e.source_positions, e.answers, e.counterfactual)
        whole.update(canonical_json(content).encode() + b"\n")
    return whole.hexdigest()


def _check_is_text(pair: Pair) -> None:
    for name, given in {"base": pair.base, **pair.sources}.items():
        if given.stimulus is not None:
            raise PairsError(
                f"pair {pair.index}: the {name} is {given.shown}, and the model is a language model; give pairs of texts"
            )


def _plain(given: Given) -> Ids | str:
    return given.digest if isinstance(given, Stimulus) else given


def _texts_of(pair: Pair, variables: Sequence[str]) -> list[str]:
    """Every text that has to be tokenized for `pair`."""
    base = pair.base.text
    inputs = {"base": pair.base, **pair.sources}
    answered = [inputs[name].text + answer for name, answer in pair.answers.items() if name in inputs]
    expected = [base + pair.counterfactual[v] for v in variables if v in pair.counterfactual]
    return [*(i.text for i in inputs.values()), *answered, *expected]


class _Encoder:
    """One pair on its way; errors name it."""

    def __init__(self, pair: Pair, texts: Texts) -> None:
        self._pair = pair
        self._texts = texts

    def encoded(self, positions: Sequence[str], variables: Sequence[str]) -> Encoded:
        pair = self._pair
        sides = [self._side(name, given) for name, given in {"base": pair.base, **pair.sources}.items()]
        base_positions, *theirs = located(pair.index, sides, positions)
        inputs = {"base": pair.base, **pair.sources}
        return Encoded(
            index=pair.index,
            base=self._ids(pair.base),
            sources={name: self._ids(source) for name, source in pair.sources.items()},
            base_positions=base_positions,
            source_positions=dict(zip(pair.sources, theirs, strict=True)),
            answers={n: self._answer(i, pair.answers, n, f"answer of {n}") for n, i in inputs.items()},
            counterfactual={
                v: self._answer(pair.base, pair.counterfactual, v, f"counterfactual of variable {v!r}")
                for v in variables
            },
        )

    def _ids(self, given: Input) -> Ids:
        ids = self._texts[given.text].ids
        if not self._texts[given.text].spans:
            raise PairsError(f"pair {self._pair.index}: the text {given.text!r} has no token; need at least one")
        return ids

    def _side(self, name: str, given: Input) -> Side:
        ids, tokens = self._ids(given), self._texts[given.text]
        own = range(tokens.first, len(ids))
        return Side(name, given.positions, lambda position: self._position(given, name, position, own), own)

    def _position(self, given: Input, name: str, position: str, own: range) -> Ids:
        index = index_of(position)
        if position in given.tokens or (index is not None and position not in given.spans):
            chosen = given.tokens.get(position, (index or 0,))
            return self._indexed(f"pair {self._pair.index}: position {position!r} of the {name}", given, chosen, own)
        tokens = self._texts[given.text]
        if position not in given.spans:
            known = ", ".join((*given.positions, LAST))
            raise PositionError(f"pair {self._pair.index}: the {name} has no position {position!r}; it has {known}")
        span = given.spans[position]
        at = tokens.within(span)
        where = f"pair {self._pair.index}: position {position!r} of the {name}"
        if not at:
            start, end = span
            raise PositionError(
                f"{where}: [{start}, {end}) is {given.text[start:end]!r}, which matches no token of {given.text!r}; "
                "name a span with at least one letter of a token"
            )
        self._check_edges(where, given.text, span, tokens, at)
        return at

    def _indexed(self, where: str, given: Input, chosen: Ids, own: range) -> Ids:
        if max(chosen) >= len(own):
            raise PositionError(
                f"{where}: there is no token {max(chosen)} (from 0, special tokens not counted); {given.text!r} has {len(own)}"
            )
        return tuple(own[i] for i in chosen)

    def _check_edges(self, where: str, text: str, span: Span, tokens: Tokens, at: Ids) -> None:
        """A token may reach over an edge of the span, but only by white space (" Spain")."""
        start, end = span
        for token in (at[0], at[-1]):
            first, last = tokens.span(token)
            if (text[first:start] if first < start else "").strip() or (text[end:last] if last > end else "").strip():
                raise PositionError(
                    f"{where}: [{start}, {end}) is {text[start:end]!r}, but token {token} is {text[first:last]!r} and "
                    f"reaches over its edge in {text!r}; move the edge to where a token begins or ends"
                )

    def _answer(self, given: Input, answers: Mapping[str, str], key: str, what: str) -> Ids:
        what = f"pair {self._pair.index}: the {what}"
        if key not in answers:
            raise PairsError(f"{what} is missing; the pair has {', '.join(answers) or 'none'}")
        answer = answers[key]
        if not answer:
            raise PairsError(f"{what} is empty; it is the text that follows {given.text!r}")
        own, joined = self._texts[given.text].ids, self._texts[given.text + answer].ids
        if joined[: len(own)] != own:
            raise PairsError(
                f"{what}, {answer!r}, changes the tokens of the text {given.text!r} when it follows it; "
                "move the blank between the two to the other side, or end the text where a token ends"
            )
        if len(joined) == len(own):
            raise PairsError(f"{what}, {answer!r}, has no token of its own after {given.text!r}; name another answer")
        return (joined[len(own)],)
