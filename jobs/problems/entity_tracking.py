"""Entity tracking: which thing is in which box, in texts of different lengths.

"A pen . C cup old red . C" -> " cup"

Two or three boxes are named by their letters, each with the thing in it, which has up to two
adjectives after it, so that texts and the spans of things differ in length between base and source;
then one of the boxes is asked for.
"""

import random

import raysearch as rs

LETTERS = ("A", "B", "C", "D", "E", "F")
THINGS = (
    "pen",
    "cup",
    "map",
    "key",
    "book",
    "ring",
    "coin",
    "ball",
    "hat",
    "clock",
    "fish",
    "phone",
)
ADJECTIVES = ("old", "new", "red", "blue", "small", "large")
FEWEST, MOST = 2, 3
"""Boxes of a text."""


def problem() -> rs.Problem:
    """Variables: the inputs `boxes` (their letters), `things` (as told, the noun first) and `asked`
    (a letter), and the output `thing`, the noun of what is in that box. Base and source have no
    noun between them; the box that the source asks for is in the base."""
    return rs.Problem(
        name="entity_tracking",
        model=rs.CausalModel(
            variables=(
                rs.Variable("boxes"),
                rs.Variable("things"),
                rs.Variable("asked", LETTERS),
                rs.Variable("thing", THINGS),
            ),
            parents={"thing": ("boxes", "things", "asked")},
            mechanisms={"thing": _looked_up},
            output="thing",
        ),
        sample=_sample,
        render=render,
        answer=lambda thing: f" {thing}",
        positions=("named", "box"),
    )


def _looked_up(boxes: tuple[str, ...], things: tuple[str, ...], asked: str) -> rs.Value:
    return things[boxes.index(asked)].split(" ")[0]


def _sample(rng: random.Random) -> tuple[rs.Setting, rs.Setting]:
    nouns = rng.sample(THINGS, 2 * MOST)
    base = setting(rng, rng.sample(LETTERS, rng.randint(FEWEST, MOST)), nouns[:MOST])
    others = rng.sample(LETTERS, rng.randint(FEWEST, MOST))
    if not set(others) & set(base["boxes"]):
        others[0] = rng.choice(base["boxes"])
    source = setting(rng, others, nouns[MOST:])
    return base, {
        **source,
        "asked": rng.choice([letter for letter in others if letter in base["boxes"]]),
    }


def setting(rng: random.Random, boxes: list[str], nouns: list[str]) -> dict[str, rs.Value]:
    """The boxes hold these things, each with up to two adjectives; one of the boxes is asked for."""
    things = tuple(
        " ".join([noun, *rng.sample(ADJECTIVES, rng.randint(0, 2))])
        for _, noun in zip(boxes, nouns, strict=False)
    )
    return {"boxes": tuple(boxes), "things": things, "asked": rng.choice(boxes)}


def render(values: rs.Setting) -> rs.Input:
    """The text. Positions: the thing that is asked for (`named`) and the letter of its box where it
    is told (`box`); the letter that is asked for is the last token."""
    boxes, things, asked = values["boxes"], values["things"], values["asked"]
    told = [
        "{box} {named} ." if box == asked else f"{box} {thing} ."
        for box, thing in zip(boxes, things, strict=True)
    ]
    words = {"box": str(asked), "named": str(things[boxes.index(asked)])}
    return rs.Input(*rs.fill(" ".join([*told, str(asked)]), words), dict(values))
