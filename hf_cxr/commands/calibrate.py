"""`hf-cxr calibrate RUN [--key value ...]`: calibrate a finished run again, then measure and report it again.

`hf-cxr calibrate RUN --prevalence FILE --out COPY` changes nothing in RUN: it writes a copy of the model whose
probabilities assume the prevalences in FILE (YAML, a line a finding: `Hernia: 0.003`), and whose scores in the stock
pipeline use these. With --prevalence_from FILE in its place they are estimated, without labels, from the model's own
predictions on images of the new population: predictions.parquet of `hf-cxr evaluate`, or the CSV of `hf-cxr predict`.

The fit starts from the uncalibrated validation predictions that the run kept, and is folded into the classifier as it
was trained: with the same settings every number comes out the same. The operating points, a threshold for each finding
that `hf-cxr predict` uses, are chosen again: --operating_point and --operating_target say how. --calibrate,
--bootstrap_resamples and --confidence change how the run is measured from now on. Images are only read to compare the
saved model with the stock pipeline, and to fit an input check for a run that has none; if they have moved, give
--nih_root DIR or the like. Without them both are left out. --input_check false removes the check.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import split_words


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr calibrate",
        usage="hf-cxr calibrate RUN [--key value ...]\n"
        "       hf-cxr calibrate RUN (--prevalence FILE | --prevalence_from FILE) --out COPY",
        description=__doc__,
        epilog="The flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--prevalence", type=Path, help="YAML with a line `finding: share` for each; shares in the new population"
    )
    parser.add_argument("--prevalence_from", type=Path, help="predictions without labels, to estimate the shares from")
    parser.add_argument("--out", type=output_path, help="new folder for the copy with these prevalences")
    own, rest = parser.parse_known_args(argv)
    words, flags = split_words(rest)
    if len(words) != 1:
        parser.error(f"give one run folder; got {' '.join(words) or 'none'}")
    run_dir = Path(words[0])
    if own.prevalence or own.prevalence_from or own.out:
        return write_copy(parser, run_dir, own, flags)
    from accelerate import PartialState

    from hf_cxr.run.folder import held_run_folder, logged_to
    from hf_cxr.run.repeat import calibrate_again

    set_up_terminal()
    with held_run_folder(run_dir), logged_to(run_dir / "run.log", PartialState()):
        report = calibrate_again(run_dir, flags)
    print(report.summary(run_dir))
    return 0


def write_copy(parser: OneLineParser, model: Path, own: argparse.Namespace, flags: Sequence[str]) -> int:
    """A copy of the model that assumes other prevalences; nothing is fitted or measured again."""
    if bool(own.prevalence) == bool(own.prevalence_from):
        parser.error("give the prevalences of the copy: either --prevalence FILE or --prevalence_from FILE")
    if own.out is None:
        parser.error("a model with other prevalences is a copy: give its folder with --out COPY")
    if flags:
        parser.error(f"{flags[0]} is not about a copy with other prevalences; leave it out")
    from hf_cxr.reporting.document import Document, Heading, Text
    from hf_cxr.reporting.sections.prevalence_shift import effect_table, shift_table
    from hf_cxr.run.prevalence import effect_on_test, write_shifted_model

    set_up_terminal()
    done = write_shifted_model(model, own.out, prevalence=own.prevalence, prevalence_from=own.prevalence_from)
    blocks = [Heading(f"{own.out}: a copy of {model} with other prevalences")]
    blocks.append(shift_table(done.source, done.target.prevalence, done.target.intervals))
    blocks += [Text(f"{name} stays as it was: {reason}") for name, reason in done.target.not_estimated.items()]
    effect = effect_on_test(model, done)
    if effect is not None:
        blocks.append(effect_table(effect, "copy"))
    print(Document("", tuple(blocks)).to_terminal())
    return 0
