"""Gradient probes: activations at many points in one forward pass, and the gradient of an answer's
lead by each of them.

The gradient is that by a zero which a hook adds at the very place where an interchange would write:
so it is the derivative of interchanges on any architecture, and no part of the model needs
gradients. Invariants: results carry no graph; the hooks are removed afterwards; a token's
activation has the token's own index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.execution.losses import losses_of
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.hooks import Hook, HookCall, owned_hooks
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.oracle import needs_all

AtPoints = Mapping[Point, Float[Tensor, "_token _width"]]
"""Activations or gradients of one run, by point."""


@dataclass(frozen=True, slots=True)
class LeadQuery:
    """A base and the two ids whose logits are compared: the lead is the logit of `own` minus that
    of `wanted`."""

    base: ModelInput
    wanted: int
    own: int


@dataclass(frozen=True, slots=True, eq=False)
class ProbedRun:
    """A run: its activations, the gradients of the lead by them, and the lead (logits)."""

    activations: AtPoints
    gradients: AtPoints
    lead: float


class GradientProbe:
    """Runs inputs of one batch key, in one batch or (`one_by_one`) singly."""

    def __init__(self, network: Network, hook_points: Components, one_by_one: bool) -> None:
        self._network = network
        self._hook_points = hook_points
        self.one_by_one = one_by_one

    @without_gradients()
    def activations(self, givens: Sequence[ModelInput], points: Sequence[Point]) -> list[AtPoints]:
        """Returns the activations of each input."""
        _, seen, _ = self._run(givens, points, False)
        return _by_row(seen)

    def lead_gradients(
        self, queries: Sequence[LeadQuery], points: Sequence[Point]
    ) -> list[ProbedRun]:
        """Returns the activations of each base, and the gradients of its lead by them."""
        givens = [one.base for one in queries]
        with torch.inference_mode(False), torch.enable_grad():
            logits, seen, zeros = self._run(givens, points, True)
            ids = torch.tensor([(one.wanted, one.own) for one in queries], device=logits.device)
            leads = losses_of("logit_difference", logits, ids[:, 0], ids[:, 1])
            flat = [zero for of_point in zeros.values() for zero in of_point]
            found = iter(
                torch.autograd.grad(leads.sum(), flat, allow_unused=True, materialize_grads=True)
            )
        hook_points = {point: self._hook_points.at(point) for point in points}
        gradients = {
            p: [hook_points[p].read(next(found)) for _ in of_point] for p, of_point in zeros.items()
        }
        rows = zip(
            _by_row(seen),
            _by_row(gradients),
            leads.tolist(),
            strict=True,
        )
        return [ProbedRun(*row) for row in rows]

    def _run(
        self, givens: Sequence[ModelInput], points: Sequence[Point], with_gradients: bool
    ) -> tuple[
        Float[Tensor, "row answer"],
        dict[Point, list[Tensor]],
        dict[Point, list[Tensor]],
    ]:
        """Returns the logits; for each point the activations at each firing, and the zeros that
        were added, if `with_gradients`."""
        seen: dict[Point, list[Tensor]] = {point: [] for point in points}
        zeros: dict[Point, list[Tensor]] = {point: [] for point in points}
        hooks = [
            self._hook(point, givens[0], seen[point], zeros[point] if with_gradients else None)
            for point in points
        ]
        with owned_hooks(hooks):
            if self.one_by_one:
                (given,) = givens
                logits = self._network.plain(given, whole=needs_all(self._hook_points, points))[
                    None
                ]
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
        hook_point = self._hook_points.at(point)

        def edit(
            activation: Float[Tensor, "row token width"], _hook_call: HookCall
        ) -> Float[Tensor, "row token width"] | None:
            seen.append(
                hook_point.read(activation.detach()).clone()
            )  # some models add to it in place afterwards
            if zeros is None:
                return None
            zeros.append(torch.zeros_like(activation, requires_grad=True))
            return activation + zeros[-1]

        return hook_at(self._network, hook_point, edit, given)


def _by_row(seen: Mapping[Point, Sequence[Tensor]]) -> list[AtPoints]:
    """Returns the values of each row; steps of a recurrent network follow each other."""
    whole = {point: torch.cat(list(parts), 1) for point, parts in seen.items()}
    rows = len(next(iter(whole.values()), ()))
    return [{point: of[at] for point, of in whole.items()} for at in range(rows)]
