"""Encodes pairs as tokens: ids, positions as token indices, answers as the ids that are compared.

Invariants: equal pairs and tokenizer give equal encodings on every machine (`encoding_digest` shows
it); token indices start at 0 and count the special tokens before the text; nothing depends on
other pairs.
"""

import hashlib
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from raysearch.causal import LAST, Input, Pair, Span, Stimulus, token_index
from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.hypothesis import canonical_json
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.engine.encoding.positions import PairSide, locate
from raysearch.engine.encoding.tokenized_texts import Prompt, TokenizedText, TokenizedTexts
from raysearch.errors import PairsError, PositionError


def encode(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    positions: Sequence[str],
    variables: Sequence[str],
    prompt_format: PromptFormat = PLAIN,
) -> tuple[Encoded, ...]:
    """Encodes the pairs for the model, with `positions` (and "last") and the counterfactuals of
    `variables`.

    The compared tokens of an answer are those that tokenize(text + answer) adds to the text's own:
    all of them if `wording.compare` is "sequence", else the first. Counterfactuals, aliases and
    choices follow the base's text. Positions are those of the text; "last" is the last token of the
    whole input.

    Raises: PositionError for a position that matches no token, cuts one, or has different numbers
    of tokens in base and source; PairsError for a tensor, an answer that is missing, empty, or
    changes the text's own tokens, choices that cannot be told apart, or a text that the chat
    template changes; ModelError for a tokenizer without offsets, or without a chat template if one
    is needed.
    """
    for pair in pairs:
        _check_is_text(pair)
    inputs = (given.text for pair in pairs for given in (pair.base, *pair.sources.values()))
    texts = TokenizedTexts(tokenizer, prompt_format, inputs)
    texts.read(text for pair in pairs for text in _texts_of(pair, texts, prompt_format, variables))
    return tuple(
        _Encoder(pair, texts, prompt_format).encoded(positions, variables) for pair in pairs
    )


def encoding_digest(encoded: Sequence[Encoded]) -> str:
    """Returns the SHA-256 (64 hex digits) of the content: equal for two replicas exactly if their
    pairs are equal."""
    whole = hashlib.sha256()
    for e in encoded:
        base, sources = _plain(e.base), {name: _plain(source) for name, source in e.sources.items()}
        content = (
            e.index,
            base,
            sources,
            e.base_positions,
            e.source_positions,
            e.answers,
            e.counterfactual,
            e.aliases,
            e.choices,
        )
        whole.update(canonical_json(content).encode() + b"\n")
    return whole.hexdigest()


def _check_is_text(pair: Pair) -> None:
    for name, given in {"base": pair.base, **pair.sources}.items():
        if given.stimulus is not None:
            raise PairsError(
                f"pair {pair.index}: the {name} is {given.description}, and the model is a "
                f"language model; give pairs of texts"
            )


def _plain(given: ModelInput) -> Ids | str:
    return given.digest if isinstance(given, Stimulus) else given


def _texts_of(
    pair: Pair, texts: TokenizedTexts, prompt_format: PromptFormat, variables: Sequence[str]
) -> list[str]:
    """Returns every text that must be tokenized for `pair`."""
    inputs = {"base": pair.base, **pair.sources}
    prompts = {name: texts.prompt(given.text).text for name, given in inputs.items()}
    answers = [(name, answer) for name, answer in pair.answers.items() if name in inputs]
    answers += [("base", pair.counterfactual[v]) for v in variables if v in pair.counterfactual]
    texts_after = [(name, prompt_format.meant(answer)) for name, answer in answers]
    texts_after += [
        ("base", alias)
        for _, answer in texts_after
        for alias in prompt_format.aliases.get(answer, ())
    ]
    if prompt_format.compare == "choices":
        texts_after += [("base", choice) for choice in pair.choices]
    return [*prompts.values(), *(prompts[name] + answer for name, answer in texts_after)]


