"""Messages of a search on its way: the model, the job, the result of screening, the end."""

from raysearch.causal import SPLITS
from raysearch.core.events import Opened
from raysearch.core.option_names import number_of
from raysearch.core.pair_counts import summarise_counts
from raysearch.core.records import Snapshot
from raysearch.report.run_data import cost_of
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.frontend import Frontend
from raysearch.search.search import Search
from raysearch.store.run_folder import RunFolder

MANY = 0.1
"""Share of outputs decided again from which on it is said."""


def report_model(opened: Opened, resolved: ResolvedJob, frontend: Frontend) -> None:
    """Says how large the model is, where it runs, what of its files is left out, and how many
    hypotheses there are."""
    facts = opened.facts
    slower = {
        "batched": "rows are run whole, not from the patch on",
        "plain": "each row is run by itself",
    }
    path = f" ({slower[facts.path]}: slower)" if facts.path in slower else ""
    width = f" of width {facts.width}" if facts.width else ""
    if resolved.job.model.trust_remote_code:
        frontend.say(
            f"code      that lies with {resolved.job.model.path} was run (model.trust_remote_code)"
        )
    for line in facts.unused:
        frontend.say(f"left out  {line}")
    layers = number_of(facts.layers, "layer") if facts.layers else "no layers"
    frontend.say(f"model     {layers}{width}, {facts.dtype} on {facts.device}{path}")
    space = resolved.space(facts)
    most = resolved.proposer(space, facts).max_hypotheses
    some = f"{most} of " if most is not None and most < len(space) else ""
    frontend.say(
        f"asking    {some}{number_of(len(space), 'hypothesis')}: "
        f"{number_of(len(resolved.variables), 'variable')} at "
        f"{number_of(len(space) // len(resolved.variables), 'site')}"
    )


def report_screening(search: Search, frontend: Frontend) -> None:
    """Reports how many pairs the model solves, and which are missing."""
    for split in SPLITS:
        screened, solved, wanted = search.screening.counts(split)
        if screened:
            usable = len(search.screening.usable(split))
            short = f"; {wanted} were wanted" if usable < wanted else ""
            counted = summarise_counts(search.preparation.counts, split) if split != "fit" else []
            used = "" if counted else f", {usable} are used"
            frontend.say(
                f"screened  {number_of(screened, f'{split} pair')}: the model solves "
                f"{solved / screened:.0%}{used}{short}"
            )
            for line in counted:
                frontend.say(f"counted   {line}")


def report_end(run: RunFolder, end: Snapshot, seconds: float, frontend: Frontend) -> None:
    """Says how many verdicts of each kind there are, how many pairs were evaluated for them and how
    many of these came too late to count, and warns of many near-ties."""
    asked, pairs = number_of(end.decided, "hypothesis"), number_of(end.pairs, "pair")
    cost = cost_of(run.folder)
    late = end.pairs - cost.pairs
    frontend.say(
        f"searched  {asked} in {seconds:.1f} s: {end.accepted} accepted, {end.rejected} rejected, "
        f"{end.undecided} undecided, {end.failed} failed; {pairs} evaluated"
        + f" ({late} of them came back after the verdict)"
        * (late > 0)
    )
    again = cost.near_tie_share
    if again > MANY:
        frontend.say(
            f"near-ties {again:.0%} of outputs had two best logits too close to call in a batch "
            "and were decided one by one, which is slow; in float32 they are fewer"
        )
    if end.conflicts:
        frontend.say(
            f"conflicts {end.conflicts} repeats said otherwise than what was counted; see "
            f"{run.tables.at('failures').place}"
        )
