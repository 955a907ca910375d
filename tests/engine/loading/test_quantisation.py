"""Quantised models are put on their device as they are read, and not moved, cast or made anew.

None is run here: their kernels need a GPU. What transformers itself refuses is what is tested.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTQConfig, LlamaConfig
from transformers.utils.quantization_config import QuantizationMethod

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading import load as loading
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.engine.loading.quantisation import method_of, spread_of
from raysearch.errors import ModelError
from tests.cli.conftest import QUICKSTART

MODEL = QUICKSTART.parent / "planted" / "model"


@pytest.mark.parametrize(
    ("quantisation", "method"),
    [
        (None, None),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        (GPTQConfig(bits=4), "gptq"),
    ],
)
def test_a_configuration_names_its_method(quantisation: Any, method: str | None) -> None:
    config = LlamaConfig()
    if quantisation is not None:
        config.quantization_config = quantisation
    assert method_of(config) == method


def test_weights_go_to_their_device_at_once() -> None:
    assert spread_of(None, None, "cuda") == {}
    assert spread_of(None, "gptq", "cuda:1") == {"device_map": {"": "cuda:1"}}
    assert spread_of("auto", "gptq", "cuda") == {"device_map": "auto"}


def test_a_loaded_one_is_neither_moved_nor_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is a plain one that transformers takes for one of bitsandbytes, and so refuses to
    move or cast."""
    read = AutoModelForCausalLM.from_pretrained
    asked = list[Any]()

    def from_pretrained(where: str, device_map: Any = None, **options: Any) -> Any:
        asked.append(device_map)
        model, info = read(where, **options)
        model.is_quantized, model.quantization_method = True, QuantizationMethod.BITS_AND_BYTES
        model.is_loaded_in_8bit = True
        model.hf_quantizer = object()  # as transformers leaves its own
        model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
        return model, info

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(loading, "method_of", lambda _: "bitsandbytes")
    loaded = loading.load(ModelSource(str(MODEL)), "cpu")
    assert asked == [{"": "cpu"}]
    with pytest.raises(ValueError, match=r"bitsandbytes|cast"):
        loaded.model.to(torch.float16)
    with pytest.raises(
        ModelError, match="the control random_model is not possible, as its weights"
    ):
        loaded.reinitialised()


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_what_cannot_be_loaded_here_is_said_in_one_line(tmp_path: Path, method: str) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    plain = json.loads(file.read_text())
    plain["quantization_config"] = {"quant_method": method, "bits": 4, "load_in_4bit": True}
    file.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match="the model cannot be loaded") as e:
        loading.load(ModelSource(str(tmp_path / "model")), "cpu")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "quantisation",
    [
        *({"quant_method": m} for m in (["x"], {"a": 1}, 5, True, None, "", "nope", "a\n\x1b[31m")),
        *({"quant_method": m, "bits": 4} for m in ("x" * 10**6, "bitsandbytes", "GPTQ")),
        {},
        {"bits": 4},
        {"load_in_4bit": False},
        *([], ["gptq"], "gptq", 5, True),
    ],
)
def test_a_method_that_transformers_does_not_read_is_refused_before_weights_are_read(
    quantisation: Any, tmp_path: Path
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "quantization_config": quantisation}))
    with pytest.raises(ModelError, match=r"transformers reads .*gptq.*restore the file") as e:
        inspect_model(ModelSource(str(tmp_path / "model")))
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 800
