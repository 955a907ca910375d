"""Serves the runs of a store to a browser: reads only, one page for each run.

Invariants: only GET, and only of the runs that the store has; nothing of a run is sent as anything
but a page or data; beyond loopback each request needs the token; no file of a run is changed.
"""

import hmac
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from raysearch.errors import RaysearchError
from raysearch.storage.digests_json import sha256
from raysearch.storage.folder import Folder
from raysearch.store.run_folder import run_names
from raysearch.viewer.page import html_page
from raysearch.viewer.page_json import data_file
from raysearch.viewer.run_list import RunList
from raysearch.viewer.served_run import ServedRun

MOST_OPEN = 16
"""Runs whose data are in memory."""
COOKIE = "raysearch-token"
"""The name of the cookie of the token, before the port: browsers tell no ports apart."""
_DATA = re.compile(r"/runs/([^/]+)/view/(index|report|cells-\d{1,9}|pairs-\d{1,9})\.js")
_PAGE = re.compile(r"/runs/([^/]+)/")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Viewer(ThreadingHTTPServer):
    """A server of one store.

    Args:
        store: where the runs are.
        host, port: where it listens; port 0 takes a free one.
        token: what each request must bring, in the address at first, then as a cookie; "" for none.
    """

    daemon_threads = True

    def __init__(self, store: Folder, host: str, port: int, token: str = "") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.token = token
        self._store = store
        self._runs: dict[str, ServedRun] = {}
        self._list = RunList(store)
        self._lock = Lock()

    def server_bind(self) -> None:
        """Binds without asking a name server for a name of this host, as its class would."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that went away before it had its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def runs(self) -> dict[str, Any]:
        """Returns the list of runs, as its page reads it."""
        return self._list.read()

    def run(self, name: str) -> ServedRun | None:
        """Returns a run of the store by its name; None if it has none of that name."""
        with self._lock:
            found = self._runs.pop(name, None)
        if found is None and name not in run_names(self._store):
            return None
        with self._lock:  # the one asked for last stands last
            found = self._runs.setdefault(name, found or ServedRun(self._store.at(name)))
            if len(self._runs) > MOST_OPEN:
                del self._runs[next(iter(self._runs))]
            return found


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Viewer
    server_version = "raysearch"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        try:
            given = urlsplit(self.path)
        except ValueError:  # as "http://[/" has it
            self._say(HTTPStatus.BAD_REQUEST, "this is no address")
            return
        token = parse_qs(given.query).get("token", [""])[0]
        if not self._is_for_this_host():
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "ask for it by its address")
        elif self.server.token and token and self._is_token(token):
            self._let_in(given.path)
        elif not self._is_allowed():
            self._say(HTTPStatus.UNAUTHORIZED, "open the address that `raysearch view` printed")
        else:
            try:
                self._answer(given.path)
            except RaysearchError as e:
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, str(e))

    def _answer(self, path: str) -> None:
        if path == "/":
            self._send(html_page("runs", "Runs", {}).encode(), "text/html")
        elif path == "/view/runs.js":
            self._send(data_file("runs", self.server.runs()), "text/javascript")
        elif (found := _DATA.fullmatch(path)) and (run := self.server.run(unquote(found[1]))):
            content = run.data(found[2])
            if content is None:
                self._say(HTTPStatus.NOT_FOUND, "there is no such part of this run")
            else:
                self._send(content, "text/javascript")
        elif (found := _PAGE.fullmatch(path)) and self.server.run(name := unquote(found[1])):
            self._send(html_page("run", name, {}).encode(), "text/html")
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is no such page")

    def _is_for_this_host(self) -> bool:
        """Says whether the request names an address or localhost: a foreign name that was made to
        lead here (DNS rebinding) is refused."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            return False
        own = str(self.server.server_address[0])
        return bool(self.server.token) or host in ("localhost", "127.0.0.1", "::1", own)

    def _is_allowed(self) -> bool:
        cookies = self.headers.get("Cookie", "").split("; ")
        brought = [c.partition("=")[2] for c in cookies if c.startswith(f"{self._cookie}=")]
        return not self.server.token or any(map(self._is_token, brought))

    @property
    def _cookie(self) -> str:
        return f"{COOKIE}-{self.server.port}"

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.server.token.encode())

    def _let_in(self, path: str) -> None:
        """Keeps the token as a cookie, and takes it out of the address."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", path if _PAGE.fullmatch(path) else "/")
        cookie = f"{self._cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        tag = f'"{sha256(content)[:32]}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            status, content = HTTPStatus.NOT_MODIFIED, b""
        self.send_response(status)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache, private")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(f"{text}\n".encode(), "text/plain", status)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a request is no news."""
