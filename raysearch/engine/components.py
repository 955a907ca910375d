"""Components: which tensor of which module each one is, on any architecture, by module names and shapes.

One default table finds them; a second one holds the exceptions. What is found is looked at in one forward pass before it is
trusted: it must run once, and be (row, token, width).

Invariants: heads count from 0 in the order in which the model has them; the vector of a per-head component is its heads one after
the other, however the model lays them out (fused and grouped projections included).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Int
from torch import Tensor, nn

from raysearch.engine.constant import constant
from raysearch.engine.hooks import Edit, Hook, Moment, Side, owned_hooks
from raysearch.engine.network import Given, Network
from raysearch.engine.rows import Point
from raysearch.engine.sites import module_at
from raysearch.errors import ModelError
from raysearch.search.events import ComponentFacts
from raysearch.search.hypothesis import is_in_layers
from raysearch.search.space import COMPONENTS

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_PROJECTION = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_MLP = ("mlp", "ffn", "feed_forward", "block_sparse_moe")
_DOWN = ("down_proj", "c_proj", "fc_out", "dense_4h_to_h", "fc2", "w2")

_Table = Mapping[str, tuple[Side, tuple[str, ...]]]

TABLE: _Table = MappingProxyType(
    {
        "attention_output": ("output", _ATTENTION),
        "head": ("input", tuple(f"{a}.{p}" for a in _ATTENTION for p in _PROJECTION)),
        "mlp_output": ("output", (*_MLP, "fc2")),
        "mlp_activation": ("input", (*(f"{m}.{d}" for m in _MLP for d in _DOWN), "fc2")),
        "query": ("output", tuple(f"{a}.{p}" for a in _ATTENTION for p in ("q_proj", "q_b_proj", "query", "wq"))),
        "key": ("output", tuple(f"{a}.{p}" for a in _ATTENTION for p in ("k_proj", "key", "wk"))),
        "value": ("output", tuple(f"{a}.{p}" for a in _ATTENTION for p in ("v_proj", "value", "wv"))),
    }
)
"""Of each component the side of a module, and the module's name in a block: the first of these that the block has.

`head` is the mix of values that enters the attention's output projection; `mlp_activation` is what enters the MLP's last one.
Queries and keys are as projected: before a norm of theirs and before they are rotated."""

EXCEPTIONS: Mapping[str, _Table] = MappingProxyType(
    {
        # Their attention and MLP modules add the residual themselves.
        "bloom": {
            "attention_output": ("output", ("self_attention.dense",)),
            "mlp_output": ("output", ("mlp.dense_4h_to_h",)),
        },
        "mpt": {"mlp_output": ("output", ("ffn.down_proj",))},
    }
)
"""What holds instead, by `config.model_type`."""

FUSED: Mapping[str, bool] = MappingProxyType(
    {
        "attn.c_attn": False,  # GPT-2: queries | keys | values
        "self_attn.qkv_proj": False,  # Phi-3
        "attn.Wqkv": False,  # MPT
        "attention.query_key_value": True,  # GPT-NeoX: of each group of heads its queries, its key, its value
        "self_attention.query_key_value": True,  # BLOOM, Falcon
    }
)
"""Modules that put out queries, keys and values in one vector, and whether they do so group by group."""

PER_HEAD = ("head", "query", "key", "value")


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a component of a layer is. `columns`: which of the module's tensor it is, in its own order (None: all).

    `layer`: the block in which it lies, None outside of the blocks; `is_block`: whether the module is that block itself.
    """

    module: nn.Module
    side: Side
    layer: int | None
    is_block: bool
    columns: Int[Tensor, "width"] | None
    width: int
    heads: int

    def read(self, activation: Tensor) -> Tensor:
        """The component in the module's activation, whose last dimension is its vector."""
        return activation if self.columns is None else activation[..., self.columns.to(activation.device)]


