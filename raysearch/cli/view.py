"""Defines `raysearch view`, which shows the runs of a store in a browser."""

import secrets
import shlex
import socket
import webbrowser
from typing import Any

import click

from raysearch.cli import flags

EVERYWHERE = ("0.0.0.0", "::", "")
"""Hosts to listen on that are no address to open."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command()
@flags.in_store
@click.option("--open", "show", is_flag=True, help="Show it in a browser.")
@click.option(
    "--host",
    default=LOOPBACK[0],
    show_default=True,
    help="Where to listen. Beyond loopback, whoever looks needs the token that is printed.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@flags.output()
@flags.loudness
def view(
    place: str | None, store: str, show: bool, host: str, port: int, output: str, **given: Any
) -> int:
    """Show the runs of STORE (or of the store that a run is in) in a browser, while they go on and
    after: maps whose cells open their pairs. Ends with Ctrl-C."""
    from raysearch.cli.terminal import emit_or_tell, lead, say
    from raysearch.errors import StoreError
    from raysearch.storage.open_folder import open_folder
    from raysearch.store.run_folder import run_names
    from raysearch.viewer.server import Viewer

    flags.set_verbosity(given)
    token = "" if host in LOOPBACK else secrets.token_urlsafe(24)
    folder, run = flags.store_of(place, store), ""
    if folder.exists("run.json"):
        folder, run = open_folder(folder.place.rpartition("/")[0]), f"runs/{folder.name}/"
    if not run_names(folder):
        say(f"store {folder.place}: holds no runs yet")
    try:
        server = Viewer(folder, host, port, token)
    except OSError as e:
        raise StoreError(
            f"--host {host} --port {port}: cannot listen there ({e.strerror or e}); give another"
        ) from e
    with server:
        name = socket.gethostname() if host in EVERYWHERE else host
        given_host = f"[{name}]" if ":" in name else name
        address = f"http://{given_host}:{server.port}/{run}{f'?token={token}' * bool(token)}"
        try:  # whoever has read the address may interrupt at once
            emit_or_tell(output, [address], "view", address=address, store=folder.place)
            if show:
                webbrowser.open(address)
            server.serve_forever()
        except KeyboardInterrupt:
            lead(f"raysearch runs {shlex.quote(folder.place)}", given["quiet"])
    return 0
