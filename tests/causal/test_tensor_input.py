"""Stimuli: tensors as plain values, and inputs that hold one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch import Input
from raysearch.causal import Stimulus, split_of
from raysearch.errors import PairsError

FLOATS = st.floats(-(2.0**60), 2.0**60, width=32)


@given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_numbers_come_back_in_row_major_order(rows: list[list[float]]) -> None:
    stimulus = Stimulus.of(rows)
    assert (stimulus.dtype, stimulus.shape) == ("float32", (len(rows), 3))
    assert list(stimulus.numbers) == [n for row in rows for n in row]
    again = Stimulus.of(rows)
    assert (again, hash(again), again.digest) == (stimulus, hash(stimulus), stimulus.digest)


def test_whole_numbers_stay_whole() -> None:
    assert Stimulus.of([1, 2]).dtype == "int64"
    assert Stimulus.of([1, 2.5]).numbers == (1.0, 2.5)
    assert Stimulus.of([1, 2]) != Stimulus.of([1.0, 2.0])
    assert Stimulus.of([1, 2]).digest != Stimulus.of([[1, 2]]).digest


@pytest.mark.parametrize(
    "values", [[], [[]], [[1], [2, 3]], [[1], 2], ["a"], [None], [[1], "b"], [1e300], [2**70]]
)
def test_what_is_no_tensor_is_refused_in_one_line(values: object) -> None:
    with pytest.raises(PairsError, match="tensor") as refused:
        Stimulus.of(values)
    assert "\n" not in str(refused.value)


def test_bytes_of_another_shape_are_refused() -> None:
    with pytest.raises(PairsError, match=r"8 bytes are no float32 tensor of shape \[3\]"):
        Stimulus("float32", (3,), b"12345678")
    with pytest.raises(PairsError, match="it may be float32, int64"):
        Stimulus("float64", (1,), b"12345678")  # type: ignore[arg-type]


def test_an_input_is_a_text_or_a_tensor_with_positions_of_its_own_kind() -> None:
    stimulus = Stimulus.of([[1.0], [2.0]])
    given = Input(stimulus=stimulus, tokens={"first": (0,), "both": (0, 1)})
    assert (given.positions, given.content) == (("first", "both"), stimulus.digest)
    assert Input("abc", {"x": (0, 1)}, tokens={"y": (2,)}).positions == ("x", "y")
    for wrong, says in [
        (
            {"text": "abc", "stimulus": stimulus},
            r"a text or a tensor; got 'abc' and the tensor of shape \[2, 1\]",
        ),
        ({"stimulus": stimulus, "spans": {"x": (0, 1)}}, "positions of a tensor are token indices"),
        ({"text": "abc", "tokens": {"x": ()}}, "are no token indices"),
        (
            {"text": "abc", "tokens": {"x": (0,)}, "spans": {"x": (0, 1)}},
            "'x' is given as a span and as token indices",
        ),
        ({"stimulus": stimulus, "tokens": {"x": ()}}, "are no token indices"),
        ({"stimulus": stimulus, "tokens": {"x": (-1,)}}, "are no token indices"),
        ({"stimulus": stimulus, "tokens": {"x": (1, 1)}}, "are no token indices"),
        ({"stimulus": stimulus, "tokens": {"last": (1,)}}, "is every input's last token"),
    ]:
        with pytest.raises(PairsError, match=says):
            Input(**wrong)


def test_tensors_fall_to_splits_by_their_content() -> None:
    counts = {"test": 2, "fit": 1, "holdout": 1}
    inputs = [Input(stimulus=Stimulus.of([float(n)])) for n in range(400)]
    splits = [split_of((i.content, i.content), counts, 0) for i in inputs]
    assert splits == [split_of((i.content, i.content), counts, 0) for i in inputs]
    assert 160 <= splits.count("test") <= 240
    assert splits.count("fit") + splits.count("holdout") == 400 - splits.count("test")
