"""A placebo changes a vector as far as the real operation does, in a direction of no meaning."""

import torch

from raysearch.engine.patching.operations import Interchange, Placebo


def test_a_placebo_moves_each_vector_as_far_as_the_real_operation_and_elsewhere() -> None:
    base, source = torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(0))
    real = Interchange().forward(base, source) - base
    placebo = Placebo(Interchange(), "seed").forward(base, source) - base
    far, moved = real.flatten(1), placebo.flatten(1)
    torch.testing.assert_close(moved.norm(dim=1), far.norm(dim=1))
    assert torch.cosine_similarity(far, moved).abs().max() < 0.9
