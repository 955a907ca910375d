"""Capitals and official languages of countries: two relations, so that country, relation and answer
are told apart.

"In the country of Spain, the official capital is" -> " Madrid"; "... the official language is" -> "
Spanish".

Invariants: the two sentences differ in one word, so that every position is at the same place in
base and source; the two countries of a pair share neither capital nor language, so that the only
counterfactual that ever equals the base's answer is that of `relation`, if base and source have the
same one.
"""

import random
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import share

RELATIONS = ("capital", "language")
"""The two relations; each is also the one word in which their sentences differ."""

POSITIONS = ("country", "comma", "the", "official", "relation")
"""The country and the words after it, in their order; the "is" after them is the built-in position
"last".
"""

OTHER_RELATION = 0.75
"""Share of pairs whose source has the other relation.

Only there does `relation` change anything, and only there do `country` and `answer` predict
different outputs. A site that carries the answer alone matches `country` on the rest (a quarter)
and is soon rejected; with one half it would take three times the pairs. The rest gives keep pairs
of `relation` and results per set.
"""

_TABLE = """
Afghanistan: Kabul, Pashto; Albania: Tirana, Albanian; Algeria: Algiers, Arabic;
Angola: Luanda, Portuguese; Argentina: Buenos Aires, Spanish; Armenia: Yerevan, Armenian;
Australia: Canberra, English; Austria: Vienna, German; Azerbaijan: Baku, Azerbaijani;
Bangladesh: Dhaka, Bengali; Belarus: Minsk, Belarusian; Belgium: Brussels, Dutch;
Belize: Belmopan, English; Benin: Porto-Novo, French; Bhutan: Thimphu, Dzongkha;
Bolivia: La Paz, Spanish; Botswana: Gaborone, English; Brazil: Brasília, Portuguese;
Bulgaria: Sofia, Bulgarian; Cambodia: Phnom Penh, Khmer; Cameroon: Yaoundé, French;
Canada: Ottawa, English; Chad: N'Djamena, French; Chile: Santiago, Spanish;
China: Beijing, Mandarin; Colombia: Bogotá, Spanish; Croatia: Zagreb, Croatian;
Cuba: Havana, Spanish; Cyprus: Nicosia, Greek; Denmark: Copenhagen, Danish; Ecuador: Quito, Spanish;
Egypt: Cairo, Arabic; England: London, English; Estonia: Tallinn, Estonian;
Ethiopia: Addis Ababa, Amharic; Fiji: Suva, English; Finland: Helsinki, Finnish;
France: Paris, French; Georgia: Tbilisi, Georgian; Germany: Berlin, German; Ghana: Accra, English;
Greece: Athens, Greek; Guinea: Conakry, French; Haiti: Port-au-Prince, French;
Honduras: Tegucigalpa, Spanish; Hungary: Budapest, Hungarian; Iceland: Reykjavik, Icelandic;
India: New Delhi, Hindi; Indonesia: Jakarta, Bahasa Indonesia; Iran: Tehran, Persian;
Iraq: Baghdad, Arabic; Ireland: Dublin, Irish; Israel: Jerusalem, Hebrew; Italy: Rome, Italian;
Jamaica: Kingston, English; Japan: Tokyo, Japanese; Jordan: Amman, Arabic;
Kazakhstan: Astana, Kazakh; Kenya: Nairobi, Swahili; Korea: Seoul, Korean;
Kosovo: Pristina, Albanian; Laos: Vientiane, Lao; Latvia: Riga, Latvian; Lebanon: Beirut, Arabic;
Liberia: Monrovia, English; Libya: Tripoli, Arabic; Lithuania: Vilnius, Lithuanian;
Macedonia: Skopje, Macedonian; Madagascar: Antananarivo, Malagasy; Malaysia: Kuala Lumpur, Malay;
Malta: Valletta, Maltese; Mexico: Mexico City, Spanish; Mongolia: Ulaanbaatar, Mongolian;
Morocco: Rabat, Arabic; Mozambique: Maputo, Portuguese; Myanmar: Naypyidaw, Burmese;
Namibia: Windhoek, English; Nepal: Kathmandu, Nepali; Netherlands: Amsterdam, Dutch;
Nicaragua: Managua, Spanish; Niger: Niamey, French; Nigeria: Abuja, English;
Norway: Oslo, Norwegian; Oman: Muscat, Arabic; Pakistan: Islamabad, Urdu;
Paraguay: Asunción, Spanish; Peru: Lima, Spanish; Philippines: Manila, Filipino;
Poland: Warsaw, Polish; Portugal: Lisbon, Portuguese; Qatar: Doha, Arabic;
Romania: Bucharest, Romanian; Russia: Moscow, Russian; Rwanda: Kigali, Kinyarwanda;
Samoa: Apia, Samoan; Scotland: Edinburgh, Scots; Senegal: Dakar, French; Serbia: Belgrade, Serbian;
Slovakia: Bratislava, Slovak; Slovenia: Ljubljana, Slovene; Somalia: Mogadishu, Somali;
Spain: Madrid, Spanish; Sudan: Khartoum, Arabic; Sweden: Stockholm, Swedish;
Switzerland: Bern, German; Syria: Damascus, Arabic; Taiwan: Taipei, Mandarin;
Tanzania: Dodoma, Swahili; Thailand: Bangkok, Thai; Tunisia: Tunis, Arabic; Turkey: Ankara, Turkish;
Uganda: Kampala, English; Ukraine: Kyiv, Ukrainian; Uruguay: Montevideo, Spanish;
Uzbekistan: Tashkent, Uzbek; Venezuela: Caracas, Spanish; Vietnam: Hanoi, Vietnamese;
Wales: Cardiff, Welsh; Yemen: Sana'a, Arabic; Zambia: Lusaka, English; Zimbabwe: Harare, English
"""

