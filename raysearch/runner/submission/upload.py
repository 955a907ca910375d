"""The upload of a job to a cluster: its job.yaml as resolved, and beside it in `files/` what it
names, as one zip.

Invariants: nothing in the zip is a link, and no path in its job.yaml or in its pairs leads out of
it, those aside that are said to be on the nodes (an absolute model.path, --on-nodes); what lies
together here lies together there; the same contents make the same bytes.
"""

import glob
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysearch.core.hypothesis import canonical_json
from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.job.file_keys import FILES, LAYER, MODEL, PAIRS, NamedFile
from raysearch.job.job_files import named_files
from raysearch.problems.pair_files import tensor_names
from raysearch.storage.digests_json import sha256

MIB = 2**20
LIMIT = 99 * MIB
"""Most bytes of all files. Ray's job server takes requests of 100 MiB; one is left for the zip's
own."""
JOB_FILE = "job.yaml"
_ELSEWHERE = "elsewhere"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Upload:
    """`job` as sent, with paths from its own folder; `files`: where each file lies here, by its
    place in the upload."""

    job: Job
    files: Mapping[str, Path]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is asked: the job but for its name and resources, and the contents
        of the files."""
        keys = self.job.model_dump(mode="json", by_alias=True, exclude={"name", "resources"})
        contents = {place: sha256(path.read_bytes()) for place, path in self.files.items()}
        return sha256(canonical_json([keys, contents]).encode())

    def write(self, path: Path) -> None:
        """Writes the zip to `path`."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
            zipped.writestr(_entry(JOB_FILE), self.job.to_yaml())
            for place, file in sorted(self.files.items()):
                zipped.writestr(_entry(place), file.read_bytes())


def pack(
    job_file: Path, sets: Sequence[str], on_nodes: Sequence[Path], include: Sequence[Path]
) -> Upload:
    """Packs what `job_file` needs on a cluster.

    `on_nodes`: folders that the nodes have at the same path; what lies there is not sent.
    `include`: files and folders that go along though no key names them. Raises: JobError,
    PairsError in one line, where something is missing, leads outside or is too large.
    """
    for folder in on_nodes:
        if not folder.is_absolute():
            raise JobError(
                f"--on-nodes {folder}: give the absolute path that the folder has on the nodes"
            )
    away: set[str] = set()

    def is_away(file: NamedFile) -> bool:
        path = Path(file.path)
        if path.is_absolute() and (
            file.key == MODEL or any(path.is_relative_to(folder) for folder in on_nodes)
        ):
            away.add(file.key)
        return file.key in away

    job = Job.load(job_file, sets, is_away)
    here = (f for f in named_files(job) if f.key not in away and not f.is_remote)
    named = [f for f in here if f.key != MODEL or Path(f.path).exists()]
    packing = _Packing(job_file.resolve().parent)
    for file in named:
        packing.add_named(file)
    for path in include:
        packing.add(Path(os.path.abspath(path)), f"--include {path}")
    sent = {f.key for f in named}
    upload = Upload(
        job.with_paths(lambda f: packing.place(Path(f.path)) if f.key in sent else f.path),
        packing.files,
    )
    _check_size(upload)
    return upload


class _Packing:
    """Files and their places. Each has its place below one of `roots`: the job's folder, and those
    of what lies elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._roots = {folder: FILES}
        self.files: dict[str, Path] = {}

    def place(self, path: Path) -> str:
        """Returns where `path` (absolute, `{layer}` allowed) lies in the upload."""
        root = next((r for r in self._roots if path.is_relative_to(r)), None)
        if root is None:
            fixed = [i for i, part in enumerate(path.parts) if LAYER in part] or [
                len(path.parts) - 1
            ]
            root = Path(*path.parts[: fixed[0]])
            self._roots[root] = f"{FILES}/{_ELSEWHERE}/{sha256(str(root).encode())[:8]}"
        return f"{self._roots[root]}/{path.relative_to(root).as_posix()}"

    def add_named(self, file: NamedFile) -> None:
        """Adds a file or folder of the job, and what it needs beside it."""
        path = Path(file.path)
        self.place(path)  # so that all its layers, and what lies beside it, have one root
        for one in _layers(path):
            self.add(one, file.key)
        if file.is_code:
            for beside in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")):
                if beside.is_file():
                    self.add(beside, file.key)
        if file.key == PAIRS:
            for name in tensor_names(path):
                self.add(_inside(path.parent, name, path), file.key)

    def add(self, path: Path, key: str) -> None:
        """Raises: JobError where there is nothing, or a link leads out of a folder."""
        if not path.exists():
            raise JobError(
                f"{key}: there is no file {path}; if the nodes have it there, say so: --on-nodes "
                f"{path.parent}"
            )
        if path.is_file():
            self.files[self.place(path)] = path
            return
        for file in _walk(path):
            target = file.resolve()
            if not target.is_relative_to(path.resolve()) or not target.is_file():
                raise JobError(
                    f"{key}: {file} is a link to {target}, and what is sent may not lead out of "
                    f"its folder; put a file in its place"
                )
            self.files[self.place(file)] = file


def _layers(path: Path) -> Sequence[Path]:
    """Returns the files of all layers; the path itself where it names one file."""
    if LAYER not in str(path):
        return [path]
    found = [Path(p) for p in sorted(glob.glob(glob.escape(str(path)).replace(LAYER, "*")))]
    return found or [path]


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, except hidden ones and caches; a link to a folder counts as
    a file."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        else:
            yield entry


def _inside(folder: Path, name: str, pairs: Path) -> Path:
    """Raises: PairsError where `name` leads out of `folder`."""
    path = folder / name
    if not path.resolve().is_relative_to(folder):
        raise PairsError(
            f"{pairs}: {name} leads out of the folder of the pairs, and what is sent may not; put "
            f"the tensors beside the pairs"
        )
    return Path(os.path.normpath(path))


def _check_size(upload: Upload) -> None:
    if upload.bytes <= LIMIT:
        return
    largest = sorted(((path.stat().st_size, path) for path in upload.files.values()), reverse=True)[
        :_SHOWN
    ]
    shown = ", ".join(f"{path} ({size / MIB:.1f} MiB)" for size, path in largest)
    raise JobError(
        f"the files to send are {upload.bytes / MIB:.1f} MiB, and Ray takes {LIMIT // MIB} MiB "
        f"with a job: {shown}; put what is large where every node has it and give that path (an "
        "absolute model.path; --on-nodes DIR for other files), or a hub id for the model"
    )


def _entry(name: str) -> zipfile.ZipInfo:
    """Returns the zip's entry, without time or mode, so that the same contents make the same
    bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
