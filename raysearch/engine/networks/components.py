"""Components: the tensor of a module that each one is, found on any architecture by module names
and shapes.

A default table finds them; a second one holds the exceptions (both in `module_names.py`). One
forward pass checks each before use: it must run once and have the shape (row, token, width).

Invariants: heads count from 0 in the model's order; the vector of a per-head component is its heads
one after the other, however the model stores them (fused and grouped projections included).
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raysearch.core.model_facts import ComponentFacts
from raysearch.engine.networks.attention_modules import counts_of
from raysearch.engine.networks.component_check import wrong_heads
from raysearch.engine.networks.first_run import does_not_run
from raysearch.engine.networks.fused_projections import FusedProjection, columns_of
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.hook_point import (
    HookPoint as HookPoint,
)  # re-exported: `Components` returns these
from raysearch.engine.networks.hook_point import hook_at as hook_at
from raysearch.engine.networks.hooks import HookCall, HookSide, owned_hooks
from raysearch.engine.networks.module_names import PER_HEAD
from raysearch.engine.networks.module_places import ModulePlace, ModulePlaces
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.errors import ModelError

log = logging.getLogger(__name__)


class Components:
    """The hook points of one network, located when they are first used."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._places = ModulePlaces(network)
        self._found: dict[str, dict[int | None, HookPoint]] = {}
        self._places_of: dict[Point, int] = {}
        self._wrong: str | None = None  # the error in its heads; empty: none; None: not checked yet

    def at(self, point: Point) -> HookPoint:
        """Returns the hook point of `point`. Raises: ModelError for a component or layer that the
        network lacks."""
        of_layers = self.of(point.component)
        if point.layer not in of_layers:
            has = [layer for layer in of_layers if layer is not None]
            of = (
                f"layers that have it: {_ranges(sorted(has))}"
                if has
                else "it has it once, in no layer: leave layer out"
            )
            raise ModelError(
                f"layer {point.layer!r} has no {point.component} in {self._network.name}; {of}"
            )
        return of_layers[point.layer]

    def last(self, point: Point, given: ModelInput) -> int | None:
        """Returns the index of the last token of that activation on `given`, from 0; None if it has
        the input's own tokens. Raises: as `at`."""
        hook_point = self.at(point)
        tokens = self._network.tokens_at(hook_point.module, hook_point.side, given)
        return None if tokens is None else tokens - 1

    def of(self, component: str) -> Mapping[int | None, HookPoint]:
        """Returns the hook points of a component by layer (None: outside of the layers).

        Raises: ModelError, in one line, for a component that the network lacks or that cannot be
        patched.
        """
        if component not in self._found:
            if component in PER_HEAD:
                self._check_heads(component)
            self._found[component] = self._find(component)
            self._places_of.update(
                {Point(layer, component): i for i, layer in enumerate(self._found[component])}
            )
        return self._found[component]

    def place(self, point: Point) -> int:
        """Returns the index of the point's layer among the layers that have the component."""
        return self._places_of[point]

    def facts(self, component: str) -> ComponentFacts:
        """Returns the shape of a component, for the driver. Raises: as `of`."""
        hook_points = self.of(component)
        layers = tuple(sorted(hook_points, key=lambda layer: layer or 0))
        widths = tuple(hook_points[layer].width for layer in layers)
        alike = len(set(widths)) == 1
        heads = min(t.heads for t in hook_points.values())
        example = self._network.example()
        tokens = min(
            self._network.tokens_at(t.module, t.side, example) or 0 for t in hook_points.values()
        )
        return ComponentFacts(
            component, layers, widths[0] if alike else 0, heads, () if alike else widths, tokens
        )

    def _check_heads(self, component: str) -> None:
        """Compares head, query, key and value, as far as they exist, with the attention itself.
        Raises: ModelError if one is wrong."""
        if self._wrong is None and self._network.device.type != "meta":
            found = {component: self._find(component)}
            found |= {
                other: hook_points
                for other in PER_HEAD
                if other != component and (hook_points := self._find_or_none(other))
            }
            if len(found) == 1:
                log.warning(
                    "%s: its %s cannot be held against queries, keys and values",
                    self._network.name,
                    component,
                )
            of_layers = {
                c: {at: t for at, t in hook_points.items() if at is not None}
                for c, hook_points in found.items()
            }
            self._wrong = wrong_heads(self._network, of_layers)
        if self._wrong:
            raise ModelError(self._wrong)

    def _find_or_none(self, component: str) -> dict[int | None, HookPoint]:
        """Returns the hook points, or nothing for a component that the network lacks."""
        try:
            return self._find(component)
        except ModelError:
            return {}

    @without_gradients()
    def _find(self, component: str) -> dict[int | None, HookPoint]:
        places = self._places.of(component)
        widths = self._widths(component, places)
        hook_points = {}
        for layer, place in places.items():
            columns, heads = self._heads(component, place, widths[layer])
            width = widths[layer] if columns is None else len(columns)
            if component in PER_HEAD and (heads == 0 or width % heads):
                raise ModelError(
                    f"{self._network.name}: {component} of width {width} does not divide into "
                    f"{heads} heads" + ("; it has no attention heads" if heads == 0 else "")
                )
            inside = self._places.layer_of(place.module)
            block = None if inside is None else self._network.blocks[inside]
            hook_points[layer] = HookPoint(
                place.module, place.side, inside, block, columns, width, heads
            )
        return hook_points

    def _heads(
        self, component: str, place: ModulePlace, width: int
    ) -> tuple[Int[Tensor, "width"] | None, int]:
        """Returns the columns of the component in a vector of `width` (None: all) and the number of
        its heads."""
        if component not in PER_HEAD or place.attention is None:
            return None, 0
        count = counts_of(place.attention, self._places.config, self._network.heads)
        if place.layout is None:
            return None, count.heads if component in ("head", "query") else count.groups
        projection = FusedProjection(
            place.attention, self._places.config, count.heads, count.groups, width
        )
        try:
            columns, heads = columns_of(component, place.layout, projection)
        except ModelError as e:
            raise ModelError(
                f"{self._network.name}: {component}: {e}; name a module by its dotted path"
            ) from e
        if not heads:
            raise ModelError(
                f"{self._network.name} has no {component} of each head: a part of it is shared by "
                f"all heads; "
                f"name a module by its dotted path, such as {self._places.path(place.module)}"
            )
        return columns, heads

    def _widths(
        self, component: str, places: Mapping[int | None, ModulePlace]
    ) -> dict[int | None, int]:
        """Measures widths in one forward pass; reads them from the modules if the model has no
        weights."""
        if self._network.device.type == "meta":
            return {layer: self._declared_width(p.module, p.side) for layer, p in places.items()}
        widths: dict[int | None, int] = {}

        def record_width(layer: int | None) -> Callable[[Tensor, HookCall], None]:
            def edit(activation: Float[Tensor, "row token width"], _hook_call: HookCall) -> None:
                widths[layer] = activation.shape[-1]

            return edit

        network, example = self._network, self._network.example()
        hooks = []
        for layer, place in places.items():
            network.check_patchable(component, place.module, place.side)
            inside = self._places.layer_of(place.module)
            block = None if inside is None else network.blocks[inside]
            hook_point = HookPoint(place.module, place.side, inside, block, None, 0, 0)
            hooks.append(hook_at(network, hook_point, record_width(layer), example))
        try:
            with torch.inference_mode(), owned_hooks(hooks):
                network.plain(example, whole=True)
        except (ModelError, AssertionError) as e:
            raise ModelError(
                f"{network.name}: {component} cannot be patched: {e}; name another component"
            ) from e
        except (
            Exception,
            SystemExit,
        ) as e:  # any error of the model: shapes that do not fit, a missing kernel
            raise does_not_run(network.name, repr(example), e) from e
        return widths

    def _declared_width(self, module: nn.Module, side: HookSide) -> int:
        """Returns the width that a module declares; 0 if it declares none. Blocks, attention and
        MLPs have the width of the residual stream."""
        for name in (
            ("in_features", "nx") if side == "input" else ("out_features", "nf", "embedding_dim")
        ):
            width = getattr(module, name, None)  # nx, nf: Conv1D of transformers
            if isinstance(width, int):
                return width
        is_leaf = next(module.children(), None) is None
        return 0 if is_leaf else self._network.width


def _ranges(layers: Sequence[int]) -> str:
    whole = list(range(layers[0], layers[-1] + 1)) == list(layers)
    return (
        f"{layers[0]}..{layers[-1]}" if whole and len(layers) > 1 else ", ".join(map(str, layers))
    )
