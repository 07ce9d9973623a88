"""What goes wrong on the way to the Hub: each failure is one line with the repair, and the same push finishes it.

The client is the real one; the loopback Hub fails where a test asks for it.
"""

import logging
import threading
from pathlib import Path

import pytest
from hub_runs import MODEL, REPO, SENT, write_run
from hub_server import WRITE_TOKEN

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.hub import HubError, push_run, requests

ALL = MODEL | set(SENT)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long the client would have waited before each repetition; it does not wait."""
    seconds: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", seconds.append)
    return seconds


# Every request of a push, in its order, and what an error of it speaks of.
STEPS = (
    ("POST", "/api/validate-yaml"),
    ("POST", "/api/repos/create"),
    ("GET", "/auth-check/write"),
    ("GET", f"/api/models/{REPO}"),
    ("GET", "/tree/"),
    ("GET", "/refs"),
    ("POST", "/preupload/"),
    ("POST", "/info/lfs/objects/batch"),
    ("PUT", "/lfs/"),
    ("POST", "/lfs-verify"),
    ("POST", "/commit/"),
    ("POST", "/tag/"),
)


def test_the_steps_are_all_requests_of_a_push(hub, run):
    push_run(run, REPO)
    seen = {(request.method, step) for request in hub.requests for _, step in STEPS if step in request.path}
    assert {(method, step) for method, step in STEPS} <= seen
    assert all(any(step in request.path for _, step in STEPS) for request in hub.requests)


@pytest.mark.parametrize(
    ("method", "step", "status"),
    [
        *((method, step, 500) for method, step in STEPS),
        *(
            ("POST", step, status)
            for step in ("/repos/create", "/commit/", "/tag/")
            for status in (401, 403, 429, None)
        ),
        *(("PUT", "/lfs/", status) for status in (401, 403, 429, None)),
    ],
)
def test_a_step_that_fails_for_ever_is_one_line_and_the_same_push_finishes(
    hub, run, waits, capsys, method, step, status
):
    hub.fail(method, step, status=status, times=99, headers={"Retry-After": "7"} if status == 429 else None)
    assert hf_cxr_main(["push", str(run), REPO]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = (line for line in printed.err.splitlines() if line.startswith("hf-cxr push: "))
    assert "could not " in line
    words = {
        500: "the Hub itself failed",
        401: "hf auth login",
        403: "write access",
        429: "wait for 7 seconds",
        None: "no connection to",
    }[status]
    assert words in line
    assert WRITE_TOKEN not in printed.err
    assert "signature=" not in printed.err
    assert "Traceback" not in printed.err
    if step != "/tag/":
        assert not hub.repos or not hub.files(REPO)
    else:
        assert "files were pushed" in line
    hub.faults.clear()
    assert hf_cxr_main(["push", str(run), REPO]) == 0
    assert set(hub.files(REPO)) == ALL
    repo = hub.repos["models", REPO]
    assert list(repo.tags.values()) == [repo.commits[-1].oid]
    assert len(repo.commits) == 2


def test_a_second_push_that_cannot_read_whose_model_is_there_is_one_line(hub, run, capsys):
    push_run(run, REPO)
    hub.fail("GET", "/resolve/", status=500, times=99)
    assert hf_cxr_main(["push", str(run), REPO, "--tag", "v2"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-cxr push: "))
    assert "could not prepare" in line
    assert "the Hub itself failed" in line
    assert "v2" not in hub.repos["models", REPO].tags
    assert hf_cxr_main(["push", str(run), REPO, "--dry_run"]) == 0
    assert "not compared with the repository: could not read" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "step"), [("POST", "/preupload/"), ("POST", "objects/batch"), ("PUT", "/lfs/")])
@pytest.mark.parametrize("status", [500, 429, None])
def test_an_upload_that_fails_once_is_repeated_by_the_client(hub, run, waits, method, step, status):
    hub.fail(method, step, status=status, headers={"Retry-After": "7"} if status == 429 else None)
    push_run(run, REPO)
    assert set(hub.files(REPO)) == ALL
    assert waits[0] == (8 if status == 429 else 1)  # a second more than the Hub asks for


def test_a_connection_that_breaks_within_a_file_sends_it_again(hub, run, waits):
    hub.fail("PUT", "/lfs/", read=1000)
    push_run(run, REPO)
    assert hub.read(REPO, "model.safetensors") == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", ["/tree/", "/preupload/", "/commit/", "/tag/"])
def test_a_repository_that_is_deleted_meanwhile_is_made_again(hub, run, step):
    method = "GET" if step == "/tree/" else "POST"
    hub.fail(method, step, status=0, then=lambda: hub.repos.clear())
    with pytest.raises(HubError, match="if it was deleted just now, run the same command again"):
        push_run(run, REPO)
    push_run(run, REPO)
    assert set(hub.files(REPO)) == ALL


@pytest.mark.parametrize(("method", "step"), [("POST", "/repos/create"), ("POST", "/commit/"), ("POST", "/tag/")])
def test_a_hub_that_does_not_answer_is_given_up(hub, run, monkeypatch, method, step):
    """The client itself would wait forever."""
    monkeypatch.setattr(requests, "TIMEOUT", 0.3)
    released: threading.Event = hub.hold(method, step)
    with pytest.raises(HubError, match=r"did not answer within 0\.3 seconds.*run the same command again"):
        push_run(run, REPO)
    released.set()
    monkeypatch.undo()


def test_a_slow_upload_is_repeated(hub, run, waits, monkeypatch):
    monkeypatch.setattr(requests, "TIMEOUT", 0.3)
    released = hub.hold("PUT", "/lfs/")
    push_run(run, REPO)
    assert waits
    released.set()


def test_the_time_limit_ends_with_the_push(hub, run):
    import huggingface_hub

    before = huggingface_hub.get_session().timeout
    push_run(run, REPO)
    assert huggingface_hub.get_session().timeout == before


def test_a_dataset_of_the_same_name_is_another_repository(hub, run):
    from hf_cxr.hub.repository import prepare_repo

    prepare_repo(REPO, repo_type="dataset")
    push_run(run, REPO)
    assert set(hub.files(REPO)) == ALL
    assert not hub.files(REPO, "datasets")


def test_a_signed_address_is_in_no_log_line_and_no_traceback(hub, run, waits, capsys, caplog):
    hub.fail("PUT", "/lfs/", status=500, times=99)
    with caplog.at_level(logging.DEBUG):
        assert hf_cxr_main(["--debug", "push", str(run), REPO]) == 2
    printed = capsys.readouterr()
    assert "Traceback" in printed.err  # it was asked for
    assert hub.uploads  # so there was a signature
    everything = printed.out + printed.err + caplog.text
    assert not [signature for signature in hub.uploads if signature in everything]
    assert WRITE_TOKEN not in everything


def test_a_token_of_each_origin_is_printed_and_stored_nowhere(hub, run, tmp_path, capsys, caplog, monkeypatch):
    """From the environment, the file of `hf auth login`, and as an argument; with success, refusal and --debug."""
    from huggingface_hub import constants

    def push_all() -> None:
        for flags in ([], ["--dry_run"], ["--tag", "v1"], ["--handler", "--dry_run"]):
            hf_cxr_main(["--debug", "push", str(run), REPO, *flags])
        for status in (401, 403):
            hub.fail("POST", "/commit/", status=status)
            hf_cxr_main(["--debug", "push", str(run), REPO, "--handler"])
        hub.faults.clear()

    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with caplog.at_level(logging.DEBUG):
        push_all()
        monkeypatch.delenv("HF_TOKEN")
        Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True, exist_ok=True)
        Path(constants.HF_TOKEN_PATH).write_text(WRITE_TOKEN)
        push_all()
        Path(constants.HF_TOKEN_PATH).unlink()
        push_run(run, REPO, token=WRITE_TOKEN)
    assert hub.files(REPO)
    printed = capsys.readouterr()
    assert "Traceback" in printed.err
    assert WRITE_TOKEN not in printed.out + printed.err + caplog.text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert WRITE_TOKEN.encode() not in b"".join(request.body for request in hub.requests)
    kept = [path for path in Path(constants.HF_HUB_CACHE).parent.rglob("*") if path.is_file()]
    assert not [path for path in kept if WRITE_TOKEN.encode() in path.read_bytes()]
