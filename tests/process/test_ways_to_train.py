"""FSDP, torch.compile and gradient checkpointing are ways to compute the same run: the figures of the plain one."""

import json
import os
from pathlib import Path

import pytest
import yaml
from launches import launch
from safetensors.torch import load_file
from test_run import ROOT, TINY, train, write_config
from tiny import swin

from hf_cxr.commands import run_command

# The learning rates and the mixture of docs/recipe.md: other parameter groups, and two images read for one. The second
# epoch trains every layer.
LEVERS = {"layer_decay": 0.7, "head_learning_rate": 3e-3, "freeze_backbone_epochs": 1, "mixup_alpha": 0.4}
# Two epochs, no random depth, and the reference's own size of a step for any number of processes.
SETTINGS = {**swin(drop_path_rate=0.0), "num_train_epochs": 2, "images_per_step": 8, "disable_tqdm": True, **LEVERS}
LAUNCHER = {  # of configs/accelerate/fsdp.yaml -> what `accelerate launch` makes of it
    "fsdp_version": "FSDP_VERSION",
    "fsdp_auto_wrap_policy": "FSDP_AUTO_WRAP_POLICY",
    "fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP",
    "fsdp_reshard_after_forward": "FSDP_RESHARD_AFTER_FORWARD",
    "fsdp_state_dict_type": "FSDP_STATE_DICT_TYPE",
    "fsdp_cpu_ram_efficient_loading": "FSDP_CPU_RAM_EFFICIENT_LOADING",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert train(write_config(folder, **SETTINGS), folder / "run") == 0
    assert json.loads((folder / "run" / "metrics.json").read_text())["protocol"]["recipe"] == LEVERS
    return folder / "run"


def assert_same_run(one: Path, two: Path, *, atol: float) -> None:
    """The weights and the figures of two runs, to rounding; and that training moved the weights further than that."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert set(first) == set(second)
    assert max((first[name] - second[name]).abs().max().item() for name in first) <= atol
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    losses = [[entry["loss"] for entry in values["history"] if "loss" in entry] for values in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert max(losses[0]) > 1.1 * min(losses[0])
    auc = [values["test"]["all"]["auc"]["macro"] for values in (one, two)]
    assert auc[0] == pytest.approx(auc[1], abs=0.01)


def test_recomputed_it_is_the_same_run(plain, tmp_path):
    assert train(write_config(tmp_path, **SETTINGS), tmp_path / "run", "--gradient_checkpointing", "true") == 0
    assert_same_run(plain, tmp_path / "run", atol=1e-5)


def test_compiled_it_is_the_same_run(plain, tmp_path):
    flags = ("--torch_compile", "true", "--torch_compile_backend", "aot_eager")  # inductor compiles for minutes here
    assert train(write_config(tmp_path, **SETTINGS), tmp_path / "run", *flags) == 0
    assert_same_run(plain, tmp_path / "run", atol=1e-5)


def test_fully_sharded_it_is_the_same_run_and_goes_on_after_a_kill(plain, tmp_path, capsys):
    words = ["train", write_config(tmp_path, **SETTINGS), "--output_dir", str(tmp_path / "run")]
    words += ["--per_device_train_batch_size", "4"]
    ended = launch(
        lambda: fully_sharded(words),
        tmp_path / "said",
        kill=lambda: 1 if (tmp_path / "run" / "checkpoint-6" / "checksums.json").exists() else None,
    )
    assert ended[1].status == -9
    assert not (tmp_path / "run" / "metrics.json").exists()
    capsys.readouterr()
    assert train(words[1], tmp_path / "run") == 2  # the same steps in one process, without FSDP
    assert "was written with FSDP, and this launch is without it" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("damaged-*"))
    for one in launch(lambda: fully_sharded(words), tmp_path / "said"):
        assert one.status == 0, one.err[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "checkpoint-6" in str(metrics["training"]["resumed_from"])
    assert_same_run(plain, tmp_path / "run", atol=1e-3)


def fully_sharded(words) -> int:
    """A command under configs/accelerate/fsdp.yaml. Accelerate has FSDP for accelerators alone, so the launch calls
    itself one of GPUs after its processes have met on the CPU; everything after that is what a GPU would do."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    config = yaml.safe_load((ROOT / "configs" / "accelerate" / "fsdp.yaml").read_text())
    assert set(config["fsdp_config"]) == set(LAUNCHER)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    os.environ |= {LAUNCHER[key]: str(value) for key, value in config["fsdp_config"].items()}
    first, sharded = PartialState.__init__, []

    def init(self, *args, **kwargs):
        first(self, *args, **kwargs)
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = init
    from torch.distributed.fsdp import FSDPModule

    from hf_cxr.training.trainer import CXRTrainer

    step = CXRTrainer.training_step

    def training_step(self, model, *args, **kwargs):
        sharded.append(sum(isinstance(part, FSDPModule) for part in model.modules()))
        return step(self, model, *args, **kwargs)

    CXRTrainer.training_step = training_step
    status = run_command(words[0], words[1:])
    assert sharded
    assert min(sharded) > len(TINY["model_kwargs"]["depths"])  # each layer and the model itself
    return status
