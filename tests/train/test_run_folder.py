"""The run folder: one run at a time, nothing of another lost, unfinished files removed, settings that moved."""

import json
import logging
import multiprocessing
import os
import shutil
from types import SimpleNamespace

import datasets
import pytest
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType
from filelock import FileLock
from PIL import Image
from tiny import swin

from hf_cxr.config import parse_arguments
from hf_cxr.data import load_source
from hf_cxr.data.fingerprint import data_fingerprint, data_state
from hf_cxr.run import folder as run_folder
from hf_cxr.run.folder import LOCK, opened_run_folder
from hf_cxr.run.resume import check_resume
from hf_cxr.training import sharding


def arguments(folder, *flags):
    words = ["--output_dir", str(folder), "--phantom_train", "6", "--phantom_validation", "2", "--phantom_test", "2"]
    return parse_arguments([*words, *flags])


def opened(folder, *flags):
    with opened_run_folder(arguments(folder, *flags), PartialState()) as checkpoint:
        return checkpoint


STILL, DRAWS = (
    [word for key, value in swin(drop_path_rate=rate).items() for word in (f"--{key}", json.dumps(value))]
    for rate in (0.0, 0.2)
)
DIVIDED = ("--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2")


@pytest.fixture
def checkpoint(tmp_path):
    """An unfinished run whose checkpoint is of before checksums, so that its content does not matter."""
    return unfinished(tmp_path / "run")


@pytest.fixture
def still(tmp_path):
    """The same of a model that draws no random numbers, so that another division of a step gives the same weights."""
    return unfinished(tmp_path / "run", *STILL)


def unfinished(run_dir, *flags):
    opened(run_dir, *flags)
    folder = run_dir / "checkpoint-4"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"x")
    for name in ("config.json", "trainer_state.json"):
        (folder / name).write_text("{}")
    return folder


def test_the_same_run_resumes_and_another_is_refused(checkpoint):
    run_dir = checkpoint.parent
    assert opened(run_dir) == checkpoint
    assert opened(run_dir, "--per_device_eval_batch_size", "7") == checkpoint
    with pytest.raises(ValueError, match=r"other settings \(seed was 42 and is 5"):
        opened(run_dir, "--seed", "5")
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["seed"] == 42


def test_a_checkpoint_that_is_set_aside_is_in_the_log(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    assert opened(checkpoint.parent) is None
    assert (checkpoint.parent / "damaged-checkpoint-4").is_dir()
    log = (checkpoint.parent / "run.log").read_text()
    assert "checkpoint-4 cannot be resumed from: model.safetensors is missing" in log
    assert "damaged-checkpoint-4" in log


def test_a_key_that_came_later_had_its_default_before(checkpoint):
    config = checkpoint.parent / "config.yaml"
    values = yaml.safe_load(config.read_text())
    del values["train_limit"]
    config.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="train_limit was None and is 3"):
        opened(checkpoint.parent, "--train_limit", "3")
    assert opened(checkpoint.parent) == checkpoint


def test_an_option_that_the_dataset_does_not_take_may_differ(checkpoint):
    assert opened(checkpoint.parent, "--streaming_buffer", "10") == checkpoint  # phantoms are not streamed
    with pytest.raises(ValueError, match="phantom_seed was 0 and is 1"):
        opened(checkpoint.parent, "--phantom_seed", "1")


def test_two_runs_never_work_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0.1)
    with opened_run_folder(arguments(tmp_path / "run"), PartialState()):
        before = (tmp_path / "run" / "config.yaml").read_bytes()
        answer = multiprocessing.get_context("fork").Queue()
        multiprocessing.get_context("fork").Process(target=_try, args=(tmp_path / "run", answer)).start()
        assert "another run is working in" in answer.get(timeout=60)
        assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert opened(tmp_path / "run", "--seed", "5") is None


def _try(folder, answer):
    try:
        opened(folder, "--seed", "5")
        answer.put("opened")
    except ValueError as error:
        answer.put(str(error))


