"""Checkpoints: whole to the byte or passed over, the best one found wherever the folder is, never a moment without."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import rows, trainer

from hf_cxr.training.checkpoints import CHECKSUMS, checkpoints_of, problems_of, seal, usable_checkpoint

SETTINGS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 20,  # 2 steps an epoch
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": None,
    "load_best_model_at_end": True,
}


def new_trainer(folder, scores=(0.9, 0.6, 0.7), **changes):
    run = trainer(folder, eval_dataset=rows(16, seed=1), **(SETTINGS | changes))
    scores = iter(scores)
    run._metrics_of_set = lambda prediction: {"auc": next(scores)}
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three checkpoints, of steps 2, 4 and 6; the first is the best."""
    folder = tmp_path_factory.mktemp("run")
    new_trainer(folder).train()
    return folder


@pytest.fixture
def run_dir(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def flip(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


def test_every_file_of_a_checkpoint_is_vouched_for(run_dir):
    newest = run_dir / "checkpoint-6"
    names = {path.name for path in newest.iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < names
    assert set(json.loads((newest / CHECKSUMS).read_text())) == names - {CHECKSUMS}
    assert problems_of(newest) == []


def test_any_flipped_bit_cut_or_missing_file_makes_it_damaged(run_dir):
    newest = run_dir / "checkpoint-6"
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        flip(path)
        assert problems_of(newest), f"a flipped bit in {path.name}"
        path.write_bytes(content[: len(content) // 2])
        assert problems_of(newest), f"{path.name} cut short"
        path.unlink()
        assert problems_of(newest) or path.name == CHECKSUMS, f"{path.name} is missing"
        path.write_bytes(content)
    assert problems_of(newest) == []


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "model.safetensors", "rng_state.pth"])
def test_a_damaged_newest_one_gives_way_to_an_older_one(run_dir, name, caplog):
    flip(run_dir / "checkpoint-6" / name)
    assert usable_checkpoint(run_dir).name == "checkpoint-4"
    assert name in caplog.text
    assert (run_dir / "damaged-checkpoint-6").is_dir()
    assert [path.name for path in checkpoints_of(run_dir)] == ["checkpoint-2", "checkpoint-4"]


def test_checksums_that_vouch_for_nothing_are_not_taken(run_dir):
    newest = run_dir / "checkpoint-6"
    for checksums in ("{}", "[1]", '{"model.safetensors": {}}', '{"config.json": {"bytes": 1, "sha256": null}}'):
        (newest / CHECKSUMS).write_text(checksums)
        assert problems_of(newest), checksums
    assert usable_checkpoint(run_dir).name == "checkpoint-4"


@pytest.mark.parametrize("sealed", [True, False])
def test_the_files_of_another_step_are_not_taken_for_a_step(run_dir, sealed):
    # Whole to the byte, but the best step, which the state names by its number, would be another one's weights.
    shutil.rmtree(run_dir / "checkpoint-2")
    shutil.copytree(run_dir / "checkpoint-4", run_dir / "checkpoint-2")
    if not sealed:
        (run_dir / "checkpoint-2" / CHECKSUMS).unlink()
    assert "step 4" in problems_of(run_dir / "checkpoint-2")[0]
    assert problems_of(run_dir / "checkpoint-4") == []
    assert usable_checkpoint(run_dir) is None  # the best one, of step 2, is trained once more


def test_a_checkpoint_without_optimizer_is_a_model_and_not_resumed_from(run_dir):
    # The best one can be gone back to all the same.
    for checkpoint in checkpoints_of(run_dir):
        (checkpoint / "optimizer.pt").unlink()
        seal(checkpoint)
    assert problems_of(run_dir / "checkpoint-2") == []
    assert usable_checkpoint(run_dir) is None


def test_a_file_in_the_place_of_a_checkpoint_is_named(run_dir):
    (run_dir / "checkpoint-8").write_text("")
    with pytest.raises(ValueError, match=r"checkpoint-8 is not a folder.*move it away"):
        usable_checkpoint(run_dir)


def test_an_unfinished_one_is_cleared_away(run_dir):
    (run_dir / "checkpoint-6" / CHECKSUMS).unlink()
    (run_dir / "checkpoint-6" / "trainer_state.json").write_text('{"global_step": 6, "log_hist')
    assert usable_checkpoint(run_dir).name == "checkpoint-4"
    assert not (run_dir / "checkpoint-6").exists()
    assert not list(run_dir.glob("damaged-*"))


def test_a_damaged_best_one_is_trained_once_more(run_dir):
    flip(run_dir / "checkpoint-2" / "model.safetensors")
    assert usable_checkpoint(run_dir, needs_best=False).name == "checkpoint-6"
    assert usable_checkpoint(run_dir) is None


def test_each_process_needs_its_own_random_state(run_dir):
    assert usable_checkpoint(run_dir, world_size=2) is None
    assert usable_checkpoint(run_dir).name == "checkpoint-6"
    assert usable_checkpoint(run_dir / "nothing") is None


def test_checkpoints_of_before_checksums_are_taken_if_they_are_complete(run_dir):
    for checkpoint in checkpoints_of(run_dir):
        (checkpoint / CHECKSUMS).unlink()
    assert problems_of(run_dir / "checkpoint-6") == []
    (run_dir / "checkpoint-6" / "optimizer.pt").unlink()
    assert usable_checkpoint(run_dir).name == "checkpoint-4"


def test_saved_state_holds_no_path(trained):
    for file in trained.rglob("*.json"):
        assert str(trained.parent) not in file.read_text(), file


@pytest.mark.parametrize("changes", [{}, {"save_steps": 3, "eval_steps": 3}], ids=["division", "more"])
def test_another_division_of_a_step_is_no_cause_for_a_warning(run_dir, changes, caplog):
    # transformers' loggers do not propagate.
    logging.getLogger("transformers.trainer_utils").addHandler(caplog.handler)
    shutil.rmtree(run_dir / "checkpoint-6")
    halves = {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 2} | changes
    resumed = new_trainer(run_dir, load_best_model_at_end=False, **halves)
    resumed.train(resume_from_checkpoint=str(run_dir / "checkpoint-4"))
    logging.getLogger("transformers.trainer_utils").removeHandler(caplog.handler)
    assert ("do not match" in caplog.text) == bool(changes)
    assert json.loads((run_dir / "checkpoint-6" / "trainer_state.json").read_text())["train_batch_size"] == 10


def test_a_moved_folder_goes_back_to_its_own_best_checkpoint(trained, run_dir, monkeypatch):
    # Both folders are there: the original's best weights must not be taken for the copy's.
    file = run_dir / "checkpoint-2" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    seal(run_dir / "checkpoint-2")
    monkeypatch.chdir(run_dir.parent)
    resumed = new_trainer("run")
    resumed.train(resume_from_checkpoint=str(usable_checkpoint("run")))
    assert resumed.state.best_model_checkpoint == "run/checkpoint-2"
    best, last, original = (
        type(resumed.model).from_pretrained(folder).state_dict()
        for folder in (run_dir / "checkpoint-2", run_dir / "checkpoint-6", trained / "checkpoint-2")
    )
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, best[name])
    for other in (last, original):
        assert any(not torch.equal(best[name], other[name]) for name in best)


def test_best_one_that_was_damaged_since_is_refused(tmp_path):
    run = new_trainer(tmp_path)
    scores = iter((0.9, 0.6, 0.7))

    def measured(prediction):
        score = next(scores)
        if score == 0.7:
            flip(tmp_path / "checkpoint-2" / "model.safetensors")
        return {"auc": score}

    run._metrics_of_set = measured
    with pytest.raises(ValueError, match=r"checkpoint-2.*model\.safetensors.*run the same command again"):
        run.train()


def test_one_whole_checkpoint_is_on_the_disk_at_every_moment(tmp_path, monkeypatch):
    whole = []

    def looked_at(checkpoint):
        sealed = [path for path in checkpoints_of(tmp_path) if (path / CHECKSUMS).exists()]
        whole.append([path.name for path in sealed if not problems_of(path)])
        seal(checkpoint)

    monkeypatch.setattr("hf_cxr.training.trainer.seal", looked_at)
    new_trainer(tmp_path, load_best_model_at_end=False, save_total_limit=1).train()
    assert "checkpoint-2" in whole[1]
    assert "checkpoint-4" in whole[2]
    assert "checkpoint-4" not in {path.name for path in checkpoints_of(tmp_path)}
