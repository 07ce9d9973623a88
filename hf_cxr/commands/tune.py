"""`hf-cxr tune SEARCH.yaml [--out DIR] [--trials N]`: search settings with Optuna, on validation alone.

SEARCH.yaml has a base run and a space of values (docs/tuning.md). No test image is opened. After a stop, the same
command continues from there; with more --trials it goes on. DIR/best.yaml is ready for `hf-cxr train`; the report is
DIR/tuning.html.
"""

from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr tune",
        usage="hf-cxr tune SEARCH.yaml [--out DIR] [--trials N] [--key value ...]",
        description=__doc__,
        epilog="SEARCH.yaml is such a file as configs/tune_phantoms.yaml. All other flags are those of `hf-cxr train "
        "--help`, the same for every trial (such as --nih_root DIR).",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, help="folder of trials and report; by default runs/SEARCH")
    parser.add_argument(
        "--trials", type=int, help="how many combinations are tried in total; by default as in the file"
    )
    own, rest = parser.parse_known_args(argv)
    from hf_cxr.config import take_config

    search_file, flags = take_config(rest)
    if search_file is None:
        parser.error("give the search, a YAML file such as configs/tune_phantoms.yaml")
    from hf_cxr.reporting.tuning import tuning_document
    from hf_cxr.run.tuning.search_space import load_search
    from hf_cxr.run.tuning.tune import BEST, check_optuna, tune

    check_optuna()
    set_up_terminal()
    search = load_search(search_file, flags, trials=own.trials)
    out = own.out or Path("runs") / search.name
    results = tune(search, out)
    print(tuning_document(results).to_terminal())
    print(f"\nbest settings: {out / BEST}\nreport: {out / 'tuning.html'}")
    return 0
