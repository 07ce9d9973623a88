"""Splits are the same in another process."""

import json
import subprocess
import sys


def test_same_in_another_process_with_another_hash_seed():
    program = (
        "import numpy as np; from hf_cxr.data.splits import patient_split; rng = np.random.default_rng(0);"
        "ids = [str(i) for i in rng.integers(0, 200, 900)];"
        "print(patient_split(rng.random((900, 3)) < 0.1, ids, fraction=0.3).nonzero()[0].tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 270
