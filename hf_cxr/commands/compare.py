"""`hf-cxr compare COMPARISON.yaml [--out DIR] [--jobs N]`: several methods, tuned alike, several seeds, one table.

After a stop, the same command continues from there. The report is DIR/comparison.html, and .md, .tex, .csv, .json.
"""

import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.files import check_output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 if runs failed. `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr compare",
        usage="hf-cxr compare COMPARISON.yaml [--out DIR] [--jobs N] [--key value ...]",
        description=__doc__,
        epilog="COMPARISON.yaml is such a file as configs/compare_reference.yaml. All other flags are those of "
        "`hf-cxr train --help`, the same for every run (such as --nih_root DIR).",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, help="folder of runs and report; by default runs/COMPARISON")
    parser.add_argument(
        "--jobs", type=int, help="number of runs at once; by default one per GPU, or one without a GPU"
    )
    own, rest = parser.parse_known_args(argv)
    if own.jobs is not None and own.jobs < 1:
        parser.error(f"--jobs is {own.jobs}; it must be at least 1")
    from tqdm.contrib.logging import logging_redirect_tqdm

    from hf_cxr.config import take_config
    from hf_cxr.reporting.comparison import comparison_summary
    from hf_cxr.run.comparing.compare import compare, load_plan

    comparison, flags = take_config(rest)
    if comparison is None:
        parser.error("give the comparison, a YAML file such as configs/compare_reference.yaml")
    set_up_terminal()
    before = signal.signal(signal.SIGTERM, _stop)  # so that the runs are stopped too
    try:
        plan = load_plan(comparison, flags)
        out = own.out or Path("runs") / plan.name
        check_output_folder(out)
        with logging_redirect_tqdm([logging.getLogger()]):
            results = compare(plan, out, jobs=own.jobs)
    finally:
        signal.signal(signal.SIGTERM, before)
    if results is None:
        return 1
    print(comparison_summary(results, out).to_terminal())
    return 1 if results.missing else 0


def _stop(number, frame):
    raise KeyboardInterrupt
