"""Remembers which executor passed the self-check, so that the next replica need not repeat it.

A check is found by all that it depends on: the model's digest, the rows that were tried, dtype,
device, threads, row limit, scores, installed versions and raysearch's own files (`user_cache`).

Invariants: only a check that chose the fastest executor for the network is remembered; whatever
warns does so each time; a model without a digest is checked each time.
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raysearch.core.codec import from_json_values, to_json_values
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.executors import Executor, PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.selfcheck import ExecutorChoice
from raysearch.engine.execution.tensor_executor import whole_run_executor
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.patching.rows import Row
from raysearch.errors import StoreError
from raysearch.user_cache import recall, remember, versions

KIND = "selfchecks"


@dataclass(frozen=True)
class _KnownCheck:
    """The result of a self-check. `shares_prefix`: of replay; `resumes`: whether canonical runs
    start at their first patch; `wave_tokens`: as in `ExecutorChoice`."""

    tolerance: float
    near_tie: float
    share: float
    shares_prefix: bool
    resumes: bool
    wave_tokens: int | None = None


def check_key(
    network: Network,
    digest: str,
    dtype: str,
    rows: Sequence[Row],
    limit: RowLimit,
    scoring: Scoring,
) -> Mapping[str, Any] | None:
    """Returns what a self-check depends on; None if it must not be remembered."""
    if not digest:
        return None
    on_gpu = network.device.type == "cuda"
    device = torch.cuda.get_device_name(network.device) if on_gpu else network.device.type
    return {
        "model": digest,
        "network": type(network).__name__,
        "dtype": dtype,
        "device": [device, platform.node(), torch.backends.cpu.get_cpu_capability()],
        "products": [torch.get_num_threads(), torch.get_float32_matmul_precision()],
        "rows": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "limit": limit.rows,
        "scores": list(scoring.names),
        "versions": versions(),
    }


def recall_choice(
    key: Mapping[str, Any] | None,
    network: Network,
    hook_points: Components,
    limit: RowLimit,
    max_bytes: int,
    meter: UsageMeter,
    scoring: Scoring,
    plain: PlainExecutor,
) -> ExecutorChoice | None:
    """Returns the executor that passed the check of `key` before; None if none did."""
    try:
        raw = None if key is None else recall(KIND, key)
        known = None if raw is None else from_json_values(_KnownCheck, raw, KIND)
    except StoreError:  # of another shape than this version writes
        return None
    if known is None:
        return None
    keys = isinstance(network, LanguageModel)
    options: dict[str, Any] = {"keys": keys, "meter": meter, "scoring": scoring}
    cache = ActivationCache(network, hook_points, limit, known.near_tie, max_bytes, **options)
    executor: Executor = (
        ReplayExecutor(network, hook_points, cache, known.shares_prefix)
        if isinstance(network, LanguageModel)
        else whole_run_executor(network, hook_points, cache)
    )
    plain.canonical.resumes = known.resumes
    return ExecutorChoice(
        *(executor, cache, known.tolerance, known.near_tie, known.share, known.wave_tokens)
    )


def remember_choice(
    key: Mapping[str, Any] | None, network: Network, choice: ExecutorChoice, plain: PlainExecutor
) -> None:
    """Remembers a check that has just chosen the fastest executor for `network`."""
    fastest = "replay" if isinstance(network, LanguageModel) else "batched"
    if key is None or choice.executor.name != fastest:
        return
    shares = isinstance(choice.executor, ReplayExecutor) and choice.executor.shares_prefix
    known = _KnownCheck(
        *(choice.tolerance, choice.near_tie, choice.share, shares),
        *(plain.canonical.resumes, choice.wave_tokens),
    )
    remember(KIND, key, to_json_values(known))