FACTS: Mapping[str, Mapping[str, str]] = {
    country: dict(zip(RELATIONS, answers.split(", "), strict=True))
    for country, answers in (fact.strip().split(": ") for fact in _TABLE.split(";"))
}
"""Capital and one official (or the main) language of each country whose name is one token of
SmolLM2.

The name counts after a blank. Countries named as their capital are left out. If several languages
are official, it is the one that SmolLM2 says.
"""

_UNSOLVED = """
Angola Azerbaijan Bangladesh Belize Benin Bhutan Botswana Brazil Chad Ethiopia Fiji Georgia
Ghana Guinea Honduras Iran Jamaica Kazakhstan Kenya Kosovo Liberia Libya Madagascar Malaysia
Malta Mongolia Myanmar Namibia Niger Pakistan Paraguay Turkey Ukraine Uzbekistan
"""

LEFT_OUT: Mapping[str, Sequence[str]] = {
    # A pair's base and source may be solved, and its counterfactual yet ask for the country's other
    # relation.
    "SmolLM2-135M answers at least one of the two relations wrongly": tuple(_UNSOLVED.split()),
    # Copying the country would be right.
    "an answer's first token is the country's own name": ("Belarus", "Mexico"),
    # Dakar and Doha; Kigali and Kinyarwanda; Slovene and Slovak.
    "an answer's first token is that of another answer": ("Rwanda", "Senegal", "Slovenia"),
}
"""Countries of FACTS that are only used if the job names them, by reason."""

COUNTRIES = tuple(c for c in FACTS if not any(c in left_out for left_out in LEFT_OUT.values()))
"""Countries that are used by default."""


def problem(
    countries: Sequence[str] | None = None, other_relation: float = OTHER_RELATION
) -> Problem:
    """Returns the problem over `countries` (of FACTS; default: COUNTRIES).

    Variables: country, relation, answer. A pair's set is "same_relation" or "other_relation".

    Args:
        other_relation: share in [0, 1] of pairs whose source has the other relation.

    Raises:
        CausalModelError: a country is not in FACTS, no two countries differ in both answers, or the
            share is out of range.
    """
    chosen = COUNTRIES if countries is None else _checked(countries)
    source_asked = share("capitals", "other_relation", other_relation, OTHER_RELATION)
    couples = [
        (b, s) for b in chosen for s in chosen if not {*FACTS[b].values()} & {*FACTS[s].values()}
    ]
    if not couples:
        raise CausalModelError(
            f"capitals: countries: {', '.join(chosen) or 'an empty list'}: no two of them differ "
            "in capital and in language; give at least two that do, such as Spain and Italy"
        )
    return Problem(
        name="capitals",
        model=_causal_model(chosen),
        sample=partial(_sample, tuple(couples), source_asked),
        render=_render,
        answer=_write,
        positions=POSITIONS,
        set_of=_set_of,
    )


def _checked(countries: Sequence[str]) -> tuple[str, ...]:
    """Checks that countries are in FACTS; returns each once.

    Raises:
        CausalModelError: one is not.
    """
    if isinstance(countries, str) or not isinstance(countries, Sequence):
        raise CausalModelError(
            f"capitals: countries: got {countries!r}; it must be a list, such as [Spain, Italy]"
        )
    for country in countries:
        if not isinstance(country, str) or country not in FACTS:
            near = get_close_matches(str(country), FACTS, n=3) or ("Spain", "Italy", "Japan")
            raise CausalModelError(
                f"capitals: countries: {country!r} is not one of the {len(FACTS)} whose name is "
                f"one token; it could be {', '.join(near)}"
            )
    return tuple(dict.fromkeys(countries))


def _causal_model(countries: tuple[str, ...]) -> CausalModel:
    answers = tuple(dict.fromkeys(FACTS[c][r] for r in RELATIONS for c in countries))
    return CausalModel(
        variables=(
            Variable("country", countries),
            Variable("relation", RELATIONS),
            Variable("answer", answers),
        ),
        parents={"answer": ("country", "relation")},
        mechanisms={"answer": _look_up},
        output="answer",
    )


def _look_up(country: str, relation: str) -> Value:
    return FACTS[country][relation]


def _sample(
    couples: tuple[tuple[str, str], ...], other_relation: float, rng: random.Random
) -> tuple[Setting, Setting]:
    """Draws two countries that share no answer, and the base's relation, uniformly."""
    base, source = rng.choice(couples)
    relation, other = rng.sample(RELATIONS, 2)
    asked = other if rng.random() < other_relation else relation
    return {"country": base, "relation": relation}, {"country": source, "relation": asked}


def _render(values: Setting) -> Input:
    """Returns the text, such as "In the country of Spain, the official capital is", with the span
    of each of POSITIONS.
    """
    text, spans = "In the country of", {}
    words = (f" {values['country']}", ",", " the", " official", f" {values['relation']}")
    for name, word in zip(POSITIONS, words, strict=True):
        spans[name] = (len(text) + len(word) - len(word.lstrip()), len(text) + len(word))
        text += word
    return Input(text + " is", spans, dict(values))


def _write(answer: Value) -> str:
    return f" {answer}"


def _set_of(base: Setting, source: Setting) -> str:
    return "same_relation" if base["relation"] == source["relation"] else "other_relation"
