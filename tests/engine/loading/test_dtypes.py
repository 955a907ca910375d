"""A model in half precision is the one that transformers loads: what that leaves in float32 stays
so."""

from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.dtypes import dtypes_of
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import DTYPES, LoadedModel
from tests.engine.more_worlds import MORE
from tests.engine.worlds import CONFIGS, model_from, word_tokenizer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

HALVES = ("bfloat16", "float16")
TEXT = [*range(1, 30)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a family's model, made once."""
    return partial(_saved, tmp_path_factory.mktemp("models"))


def _saved(at: Path, family: str) -> Path:
    if not (at / family).is_dir():
        model_from({**CONFIGS, **MORE}[family]()).save_pretrained(at / family)
        word_tokenizer().save_pretrained(at / family)
    return at / family


def theirs(folder: Path, dtype: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()


def in_float32(loaded: LoadedModel) -> set[str]:
    """What of its name: the last part."""
    return {
        name.rpartition(".")[2]
        for name, dtype in dtypes_of(loaded.model).items()
        if dtype == torch.float32
    }


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "family",
    ["llama", "gpt2", "phi3", "gemma3", "mixtral", "deepseek_v3", "gpt_neox", "rwkv", "mamba2"],
)
def test_weights_buffers_and_logits_are_those_that_transformers_loads(
    saved, family: str, dtype: str
) -> None:
    own, their = load(ModelSource(str(saved(family)), dtype=dtype)), theirs(saved(family), dtype)
    assert dtypes_of(own.model) == dtypes_of(their)
    with torch.inference_mode():
        text = torch.tensor([TEXT])
        # In half precision equal bits are Intel's (MKL's strict mode); an AMD EPYC is off by a step.
        torch.testing.assert_close(own.model(text).logits, their(text).logits, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_a_model_of_random_weights_keeps_in_float32_what_the_model_does(saved, family: str) -> None:
    loaded = load(ModelSource(str(saved(family)), dtype="bfloat16"))
    assert "inv_freq" in in_float32(loaded)
    assert dtypes_of(loaded.reinitialised().model) == dtypes_of(loaded.model)


def test_with_an_adapter_merged_the_dtypes_are_those_of_the_base(saved, tmp_path: Path) -> None:
    base = saved("llama")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    peft.get_peft_model(theirs(base, "float32"), config).save_pretrained(tmp_path)
    loaded = load(ModelSource(str(tmp_path), dtype="bfloat16"))
    assert dtypes_of(loaded.model) == dtypes_of(theirs(base, "bfloat16"))


def test_in_float32_all_of_it_is(saved) -> None:
    loaded = load(ModelSource(str(saved("deepseek_v3"))))
    assert {dtype for dtype in dtypes_of(loaded.model).values() if dtype.is_floating_point} == {
        torch.float32
    }
