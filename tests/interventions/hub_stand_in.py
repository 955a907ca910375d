"""A stand-in of the Hugging Face hub on loopback: the part of its HTTP interface that
huggingface_hub 2.4 uses to create a repository, to commit to it (regular files and LFS) and to
download from it.

Invariants: commits are whole; a private repository is "not found" without its token; git's own ids
are the files' ETags.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"
READER = "hf_reader"


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.commits[self.head] if revision == "main" else self.commits.get(revision)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}.{message}".encode()).hexdigest()
        self.commits[oid] = files
        self.messages.append(message)
        return oid

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


@dataclass
class Hub:
    """`lfs`: names of files that its preupload sends to LFS. `down`: the status with which it
    answers everything. `full`: it takes no more LFS files. `may_create`: the writer may make
    repositories, too."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    down: int | None = None
    full: bool = False
    may_create: bool = True

    @property
    def elsewhere(self) -> str:
        """The host that has the LFS files: ours, under another name."""
        return self.endpoint.replace("127.0.0.1", "localhost")


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Bound(_Handler):
        pass

    Bound.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.seen.append(f"{self.command} {urlsplit(self.path).path}")
        if self.hub.down is not None:
            return self._error(self.hub.down, "", "the hub is being mended")
        match [self.command, *path]:
            case ["POST", "api", "validate-yaml"]:
                return self._validate()
            case ["POST", "api", "repos", "create"]:
                return self._create()
            case ["PUT", "stored", _] if self.hub.full:
                return self._error(413, "", "no room left")
            case ["PUT", "stored", oid]:
                assert hashlib.sha256(self.body).hexdigest() == oid
                self.hub.stored[oid] = self.body
                return self._send(200, b"")
            case ["GET" | "HEAD", "stored", oid]:
                assert self._token is None, "a token was sent to another host"
                return self._send(200, self.hub.stored[oid])
            case ["POST", owner, name, "info", "lfs", "objects", "batch"]:
                return self._batch(f"{owner}/{name.removesuffix('.git')}")
            case [_, "api", "models", owner, name, *rest]:
                return self._of_repository(f"{owner}/{name}", rest)
            case ["GET" | "HEAD", owner, name, "resolve", revision, *file]:
                return self._resolve(f"{owner}/{name}", revision, "/".join(file))
        raise AssertionError(f"the stand-in does not know {self.command} {self.path}")

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        if not content.startswith("---\n"):
            return self._json({"errors": [{"message": "metadata is missing"}], "warnings": []}, 400)
        return self._json({"errors": [], "warnings": []})

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if self._token != TOKEN:
            return self._error(
                401 if self._token is None else 403,
                "",
                "You don't have the rights to create a model here",
            )
        if name in self.hub.repositories:
            return self._error(
                409,
                "",
                "You already created this model repo",
                {"url": f"{self.hub.endpoint}/{name}"},
            )
        repository = Repository(
            private=asked.get("visibility") == "private" or asked.get("private", False)
        )
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.hub.repositories[name] = repository
        return self._json({"url": f"{self.hub.endpoint}/{name}"})

    def _of_repository(self, name: str, rest: list[str]) -> None:
        repository = self._found(name)
        if repository is None:
            return None
        kind, revision = rest if rest else ("revision", "main")
        files = repository.files(revision)
        if files is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        head = repository.head if revision == "main" else revision
        if kind == "revision":
            return self._json(
                {
                    "id": name,
                    "modelId": name,
                    "sha": head,
                    "private": repository.private,
                    "tags": [],
                }
            )
        if kind == "tree":
            return self._json([self._entry(path, content) for path, content in files.items()])
        if self._token != TOKEN:
            return self._error(403, "", "you may read this repository, not write it")
        if kind == "preupload":
            return self._preupload(files)
        assert kind == "commit", rest
        return self._commit(name, repository, dict(files))

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
        if path in self.hub.lfs:
            entry["lfs"] = {
                "oid": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 130,
            }
        return entry

    def _preupload(self, files: dict[str, bytes]) -> None:
        asked = json.loads(self.body)["files"]
        return self._json(
            {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"] in self.hub.lfs else "regular",
                        "shouldIgnore": False,
                        "oid": self._oid(f["path"], files[f["path"]])
                        if f["path"] in files
                        else None,
                    }
                    for f in asked
                ]
            }
        )

    def _oid(self, path: str, content: bytes) -> str:
        return hashlib.sha256(content).hexdigest() if path in self.hub.lfs else git_id(content)

    def _batch(self, name: str) -> None:
        if self._found(name) is None:
            return None
        objects = [
            {
                **o,
                "actions": {
                    "upload": {"href": f"{self.hub.endpoint}/stored/{o['oid']}", "header": {}}
                },
            }
            for o in json.loads(self.body)["objects"]
        ]
        return self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, files: dict[str, bytes]) -> None:
        assert self.headers["Content-Type"] == "application/x-ndjson"
        message = ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case other:
                    raise AssertionError(f"the stand-in does not know the operation {other}")
        oid = repository.commit(files, message)
        return self._json(
            {
                "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}",
                "commitOid": oid,
                "success": True,
            }
        )

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._found(name)
        if repository is None:
            return None
        files = repository.files(revision)
        if files is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in files:
            return self._error(404, "EntryNotFound", "Entry not found")
        commit = {"X-Repo-Commit": repository.head if revision == "main" else revision}
        content = files[path]
        if path in self.hub.lfs:
            oid = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            return self._send(
                302, b"", {**commit, **linked, "Location": f"{self.hub.elsewhere}/stored/{oid}"}
            )
        return self._send(200, content, {**commit, "ETag": f'"{git_id(content)}"'})

    def _found(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self._token not in (TOKEN, READER)):
            self._error(401 if self._token is None else 404, "RepoNotFound", "Repository not found")
            return None
        if repository.gated and self._token != TOKEN:
            self._error(403, "GatedRepo", "Access to this model is restricted")
            return None
        return repository

    @property
    def _token(self) -> str | None:
        given = self.headers.get("Authorization")
        return given.removeprefix("Bearer ") if given else None

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(
        self, status: int, code: str, message: str, more: dict[str, str] | None = None
    ) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"} | (
            {"X-Error-Code": code} if code else {}
        )
        self._send(status, json.dumps({"error": message, **(more or {})}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
