"""`hf-cxr describe [CONFIG.yaml] [--sampler NAME] [--out DIR]`: what the training, validation and test sets contain.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR). Only tables are
read: no image is needed, and images that are missing on the disk are counted too. With a sampler other than shuffle,
a table compares what it draws in an epoch with the training set.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments
from hf_cxr.files import check_output_folder, write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr describe",
        description=__doc__,
        epilog="All other words and flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, help="folder for statistics.json, the figures and description.html")
    own, rest = parser.parse_known_args(argv)
    args = parse_arguments(rest, prog="hf-cxr describe")
    from hf_cxr.data import label_matrix, load_source, why_untrainable
    from hf_cxr.data.statistics import describe_draws, describe_splits
    from hf_cxr.reporting.description import description_document, draw
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
        draws_N = expected_draws(args.sampling.sampler, label_matrix(train), **args.sampling.sampler_kwargs)
        drawn = describe_draws(train, label_names, draws_N)
    document = description_document(
        statistics,
        drawn,
        args.sampling.sampler,
        title=source.name,
        from_tables=not source.decodable,
        notes=source.notes,
        hub=source.hub,
    )
    # Before printing, because the reader of a pipe may close it.
    written = write(document, draw(statistics), own.out) if own.out else []
    print(document.to_terminal())
    if untrainable := why_untrainable(train):
        print(f"hf-cxr describe: warning: {untrainable}", file=sys.stderr)
    if written:
        print("\nwrote", *(f"  {path}" for path in written), sep="\n")
    return 0


def write(document, figures, out: Path) -> list[Path]:
    """statistics.json, the figures and description.html; the paths written."""
    from hf_cxr.reporting import plots

    write_text(out / "statistics.json", document.to_json())
    saved = [plots.save(figure, out / f"{name}.png") for name, figure in figures.items()]
    write_text(out / "description.html", document.to_html(out))
    return [out / "statistics.json", *saved, out / "description.html"]
