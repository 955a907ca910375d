"""Encodes pairs of tensors: positions as tokens of the network, answers as classes.

Invariants: equal pairs give equal encodings, whatever the network's weights; an answer is a whole
number, the class that it names.
"""

from collections.abc import Mapping, Sequence

from raysearch.causal import LAST, Input, Pair, Stimulus, token_index
from raysearch.core.events import Encoded, Ids
from raysearch.engine.encoding.positions import PairSide, locate
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.errors import ModelError, PairsError, PositionError
from raysearch.visible_text import one_line


def encode_tensors(
    network: TensorNetwork,
    pairs: Sequence[Pair],
    positions: Sequence[str],
    variables: Sequence[str],
) -> tuple[Encoded, ...]:
    """Encodes the pairs for `network`, with `positions` (and "last") and the counterfactuals of
    `variables`.

    Raises: PairsError for an input that is a text, or an answer that is no class of the network;
    PositionError for a position that does not exist, exceeds the network's tokens, or has different
    numbers of tokens in base and source; ModelError for a tensor that the network does not take.
    """
    encoder = _Encoder(network)
    return tuple(encoder.encoded(pair, positions, variables) for pair in pairs)


def stimulus_of(given: Input, what: str) -> Stimulus:
    """Returns the tensor of an input. Raises: PairsError for a text."""
    if given.stimulus is None:
        raise PairsError(
            f"{what} is the text {given.text!r}, and the model takes tensors; give pairs of tensors"
        )
    return given.stimulus


class _Encoder:
    def __init__(self, network: TensorNetwork) -> None:
        self._network = network
        self._classes = network.classes
        self._tokens: dict[object, int] = {}

    def encoded(self, pair: Pair, positions: Sequence[str], variables: Sequence[str]) -> Encoded:
        what = f"pair {pair.index}: the "
        sides = [
            self._side(name, given, what + name)
            for name, given in {"base": pair.base, **pair.sources}.items()
        ]
        base_positions, *theirs = locate(pair.index, sides, positions)
        questions = (
            "base",
            *(name for name in pair.sources if name in pair.answers),
        )  # a source may lack a question
        expected = {
            v: (pair.counterfactual, v, f"{what}counterfactual of variable {v!r}")
            for v in variables
        }
        return Encoded(
            index=pair.index,
            base=stimulus_of(pair.base, f"{what}base"),
            sources={
                name: stimulus_of(source, what + name) for name, source in pair.sources.items()
            },
            base_positions=base_positions,
            source_positions=dict(zip(pair.sources, theirs, strict=True)),
            answers={n: self._class(pair.answers, n, f"{what}answer of {n}") for n in questions},
            counterfactual={v: self._class(*of) for v, of in expected.items()},
            values=pair.values,
            added=pair.added,
        )

    def _side(self, name: str, given: Input, what: str) -> PairSide:
        count = self._count(stimulus_of(given, what), what)
        return PairSide(
            name,
            given.positions,
            lambda position: self._position(given, what, position, count),
            range(count),
            last=count - 1,
        )

    def _position(self, given: Input, what: str, position: str, count: int) -> Ids:
        index = token_index(position)
        if position not in given.tokens and index is None:
            known = ", ".join((*given.tokens, LAST))
            raise PositionError(f"{what} has no position {position!r}; it has {known}")
        at = given.tokens.get(position, (index or 0,))
        most = max(
            count, self._network.most_tokens(stimulus_of(given, what))
        )  # a module may have more tokens than the first layer
        if max(at) >= most:
            raise PositionError(
                f"{what}: position {position!r} has token {max(at)}, and {self._network.name} has "
                f"{most} (from 0) on {given.description}; name one that it has"
            )
        return at

    def _count(self, stimulus: Stimulus, what: str) -> int:
        """Returns the network's number of tokens on tensors of this shape."""
        batch_key = self._network.batch_key(stimulus)
        if batch_key not in self._tokens:
            try:
                self._tokens[batch_key] = self._network.tokens(stimulus)
            except (Exception, SystemExit) as e:  # any error of the user's module
                raise not_run_error(self._network.name, stimulus, what, e) from e
        return self._tokens[batch_key]

    def _class(self, answers: Mapping[str, str], key: str, what: str) -> Ids:
        if key not in answers:
            raise PairsError(f"{what} is missing; the pair has {', '.join(answers) or 'none'}")
        answer = answers[key]
        classes = f'{self._network.name} has the classes "0" to "{self._classes - 1}"'
        if not (answer.isascii() and answer.isdigit()) or str(int(answer)) != answer:
            raise PairsError(
                f"{what} is {answer!r}, which names no class; {classes} (answer.compare: class)"
            )
        if int(answer) >= self._classes:
            one = (
                " (one logit says nothing: put out one for each class, such as 0 and the logit)"
                if self._classes == 1
                else ""
            )
            raise PairsError(f"{what} is class {answer}; {classes}{one}")
        return (int(answer),)


def not_run_error(network: str, stimulus: Stimulus, what: str, error: BaseException) -> ModelError:
    """Returns the error of a network that does not run on an input, whatever it raised."""
    given = f"{what}, a {stimulus.dtype} tensor of shape {list(stimulus.shape)}"
    message = one_line(error)
    if isinstance(error, ModelError):
        return ModelError(f"{given}: {message}")
    shape = ", ".join(["row", *map(str, stimulus.shape)])
    whole = (
        ""
        if stimulus.dtype == "float32"
        else " (where it takes no whole numbers, give it floats: 1.0 for 1)"
    )
    return ModelError(
        f"{network} does not run on {given} ({type(error).__name__}: {message}); its forward is "
        f"called with one {stimulus.dtype} tensor ({shape}){whole}"
    )
