"""`hf-cxr train [CONFIG.yaml] [--key value ...]`: fine-tune, calibrate, measure once on test, write the run folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input."""
    args = parse_arguments(argv, prog="hf-cxr train")
    from accelerate import PartialState

    from hf_cxr.hub import HubError
    from hf_cxr.run import run

    set_up_terminal(main_process=PartialState().is_main_process)
    try:
        report = run(args)
    except (ValueError, OSError, HubError) as error:
        print(f"hf-cxr train: {error}", file=sys.stderr)
        return 2
    if report is not None:
        print(report.summary(Path(args.training.output_dir)))
        if report.push_error:
            print(f"hf-cxr train: not pushed: {report.push_error}", file=sys.stderr)
            return 2
    return 0
