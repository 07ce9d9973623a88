"""What the server refuses before Gradio sees it."""

import asyncio

import pytest

from hf_cxr.demo.guard import Guard


async def echo(scope, receive, send):
    """An app that reads the whole body and says how long it was."""
    taken, more = 0, True
    while more:
        message = await receive()
        taken += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=1")]})
    await send({"type": "http.response.body", "body": str(taken).encode()})


def ask(path="/queue/join", body=(b"",), method="POST", stated=None):
    """Status, headers and body of the answer."""
    parts, sent = list(body), []

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    headers = [] if stated is None else [(b"content-length", str(stated).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(echo, body=100)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


def test_a_small_body_passes():
    assert ask(body=(b"x" * 60, b"x" * 40))[::2] == (200, b"100")


@pytest.mark.parametrize(("body", "stated"), [((b"x" * 60, b"x" * 41), None), ((b"",), 101), ((b"x" * 101,), 5)])
def test_a_large_body_does_not_whether_it_says_so_or_not(body, stated):
    assert ask(body=body, stated=stated)[0] == 413


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/upload/"])
def test_uploads_as_files_are_refused(path):
    assert ask(path)[0] == 403


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/passwd", "/file=x", "/gradio_api/proxy=https://a.hf.space/x"])
def test_no_file_is_served(path):
    assert ask(path, method="GET")[0] == 403
    assert ask("/gradio_api/info", method="GET")[0] == 200


@pytest.mark.parametrize("path", ["/", "/gradio_api/upload", "/assets/x.js"])
def test_every_answer_forbids_other_hosts(path):
    _, headers, _ = ask(path)
    policy = headers[b"content-security-policy"].decode()
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    assert headers[b"cache-control"] == (b"max-age=1" if path.startswith("/assets") else b"no-store")
