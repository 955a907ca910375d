"""The notebook's face: swaps and scans of one pair, on a tiny model and on a real one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import raysearch as rs
from raysearch import Input, Pair
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.prompt_format import PromptFormat
from raysearch.engine.encoding.encode import encode
from raysearch.engine.networks.network import LanguageModel
from raysearch.errors import ModelError, PairsError, PositionError
from tests.engine.worlds import loaded, model_of, word_tokenizer

FOLDER = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"
BASE, SOURCE = "w1 w2 w3 w4", "w1 w2 w5 w4"


@pytest.fixture
def tiny() -> rs.Model:
    return rs.Model(loaded(model_of("llama"), word_tokenizer(before=True)), "tiny")


def by_hand(
    model: torch.nn.Module, base: list[int], source: list[int], layer: int, token: int
) -> torch.Tensor:
    kept = {}
    block = model.model.layers[layer]
    handle = block.register_forward_hook(lambda m, i, o: kept.update(seen=o[0, token].clone()))
    model(torch.tensor([source]))
    handle.remove()

    def put(_m: object, _i: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, token] = kept["seen"]
        return out

    handle = block.register_forward_hook(put)
    logits = model(torch.tensor([base])).logits[0, -1]
    handle.remove()
    return logits


def test_texts_are_taken_as_they_are_so_a_chat_is_swapped_by_its_whole_prompt() -> None:
    """As docs/how-to/your-own-model.md says: a search with model.prompt.chat_template saw what the
    template makes of a text."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}w6 {{ m.content }} w7{% endfor %}"
    model = rs.Model(loaded(model_of("llama"), tokenizer), "tiny")
    assert model.tokens(BASE) == ("w1", " w2", " w3", " w4")
    of = Pair(
        0,
        Input(BASE, {"p": (6, 8)}),
        {"s": Input(SOURCE, {"p": (6, 8)})},
        {"base": " w8", "s": " w9"},
        {},
        "test",
    )
    (seen,) = encode([of], tokenizer, ["p"], [], PromptFormat(chat_template=True))
    base, source = (
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        for text in (BASE, SOURCE)
    )
    assert (model._texts[base].ids, model._texts[source].ids) == (seen.base, seen.sources["s"])
    (at,) = seen.base_positions["p"]
    assert model.swap(base, source, 1, "w3", source_position="w5") == model.swap(
        base, source, 1, at
    )
    saved = rs.SavedIntervention(Intervention((Unit(Site(1, "residual", "p")),)), {}, variable="v")
    assert model.swap(base, source, saved, {"p": "w3"}, source_position={"p": "w5"}) == model.swap(
        base, source, 1, at
    )


def test_a_swap_and_every_cell_of_a_scan_are_what_a_hook_by_hand_gives(tiny: rs.Model) -> None:
    network: LanguageModel = tiny._network
    base, source = (list(tiny._texts[t].ids) for t in (BASE, SOURCE))
    scan = tiny.scan(BASE, SOURCE)
    assert scan.path == "replay"
    assert scan.layers == tuple(range(len(network.blocks)))
    assert scan.tokens[1] == tiny.tokens(BASE)[1]
    assert "\n" in scan.tokens[3]  # both tokens, where they differ
    for layer in scan.layers:
        for at in range(len(base)):
            logits = by_hand(network.model, base, source, layer, at)
            assert scan.differences[layer][at] == pytest.approx(
                scan.answers.difference(logits), abs=1e-4
            )
            swap = tiny.swap(BASE, SOURCE, layer, at)
            assert swap.after == pytest.approx(scan.differences[layer][at], abs=1e-4)
            assert swap.before == scan.before
            assert swap.token == tiny._word(int(logits.argmax()))
            assert swap.changed == (swap.token_id != swap.answers.predicted_ids[0])


