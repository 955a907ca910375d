"""Finds the files that hold pairs: one file, a folder of parts, or a folder of
`datasets.save_to_disk`.

Invariants: the order of parts depends on their names alone; hidden files, and those whose name
starts with an underscore (`_SUCCESS`), are no parts; all parts have one format.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from raysearch.causal import Split
from raysearch.errors import JobError, PairsError

STATE, DATASETS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
"""Files by which `datasets.save_to_disk` marks a folder of one dataset, and one of several splits;
and a further file in the latter.
"""
SPLITS: Mapping[str, Split] = {
    "fit": "fit",
    "train": "fit",
    "test": "test",
    "holdout": "holdout",
    "validation": "holdout",
    "valid": "holdout",
    "val": "holdout",
    "dev": "holdout",
}
"""Our splits by the names that data sets give theirs."""
_KINDS = {
    "Parquet": (".parquet", ".parq", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
    "JSON lines": (".jsonl", ".ndjson", ".json"),
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_FROM_FOLDERS = ("split", "set")
"""Fields that folder names may give (`split=test/part-0.parquet`)."""


@dataclass(frozen=True, slots=True)
class PairsPart:
    """A file of pairs; `given` has the fields that its place gives to pairs that lack them."""

    path: Path
    given: Mapping[str, str] = field(default_factory=dict)


def parts_of(path: Path) -> tuple[PairsPart, ...]:
    """Returns the files that hold the pairs at `path`.

    Raises:
        JobError: there is nothing.
        PairsError: a folder holds something else.
    """
    if path.is_file():
        return (PairsPart(path),)
    if not path.is_dir():
        raise JobError(
            f"problem.pairs: there is no file {path}; give a JSONL or Parquet file of pairs"
        )
    try:
        if (path / DATASETS).is_file():
            return _split_parts(path)
        if (path / STATE).is_file():
            return tuple(PairsPart(file) for file in _arrow_files(path))
        return _folder_parts(path)
    except OSError as e:
        raise PairsError(
            f"{path}: cannot be read ({e.strerror or e}); give a file of pairs, or a folder of them"
        ) from e


def _split_parts(path: Path) -> tuple[PairsPart, ...]:
    """Returns the parts of a saved DatasetDict.

    If it has one split only, its name is ignored, and the pairs are assigned to splits.
    """
    names = _listed(path / DATASETS, "splits")
    unknown = [name for name in names if name.lower() not in SPLITS]
    if len(names) > 1 and unknown:
        raise PairsError(
            f"{path}: has the splits {', '.join(names)}, of which {', '.join(unknown)} is none of "
            f"{', '.join(SPLITS)}; rename it, or give one of them alone: {path / names[0]}"
        )
    return tuple(
        PairsPart(file, {"split": SPLITS[name.lower()]} if len(names) > 1 else {})
        for name in names
        for file in _arrow_files(path / name)
    )


def _arrow_files(path: Path) -> list[Path]:
    """Returns the Arrow files of a saved Dataset, in the order of its rows."""
    state = _json(path / STATE)
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and isinstance(f.get("filename"), str) for f in files
    ):
        raise PairsError(
            f"{path / STATE}: does not list its files; save the dataset again (save_to_disk)"
        )
    names = [file["filename"] for file in files]
    if wrong := next((name for name in names if Path(name).name != name), None):
        raise PairsError(
            f"{path / STATE}: names {wrong}, which is no file of that folder; save the dataset "
            f"again (save_to_disk)"
        )
    if lost := next((name for name in names if not (path / name).is_file()), None):
        raise PairsError(f"{path}: lacks {lost}, which its {STATE} names; copy the folder whole")
    return [path / name for name in names]


def _listed(path: Path, key: str) -> list[str]:
    names = _json(path).get(key)
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(n, str) and Path(n).name == n for n in names)
    ):
        raise PairsError(f"{path}: does not list its {key}; save the dataset again (save_to_disk)")
    return names


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise PairsError(
            f"{path}: cannot be read ({str(e)[:120]}); copy the folder whole, or save it again"
        ) from e
    return found if isinstance(found, dict) else {}


def _folder_parts(path: Path) -> tuple[PairsPart, ...]:
    files = [file for file in _walk(path) if kind_of(file) is not None]
    kinds = sorted({kind for file in files if (kind := kind_of(file)) is not None})
    if not kinds:
        raise PairsError(
            f"{path}: is a folder without a file of pairs; give one with parts (.parquet, .arrow, "
            ".jsonl), one of datasets.save_to_disk, or name a file"
        )
    if len(kinds) > 1:
        raise PairsError(
            f"{path}: holds files of several kinds ({', '.join(kinds)}); name the file or folder "
            f"that is meant"
        )
    return tuple(PairsPart(file, _hive_fields(file.relative_to(path).parts[:-1])) for file in files)


def kind_of(file: Path) -> str | None:
    """Returns the format of a file by its name (Parquet, Arrow or JSON lines); None if it is no
    part.
    """
    suffixes = [suffix.lower() for suffix in file.suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] and suffixes[-1] in _PACKED else suffixes[-1:]
    if file.name.lower() in (STATE, DATASETS, INFO, "dataset_infos.json"):
        return None
    return next((kind for kind, names in _KINDS.items() if last and last[0] in names), None)


def _walk(folder: Path) -> list[Path]:
    """Returns the files below a folder, by name, without following links to folders."""
    found: list[Path] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            found += [] if entry.is_symlink() else _walk(entry)
        elif entry.is_file():
            found.append(entry)
    return found


def _hive_fields(folders: Sequence[str]) -> dict[str, str]:
    """Returns the fields in folder names, written as in Hive and Spark: key=value."""
    fields = (name.partition("=") for name in folders)
    return {
        k: unquote(v)
        for k, eq, v in fields
        if eq and k in _FROM_FOLDERS and v != "__HIVE_DEFAULT_PARTITION__"
    }
