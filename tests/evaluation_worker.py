"""Validation on each of several processes; each writes what it measured. Started by test_two_processes.py."""

import json
import os
import sys
from pathlib import Path

from tiny import rows, trainer

from hf_cxr.commands.errors import leave_process_group

IMAGES, BATCH = 23, 4  # neither the images nor the batches come out even


def measure(folder):
    """The validation loss, and what the metrics were given: logits and labels."""
    given = {}

    def keep(prediction):
        given.update(logits=prediction.predictions.tolist(), labels=prediction.label_ids.tolist())
        return {}

    settings = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": BATCH, "compute_metrics": keep}
    run = trainer(folder, eval_dataset=rows(IMAGES, seed=2), **settings)
    return given | {"loss": run.evaluate()["eval_loss"]}


if __name__ == "__main__":
    rank = os.environ["RANK"]
    Path(sys.argv[1], f"measured-{rank}.json").write_text(json.dumps(measure(sys.argv[1])))
    leave_process_group()
