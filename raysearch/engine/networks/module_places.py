"""Finds the module of a component in a network, by its name or its dotted path.

Invariants: a fused projection whose column order is not known is refused, never guessed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from raysearch.core.hypothesis import is_in_layers
from raysearch.core.space import COMPONENTS
from raysearch.engine.networks.attention_modules import has_none
from raysearch.engine.networks.blocks import module_at
from raysearch.engine.networks.fused_projections import Layout, is_fused, layout_of
from raysearch.engine.networks.hooks import HookSide
from raysearch.engine.networks.module_names import (
    PER_HEAD,
    PROJECTIONS,
    TABLE,
    attention_of,
    in_block,
    names_of,
)
from raysearch.engine.networks.network import Network
from raysearch.errors import ModelError


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """A module and its side. For a component with heads: the attention module around it, and its
    column layout if it is fused."""

    module: nn.Module
    side: HookSide
    attention: nn.Module | None = None
    layout: Layout | None = None


class ModulePlaces:
    """Finds the modules of components in one network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layer_of = {
            id(m): at for at, block in enumerate(network.blocks) for m in block.modules()
        }

    def layer_of(self, module: nn.Module) -> int | None:
        """Returns the layer of the block that a module is in; None outside of the blocks."""
        return self._layer_of.get(id(module))

    def of(self, component: str) -> dict[int | None, ModulePlace]:
        blocks = self._network.blocks
        if not blocks and is_in_layers(component):
            raise ModelError(self._network.without_layers(component))
        if component == "residual":
            return {at: ModulePlace(block, "output") for at, block in enumerate(blocks)}
        if component == "block_input":
            return {at: ModulePlace(block, "input") for at, block in enumerate(blocks)}
        if component == "embedding":
            return {None: ModulePlace(self._embedding(), "output")}
        if "." in component:
            return self._dotted(component)
        if component not in TABLE:
            raise ModelError(
                f"{component!r} is no component; it may be {', '.join(COMPONENTS)} or a dotted "
                f"module path"
            )
        places: dict[int | None, ModulePlace] = {
            at: place for at in range(len(blocks)) if (place := self._in_block(component, at))
        }
        if not places:
            raise ModelError(
                f"{self._network.name} has no {component}: no block has "
                f"{_listed(names_of(component, self._kind)[1])}; "
                f"name a module by its path: {_listed(self._network.paths())}"
            )
        return places

    def _embedding(self) -> nn.Module:
        find: Callable[[], nn.Module] | None = getattr(
            self._network.module, "get_input_embeddings", None
        )
        try:
            return find() if find is not None else self._no_embedding()
        except NotImplementedError:
            return self._no_embedding()

    def _no_embedding(self) -> nn.Module:
        """Returns the module named "embedding". Raises: ModelError if there is none."""
        module = self._network.module
        found = module_at(module, "embedding")
        if found is None:
            raise ModelError(
                f"{self._network.name} does not say what its embedding is; name a module by its "
                f"path: {_listed(self._network.paths())}"
            )
        return found

    @property
    def _kind(self) -> str:
        return str(getattr(getattr(self._network.module, "config", None), "model_type", ""))

    def _in_block(self, component: str, layer: int) -> ModulePlace | None:
        """Returns the place of a component in one block, or None. Raises: ModelError for a fused
        projection whose column order is not known."""
        block = self._network.blocks[layer]
        if component in PER_HEAD and has_none(self.config, layer):
            return None
        for name, module in in_block(component, self._kind, block):
            side, _ = names_of(component, self._kind)
            if component not in PER_HEAD:
                return ModulePlace(module, side)
            attention = attention_of(block, name)
            layout = layout_of(name, self.config) if component in PROJECTIONS else None
            if layout is None and component in PROJECTIONS and is_fused(name):
                raise ModelError(
                    f"{self._network.name}: the order of queries, keys and values in its {name} is "
                    "not known, and none is guessed; name that module by its dotted path, "
                    f"{self.path(module)}, and coordinates of it"
                )
            return ModulePlace(module, side, attention, layout)
        return None

    def path(self, module: nn.Module) -> str:
        """Returns the dotted path of a module in a block, with {layer} for the layer."""
        blocks = {id(block): at for at, block in enumerate(self._network.blocks)}
        paths = {id(m): path for path, m in self._network.module.named_modules()}
        path: str = paths.get(id(module), type(module).__name__)
        inside = self.layer_of(module)
        of_block = next((paths[b] for b, at in blocks.items() if at == inside and b in paths), None)
        if of_block is None or not of_block.endswith(f".{inside}"):
            return path
        return f"{of_block.removesuffix(str(inside))}{{layer}}{path.removeprefix(of_block)}"

    def _dotted(self, component: str) -> dict[int | None, ModulePlace]:
        path, side = component, "output"
        for ending in ("input", "output"):
            if (
                component.endswith(f".{ending}")
                and module_at(self._network.module, component.replace("{layer}", "0")) is None
            ):
                path, side = component.removesuffix(f".{ending}"), ending
        layers = range(len(self._network.blocks)) if "{layer}" in path else (None,)
        found = {
            at: module_at(self._network.module, path.replace("{layer}", str(at))) for at in layers
        }
        places: dict[int | None, ModulePlace] = {
            at: ModulePlace(module, "input" if side == "input" else "output")
            for at, module in found.items()
            if module is not None
        }
        if not places:
            known = (
                ""
                if "." in path
                else f", and no component is called so (there are {', '.join(COMPONENTS)})"
            )
            raise ModelError(
                f"{self._network.name} has no module {path!r}{known}; {self._nearest(path)}"
            )
        return places

    def _nearest(self, path: str) -> str:
        """Returns an error text: the longest part of the path that exists, and the modules below
        it."""
        names = path.replace("{layer}", "0").split(".")
        for end in range(len(names) - 1, -1, -1):
            module = (
                module_at(self._network.module, ".".join(names[:end]))
                if end
                else self._network.module
            )
            if module is not None:
                children = _listed(name for name, _ in module.named_children()) or "none inside"
                return f"{'.'.join(names[:end]) or 'the model'} has {children}"
        raise AssertionError("the model itself is a module")

    @property
    def config(self) -> Any:
        config: Any = getattr(self._network.module, "config", None)
        return config.get_text_config() if hasattr(config, "get_text_config") else config


def _listed(names: Iterable[str], limit: int = 6) -> str:
    shown = list(names)
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")
