"""Chat templates and special tokens: where spans and answers end up, held against the text that the
template itself makes."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from raysearch import Input, Pair
from raysearch.causal import EVERY, ONE_SOURCE, token_name
from raysearch.core.events import Encoded
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.engine.encoding.encode import encode, encoding_digest
from raysearch.errors import ModelError, PairsError, PositionError
from tests.engine.worlds import letter_tokenizer

CHAT = PromptFormat(chat_template=True)
TEMPLATE = "{% for m in messages %}[BOS]{{ m.role }} {{ m.content }}[EOS]{% endfor %}{% if add_generation_prompt %}[BOS]bot {% endif %}"
TRIMMING = TEMPLATE.replace("m.content", "m.content | trim")
BEFORE, AFTER = "[BOS]user ", "[EOS][BOS]bot "


def chatting(
    template: str | None = TEMPLATE, *merges: str, before: bool = False
) -> PreTrainedTokenizerFast:
    tokenizer = letter_tokenizer(*merges, before=before)
    tokenizer.chat_template = template
    return tokenizer


def pair(text: str = "ab cd", span: tuple[int, int] = (3, 5), **answers: str) -> Pair:
    said = {"base": "x", "source": "y", "v": "z", **answers}
    given = Input(text, {"p": span})
    return Pair(
        7,
        given,
        {ONE_SOURCE: given},
        {"base": said["base"], ONE_SOURCE: said["source"]},
        {"v": said["v"]},
        "test",
    )


def encoded(
    tokenizer: PreTrainedTokenizerFast, wording: PromptFormat, of: Pair | None = None
) -> Encoded:
    (one,) = encode([of or pair()], tokenizer, ["p"], ["v"], wording)
    return one


@pytest.mark.parametrize("before", [False, True])
def test_spans_survive_a_chat_template_and_its_special_tokens_are_written_once(
    before: bool,
) -> None:
    tokenizer = chatting(before=before)  # whether it would put [BOS] before a text by itself
    e = encoded(tokenizer, CHAT)
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "ab cd"}], tokenize=False, add_generation_prompt=True
    )
    assert whole == f"{BEFORE}ab cd{AFTER}"
    assert list(e.base) == tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens([e.base[t] for t in e.base_positions["p"]]) == ["c", "d"]
    assert e.base_positions["last"] == (len(e.base) - 1,)
    assert [
        tokenizer.convert_ids_to_tokens(ids[0])
        for ids in (e.answers["base"], e.counterfactual["v"])
    ] == ["x", "z"]
    assert encoding_digest([e]) != encoding_digest([encoded(tokenizer, PLAIN)])


@pytest.mark.parametrize(
    ("special", "template", "begins"),
    [
        (None, False, ["[BOS]", "a"]),
        (True, False, ["[BOS]", "a"]),
        (False, False, ["a", "b"]),
        (None, True, ["[BOS]", "u"]),
        (True, True, ["[BOS]", "[BOS]"]),
    ],
)
def test_special_tokens_are_put_before_a_text_as_asked_and_spans_survive(
    special, template: bool, begins: list[str]
) -> None:
    tokenizer = chatting(before=True)
    e = encoded(tokenizer, PromptFormat(chat_template=template, special_tokens=special))
    assert tokenizer.convert_ids_to_tokens(list(e.base[:2])) == begins
    assert tokenizer.convert_ids_to_tokens([e.base[t] for t in e.base_positions["p"]]) == ["c", "d"]


@pytest.mark.parametrize("wording", [PLAIN, CHAT])
@pytest.mark.parametrize("before", [False, True])
def test_tokens_by_index_are_counted_in_the_text_itself_whatever_stands_around_it(
    wording: PromptFormat, before: bool
) -> None:
    """A single token, some of the job's own, every token, a part of a span: none is of the
    template, none a special token."""
    tokenizer = chatting(before=before)
    given = Input("ab cd", {"p": (3, 5)}, tokens={"some": (0, 3)})
    of = replace(pair(), base=given, sources={ONE_SOURCE: given})
    own = tokenizer("ab cd", add_special_tokens=False)["input_ids"]
    (e,) = encode([of], tokenizer, [EVERY, "token_1", "some", "p.last"], ["v"], wording)

    def at(position: str) -> list[int]:
        assert e.base_positions[position] == e.source_positions[ONE_SOURCE][position]
        return [e.base[t] for t in e.base_positions[position]]

    assert [at(token_name(i)) for i in range(len(own))] == [[id] for id in own]
    assert token_name(len(own)) not in e.base_positions
    assert (at("some"), at("p.last")) == ([own[0], own[3]], [own[-1]])
    assert e.base_positions["token_1"] == (list(e.base).index(own[0]) + 1,)
    with pytest.raises(
        PositionError, match=rf"there is no token {len(own)} .*'ab cd' has {len(own)}"
    ):
        encode([of], tokenizer, [token_name(len(own))], ["v"], wording)


def test_sequences_and_choices_are_of_the_reply() -> None:
    tokenizer = chatting()
    e = encoded(tokenizer, replace(CHAT, compare="sequence"), pair(base="xy", v="zab"))
    assert [
        tokenizer.convert_ids_to_tokens(list(ids))
        for ids in (e.answers["base"], e.counterfactual["v"])
    ] == [
        ["x", "y"],
        ["z", "a", "b"],
    ]
    assert e.longest == 3
    chosen = encoded(
        tokenizer, replace(CHAT, compare="choices"), replace(pair(), choices=("x", "y", "z"))
    )
    assert tokenizer.convert_ids_to_tokens(list(chosen.choices)) == ["x", "y", "z"]


def test_aliases_are_encoded_where_they_follow_and_their_answer_stands_for_them() -> None:
    tokenizer = chatting()
    wording = PromptFormat(compare="sequence", aliases={"xy": ("q", "xz")})
    e = encoded(tokenizer, wording, pair(base="q", v="xy"))
    assert e.answers["base"] == e.counterfactual["v"]  # what is an alias in a file is its answer
    said = [tuple(tokenizer.convert_ids_to_tokens(list(ids)) for ids in one) for one in e.aliases]
    assert said == [(["q"], ["x", "y"]), (["x", "z"], ["x", "y"])]


def test_a_text_that_the_template_changes_is_refused() -> None:
    with pytest.raises(
        PairsError, match=r"changes the text ' ab' \(it makes 'ab.* positions would be lost"
    ):
        encoded(chatting(TRIMMING), CHAT, pair(" ab", (1, 3)))
    assert encoded(chatting(TRIMMING), CHAT, pair("ab", (0, 2))).base_positions["p"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "chat template cannot be used"),
        ("{{ raise_exception('no users') }}", "cannot be used .*no users"),
        ("hello", "does not say what the user says exactly once"),
        (
            "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
            "does not say what the user says exactly once",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_said_in_one_line(
    template: str | None, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as e:
        encoded(chatting(template), CHAT)
    assert "\n" not in str(e.value)


def test_a_token_that_joins_the_text_with_the_template_is_refused() -> None:
    joined = TEMPLATE.replace("{{ m.role }} ", "{{ m.role }}")
    with pytest.raises(
        PositionError, match=r"position 'p' of the base: \[0, 2\) is 'ab', but token \d+ is 'ra'"
    ):
        encoded(chatting(joined, "r|a"), CHAT, pair("ab", (0, 2)))


def test_an_answer_that_joins_the_template_is_refused() -> None:
    with pytest.raises(
        PairsError, match=r"changes the tokens of the text .*bot . when it follows it"
    ):
        encoded(chatting(TEMPLATE, " |x"), CHAT)
