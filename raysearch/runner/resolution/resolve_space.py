"""Makes the hypothesis space of the keys of `space` and what is known of the model; each mistake in
one line, before anything is run.

Invariants: nothing is left out silently: a layer, head or coordinate that the model lacks is an
error that says what it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raysearch.causal import named_sources, token_index, token_name
from raysearch.core.hypothesis import Site, Subspace, Unit, is_in_layers, layer_path
from raysearch.core.model_facts import ComponentFacts, ModelFacts
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.errors import JobError
from raysearch.job import Job, SpaceKeys
from raysearch.job.unit_keys import intervention_of


def space_of(
    job: Job,
    facts: ModelFacts,
    sources: Sequence[str],
    tokens: Mapping[str, tuple[int, ...]] | None = None,
) -> HypothesisSpace:
    """Returns the space of a resolved job, on a model that is as `facts` say. `sources`: the names
    of each pair's sources; `tokens`: of the positions of its first base that are given as such.

    Raises: JobError for a layer, head or coordinate that the model lacks, a source site of another
    width, a unit that does not say from which of several sources it takes, or a variable that is
    asked of nothing.
    """
    keys, model = job.space, _Model(Path(job.model.path).name, facts)
    assert keys.variables is not None
    assert keys.position_names is not None
    positions = (
        tuple(map(token_name, range(facts.tokens)))
        if keys.positions == "all"
        else keys.position_names
    )
    _check_heads_meant(keys, model)
    subspaces = keys.meant_subspaces
    grids = tuple(_grid(keys, model, c, positions, subspaces) for c in keys.components)
    if len(sources) > 1:
        alone = tuple(
            dict.fromkeys(named[0] for v in keys.variables if len(named := named_sources(v)) == 1)
        )
        grids = tuple(replace(grid, sources=alone) for grid in grids if alone)
    _check_units_named(keys, model, sources)
    sets = [intervention_of(units) for units in keys.units]
    if len(sources) == 1:  # named or not, it is the only one: one form for one intervention
        sets = [replace(s, units=tuple(replace(u, source=None) for u in s.units)) for s in sets]
    space = HypothesisSpace(keys.variables, grids, tuple(sets))
    model.check_tokens(
        space,
        {
            **(tokens or {}),
            **{p: (index,) for p in positions if (index := token_index(p)) is not None},
        },
    )
    for variable in keys.variables:
        if not space.count(variable):
            raise JobError(
                f"space.units: nothing takes from just {' and '.join(named_sources(variable))}, as "
                f"{variable!r} asks; give a set with a unit "
                "from each, or leave the variable out of space.variables"
            )
    return space


def _check_units_named(keys: SpaceKeys, model: "_Model", sources: Sequence[str]) -> None:
    """Raises: JobError for a unit that names what the model lacks, or does not say its source."""
    for path, site in keys.unit_sites:
        model.check_layer(f"{path}.layer", site.component, site.layer)
        model.check_head(f"{path}.head", site.component, site.head)
    for path, unit in keys.named_units:
        model.check_subspace(f"{path}.subspace", unit.site, unit.subspace)
        if unit.source_site is not None:
            model.check_width(f"{path}.source_site", unit.source_site, unit.site)
        ablated = f"{path}.operation" in keys.ablations
        if unit.source is None and len(sources) > 1 and not ablated:
            raise JobError(
                f"{path}.source: missing; pairs have the sources {', '.join(sources)}, so a unit "
                f"says which it takes from"
            )


def check_units(
    job: Job, facts: ModelFacts, units: Sequence[Unit], positions: Sequence[str]
) -> None:
    """Raises: JobError for units that the replicas of a job cannot interchange: of a site that
    nobody told them of, or none there."""
    model = _Model(Path(job.model.path).name, facts)
    if not units:
        raise JobError("it proposed an intervention without units; name at least one")
    components = [c.name for c in facts.components]
    for i, unit in enumerate(units):
        _check_whole_numbers(f"unit {i}", unit)
        for site in (unit.site, unit.source_site or unit.site):
            if site.component not in components:
                raise JobError(
                    f"unit {i}: {site.component!r} is no component of the job; it has "
                    f"{', '.join(components)} (space.components)"
                )
            if site.position not in positions:
                raise JobError(
                    f"unit {i}: {site.position!r} is no position of the job; it has "
                    f"{', '.join(positions)} (space.positions)"
                )
            model.check_layer(f"unit {i}", site.component, site.layer)
            model.check_head(f"unit {i}", site.component, site.head)
        model.check_subspace(f"unit {i}", unit.site, unit.subspace)
        if unit.source_site is not None:
            model.check_width(f"unit {i}", unit.source_site, unit.site)


def _check_whole_numbers(key: str, unit: Unit) -> None:
    """Raises: JobError for a layer, head or coordinate that is no int, such as '1', 1.0 or True."""
    named: list[tuple[str, object]] = [
        (name, getattr(site, name))
        for site in (unit.site, unit.source_site)
        if site is not None
        for name in ("layer", "head")
    ]
    named += [("coordinate", number) for number in unit.subspace.coordinates or ()]
    for name, given in named:
        if given is not None and type(given) is not int:
            raise JobError(f"{key}: {name} should be a whole number (got {given!r:.60})")


@dataclass(frozen=True)
class _Model:
    """The facts of a model, and its name in errors."""

    name: str
    facts: ModelFacts

    def component(self, name: str) -> ComponentFacts:
        found = next((c for c in self.facts.components if c.name == name), None)
        assert found is not None, f"the replica was opened without the component {name!r}"
        return found

    def check_layer(self, key: str, component: str, layer: int | None) -> None:
        """Raises: JobError where the component has no such layer."""
        has = self.component(component).layers
        if layer in has:
            return
        if not is_in_layers(component):
            raise JobError(
                f"{key}: {layer} is no layer of {component}, which {self.name} has once; leave "
                f"layer out"
            )
        of_layers = [at for at in has if at is not None]
        if layer is None:
            raise JobError(
                f"{key}: missing; {component} is of a layer of {self.name}: one of "
                f"{_ranges(of_layers)}"
            )
        if not 0 <= layer < self.facts.layers:
            raise JobError(
                f"{key}: {layer} is no layer of {self.name}; it has 0..{self.facts.layers - 1}"
            )
        raise JobError(
            f"{key}: {layer} is no layer of {self.name} that has {component}; it is in "
            f"{_ranges(of_layers)}"
        )

    def check_head(self, key: str, component: str, head: int | None) -> None:
        """Raises: JobError where the component has no such head."""
        heads = self.component(component).heads
        if head is not None and not 0 <= head < heads:
            has = f"0..{heads - 1}" if heads else "none"
            raise JobError(f"{key}: {head} is no head of {component} in {self.name}; it has {has}")

    def check_subspace(self, key: str, site: Site, subspace: Subspace) -> None:
        """Raises: JobError for a coordinate that the vector does not have, a mask over heads where
        there are none."""
        if subspace.file is not None:  # of an autoencoder only the replica knows how wide it is
            return
        width, component = self.width(site), site.component
        if subspace.basis == "heads" and (
            site.head is not None or not self.component(component).heads
        ):
            raise JobError(
                f"{key}: a mask over heads needs a component that has heads, all of them at once "
                f"(heads: joint)"
            )
        if width and subspace.features is not None and subspace.features > width:
            raise JobError(
                f"{key}: {subspace.featurizer} has {subspace.features} features, and the vector of "
                f"{_vector(site)} in {self.name} has {width} coordinates; give at most {width}"
            )
        for coordinate in subspace.coordinates or ():
            if width and coordinate >= width:
                of = (
                    component
                    if site.head is None
                    else "a head"
                    if component == "head"
                    else f"a head of {component}"
                )
                if self.component(component).widths and site.layer is not None:
                    of += f" in layer {site.layer}"
                raise JobError(
                    f"{key}: {coordinate} is no coordinate of {of} in {self.name}; it has "
                    f"0..{width - 1}"
                )

    def check_width(self, key: str, source: Site, own: Site) -> None:
        """Raises: JobError where the source site's vector is not as wide as the unit's own."""
        widths = self.width(source), self.width(own)
        if all(widths) and widths[0] != widths[1]:
            raise JobError(
                f"{key}: {_vector(source)} has {widths[0]} coordinates in {self.name}, "
                f"{_vector(own)} {widths[1]}; take it from a site as wide"
            )

    def check_tokens(self, space: HypothesisSpace, tokens: Mapping[str, tuple[int, ...]]) -> None:
        """Raises: JobError for a position beyond the tokens that a component has, where these are
        others than the input's."""
        asked = [
            ("space.positions", grid.component, position)
            for grid in space.grids
            for position in grid.positions
        ]
        sites = [
            site
            for intervention in space.sets
            for u in intervention.units
            for site in (u.site, u.source_site)
            if site is not None
        ]
        for key, component, position in dict.fromkeys(
            asked + [("space.units", s.component, s.position) for s in sites]
        ):
            has, at = self.component(component).tokens, max(tokens.get(position, (0,)))
            if 0 < has <= at:
                raise JobError(
                    f"{key}: {position!r} is token {at}, and {component} of {self.name} has {has} "
                    f"token{'s' * (has > 1)} (from 0); "
                    "name last for it, in a job of its own or by space.units"
                )

    def width(self, site: Site) -> int:
        """Coordinates of the whole vector, or of one head; 0 where that is not known before the
        model is loaded."""
        facts = self.component(site.component)
        width = facts.width_in(site.layer)
        return width if site.head is None else width // facts.heads


