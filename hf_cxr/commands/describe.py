"""`hf-cxr describe [CONFIG.yaml] [--sampler NAME] [--out DIR]`: what the training, validation and test sets hold.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR). Of an NIH release only
the tables are read: no image is needed, and missing images are counted as well. With a sampler other than
shuffle, what an epoch of it draws stands beside what the training set holds.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments
from hf_cxr.files import check_output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; what it raises, `run_command` prints as one line."""
    parser = OneLineParser(
        prog="hf-cxr describe",
        description=__doc__,
        epilog="All other words and flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, help="folder for statistics.json and the figures")
    own, rest = parser.parse_known_args(argv)
    args = parse_arguments(rest, prog="hf-cxr describe")
    from hf_cxr.data import label_matrix, load_source, why_untrainable
    from hf_cxr.data.statistics import describe_draws, describe_splits
    from hf_cxr.sampling import expected_draws

    set_up_terminal()
    if own.out:
        roots, closed = args.data.folders()
        check_output_folder(own.out, inputs=roots, closed=closed)  # before tables are read
    source = load_source(args.data, seed=args.training.seed, images=False)
    train, label_names = source.splits["train"], source.labels
    statistics = describe_splits(source.splits, label_names)
    drawn = None
    if args.sampling.sampler != "shuffle":
        draws_N = expected_draws(args.sampling.sampler, label_matrix(train), **args.sampling.options())
        drawn = describe_draws(train, label_names, draws_N)
    written = write(statistics, drawn, own.out) if own.out else []  # first: the reader of the text may leave
    print(statistics.to_text())
    if untrainable := why_untrainable(train):
        print(f"hf-cxr describe: warning: {untrainable}", file=sys.stderr)
    if drawn is not None:
        print(f"\n{drawn.to_text(args.sampling.sampler)}")
    if written:
        print("\nwrote", *(f"  {path}" for path in written), sep="\n")
    return 0


def write(statistics, drawn, out: Path) -> list[Path]:
    """statistics.json, with what the sampler draws unless that is None, and the figures; the paths written."""
    from hf_cxr.files import write_json
    from hf_cxr.reporting import plots

    sampler = {} if drawn is None else {"sampler": drawn.to_dict()}
    write_json(out / "statistics.json", statistics.to_dict() | sampler)
    names, splits = statistics.label_names, statistics.splits
    figures = {
        "finding_counts": plots.finding_counts(
            {name: (split.positives_C, split.negatives_C) for name, split in splits.items()}, names
        ),
        "findings_per_image": plots.findings_per_image(
            {name: split.findings_per_image.histogram for name, split in splits.items()}
        ),
    }
    for name, split in splits.items():
        figures[f"co_occurrence_{name}"] = plots.co_occurrence(
            split.co_occurrence.both_CC,
            split.co_occurrence.conditional_CC,
            names,
            f"Findings that occur together: {name}, {split.images:,} images",
        )
    saved = [plots.save(figure, out / f"{name}.png") for name, figure in figures.items()]
    return [out / "statistics.json", *saved]
