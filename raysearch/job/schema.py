"""The job file as a JSON Schema, for editors, and as a page, for readers: both from the keys
themselves.

Invariants: nothing is said here that the keys do not say; the schema takes every job that the keys
take as YAML types them, and has no key and no value that this version refuses.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from raysearch.core.featurizers import warn_of_unusable
from raysearch.job.job import Job

Schema = Mapping[str, Any]
"""A JSON Schema, or a part of one."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HEAD = """# The job file, key by key

Made from the keys themselves by `raysearch schema --markdown > docs/reference/job-file.md`; do not
edit. `raysearch schema > job.schema.json` writes the JSON Schema with which editors complete and
check job files; the first line of a job then says

    # yaml-language-server: $schema=job.schema.json

A key that is left out has its default. An unknown key is an error, which names the nearest known
one. A text that is a number is read as that number wherever a number may stand (`'1'`, and `1e-3`,
which YAML takes for a text); true and false are none.
"""


def job_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a job file: keys as written, with their words, defaults
    and ranges."""
    warn_of_unusable()
    made = Job.model_json_schema(by_alias=True, mode="validation")
    found: dict[str, Any] = _one_line_words(made)
    return {"$schema": _DIALECT, **found, "title": "A job of raysearch"}


def job_page() -> str:
    """Returns the page in Markdown: a section for each mapping of the file, in the order of the
    file; a table row for each key."""
    schema = job_schema()
    sections = [_section("", schema, schema)]
    sections += [_section(path, part, schema) for path, part in _mappings("", schema, schema)]
    return "\n".join([_HEAD, *sections])


def _one_line_words(value: Any) -> Any:
    """Returns the schema without the line ends of docstrings, which editors would show."""
    if isinstance(value, dict):
        kept = {k: _one_line_words(v) for k, v in value.items()}
        if isinstance(kept.get("description"), str):
            kept["description"] = " ".join(kept["description"].split())
        return kept
    return [_one_line_words(v) for v in value] if isinstance(value, list) else value


def _mappings(path: str, schema: Schema, whole: Schema) -> Iterator[tuple[str, Schema]]:
    """Yields (key path, schema) of every mapping with keys of its own below `schema`, depth
    first."""
    for key, value in schema["properties"].items():
        for suffix, part in _within(value, whole):
            below = f"{path}.{key}{suffix}".removeprefix(".")
            if part.get("properties"):
                yield below, part
                yield from _mappings(below, part, whole)


def _within(value: Schema, whole: Schema) -> Iterator[tuple[str, Schema]]:
    """Yields (suffix of the key path, mapping) of the mappings that a value may be, or hold in
    lists ("[]" for each list)."""
    value = _resolved(value, whole)
    if value.get("type") == "object":
        yield "", value
    for choice in value.get("anyOf", ()):
        yield from _within(choice, whole)
    if isinstance(value.get("items"), dict):
        for suffix, part in _within(value["items"], whole):
            yield f"[]{suffix}", part


def _resolved(value: Schema, whole: Schema) -> Schema:
    """Resolves a reference; keys beside it count too."""
    if "$ref" not in value:
        return value
    named = whole["$defs"][value["$ref"].rpartition("/")[2]]
    return {**named, **{k: v for k, v in value.items() if k != "$ref"}}


def _section(path: str, part: Schema, whole: Schema) -> str:
    title = f"## `{path}`\n\n" if path else ""
    lines = [f"{title}{part['description']}\n", "| key | may be | default | |", "|---|---|---|---|"]
    required = part.get("required", ())
    for key, value in part["properties"].items():
        resolved = _resolved(value, whole)
        default = "needed" if key in required else _default(value)
        words = (f"`{key}`", _kind(value, whole), default, resolved.get("description", ""))
        lines.append(f"| {' | '.join(w.replace('|', '&#124;') for w in words)} |")
    return "\n".join(lines) + "\n"


def _default(value: Schema) -> str:
    """Returns the default as YAML would have it; none for a mapping, whose keys have their own."""
    if "default" not in value or (isinstance(value["default"], dict) and value["default"]):
        return ""
    return f"`{json.dumps(value['default']).strip(chr(34))}`"


def _kind(value: Schema, whole: Schema) -> str:
    """Says in words what a value may be."""
    if "$ref" in value:
        value = _resolved(value, whole)
    if "anyOf" in value:
        return ", or ".join(dict.fromkeys(_kind(choice, whole) for choice in value["anyOf"]))
    if "const" in value:
        return str(value["const"])
    if "enum" in value:
        return ", ".join(str(v) for v in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return f"a list of ({_kind(value['items'], whole)})"
    if kind == "object":
        return (
            "{}"
            if not value.get("properties") and value.get("additionalProperties") is False
            else "a mapping"
        )
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "null",
    }
    return words[str(kind)] + _range(value)


def _range(value: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return f" {', '.join(limits)}" if limits else ""
