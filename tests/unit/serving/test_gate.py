"""What a request passes before the model: each refusal, the counts, and that nothing holds a place for ever."""

import asyncio
import json

import pytest

from hf_cxr.serving.gate import Gate, Metrics

OK = [(b"content-type", b"application/json"), (b"x-hf-cxr-batch", b"4"), (b"x-hf-cxr-unusual", b"1")]


def gate_around(answer=None, **settings):
    async def app(scope, receive, send):
        if answer is not None:
            await answer()
        await send({"type": "http.response.start", "status": 200, "headers": OK})
        await send({"type": "http.response.body", "body": b"{}"})

    limits = {"token": None, "max_bytes": 100, "max_waiting": 2, "timeout": 5.0} | settings
    return Gate(app, metrics=Metrics(), **limits)


async def ask(gate, path="/predict", method="POST", **headers):
    """The status, the headers and the JSON of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    named = {"content-length": "10"} | {key.replace("_", "-"): value for key, value in headers.items()}
    scope = {"type": "http", "path": path, "method": method}
    scope["headers"] = [(key.encode(), value.encode()) for key, value in named.items() if value is not None]
    await gate(scope, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


def count(gate, name, **labels):
    return gate.metrics.registry.get_sample_value(name, {key: str(value) for key, value in labels.items()})


def test_an_answer_passes_and_is_counted():
    gate = gate_around()
    assert asyncio.run(ask(gate))[0] == 200
    assert count(gate, "hf_cxr_requests_total", status=200) == 1
    assert count(gate, "hf_cxr_images_predicted_together_sum") == 4
    assert count(gate, "hf_cxr_unusual_images_total") == 1
    assert count(gate, "hf_cxr_request_seconds_count") == 1


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {"content_length": None}, 411),
        ({}, {"content_length": "x"}, 411),
        ({}, {"content_length": "101"}, 413),
        ({"max_waiting": 0}, {}, 503),
        ({"token": "t"}, {}, 401),
        ({"token": "t"}, {"authorization": "Bearer u"}, 401),
    ],
)
def test_each_refusal_has_its_status_and_is_counted(settings, headers, status):
    gate = gate_around(**settings)
    found, answered, said = asyncio.run(ask(gate, **headers))
    assert (found, len(said["detail"]) > 5) == (status, True)
    assert count(gate, "hf_cxr_requests_total", status=status) == 1
    assert (b"retry-after" in answered) == (status == 503)
    assert count(gate, "hf_cxr_requests_total", status=200) is None


def test_the_token_opens_and_health_needs_none():
    gate = gate_around(token="t")
    assert asyncio.run(ask(gate, authorization="Bearer t"))[0] == 200
    assert asyncio.run(ask(gate, "/health", "GET"))[0] == 200
    assert asyncio.run(ask(gate, "/info", "GET"))[0] == 401


def test_a_request_that_gets_no_answer_is_given_up_and_leaves_its_place():
    gate = gate_around(answer=lambda: asyncio.sleep(60), timeout=0.05, max_waiting=1)
    for _ in range(3):  # a place that was kept would turn the second one away
        status, _, said = asyncio.run(ask(gate))
        assert (status, "timed out" in said["detail"]) == (504, True)
    assert count(gate, "hf_cxr_requests_in_progress") == 0
    assert count(gate, "hf_cxr_requests_total", status=504) == 3


def test_a_full_queue_turns_the_next_one_away_until_one_is_done():
    async def crowd():
        free = asyncio.Event()
        gate = gate_around(answer=free.wait, max_waiting=2)
        waiting = [asyncio.create_task(ask(gate)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(gate)
        free.set()
        return refused[0], [(await one)[0] for one in waiting], (await ask(gate))[0]

    assert asyncio.run(crowd()) == (503, [200, 200], 200)


def test_a_request_that_fails_is_counted_and_leaves_its_place():
    async def fail():
        raise RuntimeError("broken")

    gate = gate_around(answer=fail)
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(ask(gate))
    assert count(gate, "hf_cxr_requests_total", status=500) == 1
    assert count(gate, "hf_cxr_requests_in_progress") == 0
