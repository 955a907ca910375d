"""Defines the metrics of a running search: names, kinds, units, tags. Light: imports no ray.

Registration, the table in docs/how-to/watch.md and the checks of dashboard and rules all read it.

Invariants: every metric has the tag `run`; all other tags have only the few values written here, so
that a search of any size makes the same number of series; since a metrics port answers without a
token, tags and values reveal nothing but numbers about what is searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from raysearch.core.events import LossCause, TaskKind
from raysearch.engine.execution.usage import Phase

PREFIX = "ray_"
"""Prefix that Ray adds to every name."""

RUN = "run"


@dataclass(frozen=True)
class Metric:
    """Definition of one metric. `tags`: tag to possible values; `boundaries`: histogram bucket
    limits."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    description: str
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boundaries: tuple[float, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its Prometheus series."""
        suffixes = {
            "gauge": ("",),
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
        }[self.kind]
        return tuple(f"{PREFIX}{self.name}{suffix}" for suffix in suffixes)


HYPOTHESES = Metric(
    "raysearch_hypotheses",
    "gauge",
    "hypotheses",
    "by where they stand, without controls",
    {"state": ("alive", "accepted", "rejected", "undecided", "failed")},
)
PAIRS = Metric("raysearch_pairs", "counter", "pairs", "pairs x interventions that were evaluated")
TOKENS = Metric(
    "raysearch_tokens",
    "counter",
    "tokens",
    "of the rows that were run, each in full (a replay runs only part of it)",
)
FAILED_ROWS = Metric(
    "raysearch_failed_rows",
    "counter",
    "rows",
    "of waves that failed, or whose gradients were wrong, and were run one by one, slowly; a "
    "replica logs the first reason",
)
TASK_SECONDS = Metric(
    "raysearch_task_seconds",
    "histogram",
    "seconds",
    "that a replica worked on a task",
    {"kind": get_args(TaskKind)},
    (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 600.0),
)
QUEUE = Metric(
    "raysearch_queue",
    "gauge",
    "lines, tasks",
    "lines of work that are ready, tasks that are out",
    {"state": ("ready", "out")},
)
REPLICAS = Metric("raysearch_replicas", "gauge", "replicas", "that are ready")
REPLICA_MEMORY = Metric(
    "raysearch_replica_memory_bytes",
    "gauge",
    "bytes",
    "of the largest replica: its process, and what it holds of its GPUs",
    {"of": ("process", "gpu")},
)
MEMORY_SHARE = Metric(
    "raysearch_memory_share",
    "gauge",
    "share",
    "in [0, 1], of the fullest node's (or container's) memory and of the fullest GPU, in use by "
    "whomever",
    {"of": ("host", "gpu")},
)
PHASE_SECONDS = Metric(
    "raysearch_phase_seconds",
    "counter",
    "seconds",
    "that replicas worked, by what they did; all phases together are all their work",
    {"phase": get_args(Phase)},
)
LOSSES = Metric(
    "raysearch_losses", "counter", "tasks", "whose worker went away", {"cause": get_args(LossCause)}
)
FAILURES = Metric(
    "raysearch_failures",
    "counter",
    "failures",
    "of one intervention, or of a task as a whole",
    {"of": ("intervention", "task")},
)

METRICS = (
    HYPOTHESES,
    PAIRS,
    TOKENS,
    FAILED_ROWS,
    TASK_SECONDS,
    PHASE_SECONDS,
    QUEUE,
    REPLICAS,
    REPLICA_MEMORY,
    MEMORY_SHARE,
    LOSSES,
    FAILURES,
)


def table() -> str:
    """Returns the metrics as a Markdown table, for the documentation."""
    lines = [
        "| series | kind | unit | what it says | tags, beside `run` |",
        "|---|---|---|---|---|",
    ]
    for metric in METRICS:
        name = f"`{PREFIX}{metric.name}{'_total' if metric.kind == 'counter' else ''}`"
        tags = "; ".join(f"`{tag}`: {', '.join(values)}" for tag, values in metric.tags.items())
        lines.append(f"| {name} | {metric.kind} | {metric.unit} | {metric.description} | {tags} |")
    return "\n".join(lines)
