"""The engine's tests run with shapes checked."""

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation

from raysearch.engine.execution.losses import losses_of
from raysearch.engine.networks.hooks import ModuleCall
from tests.engine import shapes


def test_a_tensor_of_another_shape_than_its_annotation_is_an_error() -> None:
    logits, two, three = torch.zeros(2, 5), torch.tensor([0, 1]), torch.tensor([0, 1, 2])
    assert losses_of("logit_difference", logits, two, two).shape == (2,)
    with pytest.raises(BeartypeCallHintParamViolation, match="own"):
        losses_of("logit_difference", logits, two, three)


def test_each_module_of_the_engine_with_shapes_is_checked() -> None:
    named = shapes.modules("raysearch.engine")
    assert "raysearch.engine.patching.edits" in named
    assert not shapes.has_shape(ModuleCall)
    assert shapes.has_shape(list[jaxtyping.Float[torch.Tensor, "..."]])
