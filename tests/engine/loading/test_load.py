"""Loading: what comes out, the digest, and one clear line for each way in which it can go wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.engine.loading.load import load
from raysearch.engine.loading.model_digest import digest_of
from raysearch.errors import ModelError
from tests.engine.worlds import VOCAB, model_of, word_tokenizer


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model_of("llama").save_pretrained(folder)
    word_tokenizer(before=True).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def refused(source: ModelSource, device: str = "cpu") -> str:
    with pytest.raises(ModelError) as error:
        load(source, device)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_comes_ready_to_run_in_the_dtype_that_was_asked(saved: Path, dtype: str) -> None:
    got = load(ModelSource(str(saved), dtype=dtype))
    assert not got.model.training
    assert {p.dtype for p in got.model.parameters()} == {getattr(torch, dtype)}
    assert not any(p.requires_grad for p in got.model.parameters())
    assert (got.digest, got.dtype) == (digest_of(saved), dtype)
    assert got.tokenizer("w1 w2")["input_ids"][0] == 1


def test_the_weights_are_those_of_the_file(saved: Path) -> None:
    ids = torch.tensor([[1, 4, 5]])
    assert torch.equal(
        load(ModelSource(str(saved))).model(ids).logits, model_of("llama")(ids).logits
    )


def test_loading_is_quiet_and_leaves_the_noise_as_it_was(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load(ModelSource(str(saved)))
    assert capfd.readouterr() == ("", "")
    assert (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    ) == before


def write_gguf(model: LlamaForCausalLM, file: Path) -> None:
    """The model as llama.cpp has it: rows of query and key permuted for its form of rotary
    embedding."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(VOCAB)
    tokens = [
        "<|endoftext|>",
        *"abcdefghijklmnopqrstuvwxyz",
        "Ġ",
        "ab",
        *(f"ab{i}" for i in range(11)),
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (VOCAB - 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        short = GGUF_NAMES[".".join(p for p in name.split(".")[:-1] if not p.isdigit())]
        values = weight.numpy()
        if short in heads:
            values = (
                values.reshape(heads[short], 2, -1, values.shape[-1])
                .swapaxes(1, 2)
                .reshape(values.shape)
            )
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        writer.add_tensor(f"{block}{short}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.self_attn.q_proj": "attn_q",
    "model.layers.self_attn.k_proj": "attn_k",
    "model.layers.self_attn.v_proj": "attn_v",
    "model.layers.self_attn.o_proj": "attn_output",
    "model.layers.mlp.gate_proj": "ffn_gate",
    "model.layers.mlp.up_proj": "ffn_up",
    "model.layers.mlp.down_proj": "ffn_down",
    "model.layers.input_layernorm": "attn_norm",
    "model.layers.post_attention_layernorm": "ffn_norm",
}


def test_a_gguf_file_gives_its_model_and_tokenizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, file = model_of("llama"), tmp_path / "tiny.gguf"
    write_gguf(model, file)
    got = load(ModelSource(str(file)))
    assert capfd.readouterr() == ("", "")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(got.model(ids).logits, model(ids).logits, atol=1e-5)
    assert got.tokenizer("ab a")["input_ids"] == [28, 27, 1]
    assert got.digest == digest_of(file)


def test_the_digest_is_of_contents_wherever_they_lie(saved: Path, folder: Path) -> None:
    assert digest_of(folder) == digest_of(saved)
    (folder / "README.md").write_text("read me")
    (folder / "README.txt").write_text("read me")
    (folder / ".hidden.json").write_text("{}")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text("{}")
    assert digest_of(folder) == digest_of(saved)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
)
def test_the_digest_changes_with_every_file_that_counts(folder: Path, name: str) -> None:
    before = digest_of(folder)
    with (folder / name).open("ab") as f:
        f.write(b" ")
    assert digest_of(folder) != before


def test_the_digest_of_a_gguf_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert digest_of(tmp_path / "a.gguf") == digest_of(tmp_path / "b.gguf")


def test_a_digest_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        digest_of(tmp_path / "absent")
    with pytest.raises(ModelError, match="holds no model file"):
        digest_of(tmp_path)


def test_an_absent_folder_is_one_line(tmp_path: Path) -> None:
    assert "no such folder" in refused(ModelSource(str(tmp_path / "absent")))
    assert "no such folder" in refused(ModelSource("./absent"))
    assert "no such folder" in refused(ModelSource("models/here/absent"))


def test_an_absent_or_broken_gguf_file_is_one_line(tmp_path: Path) -> None:
    assert "no such file" in refused(ModelSource(str(tmp_path / "absent.gguf")))
    (tmp_path / "broken.gguf").write_bytes(b"this is no model")
    assert "cannot be loaded" in refused(ModelSource(str(tmp_path / "broken.gguf")))


def test_of_a_hub_id_the_commit_that_was_loaded_is_known(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    kept = tmp_path / "models--ann--tiny"
    shutil.copytree(saved, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", commit):
        loaded = load(ModelSource("ann/tiny", revision))
        assert (loaded.commit, loaded.digest) == (commit, digest_of(saved))
    assert load(ModelSource(str(saved))).commit is None


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    text = refused(ModelSource("nobody-at-all/no-such-model", revision="main"))
    assert "nobody-at-all/no-such-model" in text


def test_an_empty_folder_or_a_file_is_one_line(tmp_path: Path) -> None:
    assert "has no config.json; name a folder" in refused(ModelSource(str(tmp_path)))
    (tmp_path / "model.safetensors").touch()
    assert "is a file, and no .gguf" in refused(ModelSource(str(tmp_path / "model.safetensors")))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_broken_file_of_settings_is_one_line(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert str(folder) in refused(ModelSource(str(folder)))


def test_a_tokenizer_that_contradicts_itself_is_one_line(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "c"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "the tokenizer cannot be loaded" in refused(ModelSource(str(folder)))


@pytest.mark.parametrize("size", [0, 4, 5_000])
def test_a_file_of_weights_that_was_cut_off_is_one_line(folder: Path, size: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert "the model cannot be loaded" in refused(ModelSource(str(folder)))


def test_a_missing_file_of_weights_is_one_line(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "the model cannot be loaded" in refused(ModelSource(str(folder)))


def test_a_model_that_lacks_weights_is_refused_not_filled_at_random(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert (
        "1 weights are missing or of another shape (model.layers.1.mlp.up_proj.weight)"
        in refused(ModelSource(str(folder)))
    )


def test_a_model_of_another_shape_than_its_config_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    refused(ModelSource(str(folder)))


def test_code_from_a_models_folder_is_never_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: ...\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert "without remote code" in refused(ModelSource(str(folder)))
    assert not ran.exists()


OWN = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = {sign} * out.logits
        return out
"""


def test_code_from_a_models_folder_is_run_where_it_is_trusted_and_its_text_is_in_the_digest(
    folder: Path,
) -> None:
    (folder / "own.py").write_text(OWN.format(sign="-1"))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    trusted = ModelSource(str(folder), trust_remote_code=True)
    loaded = load(trusted)
    ids = torch.tensor([[1, 4, 5]])
    assert torch.equal(loaded.model(ids).logits, -model_of("llama")(ids).logits)
    assert inspect_model(trusted).layers == 4
    (folder / "own.py").write_text(OWN.format(sign="1"))
    assert loaded.digest != digest_of(folder, code=True)


@pytest.mark.parametrize("where", ["read", "moved"])
def test_a_model_that_does_not_fit_onto_its_device_is_one_line(
    saved: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read straight to the device, or moved there."""

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    if where == "read":
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    else:
        monkeypatch.setattr(torch.nn.Module, "to", full)
    said = refused(ModelSource(str(saved)))
    assert "does not fit onto the device" in said
    assert "resources.gpus: 2" in said


def test_an_unknown_dtype_or_device_is_one_line(saved: Path) -> None:
    assert "it may be float32, bfloat16, float16" in refused(ModelSource(str(saved), dtype="int8"))
    assert "cannot be put on device 'gpu'" in refused(ModelSource(str(saved)), "gpu")
    if not torch.cuda.is_available():
        assert "cannot be put on device 'cuda'" in refused(ModelSource(str(saved)), "cuda")
