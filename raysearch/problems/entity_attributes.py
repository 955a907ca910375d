"""Attributes of cities: country, language and continent of a city, asked one at a time and told
apart.

Invariants: the two cities of a pair share no attribute; a variable that stands for one attribute
changes the answer if that attribute is asked (its cause pairs) and not otherwise (its isolate
pairs), as in RAVEL (Huang et al. 2024).
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import chosen_names, share
from raysearch.problems.text_template import fill

ATTRIBUTES = ("country", "language", "continent")
"""Attributes of a city: the values of `asked`, and the names of three variables."""

POSITIONS = ("city", "attribute")
"""The city, and the word for the attribute that is asked; "last" is the last word before the
answer.
"""

FRAMES: Mapping[str, str] = {
    "country": "The city of {city} is located in the {attribute} of",
    "language": "In the city of {city}, the main {attribute} is",
    "continent": "The city of {city} is located on the {attribute} of",
}
"""The sentence that asks each attribute."""

OTHER_ASKED = 0.75
"""Share of pairs whose source asks another attribute; only there does `asked` change the answer."""

_COUNTRIES = """
Afghanistan: Pashto, Asia; Austria: German, Europe; Canada: English, North America;
Chile: Spanish, South America; China: Mandarin, Asia; Cuba: Spanish, North America;
Egypt: Arabic, Africa; England: English, Europe; Finland: Finnish, Europe; France: French, Europe;
Germany: German, Europe; Greece: Greek, Europe; Hungary: Hungarian, Europe; India: Hindi, Asia;
Ireland: English, Europe; Italy: Italian, Europe; Japan: Japanese, Asia; Kenya: Swahili, Africa;
Peru: Spanish, South America; Poland: Polish, Europe; Portugal: Portuguese, Europe;
Russia: Russian, Europe; Scotland: English, Europe; Spain: Spanish, Europe;
Switzerland: German, Europe; Syria: Arabic, Asia; Tunisia: Arabic, Africa;
Ukraine: Ukrainian, Europe; Wales: English, Europe
"""

_CITIES = """
Afghanistan: Kabul; Austria: Vienna; Canada: Toronto, Vancouver, Ottawa, Calgary, Edmonton,
Winnipeg; Chile: Santiago; China: Beijing, Shanghai, Wuhan; Cuba: Havana; Egypt: Cairo, Alexandria;
England: London, Manchester, Liverpool, Birmingham, Bristol, Leeds, Oxford, Cambridge, Sheffield,
Nottingham, York; Finland: Helsinki; France: Paris, Lyon, Nice; Germany: Berlin, Munich, Hamburg,
Frankfurt, Cologne, Dresden, Leipzig, Nuremberg, Bonn, Heidelberg; Greece: Athens;
Hungary: Budapest; India: Delhi, Mumbai, Hyderabad; Ireland: Dublin, Cork; Italy: Milan, Venice,
Florence, Naples; Japan: Tokyo, Kyoto, Hiroshima, Nagasaki; Kenya: Nairobi; Peru: Lima;
Poland: Warsaw; Portugal: Lisbon; Russia: Moscow, Petersburg; Scotland: Glasgow; Spain: Madrid,
Barcelona; Switzerland: Bern; Syria: Damascus; Tunisia: Tunis; Ukraine: Kiev; Wales: Cardiff
"""


def _table(text: str) -> dict[str, list[str]]:
    """Parses "name: word, word; name: word" to the words of each name."""
    entries = (entry.strip().split(": ") for entry in text.split(";"))
    return {name: [word.strip() for word in words.split(",")] for name, words in entries}


FACTS: Mapping[str, Mapping[str, str]] = {
    city: dict(zip(ATTRIBUTES, (country, *_table(_COUNTRIES)[country]), strict=True))
    for country, cities in _table(_CITIES).items()
    for city in cities
}
"""Country, language (the country's) and continent of each city.

Each city is one token of SmolLM2 after a blank, and SmolLM2-135M gives all three attributes
correctly. Left out are cities with two answers that begin with the same token (Prague: Czech;
Johannesburg: South), the Australian ones (country and continent have one name), and those for which
a single answer would be wrong (Istanbul, Montreal, Quebec).
"""


def problem(cities: Sequence[str] = tuple(FACTS), other_asked: float = OTHER_ASKED) -> Problem:
    """Returns the problem over `cities` (of FACTS).

    Variables: the inputs `city` and `asked`; `country`, `language` and `continent`, each a function
    of the city; the output `answer`, the attribute that is asked. A pair's set says what its base
    asks: "asks_country" has the cause pairs of `country` and isolate pairs of `language` and
    `continent`.

    Args:
        other_asked: share in [0, 1] of pairs whose source asks another attribute.

    Raises:
        CausalModelError: a city is not in FACTS, no two cities differ in all attributes, or the
            share is out of range.
    """
    known = chosen_names("entity_attributes", "cities", cities, FACTS)
    source_asked = share("entity_attributes", "other_asked", other_asked, OTHER_ASKED)
    couples = [
        (b, s) for b in known for s in known if not {*FACTS[b].values()} & {*FACTS[s].values()}
    ]
    if not couples:
        raise CausalModelError(
            f"entity_attributes: cities: {', '.join(known)}: no two of them differ in country, "
            "language and continent; give at least two that do, such as Paris and Tokyo"
        )
    return Problem(
        name="entity_attributes",
        model=_causal_model(known),
        sample=partial(_sample, tuple(couples), source_asked),
        render=_render,
        answer=_write,
        positions=POSITIONS,
        set_of=_set_of,
    )


def _causal_model(cities: tuple[str, ...]) -> CausalModel:
    values = {a: tuple(dict.fromkeys(FACTS[c][a] for c in cities)) for a in ATTRIBUTES}
    return CausalModel(
        variables=(
            Variable("city", cities),
            Variable("asked", ATTRIBUTES),
            *(Variable(a, values[a]) for a in ATTRIBUTES),
            Variable("answer", tuple(dict.fromkeys(v for a in ATTRIBUTES for v in values[a]))),
        ),
        parents={**dict.fromkeys(ATTRIBUTES, ("city",)), "answer": ("asked", *ATTRIBUTES)},
        mechanisms={**{a: partial(_look_up, a) for a in ATTRIBUTES}, "answer": _pick},
        output="answer",
    )


def _look_up(attribute: str, city: str) -> Value:
    return FACTS[city][attribute]


def _pick(asked: str, *values: str) -> Value:
    return values[ATTRIBUTES.index(asked)]


def _sample(
    couples: tuple[tuple[str, str], ...], other_asked: float, rng: random.Random
) -> tuple[Setting, Setting]:
    """Draws two cities that share no attribute, and what the base asks, uniformly."""
    base, source = rng.choice(couples)
    asked, other = rng.sample(ATTRIBUTES, 2)
    source_asked = other if rng.random() < other_asked else asked
    return {"city": base, "asked": asked}, {"city": source, "asked": source_asked}


def _render(values: Setting) -> Input:
    """Returns the sentence, with the span of each of POSITIONS."""
    asked = str(values["asked"])
    return Input(
        *fill(FRAMES[asked], {"city": str(values["city"]), "attribute": asked}), dict(values)
    )


def _write(answer: Value) -> str:
    return f" {answer}"


def _set_of(base: Setting, source: Setting) -> str:
    return f"asks_{base['asked']}"
