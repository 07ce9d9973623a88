"""Push and load through the real huggingface_hub and transformers, against a Hub on the loopback interface."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from hub_runs import CARD, MODEL, REPO, SENT, write_run
from hub_server import READ_TOKEN, WRITE_TOKEN
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

import hf_cxr
from hf_cxr.commands import main
from hf_cxr.hub import HubError, PushExtras, prepare_repo, push_run
from hf_cxr.hub.file_list import list_names
from hf_cxr.saved_models import fingerprint


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_one_commit_with_the_run_and_nothing_private(hub, finished_run):
    pushed = push_run(finished_run, REPO, commit_message="Upload the run")
    commits = hub.repos["models", REPO].commits
    assert [commit.title for commit in commits] == ["initial commit", "Upload the run"]
    assert pushed.url == f"{hub.url}/{REPO}/commit/{commits[-1].oid}"
    assert set(hub.files(REPO)) == MODEL | set(SENT)
    assert set(list_names(finished_run)) == MODEL | set(SENT)
    assert hub.read(REPO, "config.json") == (finished_run / "config.json").read_bytes()
    sent = b"".join(request.body for request in hub.requests)
    assert b"checkpoint-10" not in sent
    assert b"predictions" not in sent


def test_weights_go_through_lfs_and_the_token_stays_on_the_hub(hub, finished_run):
    push_run(finished_run, REPO)
    assert [path for path, file in hub.files(REPO).items() if file.lfs] == ["model.safetensors"]
    assert hub.read(REPO, "model.safetensors") == (finished_run / "model.safetensors").read_bytes()
    (upload,) = hub.calls("PUT", "/lfs/")
    assert "authorization" not in upload.headers
    assert hub.calls("POST", "/commit/main")[0].headers["authorization"] == f"Bearer {WRITE_TOKEN}"


def test_predictions_go_up_only_when_asked_and_come_down_again(hub, finished_run):
    push_run(finished_run, REPO, extras=PushExtras(predictions=True))
    assert hub.read(REPO, "predictions/test.parquet") == (finished_run / "predictions/test.parquet").read_bytes()
    push_run(finished_run, REPO)
    assert "predictions/test.parquet" not in hub.files(REPO)


def test_second_push_updates_and_removes_what_is_gone(hub, run):
    push_run(run, REPO)
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    (run / "figures/training.png").unlink()
    hub.repos["models", REPO].commits[-1].files["NOTES.md"] = hub.files(REPO)["README.md"]  # somebody else's file
    hub.requests.clear()
    push_run(run, REPO)
    assert hub.read(REPO, "metrics.json") == b'{"macro_auc": 0.8}'
    assert set(hub.files(REPO)) == (MODEL | set(SENT) | {"NOTES.md"}) - {"figures/training.png"}
    assert not hub.calls("PUT", "/lfs/")  # the same weights are not sent again
    assert Path(hf_hub_download(REPO, "metrics.json")).read_text() == '{"macro_auc": 0.8}'
    assert len(hub.repos["models", REPO].commits) == 3


def test_push_without_changes_makes_no_commit(hub, finished_run):
    first = push_run(finished_run, REPO)
    assert push_run(finished_run, REPO) == first
    assert len(hub.repos["models", REPO].commits) == 2


def test_every_push_has_a_tag_that_keeps_its_files(hub, run):
    first = push_run(run, REPO)
    repo = hub.repos["models", REPO]
    assert repo.tags == {first.tag: first.commit}
    assert first.commit == repo.commits[-1].oid
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    second = push_run(run, REPO)
    assert second.tag != first.tag
    assert repo.tags == {first.tag: first.commit, second.tag: second.commit}
    assert Path(hf_hub_download(REPO, "metrics.json", revision=first.tag)).read_text() == "{}"
    assert Path(hf_hub_download(REPO, "metrics.json", revision=second.tag)).read_text() == '{"macro_auc": 0.8}'
    (run / "metrics.json").write_text("{}")
    again = push_run(run, REPO)  # the files of the first push: its tag is not moved
    assert (again.tag, repo.tags[first.tag]) == (first.tag, first.commit)
    assert again.commit == repo.commits[-1].oid


def test_a_push_that_finds_nothing_new_makes_a_missing_tag(hub, run):
    first = push_run(run, REPO)
    repo = hub.repos["models", REPO]
    named = push_run(run, REPO, tag="v1.0")
    assert (named.url, named.commit) == (first.url, first.commit)
    assert repo.tags == {first.tag: first.commit, "v1.0": first.commit}
    assert push_run(run, REPO, tag="v1.0") == named
    assert len(repo.commits) == 2
    hub.requests.clear()
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    with pytest.raises(HubError, match=r"the tag v1\.0 exists.*never moves; nothing was sent; give another --tag"):
        push_run(run, REPO, tag="v1.0")
    assert not hub.calls("POST", "/preupload/")
    push_run(run, REPO, tag="v1.1")
    with pytest.raises(HubError, match=r"the tag v1\.0 exists"):  # nothing changed, but it is of an earlier commit
        push_run(run, REPO, tag="v1.0")


@pytest.mark.parametrize("tag", ["main", "a b", "-x", "a/b", "", "x..y", "v1.lock", "0" * 40, "x" * 81])
def test_a_name_that_cannot_be_a_tag_is_refused_before_any_request(hub, finished_run, tag):
    with pytest.raises(ValueError, match="cannot be a tag"):
        push_run(finished_run, REPO, tag=tag)
    assert hub.requests == []


def test_handler_and_exported_models_go_up_only_when_asked_and_come_down_again(hub, run):
    import onnx_files

    onnx_files.write(run / "export/onnx/model.onnx", fingerprint(run))
    push_run(run, REPO)
    assert set(hub.files(REPO)) == MODEL | set(SENT)
    push_run(run, REPO, extras=PushExtras(handler=True, onnx=True))
    assert set(hub.files(REPO)) == MODEL | set(SENT) | {"handler.py", "requirements.txt", "onnx/model.onnx"}
    assert hub.files(REPO)["onnx/model.onnx"].lfs
    assert hub.read(REPO, "onnx/model.onnx") == (run / "export/onnx/model.onnx").read_bytes()
    assert hub.read(REPO, "requirements.txt") == f"hf-cxr[dicom]=={hf_cxr.__version__}\n".encode()
    push_run(run, REPO)
    assert set(hub.files(REPO)) == MODEL | set(SENT)


def test_what_a_push_deletes_is_named_and_another_handler_stays(hub, run, capsys, caplog):
    caplog.set_level("INFO", logger="hf_cxr")
    push_run(run, REPO, extras=PushExtras(handler=True, predictions=True))
    assert main(["push", str(run), REPO]) == 0
    printed = capsys.readouterr().out
    gone = ("handler.py", "requirements.txt", "predictions/test.parquet", "predictions/validation.parquet")
    for path in gone:
        assert f"deleted {path}" in printed
        assert f"deleted {path}" in caplog.text
    assert set(hub.files(REPO)) == MODEL | set(SENT)
    files = hub.repos["models", REPO].commits[-1].files
    files |= dict.fromkeys(("handler.py", "requirements.txt"), files["README.md"])  # somebody else's
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    assert push_run(run, REPO).deleted == ()
    assert {"handler.py", "requirements.txt"} < set(hub.files(REPO))


def test_another_push_in_between_is_not_undone(hub, run):
    push_run(run, REPO)
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    repo = hub.repos["models", REPO]
    hub.fail(
        "POST", "/preupload/", status=0, then=lambda: hub.new_commit(repo, "theirs", dict(repo.commits[-1].files))
    )
    with pytest.raises(HubError, match=r"changed meanwhile.*run the same command again") as caught:
        push_run(run, REPO)
    assert "\n" not in str(caught.value)
    assert repo.commits[-1].title == "theirs"
    push_run(run, REPO)
    assert hub.read(REPO, "metrics.json") == b'{"macro_auc": 0.8}'


def test_dry_run_compares_with_the_repository_and_changes_nothing(hub, run, capsys):
    def dry_run(*flags):
        commits = {name: len(repo.commits) for name, repo in hub.repos.items()}
        before = len(hub.requests)
        status = main(["push", str(run), REPO, "--dry_run", *flags])
        assert not [r for r in hub.requests[before:] if r.method not in ("GET", "HEAD")]
        assert {name: len(repo.commits) for name, repo in hub.repos.items()} == commits
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    assert "does not exist: a push makes it, private" in dry_run()[1]
    first = push_run(run, REPO, extras=PushExtras(predictions=True))
    status, text = dry_run("--include_predictions")
    assert status == 0
    assert f"{first.tag} (exists)" in text
    assert text.count("(unchanged)") == len(hub.files(REPO))
    (run / "metrics.json").write_text('{"macro_auc": 0.8}')
    (run / "figures/training.png").unlink()
    text = dry_run()[1]
    assert "metrics.json  (changed)" in text
    assert text.count("(unchanged)") == len(MODEL | set(SENT)) - 2
    deleted = {line.split()[1] for line in text.splitlines() if line.split()[0] == "delete"}
    assert deleted == {"figures/training.png", "predictions/test.parquet", "predictions/validation.parquet"}
    push_run(run, REPO, tag="v1")
    (run / "metrics.json").write_text("{}")
    status, text = dry_run("--tag", "v1")
    assert status == 2
    assert "the tag v1 exists" in text
    hub.fail("GET", "/refs", status=500)
    status, text = dry_run()
    assert status == 0  # the files were checked all the same
    assert "not compared with the repository: could not read" in text


def test_prepare_gives_the_full_name_and_may_be_repeated(hub):
    assert prepare_repo("swin-nih") == REPO
    assert prepare_repo(REPO) == REPO
    assert prepare_repo("lab/swin-nih") == "lab/swin-nih"
    assert not hub.files(REPO)
    prepare_repo("public", private=False)
    assert [repo.private for repo in hub.repos.values()] == [True, True, False]


def test_private_repository_needs_a_token(hub, finished_run):
    push_run(finished_run, REPO)
    assert hub.repos["models", REPO].private
    assert Path(hf_hub_download(REPO, "config.json")).read_bytes() == (finished_run / "config.json").read_bytes()
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(REPO, "metrics.json", token=False)


def test_private_push_into_a_public_repository_is_refused(hub, finished_run):
    prepare_repo(REPO, private=False)
    with pytest.raises(HubError, match=rf"{REPO} exists and is public.*--public.*hf repos settings"):
        push_run(finished_run, REPO)
    assert not hub.files(REPO)
    push_run(finished_run, REPO, private=False)
    assert "README.md" in hub.files(REPO)


def test_a_repository_that_is_private_stays_so(hub, finished_run):
    prepare_repo(REPO)
    push_run(finished_run, REPO, private=False)
    assert hub.repos["models", REPO].private


THEIRS = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}


@pytest.mark.parametrize(
    "config",
    [json.dumps(THEIRS), json.dumps(THEIRS | {"hf_cxr": None}), "[1]", "{", None],
    ids=["no record", "empty record", "a list", "not JSON", "no config.json"],
)
def test_a_model_of_another_program_is_not_replaced(hub, run, capsys, config):
    prepare_repo(REPO)
    repo = hub.repos["models", REPO]
    theirs = {"README.md": "# Theirs", "model.safetensors": "theirs"} | ({"config.json": config} if config else {})
    files = dict(repo.commits[-1].files)
    for path, text in theirs.items():
        files[path] = hub.blobs.file(hub.blobs.write(iter([text.encode()]))[0], lfs=False)
    hub.new_commit(repo, "theirs", files)
    for words in (["push", str(run), REPO], ["push", str(run), REPO, "--dry_run"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "files of another program" in error
        assert "--replace" in error
    with pytest.raises(HubError, match=r"files of another program.*--hub_model_id"):  # as before training
        prepare_repo(REPO)
    assert {path: hub.read(REPO, path).decode() for path in hub.files(REPO)} == theirs
    assert repo.tags == {}
    assert main(["push", str(run), REPO, "--dry_run", "--replace"]) == 0
    assert "README.md  (changed)" in capsys.readouterr().out
    assert main(["push", str(run), REPO, "--replace"]) == 0
    assert set(hub.files(REPO)) == MODEL | set(SENT)
    assert main(["push", str(run), REPO]) == 0  # it is ours now


def test_a_repository_as_the_web_page_makes_it_is_pushed_to(hub, run):
    prepare_repo(REPO)
    repo = hub.repos["models", REPO]
    card = hub.blobs.file(hub.blobs.write(iter([b"---\nlicense: mit\n---\n"]))[0], lfs=False)
    hub.new_commit(repo, "initial commit", {**repo.commits[-1].files, "README.md": card})
    push_run(run, REPO)
    assert set(hub.files(REPO)) == MODEL | set(SENT)


@pytest.mark.parametrize(
    ("name", "part"), [("a/b/c", "a/b/c"), ("bad name", "bad name"), ("-x", "-x"), ("x" * 97, "96 characters")]
)
def test_bad_name_is_refused_before_any_request(hub, name, part):
    with pytest.raises(ValueError, match=f"{part}.*") as caught:
        prepare_repo(name)
    assert "namespace/name" in str(caught.value)
    assert hub.requests == []


def test_no_login_is_refused_before_any_request(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"not logged in.*hf auth login"):
        prepare_repo(REPO)
    assert hub.requests == []


def test_refused_token_names_the_repair(hub):
    hub.tokens.clear()
    with pytest.raises(HubError, match=r"refused the token.*hf auth login --force"):
        prepare_repo(REPO)
    assert not hub.repos


def test_token_that_may_only_read_is_refused_before_training(hub):
    with pytest.raises(HubError, match="write access"):
        prepare_repo(REPO, token=READ_TOKEN)
    assert not hub.repos
    prepare_repo(REPO)
    with pytest.raises(HubError, match="write access"):  # although the repository is there
        prepare_repo(REPO, token=READ_TOKEN)


def test_namespace_of_somebody_else_names_the_allowed_ones(hub):
    with pytest.raises(HubError, match=r'namespace "microsoft".*tester, lab'):
        prepare_repo("microsoft/swin-nih")


def test_offline_mode_is_refused_before_any_request(hub, finished_run, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (lambda: prepare_repo(REPO), lambda: push_run(finished_run, REPO)):
        with pytest.raises(HubError, match=r"offline mode.*HF_HUB_OFFLINE"):
            call()
    assert hub.requests == []


def test_tests_are_offline_without_the_hub_fixture():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert huggingface_hub.is_offline_mode()


@pytest.mark.parametrize("name", sorted(MODEL | set(SENT) - {"figures/training.png"}))
def test_incomplete_folder_is_refused_before_any_request(hub, run, name):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        push_run(run, REPO)
    (run / name).touch()
    with pytest.raises(FileNotFoundError, match=f"{name} is empty"):
        push_run(run, REPO)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("# no metadata\n", "no metadata"),
        ("---\ntags: [a\n---\n", "does not parse"),
        ("---\n- a\n---\n", "does not parse"),
        ("---\nmodel-index:\n- results: 3\n---\n", "does not parse"),
    ],
)
def test_broken_card_is_refused_before_any_request(hub, run, card, message):
    (run / "README.md").write_text(card)
    with pytest.raises(ValueError, match=f"README.md.*{message}"):
        push_run(run, REPO)
    assert hub.requests == []


def test_card_that_the_hub_refuses_creates_nothing(hub, run):
    (run / "README.md").write_text(CARD.replace("apache-2.0", "apache2"))
    with pytest.raises(ValueError, match=r'refuses the card.s metadata.*"license"'):
        push_run(run, REPO)
    assert not hub.repos


@pytest.mark.parametrize("secret", [WRITE_TOKEN, "hf_" + "aB3" * 12])
def test_file_with_an_access_token_is_refused(hub, run, secret):
    (run / "config.yaml").write_text(f"hub_token: {secret}\nweight_decay: 0.05\n")
    with pytest.raises(ValueError, match=r"config.yaml contains an access token") as caught:
        push_run(run, REPO)
    assert secret not in str(caught.value)
    assert hub.requests == []


def test_dropped_upload_is_tried_again(hub, finished_run):
    hub.fail("PUT", "/lfs/", times=1)
    push_run(finished_run, REPO)
    assert [request.status for request in hub.calls("PUT", "/lfs/")] == [0, 200]
    assert hub.read(REPO, "model.safetensors") == (finished_run / "model.safetensors").read_bytes()


def test_failed_upload_commits_nothing_and_can_be_repeated(hub, finished_run):
    hub.fail("PUT", "/lfs/", status=413)
    with pytest.raises(HubError, match=r"could not push .*'model\.safetensors'.*413"):
        push_run(finished_run, REPO)
    assert not hub.files(REPO)
    assert not hub.calls("POST", "/commit/main")
    push_run(finished_run, REPO)
    assert set(hub.files(REPO)) == MODEL | set(SENT)


@pytest.mark.parametrize(
    ("method", "pattern", "status"),
    [
        ("POST", "/preupload/", 401),
        ("POST", "/objects/batch", 403),
        ("POST", "/commit/", 500),
        ("POST", "/commit/", None),
    ],
)
def test_a_failure_at_any_step_is_one_line_and_can_be_repeated(hub, finished_run, method, pattern, status):
    hub.fail(method, pattern, status=status, times=50)
    with pytest.raises(HubError, match="could not push") as caught:
        push_run(finished_run, REPO)
    assert "signature=" not in str(caught.value)
    assert not hub.files(REPO)
    hub.faults.clear()
    push_run(finished_run, REPO)
    assert set(hub.files(REPO)) == MODEL | set(SENT)


def test_corrupted_upload_is_refused(hub, run, monkeypatch):
    """The server checks what arrives, so a pass of the tests above means that the right bytes did."""
    from huggingface_hub.lfs import UploadInfo

    monkeypatch.setattr(UploadInfo, "sha256", property(lambda info: b"\1" * 32))
    with pytest.raises(HubError, match="422"):
        push_run(run, REPO)
    assert not hub.files(REPO)


def test_unreachable_hub_says_so(hub):
    prepare_repo(REPO)  # the client keeps this connection open
    hub.stop()
    with pytest.raises(HubError, match=f"no connection to {hub.url}"):
        prepare_repo(REPO)


def test_server_answers_ranges_and_its_own_entries(hub, finished_run):
    """The parts of the server that other tests may lean on: ranges, trees, errors."""
    push_run(finished_run, REPO, private=False)
    session = huggingface_hub.get_session()
    weights = (finished_run / "model.safetensors").read_bytes()
    link = f"{hub.url}/{REPO}/resolve/main/model.safetensors"
    part = session.get(link, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, weights[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(weights)}"
    assert session.get(link, headers={"Range": f"bytes={len(weights)}-"}).status_code == 416
    assert {entry.path for entry in huggingface_hub.list_repo_tree(REPO, recursive=False)} >= {
        "figures",
        "config.json",
    }
    assert {entry.path for entry in huggingface_hub.list_repo_tree(REPO, "figures")} == {"figures/training.png"}
    file = hub.files(REPO)["config.json"]
    (info,) = huggingface_hub.HfApi().get_paths_info(REPO, ["config.json", "absent"])
    assert (info.size, info.blob_id) == (dataclasses.astuple(file)[1], file.oid)
    assert not huggingface_hub.file_exists(REPO, "absent.json")
    with pytest.raises(HfHubHTTPError, match="Invalid rev id"):
        hf_hub_download(REPO, "config.json", revision="absent")