def _grid(
    keys: SpaceKeys,
    model: _Model,
    component: str,
    positions: tuple[str, ...],
    subspaces: tuple[Subspace, ...],
) -> Grid:
    facts = model.component(component)
    heads: tuple[int | None, ...] = (None,)
    if facts.heads and keys.heads != "joint":
        heads = tuple(range(facts.heads)) if keys.heads == "all" else keys.heads
    for head in heads:
        model.check_head("space.heads", component, head)
    layers = _layers(keys, model, facts)
    for layer in layers if facts.widths else layers[:1]:
        for subspace in subspaces:
            model.check_subspace("space.subspaces", Site(layer, component, "", heads[0]), subspace)
    files: dict[tuple[str, int | None], str] = {
        (path, layer): _file_digest(path, layer) for path in keys.sae_paths for layer in layers
    }
    return Grid(component, layers, heads, positions, subspaces, files)


def _file_digest(path: str, layer: int | None) -> str:
    """Returns the digest of the sparse autoencoder of a layer. Raises: JobError where there is
    none, or its cfg.json says what is not read."""
    file = Path(layer_path(path, layer))
    try:
        found = SaeFile.at(file)
    except OSError as e:
        raise JobError(
            f"space.subspaces: sae.path: {file} cannot be read ({e.strerror or e}); give a "
            "safetensors file, {layer} in its path where each layer has its own"
        ) from e
    found.says()
    return found.digest


