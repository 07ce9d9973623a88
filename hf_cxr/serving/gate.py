"""What a request passes before the model: the token, the size, the queue; and the counts of `/metrics`.

| status | when                                                                                  |
|--------|---------------------------------------------------------------------------------------|
| 401    | a token is asked for, and the header ``Authorization: Bearer TOKEN`` has another      |
| 411    | a body without Content-Length: its size would be known too late                       |
| 413    | Content-Length is over the limit                                                      |
| 504    | nothing came within the time limit: the worker died or hangs, or the body came slowly |
| 503    | as many requests as may wait are waiting; ``Retry-After`` says when to try again      |

The token is compared in constant time and is in no log. `/health` and `/metrics` need none: they reveal nothing about
an image. The metrics are Prometheus's, of one process of the service: it has one HTTP process, whatever its workers.
"""

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hf_cxr.serving.api import BATCH_HEADER, UNUSUAL_HEADER

PREDICTING = ("/predict", "/predict-file")
OPEN = ("/health", "/metrics")
BYTES_REPAIR = "ask who runs the service for a larger --max_megabytes"
RETRY_AFTER = 1  # seconds
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Metrics:
    """What Prometheus reads at /metrics."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self.requests = Counter("hf_cxr_requests", "Requests for a prediction.", ["status"], registry=registry)
        self.seconds = Histogram(
            "hf_cxr_request_seconds", "From a request to its answer.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge("hf_cxr_requests_in_progress", "Requests that have no answer yet.", registry=registry)
        self.together = Histogram(
            "hf_cxr_images_predicted_together",
            "Of each request: images that the model saw at once, its own among them.",
            buckets=IMAGES,
            registry=registry,
        )
        self.unusual = Counter("hf_cxr_unusual_images", "Images unlike those of training.", registry=registry)


class Gate:
    """An ASGI layer around the service; see the top of this module.

    Args:
        app: the service.
        metrics: to count in.
        token: that a request must bring; None for none.
        max_bytes: of a request's body.
        max_waiting: requests in progress from which another one is turned away.
        timeout: seconds from a request's first line to its answer; then it is given up.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        token: str | None,
        max_bytes: int,
        max_waiting: int,
        timeout: float,
    ):
        self.app, self.metrics = app, metrics
        self.token, self.max_bytes, self.max_waiting, self.timeout = token, max_bytes, max_waiting, timeout
        self.in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.token and scope["path"] not in OPEN and not self._has_token(headers):
            if scope["path"] in PREDICTING:
                self.metrics.requests.labels(401).inc()
            await refuse(send, 401, "give the token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
            return
        if scope["path"] not in PREDICTING or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        await self._predict(scope, receive, send, headers)

    async def _predict(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        refused = self._refusal(headers)
        if refused is not None:
            self.metrics.requests.labels(refused[0]).inc()
            await refuse(send, *refused)
            return
        start, status = time.perf_counter(), None

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = {name.lower(): value for name, value in message["headers"]}
                if BATCH_HEADER.encode() in answered:
                    self.metrics.together.observe(int(answered[BATCH_HEADER.encode()]))
                self.metrics.unusual.inc(UNUSUAL_HEADER.encode() in answered)
            await send(message)

        self.in_progress += 1
        self.metrics.waiting.set(self.in_progress)
        try:
            # LitServe waits for the answer of a worker that died for ever.
            await asyncio.wait_for(self.app(scope, receive, counted), self.timeout)
        except TimeoutError:
            if status is not None:
                raise
            await refuse(counted, 504, "the request timed out; try again")
        finally:
            self.in_progress -= 1
            self.metrics.waiting.set(self.in_progress)
            self.metrics.requests.labels(status or 500).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

    def _has_token(self, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"authorization", b"")
        return secrets.compare_digest(given, f"Bearer {self.token}".encode())

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str, dict[str, str]] | None:
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "give Content-Length", {}
        if int(length) > self.max_bytes:
            words = (
                f"{int(length):,} bytes are more than the {self.max_bytes:,} that a request may have; {BYTES_REPAIR}"
            )
            return 413, words, {}
        if self.in_progress >= self.max_waiting:
            return 503, f"{self.in_progress} requests are waiting; try again", {"retry-after": f"{RETRY_AFTER}"}
        return None


async def refuse(send: Send, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
    """Answer a request without reading its body; the connection is closed, as the body may still come."""
    body = json.dumps({"detail": detail}).encode()
    named = {"content-type": "application/json", "content-length": f"{len(body)}", "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in (named | (headers or {})).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