def test_a_lock_file_without_a_holder_is_ignored(tmp_path):
    lock = FileLock(tmp_path / "run" / LOCK)
    (tmp_path / "run").mkdir()
    lock.acquire()
    lock.release()
    assert opened(tmp_path / "run") is None


def test_a_run_that_was_killed_before_its_config_starts_again(tmp_path):
    run_dir = tmp_path / "run"
    opened(run_dir)
    (run_dir / "config.yaml").rename(run_dir / ".config-abcd_123.yaml")
    assert opened(run_dir) is None
    assert sorted(path.name for path in run_dir.iterdir()) == [LOCK, "config.yaml", "run.log"]


def test_unfinished_files_alone_do_not_make_a_folder_unusable(tmp_path):
    names = (".try-abcd1234", ".config-abcd1234.yaml")  # of a check of the place, and of a config.yaml half-written
    for name in names:
        (tmp_path / name).write_text("")
    assert opened(tmp_path) is None
    assert not any((tmp_path / name).exists() for name in names)


def test_unfinished_files_of_a_killed_run_are_removed_and_nothing_else(checkpoint):
    run_dir = checkpoint.parent
    for name in (".model-a1b2c3d4", ".uncalibrated"):
        (run_dir / name).mkdir()
        (run_dir / name / "model.safetensors").write_bytes(b"x")
    for name in (".metrics-a1b2c3d4.json", "predictions/.test-a1b2c3d4.parquet", "figures/.training-abcdefgh.png"):
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).write_bytes(b"x")
    kept = [run_dir / name for name in ("notes.txt", ".env", "my-figure-a1b2c3d4.png", "figures/mine.png")]
    for path in kept:
        path.write_bytes(b"x")
    assert opened(run_dir) == checkpoint
    hidden = {path.name for path in run_dir.rglob(".*")}
    assert hidden == {LOCK, ".env"}
    assert all(path.exists() for path in kept)


def with_fsdp(monkeypatch, devices=DistributedType.MULTI_GPU):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(sharding, "PartialState", lambda: SimpleNamespace(distributed_type=devices))


