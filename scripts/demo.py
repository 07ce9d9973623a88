"""`scripts/demo.py ...`: the same program as `hf-cxr demo ...`."""

import sys
from pathlib import Path

# Python puts this folder first, where evaluate.py would hide the package evaluate.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

from hf_cxr.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("demo"))
