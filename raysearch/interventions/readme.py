"""Writes the README.md of a saved intervention, with the metadata that the Hugging Face hub reads.

Invariants: it states only what the card holds; reject and undecided are as visible as accept;
users' text stays literal and on one line.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from raysearch.causal import LAST
from raysearch.core.claims import ABLATION, INTERCHANGE
from raysearch.core.featurizers import FULL, IDENTITY, featurizers
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.option_names import OPERATIONS
from raysearch.interventions.card import Card, Finding, ModelOrigin
from raysearch.job.placeholders import is_note_on_tensors
from raysearch.markdown_text import literal, one_cell

HUB_ID_PLACEHOLDER = "OWNER/NAME"
"""Stands for the hub id until it is known."""
MADE = re.compile(r":[^\W\d]\w*$")
"""The end of the path of a model that a function makes."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The form of a hub id, owner/name."""


def readme_text(card: Card, shapes: Mapping[str, str]) -> str:
    """Returns the model card in Markdown. `shapes`: dtype and shape of each tensor, by name."""
    parts = [
        _metadata(card.model),
        f"# {_title(card)}",
        _what_it_is(card),
        _claim(card.finding, card.intervention.is_ablation),
        "## Units",
        _units(card.intervention),
        _subspaces(card.intervention.units),
        "## Load it",
        _example(card, bool(shapes)),
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
    """Returns the hub's metadata; `base_model` only for hub ids: the hub refuses paths."""
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
    model = f" on {literal(Path(card.model.path).name)}" if card.model else ""
    return (
        f"{literal(card.variable)}: an intervention{model}"
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
        what = f"A {literal(card.intervention.kind)} ablation of {units}."
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
    sentences = [f"**Verdict: {literal(finding.verdict)}.**", *_evidence(finding, is_ablation)]
    if finding.population is not None:
        sentences.append(f"The verdict is about {literal(finding.population)}, and no other pairs.")
    if finding.threshold is not None:
        sentences.append(f"The threshold of the {_score_name(finding)} was {finding.threshold:g}.")
    if finding.false_accept is not None:
        bound = (
            "Of the hypotheses that its search accepted, the expected share at or below the "
            "threshold (the false discovery rate) was"
            if finding.control == "fdr"
            else "The chance that its search accepted any hypothesis at or below the threshold was"
        )
        sentences.append(f"{bound} at most {finding.false_accept:g}{_share_of_error(finding)}.")
    if finding.verdict == "accept":
        sentences.append(_meaning(is_ablation))
    sentences += [f"Warning: {literal(warning)}." for warning in finding.warnings]
    return " ".join(sentences)


def _evidence(finding: Finding, is_ablation: bool) -> list[str]:
    """Says what was counted on test pairs and on the holdout."""
    found = []
    if finding.n is not None and finding.matches is not None:
        repeated = finding.distinct is not None and finding.distinct < finding.n
        found.append(
            f"On {finding.matches} of {finding.n} pairs"
            f"{f' ({finding.distinct} different ones)' if repeated else ''} the output was "
            f"{'no longer the answer of the base' if is_ablation else 'the predicted one'}"
            f"{_figures(finding)}."
        )
    if finding.holdout_iia is not None:
        pairs = f" (n = {finding.holdout_n})" if finding.holdout_n is not None else ""
        what = (
            "it was so on a share of"
            if finding.score is None
            else f"the {_score_name(finding)} was"
        )
        interval = ""
        if finding.holdout_low is not None and finding.holdout_high is not None:
            low, high = finding.holdout_low, finding.holdout_high
            interval = f" (95 % interval {low:.3f} to {high:.3f})"
        found.append(
            f"On pairs held out{pairs}, which decided nothing, {what} "
            f"{finding.holdout_iia:.3f}{interval}."
        )
    return found


def _share_of_error(finding: Finding) -> str:
    """Says how the chance of a false accept is shared."""
    if finding.level is None:
        return ""
    over = f" over K = {finding.k} hypotheses" if finding.k else ""
    return f"{over}, of which this one spent {finding.level:.2g}"


def _meaning(is_ablation: bool) -> str:
    words = ABLATION if is_ablation else INTERCHANGE
    other = words.not_shown
    other += ", or that no other causal model predicts the same answers" * (not is_ablation)
    return (
        f"An accept says that the site is *{words.shown}, on a share of these pairs above the "
        f"threshold*; it does not say {other}, and nothing of pairs beyond these."
    )


def _figures(finding: Finding) -> str:
    shown = [f"{_score_name(finding)} {finding.iia:.3f}"] if finding.iia is not None else []
    if finding.low is not None and finding.high is not None:
        shown.append(f"95 % interval {finding.low:.3f} to {finding.high:.3f}")
    if finding.fcr_low is not None and finding.fcr_high is not None:
        shown.append(
            f"corrected for the selection of {finding.selected} accepted hypotheses, of whose "
            f"intervals 5 % are expected to miss at most: {finding.fcr_low:.3f} to "
            f"{finding.fcr_high:.3f}"
        )
    return f" ({', '.join(shown)})" if shown else ""


def _score_name(finding: Finding) -> str:
    """Returns the name of the score that the verdict is about."""
    return "IIA" if finding.score is None else f"mean {literal(finding.score.replace('_', ' '))}"


def _units(intervention: Intervention) -> str:
    rows = ["| site in the base | subspace | taken from |", "|---|---|---|"]
    for unit in intervention.units:
        space = unit.subspace
        which = "all features" if space.features is None else f"{space.features} features"
        which = f"{literal(space.featurizer)}, {which}"
        if space.featurizer == IDENTITY.name:
            which = FULL
        if space.coordinates is not None:
            kept = f"{len(space.coordinates)} coordinates"
            which = kept if which == FULL else f"{literal(space.featurizer)}, {kept}"
        source = f", source {_code(unit.source)}" if unit.source else ""
        site = _site(unit.source_site) if unit.source_site else "the same site of the source"
        if intervention.is_ablation:
            meaning = next(words for kind, words in OPERATIONS.items() if kind == intervention.kind)
            site = f"no source; {meaning}"
        rows.append(f"| {_site(unit.site)} | {which} | {site}{source} |")
    return "\n".join(rows)


def _subspaces(units: tuple[Unit, ...]) -> str:
    """Describes the subspaces that are not plain coordinates."""
    subspaces = dict.fromkeys((unit.subspace.featurizer, unit.subspace.options) for unit in units)
    return "\n".join(
        f"- {name}: {kind.formula or kind.summary}"
        + (f" Options: {_code(options)}." if options else "")
        for name, options in subspaces
        if (kind := featurizers().get(name)) is not None and kind is not IDENTITY
    )


def _example(card: Card, has_tensors: bool) -> str:
    """Returns a short example of use."""
    name = json.dumps(HUB_ID_PLACEHOLDER)
    lines = [f"saved = raysearch.load_intervention({name})  # or this folder"]
    kind = card.intervention.kind
    if kind in ("interchange", "zero") or (kind == "mean" and has_tensors):
        lines += _swap_lines(card)
    else:
        lines.append("print(saved.intervention.units, dict(saved.tensors))")
    return "\n".join(["```python", "import raysearch", "", *lines, "```"])


def _swap_lines(card: Card) -> list[str]:
    """Returns the lines that load the model, where that is by name, and make a swap."""
    path = card.model.path if card.model is not None else "<a model>"
    named = _positions_to_give(card.intervention.units)
    if MADE.search(path) or is_note_on_tensors(path):
        given = f", position={json.dumps(dict.fromkeys(named, 0))})" if named else ")"
        meaning = "  # the index of a token; of one token, none is needed" if named else ""
        return [
            "model = raysearch.TensorModel(network)  # the torch.nn.Module that it is of",
            f"model.swap(base, source, saved{given}{meaning}",
        ]
    # A model without a path has a placeholder.
    is_named = not path.startswith("<")
    model = json.dumps(one_cell(path)) if is_named else '"the model that it is of"'
    words = json.dumps(dict.fromkeys(named, "its words"))
    meaning = '  # "its words": the text at that position, or the index of a token'
    return [
        f"model = raysearch.Model.load({model})",
        f"model.swap(base, source, saved, position={words}){meaning}"
        if named
        else "model.swap(base, source, saved)",
    ]


def _positions_to_give(units: tuple[Unit, ...]) -> list[str]:
    """Returns the positions that a text alone does not determine."""
    return sorted({one_cell(unit.site.position) for unit in units} - {LAST})


def _site(site: Site) -> str:
    head = f", head {site.head}" if site.head is not None else ""
    layer = "" if site.layer is None else f"layer {site.layer}, "
    return f"{layer}{literal(site.component)}{head}, position {_code(site.position)}"


def _origin(card: Card) -> str:
    lines = [f"- intervention {_code(card.id)}, saved by raysearch {literal(card.raysearch)}"]
    if card.model is not None:
        named = {
            "revision": card.model.revision,
            "digest": card.model.digest,
            "dtype": card.model.dtype,
        }
        more = "".join(f", {name} {_code(value)}" for name, value in named.items() if value)
        lines.append(f"- model {_code(card.model.path)}{more}")
    if card.finding is not None and card.finding.run:
        hypothesis = (
            f", hypothesis {_code(card.finding.hypothesis)}" if card.finding.hypothesis else ""
        )
        lines.append(f"- run {_code(card.finding.run)}{hypothesis}")
    return "\n".join(lines)


def _code(text: str) -> str:
    """Formats text as code, with enough backticks to keep it literal."""
    line = one_cell(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"
