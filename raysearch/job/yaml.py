"""The text of a job file: YAML to a mapping, with `--set` put in.

Invariants: a key given twice is an error; what cannot be read is said in one line, with its line
and column.
"""

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from raysearch.errors import JobError
from raysearch.limits import JOB_BYTES, TooLargeError, read_at_most


def read_mapping(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the mapping in a YAML file. `keys`: those that it may have, for the error. Raises:
    JobError in one line."""
    try:
        text = read_at_most(path, JOB_BYTES).decode("utf-8").replace("\r\n", "\n")
    except TooLargeError as e:
        raise JobError(f"{path}: {e}; give the path of a job file") from e
    except OSError as e:
        raise JobError(f"{path}: cannot be read ({e.strerror}); give the path of a job file") from e
    except UnicodeDecodeError as e:
        raise JobError(f"{path}: is no text in UTF-8 (byte {e.start}); a job file is YAML") from e
    return parse_mapping(text, str(path), keys)


def parse_mapping(text: str, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the mapping of a YAML text; errors name `where`. Raises: JobError in one line."""
    raw = _loaded(text, where)
    if not isinstance(raw, dict):
        raise JobError(
            f"{where}: holds {_kind(raw)}; a job file is a mapping with the keys {', '.join(keys)}"
        )
    return raw


def assign(raw: dict[str, Any], assignment: str) -> None:
    """Puts "a.b=c" into `raw`, c typed as YAML. Raises: JobError for what is no assignment."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise JobError(
            f"--set {assignment}: is not of the form key.path=value, such as --set "
            f"test.threshold=0.9"
        )
    *folders, last = key.split(".")
    place = raw
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise JobError(f"--set {assignment}: {folder} is no mapping in the job file")
    place[last] = _loaded(text, f"--set {assignment}")


def _loaded(text: str, where: str) -> Any:
    """Raises: JobError for what is no YAML, or nothing that a job could hold."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise JobError(f"{where}: {_one_line(e)}") from e
    except RecursionError as e:
        raise JobError(
            f"{where}: line 1: is nested too deep to be read; a job has three or four levels"
        ) from e
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as e:  # of PyYAML's own constructors
        raise JobError(
            f"{where}: holds a value that cannot be read ({' '.join(str(e).split())[:200]}); put "
            f"it in quotes"
        ) from e


class _Loader(yaml.SafeLoader):
    """YAML as a reader expects it: a key given twice is an error, 1e-3 is a number."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a word", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice; keep one", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    found: int = loader.construct_yaml_int(node)
    str(found)  # raises ValueError for thousands of digits, which hexadecimal ones may have too
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _kind(raw: Any) -> str:
    return "nothing" if raw is None else f"a {type(raw).__name__}"


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return (
            f"character {error.position}: {chr(error.character)!r} may not stand in YAML; take it "
            "out"
        )
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return " ".join(f"{place}{what}".split())
