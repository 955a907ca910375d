"""Defines `raysearch report`, which writes the page of a run into its folder or another file."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raysearch.cli import flags

if TYPE_CHECKING:
    from raysearch.storage.folder import Folder


@click.command()
@flags.run
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there, not into the run.",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also draw the heat maps there for a paper, as PDF and SVG.",
)
@click.option("--open", "show", is_flag=True, help="Show it in a browser.")
@flags.output()
@flags.store
@flags.loudness
def report(
    run: str,
    to: Path | None,
    figures: Path | None,
    show: bool,
    output: str,
    store: str,
    **given: Any,
) -> int:
    """Write RUN as one HTML page that needs no network: question, alignment, heat maps, cost,
    provenance."""
    from raysearch.cli.json_output import emit
    from raysearch.cli.terminal import lead, shell_path, tell
    from raysearch.runner.stored_run.stored_job import job_of
    from raysearch.store.run_folder import find_run
    from raysearch.store.run_history import run_state

    flags.set_verbosity(given)
    found = find_run(store, run)
    if found.info.sealed:  # else an earlier version wrote job.yaml
        job_of(found)
    _check(found.folder, to, show)
    place = _write(found.folder, to)
    drawn = [] if figures is None else _draw(found.folder, figures)
    if output == "json":
        emit("report", run=found.place, page=place, figures=drawn)
    elif not given["quiet"]:
        for path in (place, *drawn):
            tell(path)
    if show:
        webbrowser.open(Path(place).absolute().as_uri())
    why = "for a page that follows the run" if run_state(found) == "running" else ""
    lead(f"raysearch view {shell_path(found.place)} --open", given["quiet"], why)
    return 0


def _check(folder: "Folder", to: Path | None, show: bool) -> None:
    """Raises: UsageError for a page that cannot be shown, or written where --to says."""
    from raysearch.storage.local import LocalFolder

    if show and to is None and not isinstance(folder, LocalFolder):
        raise click.UsageError(
            f"--open: {folder.place} is no folder of this machine; give --to FILE too"
        )
    if to is not None and not to.absolute().parent.is_dir():
        raise click.UsageError(
            f"--to {to}: there is no folder {to.parent}; make it first, or choose another one"
        )


def _write(folder: "Folder", to: Path | None) -> str:
    """Writes the page into the run, or to a file; returns its place."""
    from raysearch.storage.atomic_write import os_errors_in_one_line
    from raysearch.storage.local import LocalFolder
    from raysearch.viewer.page import page, write_page

    if to is None:
        return folder.shown(write_page(folder))
    content = page(folder).encode()
    if to.is_symlink() or (to.exists() and not to.is_file()):  # /dev/stdout, a pipe
        with os_errors_in_one_line(f"{to}: cannot be written", "give another --to"):
            to.write_bytes(content)
    else:
        LocalFolder(to.absolute().parent).write(to.name, content)
    return str(to)


def _draw(folder: "Folder", figures: Path) -> list[str]:
    """Draws the figures for a paper into a folder; returns their paths."""
    from raysearch.report import heatmap  # matplotlib, for figures alone
    from raysearch.storage.atomic_write import os_errors_in_one_line
    from raysearch.storage.local import LocalFolder
    from raysearch.viewer.pair_texts import read_tokens
    from raysearch.visible_text import visible

    tokens = read_tokens(folder)
    with os_errors_in_one_line(
        f"--figures {figures}: cannot be made", "give a folder that you may write"
    ):
        figures.mkdir(parents=True, exist_ok=True)
    names = heatmap.figures(folder, LocalFolder(figures.absolute()), tokens)
    if lacking := heatmap.characters_without_font(folder, tokens):
        click.echo(
            f"warning   no font here has {visible(lacking[:20])}: boxes in the PDFs; "
            "install one, such as fonts-noto-cjk, and draw them again",
            err=True,
        )
    return [str(figures / name) for name in names]
