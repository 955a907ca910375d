"""Looks into one language model: two texts, and what changes when an activation of one is put into
the other.

    import raysearch as rs
    model = rs.Model.load("models/SmolLM2-135M-Instruct")
    model.predict("The capital of Spain is", top=5)
    model.swap("The capital of Spain is", "The capital of Italy is", layer=9, position=" Spain")
    model.swap("The capital of Spain is", "The capital of Italy is", rs.load_intervention("found"),
               position=" Spain")
    model.scan("The capital of Spain is", "The capital of Italy is")

One pair shows how a model works, and proves nothing: `raysearch submit` tests a hypothesis on many,
with its errors controlled.

Invariants: a swap is run by the oracle, a scan by the fastest path that has proved itself on its
own rows, its near-ties by the oracle; what puts in what is there already changes nothing, rounding
included; the model stays as it is.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.model_source import ModelSource
from raysearch.engine.encoding.tokenized_texts import TokenizedTexts
from raysearch.engine.execution.canonical_runner import CanonicalRunner
from raysearch.engine.loading.given_model import GivenModel, read_from
from raysearch.engine.loading.inspect_model import best_device
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.generate import Sampling, generate
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row
from raysearch.engine.patching.subspace_operations import Featurizers
from raysearch.errors import JobError, PairsError, PositionError
from raysearch.interventions.apply import (
    Positions,
    PositionSpec,
    Prepared,
    locate_positions,
    prepare,
    source_name,
)
from raysearch.interventions.constants import check_constants
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.notebook.prediction import NextTokens, make_prediction
from raysearch.notebook.swap_rows import canonical_logits, logits_of_rows, tokens_at, where_words
from raysearch.notebook.views import Answers, Scan, Swap
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from torch import Tensor

_HERE = "here"


P = ParamSpec("P")
T = TypeVar("T")


def _as_it_is(method: Callable[Concatenate["Model", P], T]) -> Callable[Concatenate["Model", P], T]:
    """Decorates a method so that it runs with the model in evaluation mode; the owner's mode is
    restored afterwards."""

    @wraps(method)
    def borrowing(self: "Model", /, *args: P.args, **options: P.kwargs) -> T:
        with self.given.borrowed():
            return method(self, *args, **options)

    return borrowing


class Model:
    """A language model to look into. Raises: ModelError where its blocks are not found.

    A position is a token by its index (-1: the last), or a piece of the text that stands in it
    once.
    """

    def __init__(self, model: Any, tokenizer: Any = None, name: str = "") -> None:
        """Takes `model`, a causal language model of transformers, beside its tokenizer.
        `Model.load` reads one."""
        if isinstance(model, LoadedModel):  # with its name, as `load` does
            self.given, name = GivenModel(model.model, model.tokenizer), name or tokenizer or ""
        else:
            self.given = GivenModel.of(model, tokenizer)
        module, self._tokenizer = self.given.language
        self._network = LanguageModel(module)
        self._components = Components(self._network)
        self._texts = TokenizedTexts(self._tokenizer)
        self._dtype = self.given.dtype
        self._name = name or self._network.name

    @classmethod
    def load(
        cls,
        path: str,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
    ) -> "Model":
        """Returns the model of a folder, a .gguf file or a hub id, on `device` (None: a GPU where
        there is one). Raises: ModelError."""
        source = ModelSource(str(path), revision, dtype)
        loaded = load(source, device or best_device())
        model = cls(loaded, name=str(path).rstrip("/").split("/")[-1])
        model.given = read_from(source, loaded)
        for line in loaded.unused:
            warnings.warn(visible(f"{path}: left out: {line}"), stacklevel=2)
        return model

    def __repr__(self) -> str:
        network = self._network
        return (
            f"{self._name}: {len(network.blocks)} layers, width {network.width}, {self._dtype}, "
            f"{network.device}"
        )

    def tokens(self, text: str) -> tuple[str, ...]:
        """Returns the tokens of a text, special ones included: what positions count."""
        return tuple(self._word(i) for i in self._texts[text].ids)

    @_as_it_is
    def predict(self, text: str, top: int = 5) -> NextTokens:
        """Returns the `top` tokens that the model finds most likely after `text`, with their
        probabilities and logits.

        Raises: PairsError for what is no text, or an empty one; JobError for a `top` that is no
        number of tokens.
        """
        if not isinstance(text, str) or not text:
            raise PairsError(f"predict: got {text!r:.60}; give a text, not empty")
        logits = self._network.plain(self._texts[text].ids)
        return make_prediction(text, logits, top, self._word)

    @_as_it_is
    def swap(
        self,
        base: str,
        source: str,
        layer: int | SavedIntervention,
        position: Positions | None = None,
        component: str = "residual",
        head: int | None = None,
        source_position: Positions | None = None,
        answers: tuple[str, str] | None = None,
    ) -> Swap:
        """Runs `base` with what `source` has at `component` of `layer` at `position` (None: the
        last token); or with a saved intervention.

        `source_position`: where to take it from, if it is not the same tokens. `answers`: the
        base's and the source's, whose logits are compared where that should not be what the model
        says next; what counts as a change they do not touch. Of a saved intervention the positions
        have names: `position` says where they stand (of several, a mapping from their names), but
        for "last", which is the last token of each text. An ablation takes nothing from `source`,
        whose answer is only compared with.

        Raises: PositionError for a position not there, or not said; ModelError for a layer,
        component or head not there; PairsError for answers of no token; StoreError, JobError for a
        saved intervention whose tensors do not fit it, or this model.
        """
        if isinstance(layer, SavedIntervention):
            if component != "residual" or head is not None:
                raise JobError(
                    f"the saved intervention {layer.intervention.id} names its sites; leave "
                    f"component and head out"
                )
            made, row = self._row_of_saved(base, source, layer, position, source_position)
            intervention, constants = made.intervention, made.constants
        else:
            constants = None
            intervention = Intervention((Unit(Site(layer, component, _HERE, head)),))
            row = self._row_of(
                base, source, intervention, -1 if position is None else position, source_position
            )
        known = self._answers(base, source, answers)
        canonical = CanonicalRunner(self._network, self._components)
        logits = canonical_logits(self._network, canonical, row, constants)
        where = where_words(intervention, row, self.tokens(base))
        before = known.difference(self._network.plain(row.base))
        token = int(logits.argmax())
        return Swap(where, known, self._word(token), token, before, known.difference(logits))

    @_as_it_is
    def scan(
        self,
        base: str,
        source: str,
        component: str = "residual",
        head: int | None = None,
        layers: Sequence[int] | None = None,
        answers: tuple[str, str] | None = None,
    ) -> Scan:
        """Makes the swap at every token and in every layer that has the component (or in `layers`).
        Both texts have as many tokens.

        Raises: PositionError for texts of different lengths; else as `swap`.
        """
        ours, theirs = self._texts[base].ids, self._texts[source].ids
        if len(ours) != len(theirs):
            raise PositionError(
                f"{base!r} has {len(ours)} tokens, {source!r} {len(theirs)}; a scan needs as many "
                f"in both; Model.swap takes texts of two lengths, at positions that are named"
            )
        known = self._answers(base, source, answers)
        chosen = tuple(self._components.of(component) if layers is None else layers)
        rows = [
            [
                self._row(base, source, Site(layer, component, _HERE, head), at, at)
                for at in range(len(ours))
            ]
            for layer in chosen
        ]
        every = [row for of_layer in rows for row in of_layer]
        logits, path = logits_of_rows(self._network, self._components, every, self._dtype)
        found = [[logits[row] for row in of_layer] for of_layer in rows]
        predicted = tuple(tuple(int(of.argmax()) for of in of_layer) for of_layer in found)
        return Scan(
            base,
            source,
            component if head is None else f"{component} {head}",
            chosen,
            self._tokens_of_both(base, source),
            known,
            known.difference(self._network.plain(ours)),
            tuple(tuple(map(self._word, tokens)) for tokens in predicted),
            predicted,
            tuple(tuple(map(known.difference, of_layer)) for of_layer in found),
            path,
        )

    def _tokens_of_both(self, base: str, source: str) -> tuple[str, ...]:
        """Returns the base's tokens, each with the source's beneath it where they differ."""
        both = zip(self.tokens(base), self.tokens(source), strict=True)
        return tuple(a if a == b else f"{a}\n{b}" for a, b in both)

    @_as_it_is
    def generate(
        self,
        base: str,
        source: str,
        layer: int,
        position: PositionSpec = -1,
        component: str = "residual",
        head: int | None = None,
        source_position: PositionSpec | None = None,
        new_tokens: int = 20,
        every: bool = False,
        sampling: Sampling | None = None,
    ) -> str:
        """Lets the model go on after `base` under the swap, and gives the text that it says.

        The swap is made at the prompt alone, or (`every`) at every new token too.
        """
        if isinstance(new_tokens, bool) or not isinstance(new_tokens, int) or new_tokens < 1:
            raise JobError(
                f"generate: new_tokens: got {new_tokens!r:.60}; give a whole number from 1"
            )
        row = self._row(
            base, source, Site(layer, component, _HERE, head), position, source_position
        )
        return str(
            self._tokenizer.decode(
                list(generate(self._network, self._components, row, new_tokens, every, sampling))
            )
        )

    @_as_it_is
    def collect(
        self,
        text: str,
        layer: int,
        position: PositionSpec = -1,
        component: str = "residual",
        head: int | None = None,
    ) -> "Tensor":
        """Returns the activation there, of shape (token, feature)."""
        patch = self._row(text, text, Site(layer, component, _HERE, head), position, None).patches[
            0
        ]
        (seen,) = collect(
            self._network,
            self._components,
            Row(
                self._texts[text].ids,
                (Patch(patch.point, patch.tokens, (), Collect(), patch.features),),
            ),
        )
        return seen

    def _row(
        self,
        base: str,
        source: str,
        site: Site,
        position: PositionSpec,
        source_position: PositionSpec | None,
    ) -> Row:
        return self._row_of(base, source, Intervention((Unit(site),)), position, source_position)

    def _row_of_saved(
        self,
        base: str,
        source: str,
        saved: SavedIntervention,
        position: Positions | None,
        source_position: Positions | None,
    ) -> tuple[Prepared, Row]:
        made = prepare(saved, self._network.device)
        if made.intervention.is_ablation:  # takes nothing from the source
            source, source_position = base, position
        row = self._row_of(base, source, made.as_built, position, source_position, made.featurizers)
        check_constants(row, made.intervention, made.constants)
        return made, row

    def _row_of(
        self,
        base: str,
        source: str,
        intervention: Intervention,
        position: Positions | None,
        source_position: Positions | None,
        featurizers: Featurizers | None = None,
    ) -> Row:
        ours, theirs = self._texts[base], self._texts[source]
        at = locate_positions(
            base, len(ours.ids), (u.site.position for u in intervention.units), position,
            lambda _, p: tokens_at(base, ours, p), {}, "position",
        )  # fmt: skip
        theirs_at = locate_positions(
            source, len(theirs.ids),
            ((u.source_site or u.site).position for u in intervention.units), source_position,
            lambda _, p: tokens_at(source, theirs, p), at, "source_position",
        )  # fmt: skip
        highest = max(token for tokens in theirs_at.values() for token in tokens)
        if highest >= len(theirs.ids):
            raise PositionError(
                f"{source!r} has {len(theirs.ids)} tokens, and no token {highest} (from 0); name a "
                f"source_position"
            )
        name = source_name(intervention, "source")
        pair = Encoded(0, ours.ids, {name: theirs.ids}, at, {name: theirs_at}, {}, {})
        return build_row(pair, intervention, self._components, featurizers)

    def _answers(self, base: str, source: str, given: tuple[str, str] | None) -> Answers:
        predicted = [
            int(self._network.plain(self._texts[text].ids).argmax()) for text in (base, source)
        ]
        ids = predicted if given is None else [self._answer(base, answer) for answer in given]
        words = self._word(ids[0]), self._word(ids[1])
        return Answers(
            *words,
            ids[0],
            ids[1],
            (self._word(predicted[0]), self._word(predicted[1])),
            (predicted[0], predicted[1]),
        )

    def _answer(self, text: str, answer: str) -> int:
        own, joined = self._texts[text].ids, self._texts[text + answer].ids
        if joined[: len(own)] != own or len(joined) == len(own):
            raise PairsError(
                f"the answer {answer!r} adds no token to {text!r}; an answer mostly begins with a "
                f"blank"
            )
        return joined[len(own)]

    def _word(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))
