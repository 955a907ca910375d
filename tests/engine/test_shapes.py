"""The engine's tests run with shapes checked."""

from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation

from raysearch.engine.execution.losses import losses_of
from raysearch.engine.networks.hooks import ModuleCall
from tests.engine import shapes

Shown = jaxtyping.Float[torch.Tensor, "row width"]


@shapes.checked_class
@dataclass(frozen=True)
class Fields:
    shown: Shown


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


def test_a_dataclass_is_not_made_with_a_tensor_of_another_number_of_axes() -> None:
    Fields(torch.zeros(2, 3))
    with pytest.raises(jaxtyping.TypeCheckError, match="shown"):
        Fields(torch.zeros(2))


def test_a_function_within_a_function_is_checked_at_its_first_hundred() -> None:
    def made() -> Callable[[torch.Tensor], None]:
        def wants(shown: Shown) -> None:
            del shown

        return shapes.checked_closure(wants)

    for _ in range(shapes.CLOSURES):
        with pytest.raises(BeartypeCallHintParamViolation, match="shown"):
            made()(torch.zeros(2))
    made()(torch.zeros(2))