def test_a_scan_is_a_table_and_a_picture(tiny: rs.Model) -> None:
    scan = tiny.scan(BASE, SOURCE, layers=[0, 2])
    table = scan.table
    assert table.column_names == [
        "layer",
        "token",
        "text",
        "next_token",
        "logit_difference",
        "changed",
    ]
    assert table.num_rows == 2 * len(scan.tokens)
    assert scan._repr_png_().startswith(b"\x89PNG")
    printed = str(scan).splitlines()
    assert len(printed) == 2 + 2 + 1
    assert f"{scan.differences[1][0]:+.2f}" in printed[3]


def test_a_position_is_an_index_or_a_piece_of_the_text(tiny: rs.Model) -> None:
    assert str(tiny.swap(BASE, SOURCE, 1, "w3", source_position="w5")) == str(
        tiny.swap(BASE, SOURCE, 1, 3)
    )
    assert str(tiny.swap(BASE, SOURCE, 1)) == str(tiny.swap(BASE, SOURCE, 1, 4))
    with pytest.raises(PositionError, match="'w9' stands 0 times"):
        tiny.swap(BASE, SOURCE, 1, "w9")
    with pytest.raises(PositionError, match=r"has 5 tokens; 5 is none of them; it has 0\.\.4"):
        tiny.swap(BASE, SOURCE, 1, 5)
    with pytest.raises(PositionError, match=r"\[1, 3\] is no position; give the index"):
        tiny.swap(BASE, SOURCE, 1, [1, 3])  # type: ignore[arg-type]
    with pytest.raises(PositionError, match="no token 4"):
        tiny.swap(BASE, "w1 w2", 1, 4)
    with pytest.raises(PositionError, match="a scan needs as many"):
        tiny.scan(BASE, "w1 w2")
    with pytest.raises(ModelError, match=r"layer '1' has no residual in .*; layers that have"):
        tiny.swap(BASE, SOURCE, "1")  # type: ignore[arg-type]


def test_components_heads_and_answers_can_be_named(tiny: rs.Model) -> None:
    scan = tiny.scan(BASE, SOURCE, component="head", head=1, answers=(" w7", " w8"))
    assert (scan.component, scan.answers.base, scan.answers.source) == ("head 1", " w7", " w8")
    assert tiny.collect(BASE, 0, "w3", "value", head=1).shape == (1, 8)
    with pytest.raises(ModelError, match=r"4 is no head of head in layer 0; it has 0\.\.3"):
        tiny.swap(BASE, SOURCE, 0, component="head", head=4)
    with pytest.raises(ModelError, match="layer 9 has no residual"):
        tiny.swap(BASE, SOURCE, 9)
    with pytest.raises(PairsError, match="adds no token"):
        tiny.swap(BASE, SOURCE, 0, answers=("", " w8"))


def test_generation_goes_on_from_the_swap(tiny: rs.Model) -> None:
    said = tiny.generate(BASE, SOURCE, 3, new_tokens=3)
    assert said.startswith(tiny.swap(BASE, SOURCE, 3).token)


@pytest.mark.slow  # a real model
@pytest.mark.model
@pytest.mark.skipif(
    not (FOLDER / "config.json").is_file(), reason=f"no model in {FOLDER}: make install fetches it"
)
def test_the_three_lines_of_the_readme() -> None:
    model = rs.Model.load(str(FOLDER))
    swap = model.swap(
        "The capital of Spain is", "The capital of Italy is", layer=9, position=" Spain"
    )
    assert (swap.answers.base, swap.token, swap.changed) == (" Madrid", " Rome", True)
    assert (swap.before, swap.after) == (
        pytest.approx(-4.73, abs=0.01),
        pytest.approx(7.04, abs=0.01),
    )
    scan = model.scan("The capital of Spain is", "The capital of Italy is", layers=[0, 22, 23])
    changed = [[token == " Rome" for token in tokens] for tokens in scan.next_tokens]
    assert changed == [[False] * 3 + [True, False]] * 2 + [[False] * 4 + [True]]


def test_importing_raysearch_imports_nothing_heavy() -> None:
    code = "import sys, raysearch; print([m for m in ('torch', 'ray', 'transformers', 'mlflow') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
