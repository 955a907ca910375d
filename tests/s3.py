"""An S3 server on loopback (moto), and a proxy before it that can answer 503 for a while."""

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.ports import free_port

SECRET = "s3cr3t-that-nobody-may-see"
BUCKET = "bucket"


@dataclass(frozen=True)
class S3:
    """A server that is up, with a bucket in it."""

    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def uri(self, prefix: str, credentials: str = f"me:{SECRET}@") -> str:
        """A store on it, with credentials as a user might give them."""
        query = f"?endpoint_override={self.address}&scheme=http&region=us-east-1"
        return f"s3://{credentials}{BUCKET}/{prefix}{query}"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is given s3://bucket/... and nothing else."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3_server() -> Iterator[S3]:
    """moto, for as long as the context lasts."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("moto_server")),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    quiet = subprocess.DEVNULL
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=clean)
    try:
        make_bucket = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(make_bucket, timeout=30).close()
                break
            except urllib.error.URLError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield S3(port)
    finally:
        process.kill()
        process.wait()


@dataclass
class Proxy:
    """Hands every request on to the server behind it, unless it is `down`: then it answers 503.
    `seen`: (method, path) of each."""

    port: int
    behind: S3
    down: bool = False
    refused: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def front(self) -> S3:
        return S3(self.port)


@contextmanager
def proxy_before(server: S3) -> Iterator[Proxy]:
    """A proxy on a port of its own."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    web.daemon_threads = True
    proxy = web.proxy = Proxy(web.server_address[1], server)  # type: ignore[attr-defined]
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        body = self._body()
        proxy.seen.append((self.command, self.path))
        if proxy.down:
            proxy.refused += 1
            self._answer(503, {}, b"")
            return
        skipped = {"host", "content-length", "connection", "expect", "transfer-encoding"}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
        url = f"http://{proxy.behind.address}{self.path}"
        sent = body or (b"" if self.command in ("PUT", "POST") else None)
        request = urllib.request.Request(url, sent, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._answer(answer.status, dict(answer.headers.items()), answer.read())
        except urllib.error.HTTPError as e:
            self._answer(e.code, dict(e.headers.items()), e.read())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815  (http.server's names)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        told = next((v for k, v in headers.items() if k.lower() == "content-length"), "0")
        length = told if self.command == "HEAD" else str(len(body))
        kept = {
            k: v
            for k, v in headers.items()
            if k.lower() not in ("content-length", "connection", "transfer-encoding")
        }
        for name, value in (kept | {"Content-Length": length}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is its own."""
