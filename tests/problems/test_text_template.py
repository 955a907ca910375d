"""Frames: words in gaps, and where they stand."""

from hypothesis import given
from hypothesis import strategies as st

from raysearch import fill

WORD = st.text("abc é.", min_size=1, max_size=5)


@given(
    st.lists(st.tuples(st.text("xyz ,", max_size=4), WORD), max_size=5), st.text("xyz", max_size=3)
)
def test_every_span_cuts_out_the_word_of_its_gap(parts: list[tuple[str, str]], end: str) -> None:
    frame = "".join(f"{before}{{gap{at}}}" for at, (before, _) in enumerate(parts)) + end
    words = {f"gap{at}": word for at, (_, word) in enumerate(parts)}
    text, spans = fill(frame, words)
    assert text == frame.format(**words)
    assert {name: text[start:stop] for name, (start, stop) in spans.items()} == words
    assert list(spans) == list(words)


def test_words_without_a_gap_are_not_looked_at() -> None:
    assert fill("The {a}.", {"a": "cat", "b": "dog"}) == ("The cat.", {"a": (4, 7)})
