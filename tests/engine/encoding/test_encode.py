"""Pairs become tokens: where positions and answers end up, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from raysearch import Input, Pair
from raysearch.causal import EVERY, ONE_SOURCE
from raysearch.engine.encoding.encode import encode, encoding_digest
from raysearch.engine.encoding.positions import common_length
from raysearch.errors import ModelError, PairsError, PositionError
from tests.engine.worlds import (
    POSITIONS,
    letter_tokenizer,
    random_pairs,
    word_tokenizer,
    words_input,
)


def pair_of(base: Input, source: Input | None = None, /, **answers: str) -> Pair:
    given = {"base": " w5", "source": " w6", "x": " w7"} | answers
    return Pair(
        3,
        base,
        {ONE_SOURCE: source or base},
        {"base": given["base"], ONE_SOURCE: given["source"]},
        {"x": given["x"]},
        "test",
    )


def letters(text: str, **spans: tuple[int, int]) -> Input:
    return Input(text, spans)


def encode_letters(
    pair: Pair, *merges: str, positions: tuple[str, ...] = ("p",), before: bool = False
):
    (encoded,) = encode([pair], letter_tokenizer(*merges, before=before), positions, ["x"])
    return encoded


def plain_letters(base: Input, source: Input | None = None) -> Pair:
    return pair_of(base, source, base="z", source="z", x="z")


def test_a_position_is_the_tokens_that_overlap_its_span() -> None:
    pair = pair_of(words_input(["w1", "w2", "w3"], 1), words_input(["w4", "w5", "w6", "w8"], 2))
    (e,) = encode([pair], word_tokenizer(), POSITIONS, ["x"])
    assert e.base_positions == {"first": (0,), "here": (1,), "last": (2,)}
    assert e.source_positions == {"source": {"first": (0,), "here": (2,), "last": (3,)}}


def test_a_token_that_brings_the_blank_before_the_span_is_fine() -> None:
    text = "w1 w2"
    tokens = word_tokenizer()(text, return_offsets_mapping=True)["offset_mapping"]
    assert tokens[1] == (2, 5)  # the blank is in the token, not in the span
    (e,) = encode([pair_of(Input(text, {"p": (3, 5)}))], word_tokenizer(), ["p"], ["x"])
    assert e.base_positions["p"] == (1,)


def test_a_token_that_brings_a_letter_from_outside_the_span_is_refused() -> None:
    with pytest.raises(
        PositionError, match=r"pair 3: position 'p' of the base: .*'bc'.*token 0 is 'ab'.*'abcd'"
    ):
        encode_letters(plain_letters(letters("abcd", p=(1, 3))), "a|b", "c|d")


@pytest.mark.parametrize("span", [(0, 3), (1, 4)])
def test_an_edge_that_falls_between_tokens_is_fine(span: tuple[int, int]) -> None:
    e = encode_letters(plain_letters(letters("abcd", p=span)), "b|c")
    assert e.base_positions["p"] == ((0, 1) if span == (0, 3) else (1, 2))


def test_a_span_of_several_tokens_has_all_of_them() -> None:
    assert encode_letters(plain_letters(letters("abcdef", p=(1, 5)))).base_positions["p"] == (
        1,
        2,
        3,
        4,
    )


def test_a_span_within_one_token_is_refused_although_it_overlaps() -> None:
    with pytest.raises(PositionError, match="reaches over its edge"):
        encode_letters(plain_letters(letters("abc", p=(0, 1))), "a|b")


def test_a_span_that_matches_no_token_is_refused() -> None:
    # The word tokenizer has no token of its own for what this one throws away: blanks between
    # words.
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    with pytest.raises(
        PositionError, match=r"pair 3: position 'p' of the base: .* matches no token of 'a b'"
    ):
        encode(
            [pair_of(Input("a b", {"p": (1, 2)}), base=" a", source=" a", x=" b")],
            tokenizer,
            ["p"],
            ["x"],
        )


def test_a_special_token_before_the_text_counts_but_belongs_to_no_span() -> None:
    pair = pair_of(words_input(["w1", "w2"], 0))
    (plain,) = encode([pair], word_tokenizer(), POSITIONS, ["x"])
    (framed,) = encode([pair], word_tokenizer(before=True), POSITIONS, ["x"])
    assert framed.base == (1, *plain.base)
    assert framed.base_positions == {
        n: tuple(t + 1 for t in at) for n, at in plain.base_positions.items()
    }
    assert (framed.answers, framed.counterfactual) == (plain.answers, plain.counterfactual)


def test_special_tokens_after_the_text_are_left_out_so_that_the_model_goes_on_from_the_text() -> (
    None
):
    pair = pair_of(words_input(["w1", "w2"], 0))
    assert encode([pair], word_tokenizer(after=True), POSITIONS, ["x"]) == encode(
        [pair], word_tokenizer(), POSITIONS, ["x"]
    )


def test_base_and_source_with_different_token_counts_are_refused_with_both_counts() -> None:
    pair = plain_letters(letters("abcd", p=(0, 2)), letters("abcd", p=(0, 3)))
    with pytest.raises(
        PositionError,
        match=r"pair 3: position 'p' has 2 tokens in the base and 3 in the source.*take",
    ):
        encode_letters(pair)


def test_a_position_that_an_input_lacks_is_refused_and_says_which_there_are() -> None:
    pair = plain_letters(letters("abcd", p=(0, 2)), letters("abcd", q=(0, 2)))
    with pytest.raises(
        PositionError, match="pair 3: the source has no position 'p'; it has q, last"
    ):
        encode_letters(pair)


def test_last_exists_without_being_named() -> None:
    e = encode_letters(plain_letters(letters("abc"), letters("abcde")), positions=())
    assert (e.base_positions, e.source_positions) == ({"last": (2,)}, {"source": {"last": (4,)}})


@pytest.mark.parametrize(
    ("take", "base", "source"),
    [("first", (1,), (2,)), ("last", (2,), (4,)), ("align_right", (1, 2), (3, 4))],
)
def test_tokens_can_be_taken_of_a_span_that_has_more_in_one_input(
    take: str, base: tuple[int, ...], source: tuple[int, ...]
) -> None:
    pair = plain_letters(letters("abcd", p=(1, 3)), letters("abcdef", p=(2, 5)))
    e = encode_letters(pair, positions=(f"p.{take}",))
    assert (e.base_positions[f"p.{take}"], e.source_positions["source"][f"p.{take}"]) == (
        base,
        source,
    )
    back = encode_letters(
        plain_letters(pair.sources["source"], pair.base), positions=(f"p.{take}",)
    )
    assert (back.source_positions["source"][f"p.{take}"], back.base_positions[f"p.{take}"]) == (
        base,
        source,
    )


def test_what_is_aligned_has_as_many_tokens_as_the_shortest_of_all_inputs() -> None:
    one = plain_letters(letters("abcd", p=(0, 4)), letters("abcd", p=(1, 4)))
    pair = replace(
        one,
        sources={**one.sources, "b": letters("abcd", p=(2, 4))},
        answers={**one.answers, "b": "z"},
    )
    e = encode_letters(pair, positions=("p.align_right",))
    at = [e.base_positions, *e.source_positions.values()]
    assert [a["p.align_right"] for a in at] == [(2, 3), (2, 3), (2, 3)]


def test_a_name_of_an_inputs_own_comes_before_what_it_could_be_read_as() -> None:
    e = encode_letters(
        plain_letters(Input("abcd", {"p": (0, 2), "p.last": (3, 4)})), positions=("p.last",)
    )
    assert e.base_positions["p.last"] == (3,)


@pytest.mark.parametrize("before", [False, True])
def test_token_indices_count_from_the_first_of_the_text(before: bool) -> None:
    base = Input("abcd", {}, tokens={"two": (1, 3)})
    e = encode_letters(plain_letters(base), positions=("two", "token_0"), before=before)
    assert e.base_positions == {
        "two": (1 + before, 3 + before),
        "token_0": (before,),
        "last": (3 + before,),
    }


@pytest.mark.parametrize("position", ["token_4", "two"])
def test_a_token_index_beyond_the_text_is_refused_and_says_how_many_there_are(
    position: str,
) -> None:
    pair = plain_letters(
        Input("abcdef", {}, tokens={"two": (0, 4)}), Input("abcd", {}, tokens={"two": (0, 4)})
    )
    with pytest.raises(
        PositionError,
        match=rf"pair 3: position '{position}' of the source: .* no token 4 .*'abcd' has 4",
    ):
        encode_letters(pair, positions=(position,))


def test_all_positions_are_the_tokens_one_by_one_but_special_ones() -> None:
    e = encode_letters(
        plain_letters(letters("abc", p=(0, 1)), letters("bca")), positions=(EVERY,), before=True
    )
    assert e.base_positions == {"token_0": (1,), "token_1": (2,), "token_2": (3,), "last": (3,)}
    assert common_length([e, e]) == 3


def test_all_positions_of_inputs_that_are_not_as_long_are_refused_with_both_counts() -> None:
    with pytest.raises(
        PositionError, match=r"pair 3: positions: all needs .* the base has 3, the source 4; name"
    ):
        encode_letters(plain_letters(letters("abc"), letters("abcd")), positions=(EVERY,))
    short, long = (
        replace(plain_letters(letters(text)), index=i) for i, text in ((1, "abc"), (2, "abcd"))
    )
    with pytest.raises(
        PositionError, match=r"pair 2: positions: all needs .* it has 4, pair 1 3; name"
    ):
        common_length(encode([short, long], letter_tokenizer(), (EVERY,), ["x"]))


def test_the_compared_token_is_the_first_that_the_answer_adds() -> None:
    tokenizer = letter_tokenizer(" |b", " b|c")
    (e,) = encode([pair_of(letters("a"), base=" bcd", source="d", x=" d")], tokenizer, [], ["x"])
    ids = tokenizer.convert_tokens_to_ids
    assert e.answers == {"base": (ids(" bc"),), "source": (ids("d"),)}
    assert e.counterfactual == {"x": (ids(" "),)}


def test_counterfactuals_follow_the_text_of_the_base() -> None:
    pair = pair_of(letters("ab"), letters("cd"), base="z", source="z", x="e")
    assert (
        encode_letters(pair, "d|e", positions=()).counterfactual["x"]
        == encode_letters(pair, positions=()).counterfactual["x"]
    )


@pytest.mark.parametrize(
    ("key", "what"), [("base", "answer of base"), ("x", "counterfactual of variable 'x'")]
)
def test_an_answer_that_changes_the_tokens_of_the_text_is_refused(key: str, what: str) -> None:
    pair = pair_of(letters("xa"), **({"base": "z", "source": "z", "x": "z"} | {key: "b"}))
    with pytest.raises(
        PairsError, match=rf"pair 3: the {what}, 'b', changes the tokens of the text 'xa'"
    ):
        encode_letters(pair, "a|b", positions=())


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(PairsError, match="pair 3: the answer of base is empty"):
        encode_letters(pair_of(letters("a"), base="", source="z", x="z"), positions=())


def test_a_missing_counterfactual_is_refused() -> None:
    with pytest.raises(
        PairsError, match="pair 3: the counterfactual of variable 'y' is missing; the pair has x"
    ):
        encode([pair_of(words_input(["w1"], 0))], word_tokenizer(), [], ["y"])


def test_several_sources_are_encoded_under_their_names() -> None:
    inputs = {n: words_input(["w1", n], 1) for n in ("w2", "w3")}
    pair = Pair(
        0,
        words_input(["w4", "w5"], 0),
        inputs,
        {"base": " w1", "w2": " w2", "w3": " w3"},
        {"x": " w6"},
        "test",
    )
    (e,) = encode([pair], word_tokenizer(), ["here"], ["x"])
    assert e.source_positions == {n: {"here": (1,), "last": (1,)} for n in inputs}
    assert set(e.sources) == set(inputs)
    assert set(e.answers) == {"base", *inputs}


def test_a_pair_is_encoded_the_same_whoever_stands_beside_it() -> None:
    pairs = random_pairs(0, 30)
    together = encode(pairs, word_tokenizer(before=True), POSITIONS, ["x"])
    alone = tuple(
        e for p in pairs for e in encode([p], word_tokenizer(before=True), POSITIONS, ["x"])
    )
    assert together == alone
    assert encoding_digest(together) == encoding_digest(alone)
    assert encoding_digest(together) != encoding_digest(alone[:-1])


def test_ten_thousand_pairs_over_a_hundred_inputs_are_quick() -> None:
    seen: list[int] = []
    tokenizer = word_tokenizer()
    inner = type(tokenizer).__call__

    class Counting(
        type(tokenizer)
    ):  # counts texts, not seconds: seconds are another machine's business
        def __call__(self, texts, **options):
            seen.append(len(texts))
            return inner(self, texts, **options)

    tokenizer.__class__ = Counting
    inputs = [words_input([f"w{i}", f"w{j}"], 1) for i in range(10) for j in range(10)]
    pairs = [
        Pair(
            k,
            inputs[k % 100],
            {ONE_SOURCE: inputs[k // 100]},
            {"base": " w1", ONE_SOURCE: " w2"},
            {"x": " w3"},
            "test",
        )
        for k in range(10_000)
    ]
    assert len(encode(pairs, tokenizer, POSITIONS, ["x"])) == 10_000
    assert seen == [400]  # a hundred texts, alone and with three answers, at once


def test_a_tokenizer_that_does_not_say_where_tokens_stand_is_refused() -> None:
    class Slow(PreTrainedTokenizerBase):
        is_fast = False

    with pytest.raises(ModelError, match="need a fast tokenizer"):
        encode(random_pairs(0, 1), Slow(), [], ["x"])


def test_the_digest_of_a_model_needs_no_torch() -> None:
    code = "import sys, raysearch.engine.loading.model_digest; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
