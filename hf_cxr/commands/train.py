"""`hf-cxr train [CONFIG.yaml] [--key value ...]`: fine-tune, calibrate, measure once on test, write the run folder."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.config import parse_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input."""
    args = parse_arguments(argv, prog="hf-cxr train")
    from accelerate import PartialState
    from transformers.utils.logging import disable_progress_bar

    from hf_cxr.hub import HubError
    from hf_cxr.run import run

    main_process = PartialState().is_main_process
    logging.basicConfig(
        level=logging.INFO if main_process else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    disable_progress_bar()  # of reading and writing weights, a line each; the Trainer's own bar stays
    for noisy in ("httpx", "matplotlib", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
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
