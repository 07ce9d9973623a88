"""What the page's server refuses before Gradio sees it, and what it forbids a browser to do.

- Gradio's own way to upload files, which writes them to a disk: it is not needed here.
- Its ways to read a file of this machine, and to fetch something from another one through it.
- A body that is larger than an image may be, whether or not it says so beforehand.
- A browser that shows the page asks no other host for anything: a content security policy says so.

An ASGI middleware, so that it works under Gradio's server and under any other.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio's page starts by scripts inside it, and makes functions of a component's own script.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
KEEPS = ("/assets/", "/static/")  # of the page's own files, which a browser may keep
FILES = ("/file=", "/file/", "/proxy=", "/stream/")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TooLarge(Exception):  # noqa: N818 - it leaves this module as a status alone
    """A body has more bytes than are allowed."""


class Guard:
    """See the top of this module.

    Args:
        app: what is guarded.
        body: the most bytes of a request.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], body: int):
        self.app, self.body = app, body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].rstrip("/")
        if path.endswith("/upload") and scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 403, "this page takes no file uploads: it keeps nothing on a disk")
            return
        if any(part in path for part in FILES):
            await _refuse(send, 403, "this page has no files")
            return
        headers = dict(scope["headers"])
        if _stated_length(headers.get(b"content-length")) > self.body:
            await _refuse(send, 413, f"a request may have at most {self.body} bytes")
            return
        began, taken = False, 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.body:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                own = HEADERS if not any(part in path for part in KEEPS) else HEADERS[:-1]
                names = {name for name, _ in own}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in names]
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except TooLarge:
            if not began:
                await _refuse(send, 413, f"a request may have at most {self.body} bytes")


def _stated_length(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0


async def _refuse(send: Send, status: int, words: str) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
