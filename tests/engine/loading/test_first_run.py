"""A model that runs on some inputs only is refused before anything is searched, and a plan says
that it ran nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import raysearch as rs
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError
from tests.cli.conftest import QUICKSTART
from tests.cli.test_plan import planned
from tests.engine.worlds import POSITIONS, loaded, model_of, random_pairs


def breaking(after: int, error: Exception) -> Any:
    """A model whose forward raises on inputs of more tokens than that."""
    model = model_of("gpt2")
    inner: Callable[..., Any] = model.transformer.h[1].forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden.shape[1] > after:
            raise error
        return inner(hidden, *args, **kwargs)

    model.transformer.h[1].forward = forward
    return model


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("no\nkernel"), "its configuration or weights are broken"),
        (ZeroDivisionError(), "its configuration or weights are broken"),
        (MemoryError(), "memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory is full"),
    ],
)
def test_a_model_that_fails_on_the_longest_input_is_refused_in_one_line(
    error: Exception, says: str
) -> None:
    pairs = random_pairs(11, 4)
    longest = max(len(p.base.text.split()) for p in pairs)
    model = breaking(after=3, error=error)
    assert longest > 3
    with pytest.raises(ModelError, match=rf"does not run.*{type(error).__name__}") as e:
        Replica(loaded(model), pairs, POSITIONS, ["x"], "w")
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_a_plan_says_that_it_runs_no_language_model() -> None:
    assert "not run     its weights are not read" in planned("text")


def test_a_run_of_such_a_model_makes_no_run_folder(tmp_path: Any) -> None:
    folder = str(QUICKSTART.parent / "planted" / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    layers = model.model.layers
    forward = layers[1].forward

    def fails(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden.shape[1] > 5:
            raise KeyError("no kernel")
        return forward(hidden, *args, **kwargs)

    layers[1].forward = fails
    asks = yaml.safe_load(QUICKSTART.read_text()) | {"pairs": {"test": 24, "holdout": 4}}
    del asks["model"]
    asks["test"] = asks.get("test", {}) | {"max_pairs": 24}
    with pytest.raises(ModelError, match="does not run, without any intervention"):
        rs.run(
            asks,
            model=(model, AutoTokenizer.from_pretrained(folder)),
            store=tmp_path / "runs",
            quiet=True,
        )
    assert not list((tmp_path / "runs").glob("*/run.json"))
