"""A page of a run, read as its script reads it."""

import json
from collections.abc import Iterator
from typing import Any

from raysearch.viewer.page import data_in


class Page:
    """The index, and the report: tables by id (a value with its small words on one line), blocks by
    kind, all text."""

    def __init__(self, html: str) -> None:
        _, inside = data_in(html)
        self.index: dict[str, Any] = json.loads(inside["index"])
        self.sections: list[dict[str, Any]] = json.loads(inside["report"])
        self.ids = [section["id"] for section in self.sections]
        self.blocks = [block for section in self.sections for block in _flat(section["blocks"])]
        self.tables: dict[str, list[list[str]]] = {}
        for block in self.of("table"):
            rows = [[_words(value) for value in row] for row in block["rows"]]
            self.tables[block["id"] or f"table {len(self.tables)}"] = [block["head"], *rows]
        said = (text for block in self.blocks for text in _texts(block))
        self.text = " ".join([self.index["run"]["question"], *said])

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Returns the blocks of a kind."""
        return [block for block in self.blocks if block["kind"] == kind]


def _flat(blocks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        yield block
        yield from _flat(block.get("blocks", []))


def _words(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return str(value["text"]) + (f" {value['small']}" if value.get("small") else "")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "blocks":
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)
