"""Training that pushes: the token is saved nowhere, and a push that was killed is finished by the command it names."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hub_server import USER, WRITE_TOKEN
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import parse_arguments
from hf_cxr.hub import push_target

REPO = f"{USER}/tiny"
TINY = {
    "dataset": "phantom",
    "phantom_train": 16,
    "phantom_validation": 16,
    "phantom_test": 16,
    "phantom_size": 48,
    "phantom_prevalence_floor": 0.2,
    "image_size": 32,
    "resize_size": 36,
    "model_kwargs": {"patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    "loss": "bce",
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "bootstrap_resamples": 20,
    "disable_tqdm": True,
}


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


def test_a_token_is_used_and_saved_nowhere(hub, tmp_path, config, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    run = tmp_path / "run"
    words = ["train", config, "--output_dir", str(run), "--push_to_hub", "--hub_model_id", REPO]
    assert hf_cxr_main([*words, "--hub_token", WRITE_TOKEN, "--report_to", "tensorboard"]) == 0
    assert hub.repos["models", REPO].private
    assert "README.md" in hub.files(REPO)  # so the token was used
    card = ModelCard(hub.read(REPO, "README.md").decode())
    card.validate(repo_type="model")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    relative = {link for link in re.findall(r'(?:href|src)="([^"]*)"', html) if "://" not in link}
    assert {"report.html", "figures/roc_test.png"} <= relative <= set(hub.files(REPO))
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {"run.log", "optimizer.pt", "trainer_state.json"} <= {path.name for path in files}
    assert not [path for path in files if path.name == "training_args.bin"]
    assert not [path for path in files if WRITE_TOKEN.encode() in path.read_bytes()]
    printed = capsys.readouterr()
    assert WRITE_TOKEN not in printed.out + printed.err
    assert str(tmp_path) not in "".join(hub.read(REPO, name).decode("latin-1") for name in hub.files(REPO))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ("run", True)),
        (["--hub_model_id", "you/x"], ("you/x", True)),
        (["--hub_private_repo"], ("run", True)),
        (["--hub_private_repo", "false"], ("run", False)),
        (["--no_hub_private_repo"], ("run", False)),
    ],
)
def test_a_push_is_private_unless_a_public_one_is_asked_for(tmp_path, config, flags, expected):
    args = parse_arguments([config, "--output_dir", str(tmp_path / "run"), *flags])
    assert push_target(args.training) == expected


@pytest.mark.parametrize("value", [True, False])
def test_the_setting_of_a_yaml_holds_unless_a_flag_says_otherwise(config, value):
    Path(config).write_text(yaml.safe_dump(TINY | {"hub_private_repo": value}))
    assert push_target(parse_arguments([config]).training)[1] is value
    assert push_target(parse_arguments([config, "--hub_private_repo", "true"]).training)[1] is True


def test_a_public_repository_is_refused_before_training_unless_asked_for(hub, tmp_path, config, capsys):
    from hf_cxr.hub import prepare_repo

    prepare_repo(REPO, private=False)
    words = ["train", config, "--output_dir", str(tmp_path / "run"), "--push_to_hub", "--hub_model_id", REPO]
    assert hf_cxr_main(words) == 2
    error = capsys.readouterr().err
    assert "public" in error
    assert "--hub_private_repo false" in error
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert hf_cxr_main([*words, "--hub_private_repo", "false"]) == 0
    assert "README.md" in hub.files(REPO)


def test_a_model_of_another_program_is_refused_before_training(hub, tmp_path, config, capsys):
    from hf_cxr.hub import prepare_repo

    prepare_repo(REPO)
    repo = hub.repos["models", REPO]
    theirs = hub.blobs.file(hub.blobs.write(iter([b'{"model_type": "vit"}']))[0], lfs=False)
    hub.new_commit(repo, "theirs", {"config.json": theirs})
    words = ["train", config, "--output_dir", str(tmp_path / "run"), "--push_to_hub", "--hub_model_id", REPO]
    assert hf_cxr_main(words) == 2
    assert "--hub_model_id" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert repo.commits[-1].files == {"config.json": theirs}


def test_a_push_that_failed_names_the_command(hub, tmp_path, config, capsys):
    run = tmp_path / "run"
    hub.fail("POST", "/commit/", status=500, times=20)
    words = ["train", config, "--output_dir", str(run), "--push_to_hub", "--hub_model_id", REPO]
    assert hf_cxr_main([*words, "--hub_private_repo", "false"]) == 2
    command = f"hf-cxr push {run} {REPO} --public"
    assert command in capsys.readouterr().err
    assert not hub.files(REPO)
    hub.faults.clear()
    assert hf_cxr_main(shlex.split(command)[1:]) == 0
    assert "README.md" in hub.files(REPO)
    assert not hub.repos["models", REPO].private