@pytest.mark.parametrize("flags", [(), DIVIDED, ("--resume_from_checkpoint", "checkpoint-4")])
def test_a_run_of_fsdp_is_not_resumed_without_it(still, flags):
    (still / "optimizer.pt").rename(still / "optimizer.bin")
    config = (still.parent / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint-4 was written with FSDP.*fsdp\.yaml"):
        opened(still.parent, *STILL, *flags)
    assert (still / "optimizer.bin").is_file()
    assert (still.parent / "config.yaml").read_bytes() == config


def test_a_run_without_fsdp_is_not_resumed_with_it(still, monkeypatch):
    with_fsdp(monkeypatch)
    with pytest.raises(ValueError, match=r"checkpoint-4 was written without FSDP"):
        opened(still.parent, *STILL)
    assert (still / "optimizer.pt").is_file()
    (still / "optimizer.pt").rename(still / "optimizer.bin")
    assert opened(still.parent, *STILL) == still


def test_on_a_cpu_the_launcher_of_fsdp_shards_nothing(still, monkeypatch):
    with_fsdp(monkeypatch, DistributedType.MULTI_CPU)
    assert opened(still.parent, *STILL) == still


def test_another_division_of_a_step_is_in_the_log(still, caplog):
    caplog.set_level(logging.INFO)
    assert opened(still.parent, *STILL, *DIVIDED) == still
    log = (still.parent / "run.log").read_text()
    assert "per_device_train_batch_size was 16 and is 8" in log
    assert "gradient_accumulation_steps was 1 and is 2" in log
    assert opened(still.parent, *STILL, *DIVIDED) == still
    assert (still.parent / "run.log").read_text() == log


def test_a_trained_run_is_finished_with_any_division(tmp_path):
    run_dir = tmp_path / "run"
    checkpoint = unfinished(run_dir, *DRAWS)
    with pytest.raises(ValueError, match="it must resume as it was started, because each process draws"):
        opened(run_dir, *DRAWS, *DIVIDED)
    (run_dir / "stages").mkdir()
    (run_dir / "stages" / "training.json").write_text("{}")
    with pytest.raises(ValueError, match="it must resume as it was started"):
        opened(run_dir, *DRAWS, *DIVIDED, "--resume_from_checkpoint", str(checkpoint))
    assert opened(run_dir, *DRAWS, *DIVIDED) is None
    assert (run_dir / "stages" / "training.json").exists()
    with pytest.raises(ValueError, match="images_per_step was 16 and is 8"):
        opened(run_dir, *DRAWS, *DIVIDED[:2])


def test_the_network_is_looked_at_once(still, monkeypatch):
    asked = []
    monkeypatch.setattr(run_folder, "why_bound", lambda args: asked.append(args))
    for step in (8, 12):
        shutil.copytree(still, still.with_name(f"checkpoint-{step}"))
    for folder in still.parent.glob("checkpoint-*"):
        (folder / "rng_state.pth").unlink()
        if folder != still:
            (folder / "scheduler.pt").unlink()
    assert opened(still.parent, *STILL, *DIVIDED) == still
    assert len(asked) == 1


def test_places_that_are_not_run_folders_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("x")
    with pytest.raises(SystemExit):
        opened(tmp_path / "file")
    with pytest.raises(ValueError, match="not a run folder"):
        opened(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]


def test_checkpoints_without_settings_are_refused(checkpoint):
    config = checkpoint.parent / "config.yaml"
    config.write_text("a: [")
    with pytest.raises(ValueError, match="settings are unknown"):
        opened(checkpoint.parent)
    config.unlink()
    with pytest.raises(ValueError, match="settings are unknown"):
        opened(checkpoint.parent)
    assert checkpoint.is_dir()


def test_move_aside_keeps_the_earlier_run(checkpoint):
    run_dir = checkpoint.parent
    assert opened(run_dir, "--on_existing_run", "move_aside", "--seed", "5") is None
    assert (run_dir.with_name("run-1") / "checkpoint-4").is_dir()
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["seed"] == 5


def test_a_checkpoint_of_another_run_is_not_resumed_from(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "other" / "checkpoint-4")
    flag = "--resume_from_checkpoint"
    with pytest.raises(SystemExit):
        opened(checkpoint.parent, flag, str(tmp_path / "other" / "checkpoint-4"))
    assert opened(checkpoint.parent, flag, str(checkpoint)) == checkpoint


def test_settings_contain_no_path_relative_to_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "folds.csv").write_text("x")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    opened("../run", "--split_file", "folds.csv")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["split_file"] == str(tmp_path / "a" / "folds.csv")
    monkeypatch.chdir(tmp_path / "b")
    assert os.path.isfile(parse_arguments([str(tmp_path / "run" / "config.yaml")]).data.split_file)


