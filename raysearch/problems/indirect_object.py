"""Indirect object identification: of two people one acts, and the other receives; its position and
token are told apart.

"When Mary and John went to the store, John gave a drink to" -> " Mary"

Invariants: every span covers exactly its own word; base and source have the same template and four
different names, so that the names that two variables predict differ, unless the positions agree.
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.problems.option_checks import chosen_names, share, words
from raysearch.problems.text_template import fill

POSITIONS = ("first", "and", "second", "repeated", "verb", "thing")
"""The two names and the "and" between them, the repeated name, the verb and its object; "last" is
the "to".
"""

PLACES = ("first", "second")
"""Position of the receiver's name: the values of `io_position`."""

OTHER_POSITION = 0.75
"""Share of pairs whose source has the other `io_position`; only there does that variable change the
answer.
"""

TEMPLATES: Mapping[str, str] = {
    "store": "When {first} {and} {second} went to the store, {repeated} {verb} a {thing} to",
    "park": "After {first} {and} {second} had met in the park, {repeated} {verb} the {thing} to",
    "school": "While {first} {and} {second} were at school, {repeated} {verb} a {thing} to",
    "dinner": "Then {first} {and} {second} sat down for dinner, and {repeated} {verb} the {thing} "
    "to",
}
"""The sentences, by name."""

_WORDS: Mapping[str, Mapping[str, str]] = {
    "store": {"verb": "gave", "thing": "drink"},
    "park": {"verb": "threw", "thing": "ball"},
    "school": {"verb": "handed", "thing": "book"},
    "dinner": {"verb": "passed", "thing": "bread"},
}

_FIRST_NAMES = """
Mary John Tom James Dan Paul Mark Anna Emma Lisa Kate Sarah Laura Rachel Michael David Robert
William Peter Jack Alice Bob Charlie Daniel Kevin Brian Steve Frank Henry George Simon Martin
Alex Adam Jason Scott Eric Andrew Thomas Matthew Joseph Richard Chris Jane Susan Helen Julia
Maria Karen Linda Nancy Amy Jessica Elizabeth Margaret Ruth Lucy Emily Diana Claire
"""

NAMES = tuple(_FIRST_NAMES.split())
"""First names that are one token of SmolLM2 after a blank."""


def problem(
    names: Sequence[str] = NAMES,
    templates: Sequence[str] = tuple(TEMPLATES),
    other_position: float = OTHER_POSITION,
) -> Problem:
    """Returns the problem over `names` (any, at least four) and `templates` (of TEMPLATES).

    Variables: the inputs `template`, `first`, `second` (the names, in their order) and
    `io_position` (which of the two is named once and receives), and the output `io_token`, the
    receiver's name. A pair's set is "same_position" or "other_position".

    Args:
        other_position: share in [0, 1] of pairs whose source has the other `io_position`.

    Raises:
        CausalModelError: fewer than four names, a name with a blank, an unknown template, or a
            share out of range.
    """
    people = words("indirect_object", "names", names, 4, NAMES[:4])
    used = chosen_names("indirect_object", "templates", templates, TEMPLATES)
    apart = share("indirect_object", "other_position", other_position, OTHER_POSITION)
    return Problem(
        name="indirect_object",
        model=_causal_model(people, used),
        sample=partial(_sample, people, used, apart),
        render=_render,
        answer=_write,
        positions=POSITIONS,
        set_of=_set_of,
    )


def _causal_model(names: tuple[str, ...], templates: tuple[str, ...]) -> CausalModel:
    inputs = (
        Variable("template", templates),
        Variable("first", names),
        Variable("second", names),
        Variable("io_position", PLACES),
    )
    return CausalModel(
        variables=(*inputs, Variable("io_token", names)),
        parents={"io_token": ("first", "second", "io_position")},
        mechanisms={"io_token": _named_at},
        output="io_token",
    )


def _named_at(first: str, second: str, io_position: str) -> Value:
    return first if io_position == "first" else second


def _sample(
    names: tuple[str, ...], templates: tuple[str, ...], other_position: float, rng: random.Random
) -> tuple[Setting, Setting]:
    """Draws one template, four names and the base's position, uniformly."""
    template = rng.choice(templates)
    first, second, third, fourth = rng.sample(names, 4)
    place, other = rng.sample(PLACES, 2)
    moved = other if rng.random() < other_position else place
    base = {"template": template, "first": first, "second": second, "io_position": place}
    return base, {"template": template, "first": third, "second": fourth, "io_position": moved}


def _render(values: Setting) -> Input:
    """Returns the sentence, with the span of each of POSITIONS."""
    template, first, second = str(values["template"]), str(values["first"]), str(values["second"])
    repeated = second if values["io_position"] == "first" else first
    fillers = {
        "first": first,
        "and": "and",
        "second": second,
        "repeated": repeated,
        **_WORDS[template],
    }
    return Input(*fill(TEMPLATES[template], fillers), dict(values))


def _write(name: Value) -> str:
    return f" {name}"


def _set_of(base: Setting, source: Setting) -> str:
    return "same_position" if base["io_position"] == source["io_position"] else "other_position"