class Taps:
    """The taps of one network, looked at when they are first asked for."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layer_of = {id(m): at for at, block in enumerate(network.blocks) for m in block.modules()}
        self._found: dict[str, dict[int | None, Tap]] = {}
        self._places_of: dict[Point, int] = {}

    def at(self, point: Point) -> Tap:
        """Raises: ModelError for a component or a layer that the network lacks."""
        of_layers = self.of(point.component)
        if point.layer not in of_layers:
            has = [layer for layer in of_layers if layer is not None]
            of = (
                f"layers that have it: {_ranges(sorted(has))}"
                if has
                else "it has it once, in no layer: leave layer out"
            )
            raise ModelError(f"layer {point.layer} has no {point.component} in {self._network.name}; {of}")
        return of_layers[point.layer]

    def last(self, point: Point, given: Given) -> int | None:
        """The last token of the activation there on `given`, from 0; None where that is the input's own. Raises: as `at`."""
        tap = self.at(point)
        tokens = self._network.tokens_at(tap.module, tap.side, given)
        return None if tokens is None else tokens - 1

    def of(self, component: str) -> Mapping[int | None, Tap]:
        """By layer (None: of no layer).

        Raises: ModelError, in one line, for a component that the network lacks, or not in a form that can be patched.
        """
        if component not in self._found:
            self._found[component] = self._look(component)
            self._places_of.update({Point(layer, component): i for i, layer in enumerate(self._found[component])})
        return self._found[component]

    def place(self, point: Point) -> int:
        """Which of the layers that have the component the point's is."""
        return self._places_of[point]

    def facts(self, component: str) -> ComponentFacts:
        """What the driver needs to know of it. Raises: as `of`."""
        taps = self.of(component)
        layers = tuple(sorted(taps, key=lambda layer: layer or 0))
        widths = tuple(taps[layer].width for layer in layers)
        alike = len(set(widths)) == 1
        heads = min(t.heads for t in taps.values())
        example = self._network.example()
        tokens = min(self._network.tokens_at(t.module, t.side, example) or 0 for t in taps.values())
        return ComponentFacts(component, layers, widths[0] if alike else 0, heads, () if alike else widths, tokens)

    @constant()
    def _look(self, component: str) -> dict[int | None, Tap]:
        places = self._places(component)
        widths = self._widths(component, places)
        taps = {}
        for layer, (module, side, columns) in places.items():
            width = widths[layer] if columns is None else len(columns)
            heads = self._heads(component, module) if component in PER_HEAD else 0
            if component in PER_HEAD and (heads == 0 or width % heads):
                raise ModelError(
                    f"{self._network.name}: {component} of width {width} does not divide into {heads} heads"
                )
            inside = self._layer_of.get(id(module))
            is_block = inside is not None and module is self._network.blocks[inside]
            taps[layer] = Tap(module, side, inside, is_block, columns, width, heads)
        return taps

    def _places(self, component: str) -> dict[int | None, "_Place"]:
        blocks = self._network.blocks
        if not blocks and is_in_layers(component):
            raise ModelError(self._network.without_layers(component))
        if component == "residual":
            return {at: (block, "output", None) for at, block in enumerate(blocks)}
        if component == "block_input":
            return {at: (block, "input", None) for at, block in enumerate(blocks)}
        if component == "embedding":
            return {None: (self._embedding(), "output", None)}
        if "." in component:
            return self._dotted(component)
        if component not in TABLE:
            raise ModelError(
                f"{component!r} is no component; it may be {', '.join(COMPONENTS)} or a dotted module path"
            )
        places: dict[int | None, _Place] = {
            at: place for at, block in enumerate(blocks) if (place := self._in_block(component, block))
        }
        if not places:
            raise ModelError(
                f"{self._network.name} has no {component}: no block has {_some(self._names(component)[1])}; "
                f"name a module by its path: {_some(self._network.paths())}"
            )
        return places

    def _embedding(self) -> nn.Module:
        find: Callable[[], nn.Module] | None = getattr(self._network.module, "get_input_embeddings", None)
        try:
            return find() if find is not None else self._no_embedding()
        except NotImplementedError:
            return self._no_embedding()

    def _no_embedding(self) -> nn.Module:
        """The module of that name, where one has it. Raises: ModelError."""
        module = self._network.module
        found = module_at(module, "embedding")
        if found is None:
            raise ModelError(
                f"{self._network.name} does not say what its embedding is; name a module by its path: {_some(self._network.paths())}"
            )
        return found

    def _names(self, component: str) -> tuple[Side, tuple[str, ...]]:
        kind = getattr(getattr(self._network.module, "config", None), "model_type", "")
        return EXCEPTIONS.get(kind, {}).get(component, TABLE[component])

    def _in_block(self, component: str, block: nn.Module) -> "_Place | None":
        side, names = self._names(component)
        for name in names:
            module = module_at(block, name)
            if module is not None:
                return module, side, None
        if component in ("query", "key", "value"):
            for name, grouped in FUSED.items():
                module = module_at(block, name)
                if module is not None:
                    return module, "output", self._fused_columns(component, module, grouped)
        return None

    def _dotted(self, component: str) -> dict[int | None, "_Place"]:
        path, side = component, "output"
        for ending in ("input", "output"):
            if (
                component.endswith(f".{ending}")
                and module_at(self._network.module, component.replace("{layer}", "0")) is None
            ):
                path, side = component.removesuffix(f".{ending}"), ending
        layers = range(len(self._network.blocks)) if "{layer}" in path else (None,)
        found = {at: module_at(self._network.module, path.replace("{layer}", str(at))) for at in layers}
        places: dict[int | None, _Place] = {
            at: (module, "input" if side == "input" else "output", None)
            for at, module in found.items()
            if module is not None
        }
        if not places:
            known = "" if "." in path else f", and no component is called so (there are {', '.join(COMPONENTS)})"
            raise ModelError(f"{self._network.name} has no module {path!r}{known}; {self._nearest(path)}")
        return places

    def _nearest(self, path: str) -> str:
        """As much of the path as is there, and what could follow."""
        names = path.replace("{layer}", "0").split(".")
        for end in range(len(names) - 1, -1, -1):
            module = module_at(self._network.module, ".".join(names[:end])) if end else self._network.module
            if module is not None:
                children = _some(name for name, _ in module.named_children()) or "none inside"
                return f"{'.'.join(names[:end]) or 'the model'} has {children}"
        raise AssertionError("the model itself is a module")

    def _heads(self, component: str, module: nn.Module) -> int:
        if component in ("head", "query"):
            return self._network.heads
        attention = next((m for block in self._network.blocks for m in block.modules() if _holds(m, module)), None)
        config = getattr(self._network.module, "config", None)
        text = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
        for holder, name in ((attention, "num_kv_heads"), (text, "num_key_value_heads")):
            count = getattr(holder, name, None)
            if isinstance(count, int):
                return count
        return self._network.heads

    def _fused_columns(self, component: str, module: nn.Module, grouped: bool) -> Int[Tensor, "width"]:
        """The columns of queries, keys or values in a fused projection, head by head."""
        queries, groups = self._network.heads, self._heads("key", module)
        width = _out_features(module)
        d_head = width // (queries + 2 * groups)
        heads = torch.arange(queries + 2 * groups)
        if grouped:
            rows = heads.view(groups, queries // groups + 2)
            chosen = {"query": rows[:, :-2], "key": rows[:, -2:-1], "value": rows[:, -1:]}[component].flatten()
        else:
            first, count = {"query": (0, queries), "key": (queries, groups), "value": (queries + groups, groups)}[
                component
            ]
            chosen = heads[first : first + count]
        return (chosen[:, None] * d_head + torch.arange(d_head)).flatten()

    def _widths(self, component: str, places: Mapping[int | None, "_Place"]) -> dict[int | None, int]:
        """As seen in one forward pass; of a model without weights, as its modules say."""
        if self._network.device.type == "meta":
            return {layer: self._said_width(module, side) for layer, (module, side, _) in places.items()}
        widths: dict[int | None, int] = {}

        def look(layer: int | None) -> Callable[[Tensor, Moment], None]:
            def edit(activation: Tensor, _moment: Moment) -> None:
                widths[layer] = activation.shape[-1]

            return edit

        network, example = self._network, self._network.example()
        for module, side, _ in places.values():
            network.check_patchable(component, module, side)
        hooks = [
            Hook(module, side, look(layer), network.firings(module, example), network.flat)
            for layer, (module, side, _) in places.items()
        ]
        try:
            with torch.inference_mode(), owned_hooks(hooks):
                network.plain(example)
        except (ModelError, AssertionError) as e:
            raise ModelError(f"{network.name}: {component} cannot be patched: {e}; name another component") from e
        return widths

    def _said_width(self, module: nn.Module, side: Side) -> int:
        """0 where nothing says it. Blocks, attention and MLPs put out what they take in."""
        for name in ("in_features", "nx") if side == "input" else ("out_features", "nf", "embedding_dim"):
            width = getattr(module, name, None)  # nx, nf: transformers' Conv1D
            if isinstance(width, int):
                return width
        is_leaf = next(module.children(), None) is None
        return 0 if is_leaf else self._network.width


def hook_at(network: Network, tap: Tap, edit: Edit, given: Given) -> Hook:
    """The hook that applies `edit` at `tap` in a forward pass on the company of `given`."""
    return Hook(tap.module, tap.side, edit, network.firings(tap.module, given), network.flat)


_Place = tuple[nn.Module, Side, Tensor | None]


def _holds(parent: nn.Module, module: nn.Module) -> bool:
    return any(child is module for child in parent.children())


def _out_features(module: nn.Module) -> int:
    for name in ("out_features", "nf"):  # nf: transformers' Conv1D
        count = getattr(module, name, None)
        if isinstance(count, int):
            return count
    raise ModelError(f"{type(module).__name__} does not say how wide its output is; name a module by its dotted path")


def _some(names: Iterable[str], limit: int = 6) -> str:
    shown = list(names)
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")


def _ranges(layers: Sequence[int]) -> str:
    whole = list(range(layers[0], layers[-1] + 1)) == list(layers)
    return f"{layers[0]}..{layers[-1]}" if whole and len(layers) > 1 else ", ".join(map(str, layers))
