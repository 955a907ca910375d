"""Probed runs: the activations at many points in one forward pass, and how the lead of an answer
hangs on each.

A gradient is that of a zero which a hook adds just where an interchange would write: so it is the
derivative of interchanges, on whatever architecture, and nothing of the model itself needs
gradients. Invariants: what comes out leads back to nothing; hooks of ours are gone afterwards; a
token's activation has the token's own index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.execution.losses import losses_of
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import Hook, HookCall, constant, owned_hooks
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.oracle import needs_all

AtPoints = Mapping[Point, Float[Tensor, "token width"]]
"""Of one run, at each point that was asked for."""


@dataclass(frozen=True, slots=True)
class LeadQuery:
    """A base, and the two ids whose logits are compared: `own` leads by how far its logit lies
    above that of `wanted`."""

    base: ModelInput
    wanted: int
    own: int


@dataclass(frozen=True, slots=True, eq=False)
class ProbedRun:
    """A run: its activations, the gradients of the lead by them, and the lead itself (logits)."""

    activations: AtPoints
    gradients: AtPoints
    lead: float


class GradientProbe:
    """Runs inputs of one company, in one batch or (`plainly`) one by one."""

    def __init__(self, network: Network, taps: Components, plainly: bool) -> None:
        self._network = network
        self._taps = taps
        self.plainly = plainly

    @constant()
    def look(self, givens: Sequence[ModelInput], points: Sequence[Point]) -> list[AtPoints]:
        """The activations of each."""
        _, seen, _ = self._run(givens, points, False)
        return self._by_row(givens, seen)

    def sway(self, asked: Sequence[LeadQuery], points: Sequence[Point]) -> list[ProbedRun]:
        """The activations of each, and the gradients by them."""
        givens = [one.base for one in asked]
        with torch.inference_mode(False), torch.enable_grad():
            logits, seen, zeros = self._run(givens, points, True)
            ids = torch.tensor([(one.wanted, one.own) for one in asked], device=logits.device)
            leads = losses_of("logit_difference", logits, ids[:, 0], ids[:, 1])
            flat = [zero for of_point in zeros.values() for zero in of_point]
            found = iter(
                torch.autograd.grad(leads.sum(), flat, allow_unused=True, materialize_grads=True)
            )
        taps = {point: self._taps.at(point) for point in points}
        gradients = {
            p: [taps[p].read(next(found)) for _ in of_point] for p, of_point in zeros.items()
        }
        rows = zip(
            self._by_row(givens, seen), self._by_row(givens, gradients), leads.tolist(), strict=True
        )
        return [ProbedRun(*row) for row in rows]

    def _run(
        self, givens: Sequence[ModelInput], points: Sequence[Point], swayed: bool
    ) -> tuple[
        Float[Tensor, "row answer"],
        dict[Point, list[Tensor]],
        dict[Point, list[Tensor]],
    ]:
        """The logits; of each point what was seen at each firing, and the zeros that were added,
        where `swayed`."""
        seen: dict[Point, list[Tensor]] = {point: [] for point in points}
        zeros: dict[Point, list[Tensor]] = {point: [] for point in points}
        hooks = [
            self._hook(point, givens[0], seen[point], zeros[point] if swayed else None)
            for point in points
        ]
        with owned_hooks(hooks):
            if self.plainly:
                (given,) = givens
                logits = self._network.plain(given, whole=needs_all(self._taps, points))[None]
            else:
                logits = self._network.batch(givens)
        return logits, seen, zeros

    def _hook(
        self,
        point: Point,
        given: ModelInput,
        seen: list[Tensor],
        zeros: list[Tensor] | None,
    ) -> Hook:
        tap = self._taps.at(point)

        def edit(activation: Float[Tensor, "row token width"], _moment: HookCall) -> Tensor | None:
            seen.append(
                tap.read(activation.detach()).clone()
            )  # some models go on to add to it in place
            if zeros is None:
                return None
            zeros.append(torch.zeros_like(activation, requires_grad=True))
            return activation + zeros[-1]

        return hook_at(self._network, tap, edit, given)

    def _by_row(
        self, givens: Sequence[ModelInput], seen: Mapping[Point, Sequence[Tensor]]
    ) -> list[AtPoints]:
        """Of each row, without its padding; steps of a recurrent network one after the other."""
        whole = {point: torch.cat(list(parts), 1) for point, parts in seen.items()}
        pads = [0 if self.plainly else self._network.pad(given) for given in givens]
        return [{point: of[at, pad:] for point, of in whole.items()} for at, pad in enumerate(pads)]
