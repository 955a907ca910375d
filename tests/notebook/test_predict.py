"""What a model says next: of a language model and of a network on tensors, as text, HTML, Arrow and
pandas."""

from typing import Any

import pytest
import torch

import raysearch as rs
from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.factory import load_module
from tests.engine.worlds import loaded, model_of, word_tokenizer
from tests.notebook.test_job_arguments import NETS

TEXT = "w1 w2 <b>w3"


@pytest.fixture(scope="module")
def model() -> rs.Model:
    return rs.Model(loaded(model_of("llama"), word_tokenizer(before=True)), "tiny")


def test_a_prediction_is_what_the_model_puts_out(model: rs.Model) -> None:
    text = "w1 w2 w3"
    found = model.predict(text, top=3)
    logits = model_of("llama")(torch.tensor([model._texts[text].ids])).logits[0, -1]
    assert found.ids == tuple(logits.topk(3).indices.tolist())
    assert found.answers == tuple(model._word(i) for i in found.ids)
    assert found.logits == pytest.approx(logits.topk(3).values.tolist(), abs=1e-5)
    assert found.probabilities == pytest.approx(
        logits.softmax(-1).topk(3).values.tolist(), abs=1e-6
    )
    assert len(model.predict(text).ids) == 5
    assert sum(model.predict(text, top=len(logits)).probabilities) == pytest.approx(1)


def test_it_is_shown_as_a_table_everywhere(model: rs.Model) -> None:
    found = model.predict("w1 w2", top=2)
    assert found.table.column_names == ["rank", "answer", "id", "probability", "logit"]
    assert found.to_arrow().to_pylist()[1]["rank"] == 2
    assert found.to_pandas()["id"].tolist() == list(found.ids)
    assert len(str(found).splitlines()) == 1 + 1 + 2
    assert repr(found.answers[0]) in str(found)
    assert found._repr_html_().count("<tr>") == 3


def test_what_stands_in_a_text_is_no_html() -> None:
    shown = rs.notebook.prediction.NextTokens("<b>", ("<i>",), (1,), (1.0,), (0.0,))._repr_html_()
    assert "<b>" not in shown
    assert "<i>" not in shown


@pytest.mark.parametrize("text", ["", 3, None, ["w1"], b"w1"])
def test_what_is_no_text_is_one_line(model: rs.Model, text: Any) -> None:
    with pytest.raises(rs.RaysearchError, match=r"predict: got .*; give a text, not empty"):
        model.predict(text)


@pytest.mark.parametrize("top", [0, -1, 10**6, "5", 2.0, True, None])
def test_a_top_that_is_no_number_of_tokens_is_one_line(model: rs.Model, top: Any) -> None:
    with pytest.raises(
        rs.RaysearchError, match=r"predict: top: got .*; give a whole number from 1 to 40"
    ):
        model.predict("w1 w2", top)


def test_other_looks_refuse_what_is_no_text(model: rs.Model) -> None:
    for look in (
        lambda: model.tokens(3),
        lambda: model.swap(1, 2, 3),
        lambda: model.scan("w1", None),
    ):  # type: ignore[arg-type]
        with pytest.raises(rs.RaysearchError, match="is no text; give a text"):
            look()
    with pytest.raises(rs.RaysearchError, match="new_tokens: got -1"):
        model.generate("w1 w2", "w1 w3", 0, new_tokens=-1)


def test_a_network_on_tensors_predicts_classes() -> None:
    net = load_module(ModelSource(f"{NETS}:trained", is_factory=True)).module.train()
    numbers = torch.linspace(-1, 1, 16)
    for given in (numbers, numbers.numpy(), numbers.tolist()):
        found = rs.TensorModel(net).predict(given)
        assert found.answers == tuple(map(str, found.ids))
        assert found.logits == pytest.approx(
            net(numbers[None])[0].topk(2).values.tolist(), abs=1e-5
        )
    assert net.training
    assert rs.TensorModel.load(f"{NETS}:trained").predict(numbers, top=1).ids == found.ids[:1]
    for wrong, said in (
        (numbers[:3], r"does not run on the input, a float32 tensor of shape \[3\]"),
        ("text", "takes tensors"),
        ([], "holds no number"),
    ):
        with pytest.raises(rs.RaysearchError, match=said):
            rs.TensorModel(net).predict(wrong)


class _Table(torch.nn.Module):
    """A network without a module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.eye(3))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers @ self.weights


@pytest.mark.parametrize("net", [_Table(), torch.nn.Linear(3, 3)])
def test_a_network_without_layers_predicts_too(net: torch.nn.Module) -> None:
    assert rs.TensorModel(net).predict(torch.eye(3)[1]).ids == tuple(
        net(torch.eye(3)[1]).argsort(descending=True).tolist()
    )


def test_a_prediction_on_a_terminal_obeys_nothing_in_the_text(model: rs.Model) -> None:
    assert "\x1b" not in str(model.predict("w1 \x1b[31mw2"))
