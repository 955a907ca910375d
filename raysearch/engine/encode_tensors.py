"""From pairs of tensors to what a network is given: positions as tokens that it has, answers as classes.

Invariants: equal pairs, equal encoding, whatever the network's weights; an answer is a whole number, the class that it names.
"""

from collections.abc import Mapping, Sequence

from raysearch.causal import LAST, Input, Pair, Stimulus
from raysearch.engine.tensors import TensorNetwork
from raysearch.errors import ModelError, PairsError, PositionError
from raysearch.search.events import Encoded, Ids


def encode_tensors(
    network: TensorNetwork, pairs: Sequence[Pair], positions: Sequence[str], variables: Sequence[str]
) -> tuple[Encoded, ...]:
    """The pairs as `network` sees them, with `positions` (and "last") and the counterfactuals of `variables`.

    Raises: PairsError for an input that is a text, or an answer that is no class of the network; PositionError for a position not
    there, beyond the tokens that the network has, or of another number of tokens in base and source; ModelError for a tensor that
    the network does not take.
    """
    names = tuple(dict.fromkeys(p for p in positions if p != LAST))
    encoder = _Encoder(network)
    return tuple(encoder.encoded(pair, names, variables) for pair in pairs)


def stimulus_of(given: Input, what: str) -> Stimulus:
    """Raises: PairsError for a text."""
    if given.stimulus is None:
        raise PairsError(f"{what} is the text {given.text!r}, and the model takes tensors; give pairs of tensors")
    return given.stimulus


class _Encoder:
    def __init__(self, network: TensorNetwork) -> None:
        self._network = network
        self._classes = network.classes
        self._tokens: dict[object, int] = {}

    def encoded(self, pair: Pair, positions: Sequence[str], variables: Sequence[str]) -> Encoded:
        what = f"pair {pair.index}: the "
        base_positions = self._positions(pair.base, f"{what}base", positions)
        source_positions: dict[str, Mapping[str, Ids]] = {}
        for name, source in pair.sources.items():
            source_positions[name] = self._positions(source, what + name, positions)
            for p in positions:
                ours, theirs = len(base_positions[p]), len(source_positions[name][p])
                if ours != theirs:
                    raise PositionError(
                        f"pair {pair.index}: position {p!r} has {ours} tokens in the base and {theirs} in the {name}; they must be as many"
                    )
        expected = {v: (pair.counterfactual, v, f"{what}counterfactual of variable {v!r}") for v in variables}
        return Encoded(
            index=pair.index,
            base=stimulus_of(pair.base, f"{what}base"),
            sources={name: stimulus_of(source, what + name) for name, source in pair.sources.items()},
            base_positions=base_positions,
            source_positions=source_positions,
            answers={n: self._class(pair.answers, n, f"{what}answer of {n}") for n in ("base", *pair.sources)},
            counterfactual={v: self._class(*of) for v, of in expected.items()},
        )

    def _positions(self, given: Input, what: str, positions: Sequence[str]) -> dict[str, Ids]:
        count = self._count(stimulus_of(given, what), what)
        found: dict[str, Ids] = {}
        for name in positions:
            if name not in given.tokens:
                known = ", ".join((*given.tokens, LAST))
                raise PositionError(f"{what} has no position {name!r}; it has {known}")
            found[name] = given.tokens[name]
            if max(found[name]) >= count:
                raise PositionError(
                    f"{what}: position {name!r} has token {max(found[name])}, and {self._network.name} has {count} (from 0) on "
                    f"{given.shown}; name one that it has"
                )
        return {**found, LAST: (count - 1,)}

    def _count(self, stimulus: Stimulus, what: str) -> int:
        """How many tokens the network has on tensors of this shape."""
        company = self._network.company(stimulus)
        if company not in self._tokens:
            try:
                self._tokens[company] = self._network.tokens(stimulus)
            except Exception as e:  # the call is all the user's module
                raise untaken(self._network.name, stimulus, what, e) from e
        return self._tokens[company]

    def _class(self, answers: Mapping[str, str], key: str, what: str) -> Ids:
        if key not in answers:
            raise PairsError(f"{what} is missing; the pair has {', '.join(answers) or 'none'}")
        answer = answers[key]
        classes = f'{self._network.name} has the classes "0" to "{self._classes - 1}"'
        if not (answer.isascii() and answer.isdigit()) or str(int(answer)) != answer:
            raise PairsError(f"{what} is {answer!r}, which names no class; {classes} (answer.compare: class)")
        if int(answer) >= self._classes:
            raise PairsError(f"{what} is class {answer}; {classes}")
        return (int(answer),)


def untaken(network: str, stimulus: Stimulus, what: str, error: Exception) -> ModelError:
    """The error of a network that does not run on an input, whatever it raised there."""
    given = f"{what}, a {stimulus.dtype} tensor of shape {list(stimulus.shape)}"
    said = " ".join(str(error).split())[:200]
    if isinstance(error, ModelError):
        return ModelError(f"{given}: {said}")
    return ModelError(
        f"{network} does not run on {given} ({type(error).__name__}: {said}); it is given (row, "
        f"{', '.join(map(str, stimulus.shape))})"
    )
