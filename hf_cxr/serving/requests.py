"""What waits for the model's answer: nothing of a request stays in memory when it ends, whatever ends it."""

from typing import Any

from litserve.server import RegularRequestHandler
from starlette.responses import Response


class OneRequest(RegularRequestHandler):
    """A request to the worker, and its place among LitServe's answers.

    LitServe gives that place up only after an answer. Of a request that is given up before it (`gate.Gate`), an answer
    that comes late would stay there, with the name of the image and its findings.
    """

    uid: str | None = None

    async def _submit_request(self, payload: Any) -> Any:
        submitted = await super()._submit_request(payload)
        self.uid = submitted[0]
        return submitted

    async def handle_request(self, request: Any, request_type: type) -> Response:
        """The worker's answer.

        Raises:
            HTTPException: the worker failed.
        """
        try:
            return await super().handle_request(request, request_type)
        finally:
            self.server.response_buffer.pop(self.uid, None)