def _layers(keys: SpaceKeys, model: _Model, component: ComponentFacts) -> tuple[int | None, ...]:
    """Returns the layers of the grid. A component that a model has only once is taken once,
    whatever layers the job names."""
    layers = keys.layers
    if layers == "all" or (not is_in_layers(component.name)):
        return component.layers
    for layer in keys.listed_layers:
        model.check_layer("space.layers", component.name, layer)
    return keys.listed_layers


def _check_heads_meant(keys: SpaceKeys, model: _Model) -> None:
    """Raises: JobError for a list of heads where nothing that is searched has heads."""
    if isinstance(keys.heads, tuple) and not any(model.component(c).heads for c in keys.components):
        heads, named = ", ".join(map(str, keys.heads)), ", ".join(keys.components) or "none"
        raise JobError(
            f"space.heads: [{heads}] given, and none of space.components has heads (they are "
            f"{named}); leave it out, or name one of head, query, key, value there"
        )


def _vector(site: Site) -> str:
    if site.head is None:
        return site.component
    return (
        f"head {site.head}" if site.component == "head" else f"head {site.head} of {site.component}"
    )


def _ranges(layers: Sequence[int]) -> str:
    """Writes layers as ranges: 0..5, or 3, 7, 11."""
    if len(layers) > 1 and tuple(layers) == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}..{layers[-1]}"
    return ", ".join(map(str, layers)) or "none"
