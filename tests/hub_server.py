"""A small Hub on the loopback interface: tests push and load with the real client, and nothing leaves the machine.

It speaks the part of the Hub's protocol that huggingface_hub 2.4 and transformers 5.23 use for model and dataset
repositories: who-am-I, create, info, card validation, pre-upload, LFS batch with basic transfers, commit, history,
tags, tree, paths, resolve with ranges, and the status codes and headers that the client turns into its errors. As on
the Hub, weights go through LFS to a signed address without the token, a large file resolves to a redirect to another
host, a commit is all or nothing, a tag never moves, and an anonymous reader of a private repository gets 401 with
RepoNotFound.

It does not have: Xet transfers (set HF_HUB_DISABLE_XET=1), requests that change branches or pull requests (they can be
read: a test puts them into `Repo.branches`), Spaces, users other than one, or the whole of the Hub's metadata rules.
Repositories live in memory and end with the server.

By hand, to try a push without an account, ``python tests/hub_server.py --port 8900`` prints the variables to export.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER = "tester"
ORGANISATION = "lab"
WRITE_TOKEN = "loopback-write-token"
READ_TOKEN = "loopback-read-token"

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.pth", "*.onnx", "*.npz", "*.zip", "*.tar", "*.gz")
LARGEST_REGULAR_FILE = 10 * 2**20  # bytes
# Identifiers the Hub accepts; a part of its list, enough to tell a name from a typing error.
LICENSES = (
    *("apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-4.0", "openrail", "unknown", "other"),
)
CHUNK = 2**20  # bytes


class AnswerError(Exception):
    """An answer that is an error: the Hub's status, error code and message."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers
        if code is not None:
            self.headers["X-Error-Code"] = code


@dataclass
class Logged:
    """One request as it arrived and the status it got; 0 where the connection was dropped."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = field(repr=False)
    status: int = 0

    def json(self):
        return json.loads(self.body)


@dataclass
class Fault:
    """Fail the next ``times`` requests that match: with an HTTP status, by dropping the connection (None), after
    ``read`` bytes of the body, or by leaving it unanswered until ``held`` is set."""

    method: str
    pattern: str
    status: int | None
    times: int
    held: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    read: int = 0
    then: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class File:
    """One file in a commit: the content's SHA-256 and size, its git object id, and how it is stored."""

    sha256: str
    size: int
    oid: str
    lfs: bool


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, File]


@dataclass
class Repo:
    """A repository: every commit of main, the newest last; its tags, by name the commit's id; and by their whole ref,
    such as refs/heads/draft or refs/pr/1, the commits of other branches and of pull requests."""

    kind: str
    name: str
    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)
    branches: dict[str, list[Commit]] = field(default_factory=dict)


class Blobs:
    """Content by SHA-256, in a folder."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.root / sha256

    def write(self, chunks: Iterator[bytes]) -> tuple[str, int]:
        """Store a stream; returns its SHA-256 and its size in bytes."""
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self.root, delete=False) as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        Path(file.name).replace(self.path(digest.hexdigest()))
        return digest.hexdigest(), size

    def file(self, sha256: str, *, lfs: bool) -> File:
        """The entry of stored content. Git keeps an LFS file as a pointer, so its object id is the pointer's."""
        size = self.path(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        data = pointer if lfs else self.path(sha256).read_bytes()
        return File(sha256, size, hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), lfs)


class Listener(ThreadingHTTPServer):
    """Knows its open connections: a client keeps its own alive, and a stopped server must not answer on them."""

    def server_activate(self) -> None:
        self.connections: set[socket.socket] = set()
        super().server_activate()

    def process_request(self, request, client_address) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # the client was quicker
                connection.shutdown(socket.SHUT_RDWR)


