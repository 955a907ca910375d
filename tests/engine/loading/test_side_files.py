"""Files beside a model's weights that change what it computes: loaded as meant, refused in one
line, or said; never passed over."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

import raysearch as rs
from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.engine.loading.load import load
from raysearch.engine.loading.side_files import unused_files
from raysearch.errors import ModelError
from tests.engine.worlds import model_of, word_tokenizer

# peft 0.21 asks transformers 5.23 by an old name; both are others' to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

IDS = torch.tensor([[1, 4, 5, 6]])
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=4, target_modules=EVERY, task_type="CAUSAL_LM"),
    "dora": LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM"),
    "rslora": LoraConfig(
        r=4, target_modules=["v_proj"], use_rslora=True, lora_alpha=3, task_type="CAUSAL_LM"
    ),
    "whole_head": LoraConfig(
        r=4, target_modules=["v_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"
    ),
    "ia3": IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    model_of("llama").save_pretrained(folder)
    word_tokenizer(before=True).save_pretrained(folder)
    return folder


def adapter(config: Any, to: Path, base: Path) -> Any:
    """The model as peft runs it, its adapter in a folder; weights far from what they begin as."""
    torch.manual_seed(0)
    wrapped = get_peft_model(model_of("llama"), config)
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            weight.data += 0.3 * torch.randn_like(weight)
    wrapped.save_pretrained(to, save_embedding_layers=False)
    config_file = to / "adapter_config.json"
    config_file.write_text(
        json.dumps(json.loads(config_file.read_text()) | {"base_model_name_or_path": str(base)})
    )
    return wrapped.eval().requires_grad_(False)


def refused(folder: Path, look_too: bool = True) -> str:
    texts = []
    for read in (load, inspect_model) if look_too else (load,):
        with pytest.raises(ModelError) as error:
            read(ModelSource(str(folder)))  # type: ignore[operator]
        texts.append(str(error.value))
    assert len(set(texts)) == 1
    assert "\n" not in texts[0]
    return texts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_alone_is_merged_into_the_base_that_it_names(
    kind: str, base: Path, tmp_path: Path
) -> None:
    wrapped = adapter(KINDS[kind], tmp_path / "a", base)
    found = load(ModelSource(str(tmp_path / "a")))
    assert type(found.model) is type(model_of("llama"))
    logits = found.model(IDS).logits
    assert torch.allclose(logits, wrapped(IDS).logits, atol=1e-4)
    assert (logits - model_of("llama")(IDS).logits).abs().max() > 0.1
    assert not any(p.requires_grad for p in found.model.parameters())
    assert inspect_model(ModelSource(str(tmp_path / "a"))).layers == 4


@pytest.mark.parametrize("safe", [True, False])
def test_an_adapter_beside_full_weights_changes_these(
    safe: bool, base: Path, tmp_path: Path
) -> None:
    wrapped = adapter(KINDS["lora"], tmp_path / "a", Path("somewhere/else"))
    folder = Path(shutil.copytree(base, tmp_path / "both"))
    shutil.copy(tmp_path / "a" / "adapter_config.json", folder)
    if safe:
        shutil.copy(tmp_path / "a" / "adapter_model.safetensors", folder)
    else:
        torch.save(
            load_file(tmp_path / "a" / "adapter_model.safetensors"), folder / "adapter_model.bin"
        )
    source = ModelSource(str(folder))
    assert torch.allclose(load(source).model(IDS).logits, wrapped(IDS).logits, atol=1e-4)
    assert inspect_model(source).layers == 4


def test_every_component_of_a_merged_model_is_where_a_hook_on_pefts_own_modules_sees_it(
    base: Path, tmp_path: Path
) -> None:
    wrapped = adapter(KINDS["lora"], tmp_path / "a", base).get_base_model()
    ours = rs.Model.load(str(tmp_path / "a"))
    texts = "w1 w2 w3 w4", "w5 w6 w7 w8"
    ids = [ours._texts[text].ids for text in texts]
    for component, module in (
        ("query", wrapped.model.layers[1].self_attn.q_proj),
        ("value", wrapped.model.layers[1].self_attn.v_proj),
        ("mlp_output", wrapped.model.layers[1].mlp.down_proj),
        ("residual", wrapped.model.layers[1]),
    ):
        swap = ours.swap(*texts, layer=1, position=2, component=component)
        logits = by_hand(wrapped, module, *ids, 2)
        assert swap.after == pytest.approx(swap.answers.difference(logits), abs=1e-4)
        assert abs(swap.after - swap.before) > 1e-3


def by_hand(
    model: Any, module: Any, base: Sequence[int], source: Sequence[int], at: int
) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda m, i, o: kept.append(o[0, at].clone()))
    model(torch.tensor([source]))
    handle.remove()

    def put(_m: Any, _i: Any, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, at] = kept[0]
        return out

    handle = module.register_forward_hook(put)
    logits: torch.Tensor = model(torch.tensor([base])).logits[0, -1]
    handle.remove()
    return logits


@pytest.mark.parametrize("revision", [None, "main"])
def test_code_of_a_base_on_the_hub_is_run_only_at_a_commit(
    base: Path, tmp_path: Path, revision: str | None
) -> None:
    adapter(KINDS["lora"], tmp_path / "a", base)
    told = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    told |= {"base_model_name_or_path": "someone/model", "revision": revision}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(told))
    for read in (load, inspect_model):
        with pytest.raises(
            ModelError, match=r"changes someone/model, and model.trust_remote_code: true .* pin it"
        ):
            read(ModelSource(str(tmp_path / "a"), trust_remote_code=True))


def test_the_digest_is_of_the_adapter_and_of_its_base(base: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(base, tmp_path / "base"))
    adapter(KINDS["lora"], tmp_path / "a", mine)
    before = load(ModelSource(str(tmp_path / "a"))).digest
    assert before not in (load(ModelSource(str(mine))).digest, load(ModelSource(str(base))).digest)
    weights = load_file(mine / "model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, mine / "model.safetensors", metadata={"format": "pt"})
    assert load(ModelSource(str(tmp_path / "a"))).digest != before


def test_a_base_may_be_named_from_the_adapters_own_folder(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    wrapped = adapter(KINDS["lora"], tmp_path / "a", Path("../base"))
    assert torch.allclose(
        load(ModelSource(str(tmp_path / "a"))).model(IDS).logits, wrapped(IDS).logits, atol=1e-4
    )


@pytest.mark.parametrize("beside", [True, False])
def test_without_peft_an_adapter_is_refused_and_the_base_not_searched(
    beside: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter(KINDS["lora"], tmp_path / "a", base)
    folder = tmp_path / "a"
    if beside:
        folder = Path(shutil.copytree(base, tmp_path / "both"))
        shutil.copytree(tmp_path / "a", folder, dirs_exist_ok=True)
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    assert (
        "is a PEFT adapter, which changes what the model computes, and peft is not installed; `pip "
        "install peft`" in refused(folder)
    )


def test_what_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    adapter(prompt, tmp_path / "prompt", base)
    assert "its adapter cannot be merged into" in refused(tmp_path / "prompt", look_too=False)
    adapter(KINDS["lora"], tmp_path / "gone", tmp_path / "nowhere")
    assert f"the base of its adapter, {tmp_path / 'nowhere'}, is not there" in refused(
        tmp_path / "gone"
    )
    adapter(KINDS["lora"], tmp_path / "less", base)
    weights = load_file(tmp_path / "less" / "adapter_model.safetensors")
    weights.pop("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight")
    save_file(weights, tmp_path / "less" / "adapter_model.safetensors")
    assert "1 weights are missing or belong to nothing there" in refused(
        tmp_path / "less", look_too=False
    )
    adapter(KINDS["lora"], tmp_path / "on", tmp_path / "less")
    assert "is an adapter too; merge that one first" in refused(tmp_path / "on")


def config(**keys: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        said = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(said | keys))

    return change


def more(name: str, *shape: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors") | {name: torch.zeros(shape)}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def text(name: str, content: Any) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        and None
    )


def tensors(name: str) -> Callable[[Path], None]:
    return lambda folder: torch.save({"w": torch.zeros(2)}, folder / name)


def shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    model_of("llama").save_pretrained(folder, max_shard_size="60KB")


def a_shard_less(folder: Path) -> None:
    shards(folder)
    next(folder.glob("model-00002-*")).unlink()


REFUSED = {
    "weights of an adapter alone": (
        tensors("adapter_model.safetensors"),
        "adapter_model.safetensors holds the weights of an adapter",
    ),
    "a lora of another library": (
        tensors("pytorch_lora_weights.bin"),
        "pytorch_lora_weights.bin holds the weights of an adapter",
    ),
    "an adapter in another format": (
        tensors("my-LoRA.pt"),
        "my-LoRA.pt holds the weights of an adapter",
    ),
    "a config without weights": (
        text("adapter_config.json", {"peft_type": "LORA"}),
        "no adapter_model.safetensors or .bin with its weights",
    ),
    "another adapter's config": (
        text("adapter_config.json", {"fine_tune_type": "lora"}),
        "is of no PEFT adapter",
    ),
    "a broken config": (text("adapter_config.json", "{"), "is of no PEFT adapter"),
    "sentence-transformers": (
        text("modules.json", [{"idx": 0, "type": "sentence_transformers.models.Transformer"}]),
        "modules.json makes it a sentence-transformers model",
    ),
    "a shard less": (a_shard_less, "model-00002-of-00003.safetensors, which is not there"),
    "quantised in a way unknown": (
        config(quantization_config={"quant_method": "mystery"}),
        "names the method 'mystery'",
    ),
}
REFUSED_WHEN_READ = {
    "fewer layers than weights": (
        config(num_hidden_layers=2),
        "18 weights of its files belong to nothing in LlamaForCausalLM",
    ),
    "a bias too many": (
        more("model.layers.0.self_attn.q_proj.bias", 32),
        "(model.layers.0.self_attn.q_proj.bias), and would be left out",
    ),
    "an adapter unmerged": (
        more("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 4, 32),
        "(an adapter merged)",
    ),
    "quantised by gptq": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "the model cannot be loaded (ImportError",
    ),
    "quantised by bitsandbytes": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "the model cannot be loaded (ImportError",
    ),
}


@pytest.mark.parametrize("what", [*REFUSED, *REFUSED_WHEN_READ])
def test_what_changes_the_model_and_cannot_be_loaded_is_one_line(
    what: str, base: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "m"))
    change, said = (REFUSED | REFUSED_WHEN_READ)[what]
    change(folder)
    assert said in refused(folder, look_too=what in REFUSED)


SAID = {
    "code that is not trusted": (
        config(auto_map={"AutoModelForCausalLM": "own.Own"}),
        "its own code (own.Own) is not run",
    ),
    "weights that nothing reads": (
        tensors("medusa_lm_head.pt"),
        "medusa_lm_head.pt: read by nothing",
    ),
    "a value head": (
        more("v_head.summary.weight", 1, 32),
        "1 weights that LlamaForCausalLM does not have (v_head.summary.weight)",
    ),
    "adapters in folders below": (
        lambda folder: text("adapter_config.json", "{}")(
            (folder / "french").mkdir() or folder / "french"
        ),
        "french: adapters in folders of their own; name FOLDER/french",
    ),
    "adapters two folders below": (
        lambda folder: text("adapter_config.json", "{}")(
            (folder / "step-9/sql").mkdir(parents=True) or folder / "step-9/sql"
        ),
        "step-9/sql: adapters in folders of their own; name FOLDER/step-9/sql",
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_what_is_left_out_is_said(what: str, base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "m"))
    change, said = SAID[what]
    change(folder)
    (line,) = load(ModelSource(str(folder))).unused
    assert line.startswith(said)
    with pytest.warns(UserWarning, match="left out: ") as told:
        rs.Model.load(str(folder))
    assert [w.filename for w in told] == [__file__]


@pytest.mark.parametrize(
    "change",
    [
        shards,
        tensors("optimizer.pt"),
        tensors("training_args.bin"),
        text("generation_config.json", {"top_k": 3}),
    ],
)
def test_what_is_usual_beside_a_model_is_neither_refused_nor_said(
    change: Callable[[Path], None], base: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "m"))
    change(folder)
    found = load(ModelSource(str(folder)))
    assert torch.equal(found.model(IDS).logits, model_of("llama")(IDS).logits)
    assert (found.unused, unused_files(folder)) == ((), ())
