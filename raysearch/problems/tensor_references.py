"""Tensors that a file of pairs names: "file.safetensors#key", or one row,
"file.safetensors#key[3]".

Invariants: a row is read without the rest; floats become float32, whole numbers and truth values
int64, other types are refused.
"""

import re
from pathlib import Path
from typing import Any

from raysearch.causal import Stimulus
from raysearch.errors import PairsError

_NAME = re.compile(r"(?P<file>.+\.safetensors)#(?P<key>.+)")
_ROW = re.compile(r"(?P<key>.+)\[(?P<row>\d+)\]")


def file_of(name: str) -> str | None:
    """Returns the file of "file.safetensors#key"; None if `name` has another form."""
    found = _NAME.fullmatch(name)
    return None if found is None else found["file"]


class TensorFiles:
    """The tensors of files that are in `folder` or are named relative to it; each file is opened
    once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Stimulus:
        """Returns the tensor of "file.safetensors#key", or row 3 (from 0) of
        "file.safetensors#key[3]".

        A key that itself ends in [3] names the whole tensor.

        Raises:
            PairsError: there is no such tensor; the text does not name the line.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise PairsError(
                f"{name!r} names no tensor; write file.safetensors#key, or file.safetensors#key[3] "
                f"for a row"
            )
        path, key = self._folder / found["file"], found["key"]
        file = self._opened(path)
        keys, row = set(file.keys()), _ROW.fullmatch(key)
        if key in keys or row is None or row["key"] not in keys:
            return self._whole(file, path, key, keys)
        part = file.get_slice(row["key"])
        shape, at = part.get_shape(), int(row["row"])
        if len(shape) < 2 or at >= shape[0]:
            has = f"rows 0 to {shape[0] - 1}" if len(shape) > 1 and shape[0] else "no rows"
            raise PairsError(f"{path}: {row['key']} has shape {shape} and so {has}; got row {at}")
        return _stimulus(path, row["key"], lambda: part[at])

    def _whole(self, file: Any, path: Path, key: str, keys: set[str]) -> Stimulus:
        if key not in keys:
            some = sorted(keys)
            shown = ", ".join(some[:6]) + (", ..." if len(some) > 6 else "")
            raise PairsError(f"{path}: has no tensor {key!r}; it has {shown or 'none'}")
        return _stimulus(path, key, lambda: file.get_tensor(key))

    def _opened(self, path: Path) -> Any:
        if path not in self._open:
            from safetensors import safe_open

            try:
                self._open[path] = safe_open(path, framework="numpy")
            except FileNotFoundError as e:
                raise PairsError(
                    f"there is no file {path}; tensors are looked for beside the file of pairs"
                ) from e
            except (
                Exception
            ) as e:  # safetensors raises its own SafetensorError, and others for a truncated file
                raise PairsError(
                    f"{path}: cannot be read as safetensors ({' '.join(str(e).split())[:160]})"
                ) from e
        return self._open[path]


def _stimulus(path: Path, key: str, read: Any) -> Stimulus:
    try:
        array = read()
    except Exception as e:  # numpy has no bfloat16, nor safetensors' smaller floats
        raise PairsError(
            f"{path}: {key} cannot be read ({' '.join(str(e).split())[:160]}); keep it as float32"
        ) from e
    if array.dtype.kind not in "fiub":
        raise PairsError(
            f"{path}: {key} is of {array.dtype}; a tensor is of floats or whole numbers"
        )
    if array.dtype.kind == "f":
        return Stimulus("float32", tuple(array.shape), array.astype("<f4").tobytes())
    return Stimulus("int64", tuple(array.shape), array.astype("<i8").tobytes())
