"""The README.md of a saved intervention: a model card for people, with the metadata that the
Hugging Face hub reads.

Invariants: it says only what the card says; a reject or an undecided is said as plainly as an
accept; whatever text comes from a user stands in it on one line, as text.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from raysearch.causal import LAST
from raysearch.core.featurizers import IDENTITY, featurizers
from raysearch.core.hypothesis import Site, Unit
from raysearch.interventions.card import Card, Finding, ModelOrigin
from raysearch.visible_text import visible

PLACE = "OWNER/NAME"
"""Stands where the name on the hub belongs, until there is one."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The form of a hub id, owner/name."""


def readme_text(card: Card, shapes: Mapping[str, str]) -> str:
    """The model card, in Markdown. `shapes`: dtype and shape of each tensor, by name."""
    parts = [
        _metadata(card.model),
        f"# {_title(card)}",
        _what_it_is(card),
        _claim(card.finding, card.intervention.is_ablation),
        "## Units",
        _units(card.intervention.units),
        _subspaces(card.intervention.units),
        "## Load it",
        _example(card),
        "`intervention.json` is the card, `intervention.safetensors` holds the parameters"
        + (
            f": {', '.join(f'{_code(n)} ({s})' for n, s in sorted(shapes.items()))}."
            if shapes
            else " (here: none)."
        ),
        "## Where it comes from",
        _origin(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(model: ModelOrigin | None) -> str:
    """What the hub reads; `base_model` only where the path is a hub id, for the hub refuses others."""
    lines = [
        "---",
        "library_name: raysearch",
        "tags:",
        "- raysearch",
        "- interpretability",
        "- causal-abstraction",
    ]
    if model is not None and HUB_ID.fullmatch(model.path) and not Path(model.path).exists():
        lines.append(f"base_model: {json.dumps(model.path)}")
    return "\n".join([*lines, "---"])


def _title(card: Card) -> str:
    model = f" on {_plain(Path(card.model.path).name)}" if card.model else ""
    return (
        f"{_plain(card.variable)}: an intervention{model}"
        if card.variable
        else f"An intervention{model}"
    )


def _what_it_is(card: Card) -> str:
    units = (
        "this unit"
        if len(card.intervention.units) == 1
        else f"these {len(card.intervention.units)} units"
    )
    if card.intervention.is_ablation:
        what = f"A {_plain(card.intervention.kind)} ablation of {units}."
        if card.variable:
            what += (
                f" The hypothesis: the output is then no longer the base's answer, on inputs where "
                f"the variable {_code(card.variable)} matters."
            )
    else:
        what = (
            f"An interchange intervention: the base input is run with the activation of {units} "
            f"taken from a source input's run."
        )
    if card.variable and not card.intervention.is_ablation:
        what += (
            f" The hypothesis: the output then becomes the one that the causal model predicts "
            f"if the variable {_code(card.variable)} takes the source's value."
        )
    return what + (
        f" It stands for the control {_code(card.intervention.control)}."
        if card.intervention.control
        else ""
    )


def _claim(finding: Finding | None, is_ablation: bool) -> str:
    if finding is None or finding.verdict is None:
        return "**Verdict: none.** It was saved without one, and claims nothing yet."
    said = [f"**Verdict: {_plain(finding.verdict)}.**"]
    if finding.n is not None and finding.matches is not None:
        said.append(
            f"On {finding.matches} of {finding.n} pairs the output was "
            f"{'no longer the answer of the base' if is_ablation else 'the predicted one'}"
            f"{_figures(finding)}."
        )
    if finding.holdout_iia is not None:
        pairs = f" (n = {finding.holdout_n})" if finding.holdout_n is not None else ""
        what = (
            "it was so on a share of" if finding.score is None else f"the {_measured(finding)} was"
        )
        said.append(f"On pairs held out{pairs} {what} {finding.holdout_iia:.3f}.")
    if finding.threshold is not None:
        said.append(f"The threshold of the {_measured(finding)} was {finding.threshold:g}.")
    if finding.false_accept is not None:
        said.append(
            f"The chance that its search accepted any false hypothesis was at most "
            f"{finding.false_accept:g}."
        )
    if finding.verdict == "accept" and is_ablation:
        said.append(
            "An accept says that the site is *necessary for the base's answer, on pairs like "
            "these*; it does not say which variable it carries."
        )
    elif finding.verdict == "accept":
        said.append(
            "An accept says that the site is *sufficient under interchange, on pairs like these*; "
            "it does not say that the variable lives there and nowhere else."
        )
    return " ".join(said)


def _figures(finding: Finding) -> str:
    shown = [f"{_measured(finding)} {finding.iia:.3f}"] if finding.iia is not None else []
    if finding.low is not None and finding.high is not None:
        shown.append(f"95 % interval {finding.low:.3f} to {finding.high:.3f}")
    return f" ({', '.join(shown)})" if shown else ""


def _measured(finding: Finding) -> str:
    """What the verdict is about."""
    return "IIA" if finding.score is None else f"mean {_plain(finding.score.replace('_', ' '))}"


def _units(units: tuple[Unit, ...]) -> str:
    rows = ["| site in the base | subspace | taken from |", "|---|---|---|"]
    for unit in units:
        space = unit.subspace
        which = "all features" if space.features is None else f"{space.features} features"
        if space.coordinates is not None:
            which = f"{len(space.coordinates)} coordinates"
        lender = f", source {_code(unit.source)}" if unit.source else ""
        site = _site(unit.source_site) if unit.source_site else "the same site of the source"
        rows.append(
            f"| {_site(unit.site)} | {_plain(space.featurizer)}, {which} | {site}{lender} |"
        )
    return "\n".join(rows)


def _subspaces(units: tuple[Unit, ...]) -> str:
    """What the subspaces are that are no plain coordinates."""
    asked = dict.fromkeys((unit.subspace.featurizer, unit.subspace.options) for unit in units)
    return "\n".join(
        f"- {name}: {kind.formula or kind.summary}"
        + (f" Options: {_code(options)}." if options else "")
        for name, options in asked
        if (kind := featurizers().get(name)) is not None and kind is not IDENTITY
    )


def _example(card: Card) -> str:
    """How to use it, in three lines."""
    is_named = card.model is not None and not card.model.path.startswith(
        "<"
    )  # as a job notes a model that no file has
    model = (
        json.dumps(_line(card.model.path))
        if card.model is not None and is_named
        else '"the model that it is of"'
    )
    lines = [f"saved = raysearch.load_intervention({json.dumps(PLACE)})  # or this folder"]
    if card.intervention.kind == "interchange":
        named = dict.fromkeys(_unnamed(card.intervention.units), "its words")
        given = f", position={json.dumps(named)})  # or the index of a token" if named else ")"
        lines += [
            f"model = raysearch.Model.load({model})",
            f"model.swap(base, source, saved{given}",
        ]
    else:
        lines.append("print(saved.intervention.units, dict(saved.tensors))")
    return "\n".join(["```python", "import raysearch", "", *lines, "```"])


def _unnamed(units: tuple[Unit, ...]) -> list[str]:
    """Positions of which a text alone does not say where they stand."""
    return sorted({_line(unit.site.position) for unit in units} - {LAST})


def _site(site: Site) -> str:
    head = f", head {site.head}" if site.head is not None else ""
    layer = "" if site.layer is None else f"layer {site.layer}, "
    return f"{layer}{_plain(site.component)}{head}, position {_code(site.position)}"


def _origin(card: Card) -> str:
    lines = [f"- intervention {_code(card.id)}, saved by raysearch {_plain(card.raysearch)}"]
    if card.model is not None:
        named = {
            "revision": card.model.revision,
            "digest": card.model.digest,
            "dtype": card.model.dtype,
        }
        more = "".join(f", {name} {_code(value)}" for name, value in named.items() if value)
        lines.append(f"- model {_code(card.model.path)}{more}")
    if card.finding is not None and card.finding.run:
        also = f", hypothesis {_code(card.finding.hypothesis)}" if card.finding.hypothesis else ""
        lines.append(f"- run {_code(card.finding.run)}{also}")
    return "\n".join(lines)


def _code(text: str) -> str:
    """As code, in more backticks than it holds: no page reads anything into it."""
    line = _line(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"


def _plain(text: str) -> str:
    """As text: no markup, entity, formula, link or mention."""
    return re.sub(
        r"(?i)(?<=www)\.", r"\\.", re.sub(r"([\\`*_\[\]<>#&$~:@!])", r"\\\1", _line(text))
    )


def _line(text: str) -> str:
    """On one line, fit for a cell of a table, writable as UTF-8; what cannot be seen as its escape."""
    return visible(" ".join(text.split())).replace("|", "/")
