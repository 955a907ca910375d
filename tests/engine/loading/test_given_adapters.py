"""The digest of a given model with adapters of peft: what they add, and which of them are at work."""

import peft
import pytest
import torch
from torch import nn

from raysearch.engine.loading.given_model import GivenModel, content_digest
from tests.engine.worlds import model_of, word_tokenizer

# peft 0.21 asks transformers 5.23 by an old name; both are others' to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def adapted(alpha: float = 4, **more: object) -> peft.PeftModel:
    """With two adapters of the same weights in each of two models; the first is at work."""
    config = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **more}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(
            model_of("llama"), peft.LoraConfig(lora_alpha=alpha, **config), "one"
        )
        model.add_adapter("two", peft.LoraConfig(lora_alpha=alpha, **config))
    return model


def digest(model: nn.Module) -> str:
    given = GivenModel.of(model, word_tokenizer())
    return content_digest(given.module, given.tokenizer)


def scaled(model: peft.PeftModel) -> peft.PeftModel:
    next(m for m in model.modules() if hasattr(m, "set_scale")).set_scale("one", 2.0)
    return model


def switched(model: peft.PeftModel) -> peft.PeftModel:
    model.set_adapter("two")
    return model


def off(model: peft.PeftModel) -> peft.PeftModel:
    model.base_model.disable_adapter_layers()
    return model


def test_an_adapter_of_the_same_content_has_the_same_digest_and_no_address_in_it() -> None:
    assert digest(adapted()) == digest(adapted())


@pytest.mark.parametrize(
    "other",
    [
        lambda: adapted(alpha=8),
        lambda: adapted(use_rslora=True),
        lambda: scaled(adapted()),
        lambda: switched(adapted()),
        lambda: off(adapted()),
    ],
    ids=["alpha", "rslora", "scaled", "switched", "off"],
)
def test_what_else_an_adapter_computes_is_another_digest(other) -> None:
    assert digest(other()) != digest(adapted())
