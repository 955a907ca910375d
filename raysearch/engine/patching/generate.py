"""Generation under intervention: the model's own `generate`, with owned hooks.

Invariants: on the prompt a row is patched exactly as in a measurement; each module runs once for
the prompt and once for each new token after the first, or an error is raised; the global random
state is restored.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.hooks import (
    Activation,
    Edit,
    Hook,
    HookCall,
    MisfiredHookError,
    owned_hooks,
)
from raysearch.engine.networks.network import LanguageModel, tokens_of
from raysearch.engine.patching.oracle import edits
from raysearch.engine.patching.rows import Patch, Row
from raysearch.errors import PositionError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Rule for sampling new tokens: softmax(logits / temperature), among the `top_k` best (0: all),
    up to mass `top_p`; seeded by `seed`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@torch.inference_mode()
def generate(
    network: LanguageModel,
    hook_points: Components,
    row: Row,
    new_tokens: int,
    every: bool = False,
    sampling: Sampling | None = None,
) -> Ids:
    """Returns the new tokens, at most `new_tokens` (fewer if the model ends): greedy, or by
    `sampling`.

    Patches act on the prompt; with `every`, each acts on every new token too, with the source
    activation of its last token.

    Raises: PositionError for a patch beyond the prompt; MisfiredHookError if a module does not run
    once for each token.
    """
    prompt = row.base
    assert isinstance(prompt, tuple), "a language model is given token ids"
    beyond = max((t for patch in row.patches for t in patch.tokens), default=0)
    if beyond >= len(prompt):
        raise PositionError(
            f"the prompt has {len(prompt)} tokens, and no token {beyond} (from 0); name one that "
            f"it has"
        )
    counts = [0] * len(row.patches)
    hooks = _hooks(network, hook_points, row, every, counts)
    options: dict[str, Any] = {} if sampling is None else asdict(sampling)
    seed = options.pop("seed", 0)
    ids = torch.tensor([prompt], device=network.device)
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices), owned_hooks(hooks):
        torch.manual_seed(seed)
        network.forget()
        out: Tensor = network.model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            num_beams=1,
            use_cache=True,
            do_sample=sampling is not None,
            **options,
        )
    new = tuple(out[0, len(prompt) :].tolist())
    if any(count != len(new) for count in counts):
        raise MisfiredHookError(
            f"hooks fired {counts} times while {len(new)} tokens were generated; each should "
            f"{len(new)}"
        )
    return new


def _hooks(
    network: LanguageModel, hook_points: Components, row: Row, every: bool, counts: list[int]
) -> list[Hook]:
    """Returns a hook for each patch, which counts its calls in `counts`."""
    onwards = (
        edits(network, hook_points, Row(row.base, tuple(map(_of_last, row.patches))))
        if every
        else [None] * len(row.patches)
    )
    hooks = []
    for at, (patch, edit, next_edit) in enumerate(
        zip(row.patches, edits(network, hook_points, row), onwards, strict=True)
    ):
        counted = _counted(counts, at, tokens_of(row.base), edit, next_edit)
        hooks.append(hook_points.at(patch.point).hook(counted, times=None))
    return hooks


def _counted(counts: list[int], at: int, prompt: int, edit: Edit, next_edit: Edit | None) -> Edit:
    """Applies `edit` to the prompt and `next_edit` to each new token."""

    def counted(activation: Activation, hook_call: HookCall) -> Activation | None:
        counts[at] += 1
        if hook_call.first == 0:
            return edit(activation, hook_call)
        assert hook_call.first >= prompt, "the prompt is run at once"
        return None if next_edit is None else next_edit(activation, replace(hook_call, first=0))

    return counted


def _of_last(patch: Patch) -> Patch:
    """Returns the patch for a new token, the only one in its activation, with the source activation
    of the patch's last token."""
    sources = tuple(replace(source, tokens=source.tokens[-1:]) for source in patch.sources)
    return replace(patch, tokens=(0,), sources=sources)