class TestResume:
    """The data and the initial weights of a run that resumes are those that it was started with."""

    @pytest.fixture
    def start(self, tmp_path):
        args = arguments(tmp_path / "run", "--phantom_size", "32")
        source = load_source(args.data)
        run_dir = tmp_path / "run"
        checkpoint = run_dir / "checkpoint-4"
        checkpoint.mkdir(parents=True)
        origin = check_resume(args, run_dir, None, source)
        state = data_state(source.splits, source.labels)
        assert origin == {"data": data_fingerprint(state), "initial_weights": None}
        (checkpoint / "config.json").write_text(json.dumps({"hf_cxr": {"split": source.fingerprint, **origin}}))
        return args, source, run_dir, checkpoint

    def resume(self, start, splits=None, *flags):
        args, source, run_dir, checkpoint = start
        args = arguments(run_dir, *flags) if flags else args
        return check_resume(args, run_dir, checkpoint, source.with_splits(splits) if splits else source)

    def test_the_same_data_pass(self, start):
        assert self.resume(start)["data"]

    def test_changed_labels_are_refused_and_named(self, start):
        splits = dict(start[1].splits)
        rows = splits["train"].to_dict()
        rows["labels"][2] = [1.0 - cell for cell in rows["labels"][2]]
        rows["image"] = splits["train"].cast_column("image", datasets.Image(decode=False))["image"][:]
        splits["train"] = type(splits["train"]).from_dict(rows, features=splits["train"].features)
        with pytest.raises(ValueError, match=r"trained on other data: labels of 1 image changed, such as"):
            self.resume(start, splits)
        (start[2] / "data.parquet").unlink()
        with pytest.raises(ValueError, match="trained on other data"):
            self.resume(start, splits)

    def test_rows_in_another_order_are_refused(self, start):
        splits = dict(start[1].splits)
        splits["train"] = splits["train"].select([1, 0, 2, 3, 4, 5])
        with pytest.raises(ValueError, match="another order"):
            self.resume(start, splits)

    def test_a_test_image_that_is_gone_can_be_left_out(self, start):
        splits = dict(start[1].splits)
        splits["test"] = splits["test"].select([0])
        with pytest.raises(ValueError, match=r"no longer in test.*--missing_images skip"):
            self.resume(start, splits)
        before = json.loads((start[-1] / "config.json").read_text())["hf_cxr"]["data"]
        assert self.resume(start, splits, "--missing_images", "skip")["data"] == before
        splits["train"] = splits["train"].select([0, 1, 2])
        with pytest.raises(ValueError, match="no longer in train"):
            self.resume(start, splits, "--missing_images", "skip")

    def test_a_checkpoint_of_an_earlier_version_is_compared_from_then_on(self, start):
        (start[-1] / "config.json").write_text(json.dumps({"hf_cxr": {"split": start[1].fingerprint}}))
        (start[2] / "data.parquet").unlink()
        assert self.resume(start)["data"]
        assert (start[2] / "data.parquet").is_file()
        (start[-1] / "config.json").write_text(json.dumps({"hf_cxr": {"split": "another"}}))
        with pytest.raises(ValueError, match="trained on the split another"):
            self.resume(start)

    @pytest.mark.parametrize(("kept", "removed"), [("row", None), ("image", {"test": 1}), (None, {"test": 1})])
    def test_a_test_row_that_is_removed_is_counted_like_a_missing_image(self, tmp_path, kept, removed):
        lines = [f"{split}{i}.png,{split}{i},{split},{i}" for split in ("train", "validation", "test") for i in (0, 1)]
        table = tmp_path / "table.csv"
        table.write_text("\n".join(["Path,Patient,split,Mass", *lines]))
        for line in lines:
            Image.new("L", (8, 8)).save(tmp_path / line.split(",")[0])
        description = tmp_path / "table.yaml"
        description.write_text(
            "files: {all: table.csv}\nimage_column: Path\npatient_column: Patient\nsplit_column: split\n"
            "findings: [Mass]\n"
        )
        flags = ("--dataset", "table", "--table", str(description), "--missing_images", "skip")
        args = arguments(tmp_path / "run", *flags)
        checkpoint = tmp_path / "run" / "checkpoint-4"
        checkpoint.mkdir(parents=True)
        origin = check_resume(args, tmp_path / "run", None, load_source(args.data))
        (checkpoint / "config.json").write_text(json.dumps({"hf_cxr": origin}))
        if kept != "row":
            table.write_text("\n".join(["Path,Patient,split,Mass", *lines[:-1]]))
        if kept != "image":
            (tmp_path / "test1.png").unlink()
        source = load_source(args.data)
        resumed = check_resume(args, tmp_path / "run", checkpoint, source)
        assert len(source.splits["test"]) == 1
        assert resumed.get("removed_images") == removed
        assert source.missing == ({} if removed else {"test": 1})

    def test_initial_weights_are_known_by_content(self, start):
        config = start[-1] / "config.json"
        saved = json.loads(config.read_text())
        saved["hf_cxr"]["initial_weights"] = "00"
        config.write_text(json.dumps(saved))
        with pytest.raises(ValueError, match="different weights"):
            self.resume(start)
