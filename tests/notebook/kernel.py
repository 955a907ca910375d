"""A kernel of our own, as a notebook has one: cells go in, what they show comes out; it can be
interrupted while a cell runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

SECONDS = 120


class Kernel:
    """Executes cells. `status` and `error`: how the last one ended ("ok", "error"), and the name of
    what it raised."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager, self._client = manager, client

    def __call__(
        self, code: str, interrupt_at: Callable[[str], bool] = lambda _: False
    ) -> list[str]:
        """What the cell showed, in its order; interrupted once when one of these texts is as
        `interrupt_at` says."""
        said: list[str] = []
        asked = False

        def hear(message: Any) -> None:
            nonlocal asked
            content = message["content"]
            text = (
                content.get("text")
                or content.get("data", {}).get("text/plain")
                or content.get("evalue")
                or ""
            )
            if text:
                said.append(text)
            if not asked and interrupt_at(text):
                asked = True
                self._manager.interrupt_kernel()

        reply = self._client.execute_interactive(
            code, timeout=SECONDS, output_hook=hear, allow_stdin=False
        )
        self.status: str = reply["content"]["status"]
        self.error: str = reply["content"].get("ename", "")
        return said


@contextmanager
def kernel(folder: Path) -> Iterator[Kernel]:
    """A kernel in `folder`, shut down at the end."""
    manager, client = start_new_kernel(
        kernel_name="python3", startup_timeout=SECONDS, cwd=str(folder)
    )
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def hide_ipywidgets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are started from now on cannot import ipywidgets; what hides it is written into
    `folder`."""
    folder.mkdir()
    (folder / "ipywidgets.py").write_text('raise ImportError("ipywidgets is hidden")')
    monkeypatch.setenv("PYTHONPATH", str(folder))
