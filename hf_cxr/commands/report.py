"""`hf-cxr report RUN`: write the report, the figures and the card of a finished run again, from what is in its folder.

No model and no image is read, and no figure changes. Runs of earlier versions are taken too.

With --benchmark_id and --benchmark_task the test figure is also written to .eval_results/hf_cxr.yaml, which the Hub
shows on the page of that benchmark once it is pushed.
"""

from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.commands import set_up_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(prog="hf-cxr report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--benchmark_id", metavar="OWNER/DATASET", help="a benchmark on the Hub with the same test set"
    )
    parser.add_argument("--benchmark_task", metavar="TASK", help="the task, as the benchmark's eval.yaml names it")
    parser.add_argument(
        "--benchmark_metric", metavar="KEY", default="auc", help="the metric that the task ranks by (%(default)s)"
    )
    args = parser.parse_args(argv)
    if (args.benchmark_id is None) != (args.benchmark_task is None):
        parser.error("--benchmark_id and --benchmark_task go together")
    run_dir = args.run_dir
    from hf_cxr.reporting.card.benchmark import Benchmark
    from hf_cxr.run.folder import held_run_folder
    from hf_cxr.run.repeat import report_again

    set_up_terminal()
    benchmark = None
    if args.benchmark_id is not None:
        benchmark = Benchmark(args.benchmark_id, args.benchmark_task, args.benchmark_metric)
    with held_run_folder(run_dir):
        report = report_again(run_dir, benchmark)
    print(report.summary(run_dir))
    return 0
