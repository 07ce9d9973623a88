"""`hf-cxr calibrate RUN [--key value ...]`: calibrate a finished run again, then measure and report it again.

The fit starts from the uncalibrated validation predictions that the run kept, and is folded into the classifier as it
was trained: with the same settings every number comes out the same. The operating points, a threshold for each finding
that `hf-cxr predict` uses, are chosen again: --operating_point and --operating_target say how. --calibrate,
--bootstrap_resamples and --confidence change how the run is measured from now on. Test images are only read to compare
the saved model with the stock pipeline; if they have moved, give --nih_root DIR or the like. Without them that
comparison is left out.
"""

from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import split_words


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr calibrate",
        usage="hf-cxr calibrate RUN [--key value ...]",
        description=__doc__,
        epilog="The flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    _, rest = parser.parse_known_args(argv)
    words, flags = split_words(rest)
    if len(words) != 1:
        parser.error(f"give one run folder; got {' '.join(words) or 'none'}")
    run_dir = Path(words[0])
    from accelerate import PartialState

    from hf_cxr.run.folder import held_run_folder, logged_to
    from hf_cxr.run.repeat import calibrate_again

    set_up_terminal()
    with held_run_folder(run_dir), logged_to(run_dir / "run.log", PartialState()):
        report = calibrate_again(run_dir, flags)
    print(report.summary(run_dir))
    return 0
