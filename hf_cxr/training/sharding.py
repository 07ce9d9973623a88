"""Whether a launch shards the model with FSDP, and checkpoints that only the other kind of launch can resume."""

import os
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType

OPTIMIZER = {False: "optimizer.pt", True: "optimizer.bin"}
"""The Trainer's file of the optimizer's state, without FSDP and with it."""


def uses_fsdp() -> bool:
    """Whether Accelerate shards the model in this launch: the launcher asked for it, and the devices are no CPUs."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"  # the only value that Accelerate takes
    return asked and PartialState().distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU)


def check_same_sharding(checkpoints: Sequence[Path]) -> None:
    """Refuse a run's checkpoints if the other kind of launch wrote them: they are whole, and of no use to this one.

    Raises:
        ValueError: a launch with FSDP wrote one, and this launch is without it, or the reverse.
    """
    sharded = uses_fsdp()
    for checkpoint in checkpoints:
        if (checkpoint / OPTIMIZER[not sharded]).is_file() and not (checkpoint / OPTIMIZER[sharded]).is_file():
            before, now = ("without", "with") if sharded else ("with", "without")
            how = "without it" if sharded else "with accelerate launch --config_file configs/accelerate/fsdp.yaml"
            raise ValueError(
                f"{checkpoint} was written {before} FSDP, and this launch is {now} it: resume as the run was started, "
                f"{how}, or give another --output_dir, or --on_existing_run move_aside to start again"
            )