class HubServer:
    """The server and what it holds. Use as a context manager, or ``start`` and ``stop``.

    Attributes:
        requests: every request so far, in the order of arrival.
        tokens: valid tokens and their role, "write" or "read"; clear it and every token is refused.
        repos: (kind, full name) to repository, kind being "models" or "datasets".
    """

    def __init__(self, root: Path, port: int = 0):
        self.blobs = Blobs(Path(root) / "blobs")
        self.tokens = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Logged] = []
        self.faults: list[Fault] = []
        self.uploads: dict[str, tuple[str, int]] = {}  # signature -> the SHA-256 and size that it is good for
        self.lock = threading.RLock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.http = Listener(("127.0.0.1", port), handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}"  # another origin to the client, as the Hub's is

    def start(self) -> "HubServer":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.http.hang_up()

    def __enter__(self) -> "HubServer":
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()

    def environment(self, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """Variables with which a process uses this server and a cache of its own, and no other machine."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",  # wins over TRANSFORMERS_OFFLINE
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def fail(
        self,
        method: str,
        pattern: str,
        status: int | None = None,
        times: int = 1,
        *,
        headers: dict[str, str] | None = None,
        read: int = 0,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Fail the next ``times`` requests whose path contains ``pattern``; no status drops the connection.

        Args:
            method, pattern, status, times: see above.
            headers: of the answer.
            read: bytes of the request's body that arrive before the connection is dropped.
            then: called before the answer; a fault with status 0 calls it and answers as if there were no fault.
        """
        self.faults.append(Fault(method, pattern, status, times, None, headers or {}, read, then))

    def hold(self, method: str, pattern: str) -> threading.Event:
        """Leave the next request that matches unanswered until the event that is returned is set."""
        self.faults.append(Fault(method, pattern, None, 1, threading.Event()))
        return self.faults[-1].held

    def calls(self, method: str, pattern: str = "") -> list[Logged]:
        """The requests so far of one method whose path contains ``pattern``."""
        return [request for request in self.requests if request.method == method and pattern in request.path]

    def files(self, name: str, kind: str = "models") -> dict[str, File]:
        """Files of a repository's newest commit, without the .gitattributes that creation makes."""
        files = self.repos[kind, name].commits[-1].files
        return {path: file for path, file in files.items() if path != ".gitattributes"}

    def read(self, name: str, path: str, kind: str = "models") -> bytes:
        """Content of a file in a repository's newest commit."""
        return self.blobs.path(self.repos[kind, name].commits[-1].files[path].sha256).read_bytes()

    def new_commit(self, repo: Repo, title: str, files: dict[str, File]) -> Commit:
        commit = Commit(secrets.token_hex(20), title, files)
        repo.commits.append(commit)
        return commit


def point_this_process_at(server: HubServer, home: Path, monkeypatch) -> None:
    """What the variables do in a new process, for one that has imported huggingface_hub already."""
    from huggingface_hub import close_session, constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)  # behind huggingface_hub's module-level functions
    close_session()  # its connections belong to another server


