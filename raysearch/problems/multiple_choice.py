"""Multiple choice: a question whose choices have random letters; slot and letter of the right one
are told apart.

"The ball is red. What color is the ball?\\nQ. blue\\nX. red\\nB. green\\nK. white\\nAnswer:" -> "
X"

Invariants: every span covers exactly its own word; base and source offer the same colors, each in
its own order, and share either no letter or all of them slot by slot, so that each variable has a
counterfactual on every pair.
"""

import random
from collections.abc import Sequence
from functools import partial
from string import ascii_uppercase

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import share, whole, words
from raysearch.problems.text_template import fill

CHOICES = 4
"""Default number of choices in a question."""

LETTERS = tuple(ascii_uppercase)

COLORS = (
    "red", "blue", "green", "yellow", "white", "black",
    "brown", "orange", "pink", "purple", "gray", "gold",
)  # fmt: skip

THINGS = (
    "ball", "car", "house", "box", "book", "cup",
    "hat", "door", "shirt", "chair", "bag", "bird",
)  # fmt: skip

OTHER_SLOT = 0.75
"""Share of pairs whose source has its right choice in another slot; only there does
`answer_pointer` change anything.
"""

SAME_LETTERS = 0.0
"""Share of pairs whose source has the base's letters, and its right choice in another slot."""

CUE = "\nAnswer:"
"""Text after the choices."""


def problem(
    choices: int = CHOICES,
    letters: Sequence[str] = LETTERS,
    colors: Sequence[str] = COLORS,
    things: Sequence[str] = THINGS,
    other_slot: float = OTHER_SLOT,
    same_letters: float = SAME_LETTERS,
    cue: str = CUE,
) -> Problem:
    """Returns the problem with `choices` (2 to 8) lettered choices, made of `letters`, `colors` and
    `things`.

    Variables: the inputs `thing`, `color` (the right one), `choices` (the colors, in the order of
    the slots) and `letters` (of the slots); `answer_pointer`, the slot of the right color, 1 to
    `choices`; the output `answer_token`, the letter of that slot. A pair's set is "same_slot",
    "other_slot" or "other_slot_same_letters". Positions: "color" (in the first sentence),
    "letter1", "choice1", ... (of each slot), "right_letter" and "right_choice" (of the right one).

    Args:
        other_slot: share in [0, 1] of pairs whose source has the right color in another slot.
        same_letters: share in [0, 1] of pairs whose source has another slot and the base's letters,
            whatever `other_slot` is.
        cue: end of the text; leave it empty if a chat template asks for the answer.

    Raises:
        CausalModelError: a number or share is out of range, a word has a blank, or there are too
            few letters (twice `choices`) or colors (`choices`).
    """
    choices = whole("multiple_choice", "choices", choices, 2, 8, CHOICES)
    signs = words("multiple_choice", "letters", letters, 2 * choices, LETTERS[: 2 * choices])
    hues = words("multiple_choice", "colors", colors, choices, COLORS[:choices])
    named = words("multiple_choice", "things", things, 1, THINGS[:2])
    apart = share("multiple_choice", "other_slot", other_slot, OTHER_SLOT)
    alike = share("multiple_choice", "same_letters", same_letters, SAME_LETTERS)
    if not isinstance(cue, str):
        raise CausalModelError(
            f"multiple_choice: cue: got {cue!r}; it must be a text, such as {CUE!r}, or empty"
        )
    slots = tuple(range(1, choices + 1))
    return Problem(
        name="multiple_choice",
        model=_causal_model(slots, signs, hues, named),
        sample=partial(_sample, slots, signs, hues, named, apart, alike),
        render=partial(_render, cue),
        answer=_write,
        positions=(
            "color",
            *(f"{kind}{slot}" for slot in slots for kind in ("letter", "choice")),
            *_RIGHT,
        ),
        set_of=_set_of,
        choices=_letters_of,
    )


_RIGHT = ("right_letter", "right_choice")


def _causal_model(
    slots: tuple[int, ...],
    letters: tuple[str, ...],
    colors: tuple[str, ...],
    things: tuple[str, ...],
) -> CausalModel:
    return CausalModel(
        variables=(
            Variable("thing", things),
            Variable("color", colors),
            Variable("choices"),  # any order of any of the colors
            Variable("letters"),  # as many of the letters, in any order
            Variable("answer_pointer", slots),
            Variable("answer_token", letters),
        ),
        parents={
            "answer_pointer": ("color", "choices"),
            "answer_token": ("answer_pointer", "letters"),
        },
        mechanisms={"answer_pointer": _slot_of, "answer_token": _letter_at},
        output="answer_token",
    )


def _slot_of(color: str, choices: tuple[str, ...]) -> Value:
    return 1 + choices.index(color)


def _letter_at(answer_pointer: int, letters: tuple[str, ...]) -> Value:
    return letters[answer_pointer - 1]


def _sample(
    slots: tuple[int, ...],
    letters: tuple[str, ...],
    colors: tuple[str, ...],
    things: tuple[str, ...],
    other_slot: float,
    same_letters: float,
    rng: random.Random,
) -> tuple[Setting, Setting]:
    """Draws a base and a source with the same colors; the base's slot is uniform."""
    count = len(slots)
    offered, signs = rng.sample(colors, count), rng.sample(letters, 2 * count)
    slot = rng.choice(slots)
    alike = same_letters > 0 and rng.random() < same_letters
    moved = (
        rng.choice([s for s in slots if s != slot]) if alike or rng.random() < other_slot else slot
    )
    base = _question(rng.choice(things), rng.sample(offered, count), signs[:count], slot)
    theirs = signs[:count] if alike else signs[count:]
    return base, _question(rng.choice(things), rng.sample(offered, count), theirs, moved)


def _question(thing: str, choices: Sequence[str], letters: Sequence[str], slot: int) -> Setting:
    return {
        "thing": thing,
        "color": choices[slot - 1],
        "choices": tuple(choices),
        "letters": tuple(letters),
    }


def _render(cue: str, values: Setting) -> Input:
    """Returns the question and its choices, with the span of each position."""
    choices, letters = values["choices"], values["letters"]
    assert isinstance(choices, tuple)
    assert isinstance(letters, tuple)
    lines = "".join(f"\n{{letter{slot}}}. {{choice{slot}}}" for slot in range(1, len(choices) + 1))
    fillers = {
        "thing": str(values["thing"]),
        "again": str(values["thing"]),
        "color": str(values["color"]),
    }
    for slot, (letter, choice) in enumerate(zip(letters, choices, strict=True), start=1):
        fillers |= {f"letter{slot}": letter, f"choice{slot}": choice}
    text, spans = fill(f"The {{thing}} is {{color}}. What color is the {{again}}?{lines}", fillers)
    right = values["answer_pointer"]
    spans |= {"right_letter": spans[f"letter{right}"], "right_choice": spans[f"choice{right}"]}
    return Input(
        text + cue,
        {name: span for name, span in spans.items() if name not in ("thing", "again")},
        dict(values),
    )


def _write(letter: Value) -> str:
    return f" {letter}"


def _set_of(base: Setting, source: Setting) -> str:
    if _slot(base) == _slot(source):
        return "same_slot"
    return "other_slot_same_letters" if base["letters"] == source["letters"] else "other_slot"


def _letters_of(values: Setting) -> Sequence[Value]:
    letters = values["letters"]
    assert isinstance(letters, tuple)
    return letters


def _slot(values: Setting) -> Value:
    choices, color = values["choices"], values["color"]
    assert isinstance(choices, tuple)
    return 1 + choices.index(color)
