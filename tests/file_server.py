"""A file server on the loopback interface that misbehaves as asked: for tests of downloads.

It has what a good server has (ranges, If-Range, ETag, 416), and for each file a list of what to do to the requests to
come, one entry a request; an empty list is good behaviour:

    503, 404, ...      that status
    ("cut", n)         n bytes of the answer, then the connection is dropped
    ("stall", n)       n bytes of the answer, then nothing
    ("whole",)         Range is ignored
    ("whole cut", n)   both
    ("page",)          a login page with status 200
    ("endless",)       no length, and ever more bytes
    ("redirect",)      to an address of the same file that is good for one request, at another origin
"""

import contextlib
import hashlib
import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    name: str
    range: str | None
    if_range: str | None


class FileServer:
    """Use as a context manager.

    Attributes:
        files: name to content.
        plan: name to what happens to its next requests.
        asked: every request so far.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files, self.plan, self.asked = dict(files), {}, []
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"server_of": self}))
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FileServer":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc) -> None:
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of each request for a file."""
        return [asked.range for asked in self.asked if asked.name == name]


class Handler(BaseHTTPRequestHandler):
    server_of: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """The log is ``FileServer.asked``."""

    def do_GET(self) -> None:
        server, url = self.server_of, urlsplit(self.path)
        name = url.path.rpartition("/")[2]
        with server.lock:
            server.asked.append(Asked(name, self.headers["Range"], self.headers["If-Range"]))
            plan = server.plan.get(name, [])
            action = plan.pop(0) if plan and not url.query else ()
        if isinstance(action, int) or name not in server.files:
            return self.answer(action or 404, {"Content-Type": "text/html", "Retry-After": "0"}, PAGE)
        if action == ("page",):
            return self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        if action == ("redirect",):
            return self.answer(302, {"Location": f"http://localhost:{server.port}/{name}?signature=1"}, b"")
        if action == ("endless",):
            return self.answer_without_end(server.files[name])
        return self.serve(server.files[name], *action)

    def answer_without_end(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # the other side hangs up
            for _ in range(1000):
                self.wfile.write(content)

    def serve(self, content: bytes, fault: str = "", size: int | None = None) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
        if wanted is None or "whole" in fault or self.headers["If-Range"] not in (None, etag):
            return self.answer(200, headers, content, fault, size)
        begin, total = int(wanted[1]), len(content)
        if begin >= total:
            return self.answer(416, {"Content-Range": f"bytes */{total}"}, b"")
        headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
        return self.answer(206, headers, content[begin:], fault, size)

    def answer(self, status: int, headers: dict, body: bytes, fault: str = "", size: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:size])
        if "stall" in fault:
            self.server_of.stopped.wait(20)
        if "stall" in fault or "cut" in fault:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