def metadata_problems(text: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card's metadata: the Hub's rules that a model card meets most."""
    block = re.match(r"^\s*---\r?\n([\S\s]*?)\r?\n---[ \t]*(\r?\n|$)", text)
    if block is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"YAML does not parse: {error}"], []
    if not isinstance(data, dict):
        return ["metadata should be a mapping"], []
    errors = []
    licence = data.get("license")
    if licence is not None and licence not in LICENSES:
        errors.append(f'"license" must be one of {", ".join(LICENSES)}')
    for key, kind in (("tags", list), ("pipeline_tag", str), ("library_name", str), ("model-index", list)):
        if key in data and not isinstance(data[key], kind):
            errors.append(f'"{key}" must be a {kind.__name__}')
    for index, model in enumerate(data.get("model-index") or []):
        errors += [f'"model-index[{index}].{problem}' for problem in _model_problems(model)]
    return errors, []


def _model_problems(model) -> Iterator[str]:
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        yield 'name" is required'
    for index, result in enumerate(model.get("results") or [] if isinstance(model, dict) else []):
        needed = (("task", "type"), ("dataset", "type"), ("dataset", "name"))
        yield from (f'results[{index}].{a}.{b}" is required' for a, b in needed if not result.get(a, {}).get(b))
        for place, metric in enumerate(result.get("metrics") or [{}]):
            yield from (
                f'results[{index}].metrics[{place}].{key}" is required'
                for key in ("type", "value")
                if key not in metric
            )


class Handler(BaseHTTPRequestHandler):
    """One request: log it, fail it where a test asked for that, find its route, answer it."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is written in two parts, and the second would wait for the client

    def log_message(self, *args) -> None:
        """The log is ``hub.requests``."""

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.logged = Logged(self.command, unquote(url.path), parse_qs(url.query), headers, b"")
        with self.hub.lock:
            self.hub.requests.append(self.logged)
        try:
            fault = self._next_fault()
            if fault is not None and fault.held is not None:
                fault.held.wait(60)
            if fault is not None:
                fault.then()
            if fault is not None and fault.status is None:
                self.rfile.read(fault.read)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault is not None and fault.status:
                self._drain()
                raise AnswerError(fault.status, "the test asked for this failure", **fault.headers)
            self._route(url.path)
        except AnswerError as error:
            self.reply(error.status, {"error": error.message}, **error.headers, **{"X-Error-Message": error.message})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _next_fault(self) -> Fault | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times > 0 and fault.method == self.command and fault.pattern in self.logged.path:
                    fault.times -= 1
                    return fault
        return None

    def _route(self, raw_path: str) -> None:
        if self.command != "PUT":
            self.logged.body = b"".join(self.chunks())
        for methods, pattern, action in ROUTES:
            match = re.fullmatch(pattern, raw_path)
            if match is not None and self.command in methods:
                action(self, **{name: unquote(part) if part else part for name, part in match.groupdict().items()})
                return
        self._drain()
        raise AnswerError(404, f"{self.command} {raw_path} is not a part of this server")

    def chunks(self) -> Iterator[bytes]:
        """The request's body, of a stated length or chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0 and (chunk := self.rfile.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk

    def _drain(self) -> None:
        for _ in self.chunks():
            pass

    def reply(self, status: int, content: object = None, **headers: str) -> None:
        """Answer with JSON, or with nothing for None."""
        data = b"" if content is None else json.dumps(content).encode()
        self.start_reply(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers})
        if self.command != "HEAD":
            self.wfile.write(data)

    def reply_text(self, status: int, text: str) -> None:
        data = text.encode()
        self.start_reply(status, {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(data))})
        self.wfile.write(data)

    def start_reply(self, status: int, headers: dict[str, str]) -> None:
        self.logged.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value.replace("\n", " ").encode("ascii", "replace").decode())
        self.end_headers()

    def role(self) -> str | None:
        """The token's role, or None without a token; a wrong token is refused even where none is needed."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        role = self.hub.tokens.get(header.removeprefix("Bearer "))
        if role is None:
            raise AnswerError(401, "Invalid credentials in Authorization header")
        return role

    def need_write(self, what: str) -> None:
        role = self.role()
        if role is None:
            raise AnswerError(401, "Invalid username or password.")
        if role != "write":
            raise AnswerError(403, f"You don't have the rights to {what}")

    def repo(self, kind: str | None, repo: str, *, write: bool = False) -> Repo:
        """The repository, if it is there for this reader. Absent and hidden look the same from outside."""
        role = self.role()
        found = self.hub.repos.get(((kind or "models").strip("/"), repo))
        if found is None or (found.private and role is None):
            raise AnswerError(404 if role else 401, "Repository not found", "RepoNotFound")
        if write:
            self.need_write(f"write to {repo}")
        return found

    def commit_at(self, repo: Repo, revision: str | None) -> Commit:
        revision = repo.tags.get(revision, revision)
        for commit in reversed(repo.commits):
            if revision in (None, "main", commit.oid):
                return commit
        for ref, commits in repo.branches.items():
            for commit in reversed(commits):
                if revision in (ref, ref.removeprefix("refs/heads/"), commit.oid):
                    return commit
        raise AnswerError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def whoami(handler: Handler) -> None:
    role = handler.role()
    if role is None:
        raise AnswerError(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": ORGANISATION}]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    handler.reply(200, {"type": "user", "name": USER, "orgs": orgs, "auth": auth})


def create_repo(handler: Handler) -> None:
    asked = handler.logged.json()
    kind = f"{asked.get('type', 'model')}s"
    owner = asked.get("organization") or USER
    handler.need_write(f'create a {kind[:-1]} under the namespace "{owner}"')
    if owner not in (USER, ORGANISATION):
        raise AnswerError(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{owner}"')
    name = f"{owner}/{asked['name']}"
    hub = handler.hub
    url = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
    with hub.lock:
        if (kind, name) in hub.repos:
            handler.reply(409, {"error": f"You already created this {kind[:-1]} repo", "url": url})
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = hub.repos[kind, name] = Repo(kind, name, private, [])
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        sha256, _ = hub.blobs.write(iter([lines.encode()]))
        hub.new_commit(repo, "initial commit", {".gitattributes": hub.blobs.file(sha256, lfs=False)})
    handler.reply(200, {"url": url, "name": name, "id": secrets.token_hex(12)})


def validate_yaml(handler: Handler) -> None:
    handler.role()
    errors, warnings = metadata_problems(handler.logged.json()["content"])
    if handler.headers.get("Accept") == "text/plain":
        handler.reply_text(400 if errors else 200, "\n".join(errors + warnings))
        return
    report = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    handler.reply(400 if errors else 200, report)


def auth_check(handler: Handler, kind: str, repo: str, write: str | None) -> None:
    handler.repo(kind, repo, write=write is not None)
    handler.reply(200, {})


def repo_info(handler: Handler, kind: str, repo: str, revision: str | None) -> None:
    found = handler.repo(kind, repo)
    commit = handler.commit_at(found, revision)
    siblings = [
        {"rfilename": path, "size": file.size, "blobId": file.oid} | ({"lfs": _lfs(file)} if file.lfs else {})
        for path, file in sorted(commit.files.items())
    ]
    about = {"id": repo, "modelId": repo, "author": repo.split("/")[0], "private": found.private, "gated": False}
    time = "2026-01-01T00:00:00.000Z"
    about |= {"sha": commit.oid, "siblings": siblings, "tags": [], "lastModified": time, "createdAt": time}
    handler.reply(200, about | {"disabled": False, "downloads": 0, "likes": 0})


def _lfs(file: File) -> dict:
    return {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 134}


def _entry(path: str, file: File) -> dict:
    entry = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
    return entry | ({"lfs": _lfs(file)} if file.lfs else {})


def tree(handler: Handler, kind: str, repo: str, revision: str, folder: str | None) -> None:
    commit = handler.commit_at(handler.repo(kind, repo), revision)
    prefix = f"{folder}/" if folder else ""
    inside = {path: file for path, file in sorted(commit.files.items()) if path.startswith(prefix)}
    if prefix and not inside:
        raise AnswerError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    recursive = handler.logged.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    depth = prefix.count("/")
    folders = {"/".join(path.split("/")[: n + 1]) for path in inside for n in range(depth, path.count("/"))}
    shown = [_entry(path, file) for path, file in inside.items() if recursive or path.count("/") == depth]
    shown += [
        {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        for path in sorted(folders)
        if recursive or path.count("/") == depth
    ]
    handler.reply(200, shown)


def paths_info(handler: Handler, kind: str, repo: str, revision: str) -> None:
    commit = handler.commit_at(handler.repo(kind, repo), revision)
    if handler.headers.get("Content-Type", "").startswith("application/json"):
        paths = handler.logged.json()["paths"]
    else:
        paths = parse_qs(handler.logged.body.decode())["paths"]
    handler.reply(200, [_entry(path, commit.files[path]) for path in paths if path in commit.files])


def preupload(handler: Handler, kind: str, repo: str, revision: str) -> None:
    commit = handler.commit_at(handler.repo(kind, repo, write=True), revision)
    answers = []
    for file in handler.logged.json()["files"]:
        path, known = file["path"], commit.files.get(file["path"])
        lfs = file["size"] > LARGEST_REGULAR_FILE or any(fnmatchcase(path, pattern) for pattern in LFS_PATTERNS)
        answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        # What the client compares its own file with, to leave out what has not changed.
        answers.append(answer | ({"oid": known.sha256 if known.lfs else known.oid} if known else {}))
    handler.reply(200, {"files": answers})


def lfs_batch(handler: Handler, kind: str | None, repo: str) -> None:
    handler.repo(kind, repo, write=True)
    hub = handler.hub
    objects = []
    for wanted in handler.logged.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if not hub.blobs.path(wanted["oid"]).exists():
            signature = secrets.token_hex(16)
            hub.uploads[signature] = (wanted["oid"], wanted["size"])
            answer["actions"] = {
                "upload": {"href": f"{hub.cdn}/lfs/{wanted['oid']}?signature={signature}"},
                "verify": {"href": f"{hub.url}/api/{kind or 'models/'}{repo}/lfs-verify"},
            }
        objects.append(answer)
    handler.reply(200, {"transfer": "basic", "objects": objects})


def lfs_put(handler: Handler, sha256: str) -> None:
    """Take an upload at its signed address; another size or hash than promised is refused."""
    signature = handler.logged.query.get("signature", [""])[0]
    promised = handler.hub.uploads.get(signature)
    got = handler.hub.blobs.write(handler.chunks())
    if promised is None or promised[0] != sha256:
        raise AnswerError(403, "the signature does not match")
    if got != promised:
        raise AnswerError(422, f"promised {promised[1]} bytes with SHA-256 {promised[0]}, got {got[1]} with {got[0]}")
    handler.reply(200)


def lfs_verify(handler: Handler, kind: str, repo: str) -> None:
    handler.repo(kind, repo, write=True)
    asked = handler.logged.json()
    blob = handler.hub.blobs.path(asked["oid"])
    if not blob.exists() or blob.stat().st_size != asked["size"]:
        raise AnswerError(404, f"object {asked['oid']} has not been uploaded")
    handler.reply(200, {"success": True})


def commit(handler: Handler, kind: str, repo: str, revision: str) -> None:
    """Apply a commit's lines to a copy of the newest files, then make the copy the newest: all or nothing."""
    found, hub = handler.repo(kind, repo, write=True), handler.hub
    lines = [json.loads(line) for line in handler.logged.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with hub.lock:
        newest = handler.commit_at(found, "main")
        if revision != "main":
            raise AnswerError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if not newest.oid.startswith(header.get("parentCommit") or ""):
            raise AnswerError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(newest.files)
        for line in lines:
            COMMIT_LINES[line["key"]](hub, files, line["value"])
        if "README.md" in files:
            errors, _ = metadata_problems(hub.blobs.path(files["README.md"].sha256).read_text(encoding="utf-8"))
            if errors:
                raise AnswerError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
        made = hub.new_commit(found, header["summary"], files)
    url = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{repo}/commit/{made.oid}"
    handler.reply(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def refs(handler: Handler, kind: str, repo: str) -> None:
    found = handler.repo(kind, repo)
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in found.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.commits[-1].oid}
    others = [
        {"name": ref.removeprefix("refs/heads/"), "ref": ref, "targetCommit": commits[-1].oid}
        for ref, commits in found.branches.items()
    ]
    answer = {"branches": [main], "tags": tags, "converts": []}
    answer["branches"] += [one for one in others if one["ref"].startswith("refs/heads/")]
    if handler.logged.query.get("include_prs"):
        answer["pullRequests"] = [one for one in others if one["ref"].startswith("refs/pr/")]
    handler.reply(200, answer)


def commits(handler: Handler, kind: str, repo: str, revision: str) -> None:
    """The history of a revision, the newest commit first, on one page."""
    found = handler.repo(kind, repo)
    newest = handler.commit_at(found, revision)
    history = next(one for one in (found.commits, *found.branches.values()) if newest in one)
    last = history.index(newest)
    about = {"authors": [{"user": USER}], "date": "2026-01-01T00:00:00.000Z", "message": ""}
    handler.reply(200, [about | {"id": one.oid, "title": one.title} for one in history[last::-1]])


def make_tag(handler: Handler, kind: str, repo: str, revision: str) -> None:
    """A tag that exists is refused, as the Hub does it."""
    found = handler.repo(kind, repo, write=True)
    name, commit = handler.logged.json()["tag"], handler.commit_at(found, revision)
    with handler.hub.lock:
        if name in found.tags:
            raise AnswerError(409, f"Tag reference exists already: {name}")
        found.tags[name] = commit.oid
    handler.reply(200)


def _commit_file(hub: HubServer, files: dict[str, File], value: dict) -> None:
    content = base64.b64decode(value["content"])
    if any(fnmatchcase(value["path"], pattern) for pattern in LFS_PATTERNS) and content:
        raise AnswerError(
            400, f"Your push was rejected because it contains {value['path']}, which has to go through LFS"
        )
    sha256, _ = hub.blobs.write(iter([content]))
    files[value["path"]] = hub.blobs.file(sha256, lfs=False)


def _commit_lfs_file(hub: HubServer, files: dict[str, File], value: dict) -> None:
    if not hub.blobs.path(value["oid"]).exists():
        raise AnswerError(400, f"LFS pointer of {value['path']} points to a file that does not exist")
    files[value["path"]] = hub.blobs.file(value["oid"], lfs=True)


def _commit_deleted_file(hub: HubServer, files: dict[str, File], value: dict) -> None:
    if value["path"] not in files:
        raise AnswerError(404, "A file with this name doesn't exist", "EntryNotFound")
    del files[value["path"]]


def _commit_deleted_folder(hub: HubServer, files: dict[str, File], value: dict) -> None:
    inside = [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]
    if not inside:
        raise AnswerError(404, "A folder with this name doesn't exist", "EntryNotFound")
    for path in inside:
        del files[path]


COMMIT_LINES: dict[str, Callable] = {
    "header": lambda hub, files, value: None,
    "file": _commit_file,
    "lfsFile": _commit_lfs_file,
    "deletedFile": _commit_deleted_file,
    "deletedFolder": _commit_deleted_folder,
}


def resolve(handler: Handler, kind: str | None, repo: str, revision: str, path: str) -> None:
    """A file's content, or for an LFS file a redirect to its signed address; the metadata is in the headers."""
    commit = handler.commit_at(handler.repo(kind, repo), revision)
    file = commit.files.get(path)
    if file is None:
        raise AnswerError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
    if not file.lfs:
        send_content(handler, file.sha256, {"X-Repo-Commit": commit.oid, "ETag": f'"{file.oid}"'})
        return
    headers = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    handler.reply(302, None, Location=f"{handler.hub.cdn}/cdn/{file.sha256}", **headers)


def cdn(handler: Handler, sha256: str) -> None:
    if not handler.hub.blobs.path(sha256).exists():
        raise AnswerError(404, "no such object")
    send_content(handler, sha256, {"ETag": f'"{sha256}"'})


def send_content(handler: Handler, sha256: str, headers: dict[str, str]) -> None:
    """Stored content, whole or the one byte range asked for."""
    blob = handler.hub.blobs.path(sha256)
    size = blob.stat().st_size
    start, stop, status = 0, size, 200
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
    if asked and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= size:
            raise AnswerError(416, "range not satisfiable", **{"Content-Range": f"bytes */{size}"})
        status, headers = 206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    headers |= {"Content-Length": str(stop - start), "Content-Type": "application/octet-stream"}
    handler.start_reply(status, headers | {"Accept-Ranges": "bytes"})
    if handler.command == "HEAD":
        return
    with blob.open("rb") as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
            handler.wfile.write(chunk)
            start += len(chunk)


API = r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+(?:/[^/]+)?)"
WEB = r"/(?P<kind>datasets/)?(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION = r"/(?P<revision>[^/]+)"
ROUTES: tuple[tuple[tuple[str, ...], str, Callable], ...] = (
    (("GET",), r"/api/whoami-v2", whoami),
    (("POST",), r"/api/repos/create", create_repo),
    (("POST",), r"/api/validate-yaml", validate_yaml),
    (("GET",), API + r"/auth-check(?P<write>/write)?", auth_check),
    (("GET",), API + rf"/tree{REVISION}(?:/(?P<folder>.+))?", tree),
    (("POST",), API + rf"/paths-info{REVISION}", paths_info),
    (("POST",), API + rf"/preupload{REVISION}", preupload),
    (("POST",), API + rf"/commit{REVISION}", commit),
    (("POST",), API + r"/lfs-verify", lfs_verify),
    (("GET",), API + r"/refs", refs),
    (("GET",), API + rf"/commits{REVISION}", commits),
    (("POST",), API + rf"/tag{REVISION}", make_tag),
    (("GET",), API + rf"(?:/revision{REVISION})?", repo_info),
    (("POST",), WEB + r"\.git/info/lfs/objects/batch", lfs_batch),
    (("PUT",), r"/lfs/(?P<sha256>[0-9a-f]{64})", lfs_put),
    (("GET", "HEAD"), r"/cdn/(?P<sha256>[0-9a-f]{64})", cdn),
    (("GET", "HEAD"), WEB + rf"/resolve{REVISION}/(?P<path>.+)", resolve),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Hub on the loopback interface; Ctrl-C ends it.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 (default) takes a free one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        hub = HubServer(Path(root), args.port)
        for name, value in hub.environment(Path(root) / "home").items():
            print(f"export {name}={value}")
        print(f"# repositories go to {USER}/NAME or {ORGANISATION}/NAME, and are gone when this ends", flush=True)
        try:
            hub.http.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