class _Encoder:
    """Encodes one pair; errors name it."""

    def __init__(self, pair: Pair, texts: TokenizedTexts, prompt_format: PromptFormat) -> None:
        self._pair = pair
        self._texts = texts
        self._prompt_format = prompt_format

    def encoded(self, positions: Sequence[str], variables: Sequence[str]) -> Encoded:
        pair = self._pair
        sides = [
            self._side(name, given) for name, given in {"base": pair.base, **pair.sources}.items()
        ]
        base_positions, *theirs = locate(pair.index, sides, positions)
        inputs = {"base": pair.base, **pair.sources}
        questions = {
            n: i for n, i in inputs.items() if n == "base" or n in pair.answers
        }  # a source may lack a question
        answers = {
            n: self._named(i, pair.answers, n, f"answer of {n}") for n, i in questions.items()
        }
        counterfactual = {
            v: self._named(pair.base, pair.counterfactual, v, f"counterfactual of variable {v!r}")
            for v in variables
        }
        encoded = Encoded(
            index=pair.index,
            base=self._ids(pair.base),
            sources={name: self._ids(source) for name, source in pair.sources.items()},
            base_positions=base_positions,
            source_positions=dict(zip(pair.sources, theirs, strict=True)),
            answers=answers,
            counterfactual=counterfactual,
            aliases=self._aliases(variables),
            choices=self._choices(),
            values=pair.values,
            added=pair.added,
        )
        self._check_chosen(encoded)
        return encoded

    def _aliases(self, variables: Sequence[str]) -> tuple[tuple[Ids, Ids], ...]:
        """Returns (alias, the answer that it counts as) for all answers of the pair."""
        pair = self._pair
        answers = [*pair.answers.values(), *(pair.counterfactual[v] for v in variables)]
        found = [
            (
                self._ids_of(pair.base, alias, f"alias of {answer!r}"),
                self._ids_of(pair.base, answer, "answer"),
            )
            for answer in dict.fromkeys(map(self._prompt_format.meant, answers))
            for alias in self._prompt_format.aliases.get(answer, ())
        ]
        return tuple(dict.fromkeys(found))

    def _choices(self) -> Ids:
        """Returns the first tokens of the choices, all distinct; empty if the answer is not a
        choice."""
        pair = self._pair
        if self._prompt_format.compare != "choices":
            return ()
        if len(set(pair.choices)) < 2:
            raise PairsError(
                f"pair {pair.index}: lists {', '.join(map(repr, pair.choices)) or 'no choices'}; "
                f"answer.compare: choices needs at least two"
            )
        by_id: dict[int, str] = {}
        for choice in dict.fromkeys(pair.choices):
            (first,) = self._ids_of(pair.base, choice, f"choice {choice!r}")
            other = by_id.setdefault(first, choice)
            if other != choice:
                raise PairsError(
                    f"pair {pair.index}: the choices {other!r} and {choice!r} begin with the same "
                    f"token, by which they are told apart; "
                    "give others, or use answer.compare: sequence"
                )
        return tuple(by_id)

    def _check_chosen(self, encoded: Encoded) -> None:
        """Raises: PairsError for an answer that is none of the choices."""
        if not encoded.choices:
            return
        for what, answer in {**encoded.answers, **encoded.counterfactual}.items():
            if answer[0] not in encoded.choices:
                answer_text = self._pair.answers.get(what, self._pair.counterfactual.get(what))
                listed = ", ".join(map(repr, self._pair.choices))
                raise PairsError(
                    f"pair {self._pair.index}: the answer of {what}, {answer_text!r}, is none of "
                    f"its choices: {listed}"
                )

    def _ids(self, given: Input) -> Ids:
        tokens = self._texts[self._texts.prompt(given.text).text]
        if not tokens.spans:
            raise PairsError(
                f"pair {self._pair.index}: the text {given.text!r} has no token; need at least one"
            )
        return tokens.ids

    def _side(self, name: str, given: Input) -> PairSide:
        ids, prompt = self._ids(given), self._texts.prompt(given.text)
        tokens = self._texts[prompt.text]
        at = tokens.within((prompt.start, prompt.start + len(given.text)))
        own = (
            range(at[0], at[-1] + 1)
            if self._prompt_format.chat_template
            else range(tokens.first, len(ids))
        )
        return PairSide(
            name,
            given.positions,
            lambda position: self._position(given, name, position, own),
            own,
            last=len(ids) - 1,
        )

    def _position(self, given: Input, name: str, position: str, own: range) -> Ids:
        index = token_index(position)
        if position in given.tokens or (index is not None and position not in given.spans):
            chosen = given.tokens.get(position, (index or 0,))
            return self._indexed(
                f"pair {self._pair.index}: position {position!r} of the {name}", given, chosen, own
            )
        prompt = self._texts.prompt(given.text)
        tokens = self._texts[prompt.text]
        if position not in given.spans:
            known = ", ".join((*given.positions, LAST))
            raise PositionError(
                f"pair {self._pair.index}: the {name} has no position {position!r}; it has {known}"
            )
        start, end = given.spans[position]
        span = prompt.start + start, prompt.start + end
        at = tokens.within(span)
        where = f"pair {self._pair.index}: position {position!r} of the {name}"
        if not at:
            raise PositionError(
                f"{where}: [{start}, {end}) is {given.text[start:end]!r}, which matches no token "
                f"of {given.text!r}; name a span with at least one letter of a token"
            )
        self._check_edges(where, prompt, span, tokens, at)
        return at

    def _indexed(self, where: str, given: Input, chosen: Ids, own: range) -> Ids:
        if max(chosen) >= len(own):
            raise PositionError(
                f"{where}: there is no token {max(chosen)} (from 0, special tokens not counted); "
                f"{given.text!r} has {len(own)}"
            )
        return tuple(own[i] for i in chosen)

    def _check_edges(
        self, where: str, prompt: Prompt, span: Span, tokens: TokenizedText, at: Ids
    ) -> None:
        """Checks that a token crosses an edge of the span by white space only (" Spain")."""
        (start, end), text = span, prompt.text
        for token in (at[0], at[-1]):
            first, last = tokens.span(token)
            if (text[first:start] if first < start else "").strip() or (
                text[end:last] if last > end else ""
            ).strip():
                raise PositionError(
                    f"{where}: [{start - prompt.start}, {end - prompt.start}) is "
                    f"{text[start:end]!r}, but token {token} is {text[first:last]!r} and reaches "
                    f"over its edge in {text!r}; move the edge to where a token begins or ends"
                )

    def _named(self, given: Input, answers: Mapping[str, str], key: str, what: str) -> Ids:
        if key not in answers:
            raise PairsError(
                f"pair {self._pair.index}: the {what} is missing; the pair has "
                f"{', '.join(answers) or 'none'}"
            )
        return self._ids_of(given, self._prompt_format.meant(answers[key]), what)

    def _ids_of(self, given: Input, answer: str, what: str) -> Ids:
        """Returns the compared ids of an answer that follows `given`."""
        what = f"pair {self._pair.index}: the {what}"
        if not answer:
            raise PairsError(f"{what} is empty; it is the text that follows {given.text!r}")
        prompt = self._texts.prompt(given.text).text
        own, joined = self._texts[prompt].ids, self._texts[prompt + answer].ids
        if joined[: len(own)] != own:
            raise PairsError(
                f"{what}, {answer!r}, changes the tokens of the text {prompt!r} when it follows "
                "it; move the blank between the two to the other side, or end the text where a "
                "token ends"
            )
        if len(joined) == len(own):
            raise PairsError(
                f"{what}, {answer!r}, has no token of its own after {prompt!r}; name another answer"
            )
        return (
            joined[len(own) :] if self._prompt_format.compare == "sequence" else (joined[len(own)],)
        )
