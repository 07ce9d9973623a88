"""`hf-cxr report RUN`: write the report, the figures and the card of a finished run again, from what is in its folder.

No model and no image is read, and no figure changes. Runs of earlier versions are taken too.
"""

from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.commands import set_up_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(prog="hf-cxr report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="folder of a finished run")
    run_dir = parser.parse_args(argv).run_dir
    from hf_cxr.run.folder import held_run_folder
    from hf_cxr.run.repeat import report_again

    set_up_terminal()
    with held_run_folder(run_dir):
        report = report_again(run_dir)
    print(report.summary(run_dir))
    return 0
