"""`raysearch` as a user calls it, in a process of its own that need not import anything: it is
forked from one that has.

To import torch, transformers and the like costs a command 5 to 8 s of processor time, what it does
then often less than one. Here a process stands ready for each pytest worker that has imported them
and done nothing else; each command is a fork of it.

Invariants: environment, working folder, signals, loggers, threads and exit code of a command are
its own, as in a new process. Only what a package reads of the environment when it is imported is
the fork server's: where a test sets that, or asks what a command imports, it starts a new process
(`fresh`).
"""

import atexit
import gc
import importlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryFile

ROOT = Path(__file__).parents[1]
NICENESS = "RAY_worker_niceness"
HEATMAPS = "RAYSEARCH_HEATMAPS"
REMEMBERED = "RAYSEARCH_TESTS_CACHE"
"""Names the folder where the commands of all workers remember what a user's machine does: never the
user's own (tests/conftest.py makes it and removes it)."""
DRAWN = {HEATMAPS: "on"}
"""The environment of a run whose pictures are looked at."""
READ_ON_IMPORT = ("HF_", "TRANSFORMERS_", "MPL", "OMP_", "PYTHON", "RAY_")
"""Variables that begin so are read by packages when they are imported; whether Ray asks for a
token, for one."""
IMPORTED = (
    *(
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "pandas",
        "duckdb",
        "pyarrow.dataset",
        "pyarrow.parquet",
    ),
    *(
        "torch",
        "transformers",
        "transformers.models.auto.modeling_auto",
        "transformers.models.llama.modeling_llama",
    ),
    *(
        "ray",
        "mlflow",
        "raysearch.cli.run",
        "raysearch.cli.plan",
        "raysearch.engine.replica",
        "raysearch.viewer.page",
    ),
)
"""What the fork server has imported; it passes over what it cannot import, which
tests/test_command.py would see."""
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(IMPORTED))
_AT_FIRST: dict[str, str] = {}


def remember_environment() -> None:
    """The fork server is to begin with the environment of now, whatever a test has set when it
    first needs one (tests/conftest.py)."""
    _AT_FIRST.update(environment())


def environment(**more: str) -> dict[str, str]:
    """Of a command: ours, without what raysearch or Ray would go by; but how Ray's workers share
    the cores is told, that a run draws no pictures (tests/conftest.py), and where to remember."""
    ours = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("RAYSEARCH_", "RAY_")) or k in (NICENESS, HEATMAPS)
    }
    return {**ours, "RAYSEARCH_CACHE": os.environ.get(REMEMBERED, "off"), **more}


def program() -> str:
    """The installed command."""
    return str(Path(sys.executable).with_name("raysearch"))


class Running:
    """A command that was begun in a fork. To be used as a `subprocess.Popen` with a pipe for its
    stderr."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: dict[str, str],
        script: Path | None = None,
        anew: bool = False,
    ) -> None:
        """Begins it. `script`: a Python file to run in place of `raysearch`. `anew`: whether
        raysearch itself is imported anew, from where `env` says, with the packages that are
        installed there."""
        self._stdout = TemporaryFile()  # noqa: SIM115  (open until the command has ended)
        read, write = os.pipe()
        self.stderr = os.fdopen(read, encoding="utf-8", errors="replace")
        files = (
            Connection(os.dup(self._stdout.fileno()), readable=False),
            Connection(write, readable=False),
        )
        _serve()
        argv = (program() if script is None else str(script), *arguments)
        target = (argv, str(folder), env, anew, *files)
        # As a daemon it ends with the tests at the latest: one that fails may leave it behind.
        self._process: ForkServerProcess = _SERVER.Process(
            target=_command, args=target, daemon=True
        )
        self._process.start()
        for file in files:
            file.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or -n for a signal n; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int:
        """The exit code, when it has ended."""
        self._process.join()
        assert self.returncode is not None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """All of stdout, and what was not read of stderr yet, when it has ended."""
        with self._stdout, self.stderr:
            said = self.stderr.read()
            self.wait()
            self._stdout.seek(0)
            return self._stdout.read().decode(), said

    def send_signal(self, number: int) -> None:
        """To the command, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def forked(
    arguments: Sequence[str],
    folder: Path,
    env: dict[str, str],
    script: Path | None = None,
    anew: bool = False,
) -> CompletedProcess[str]:
    """Runs a command in a fork, or a Python file, to its end (`Running` says by which arguments)."""
    command = Running(arguments, folder, env, script, anew)
    stdout, stderr = command.communicate()
    return CompletedProcess(list(arguments), command.wait(), stdout, stderr)


def forks_cpu_seconds() -> float:
    """Processor time, user and system, of the fork server and of the commands that have ended."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _serve() -> None:
    """Starts the fork server, if there is none yet."""
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    now, here = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(_AT_FIRST)
    os.chdir(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(now)
        os.chdir(here)


def _command(
    argv: Sequence[str], folder: str, env: dict[str, str], anew: bool, *files: Connection
) -> None:
    gc.freeze()  # what was imported is looked at no more, so that its memory stays shared
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
        file.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = [*argv]
    sys.path[:] = _path_of_a_script(Path(argv[0]), env)
    if anew:
        for name in [name for name in sys.modules if name.partition(".")[0] == "raysearch"]:
            del sys.modules[name]
        importlib.invalidate_caches()
    try:
        if argv[0] == program():
            importlib.import_module("raysearch.cli.main").main()
        else:
            runpy.run_path(argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _path_of_a_script(script: Path, env: dict[str, str]) -> Iterator[str]:
    """`sys.path` as a new interpreter that runs `script` begins with it: without the folder of the
    tests."""
    library = next(i for i, path in enumerate(sys.path) if path.endswith(".zip"))
    yield str(script.parent)
    yield from filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    yield from sys.path[library:]
