"""Every prompt of a chat template is tried in a process of its own, in one start of it."""

import signal
import subprocess
from typing import Any

import pytest
from transformers import AutoTokenizer

from raysearch import Input, Pair
from raysearch.core.prompt_format import PromptFormat
from raysearch.engine.encoding import chat_template
from raysearch.engine.encoding.encode import encode
from raysearch.engine.encoding.tokenized_texts import TokenizedTexts
from raysearch.errors import ModelError
from tests.cli.conftest import QUICKSTART

MODEL = QUICKSTART.parent / "planted" / "model"
FOR_ONE = (
    "{% if '9' in messages[0]['content'] %}"
    + "{% for i in range(99999) %}" * 3
    + "{% endfor %}" * 3
    + "{% endif %}{{ messages[0]['content'] }}"
)
CHAT = PromptFormat(chat_template=True)


def tokenizer(text: str) -> Any:
    made = AutoTokenizer.from_pretrained(MODEL)
    made.chat_template = text
    return made


def pairs(*texts: str) -> list[Pair]:
    return [
        Pair(
            i,
            Input(t),
            {"source": Input("1+2+3=")},
            {"base": "6", "source": "6"},
            {"v": "6"},
            "test",
        )
        for i, t in enumerate(texts)
    ]


def test_a_template_that_does_not_end_on_a_later_prompt_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 1.0)
    with pytest.raises(ModelError, match="takes more than 1 s"):
        encode(pairs("1+1+1=", "9+1+1="), tokenizer(FOR_ONE), (), ("v",), CHAT)


def test_a_hundred_prompts_are_tried_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started, run = [], subprocess.run

    def counted(*given: Any, **more: Any) -> Any:
        started.append(given)
        return run(*given, **more)

    monkeypatch.setattr(chat_template.subprocess, "run", counted)
    texts = [f"{i // 10}+{i % 10}+1=" for i in range(100)]
    assert (
        len(encode(pairs(*texts), tokenizer("{{ messages[0]['content'] }}"), (), ("v",), CHAT))
        == 100
    )
    assert len(started) == 1


def test_a_trial_that_cannot_begin_is_a_refusal_and_no_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_template, "_PYTHON", "/bin/false")
    made = tokenizer("{{ messages[0]['content'] }}{{ 'another one' }}")
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as `results` takes it
    try:
        with pytest.raises(ModelError, match="it cannot be tried in a process of its own"):
            TokenizedTexts(made, CHAT)
    finally:
        signal.signal(signal.SIGPIPE, before)
