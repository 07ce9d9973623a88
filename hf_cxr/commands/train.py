"""`hf-cxr train CONFIG.yaml [--key value ...]`: fine-tune, calibrate, measure once on test, write the run folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr import processes
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 if the run is done and could not be pushed. `run_command` prints any error as one line."""
    args = parse_arguments(argv, prog="hf-cxr train", needs_config=True)
    from accelerate import PartialState

    from hf_cxr.run.stages import run

    set_up_terminal(main_process=PartialState().is_main_process)
    processes.connect()
    report = run(args)
    if report is not None:
        print(report.summary(Path(args.training.output_dir)))
        if report.push_error:
            print(f"hf-cxr train: not pushed: {report.push_error}", file=sys.stderr)
            return 2
    return 0
