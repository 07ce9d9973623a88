"""`hf-cxr evaluate`: measure a saved model on radiographs, or the scores of any program on labelled images.

A model: `hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID`. The source is described as in training (YAML and flags
such as --dataset nih --nih_root DIR); without a YAML, a run folder's own config.yaml is taken, of which only the data
and the way of measuring matter here. Flags that choose another --dataset replace the run's own. Nothing is
fitted: the model is measured as it is. Data with other findings (such as --dataset table --table chexpert) are
measured on those that both have, by name and alias.

Scores of any program: `hf-cxr evaluate --predictions FILE --labels TABLE`, without a model and without images. FILE is
a CSV or Parquet with a column a finding (docs/predictions.md), or a run folder, whose predictions have their labels.
The labels may also be those of a dataset: --dataset nih --nih_root DIR in place of --labels.

Either with --by study: the images of an examination are one, with the mean of their probabilities.

With --out DIR everything is written to DIR/evaluation.html and the terminal shows a summary; without it the terminal
shows all tables.
"""

import argparse
import dataclasses
import difflib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.evaluation.checks import SCORE_KINDS
from hf_cxr.evaluation.studies import STUDY_SCORES
from hf_cxr.explain import METHOD_NAMES
from hf_cxr.inference.perturbations import PERTURBATIONS
from hf_cxr.inference.views import KINDS as VIEW_KINDS
from hf_cxr.inference.views import check_views

BY = ("image", "study")
OF_INTERVALS = ("bootstrap_resamples", "confidence", "interval", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; what it raises, `run_command` prints as one line."""
    parser = OneLineParser(
        prog="hf-cxr evaluate",
        usage="hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID [--split NAME] [--out DIR] [--key value ...]\n"
        "       hf-cxr evaluate --predictions FILE_OR_RUN [--labels TABLE] [--out DIR] [--key value ...]",
        description=__doc__,
        epilog="All other flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="split to measure; by default test")
    parser.add_argument(
        "--out",
        type=output_path,
        help="folder for evaluation.html, .json and predictions.parquet; the terminal then shows a summary",
    )
    parser.add_argument("--by", choices=BY, default="image", help="unit to measure: each image, or each study")
    parser.add_argument(
        "--study_score",
        choices=STUDY_SCORES,
        help="with --by study: the mean of its images' probabilities (mean), or max",
    )
    parser.add_argument("--against", metavar="FILE_OR_RUN", help="another system's scores of the same images")
    parser.add_argument(
        "--against_scores", choices=SCORE_KINDS, help="what the scores of --against are, if the file does not state it"
    )
    parser.add_argument(
        "--controls", action="store_true", help="also measure what view, age and sex alone reach, without the image"
    )
    parser.add_argument(
        "--localize",
        metavar="METHOD",
        help=f"also score heat maps on the boxes of the split: {', '.join(METHOD_NAMES)}",
    )
    parser.add_argument(
        "--stress",
        metavar="KIND[,KIND]",
        help=f"also measure the model on images of decreasing quality: {', '.join(PERTURBATIONS)}, or all",
    )
    parser.add_argument(
        "--test_time_augmentation",
        metavar="KIND[,KIND]",
        help="also measure the mean of several views of each image, calibrated on validation: "
        f"{', '.join(VIEW_KINDS)}; N views take N passes, on validation too. Give OUT to "
        "hf-cxr predict --test_time_augmentation",
    )
    parser.add_argument(
        "--mistakes",
        metavar="N",
        type=int,
        help="also write OUT/local/mistakes.html: the N most confident mistakes of each finding and kind, with the "
        "patients' images; it stays on this machine and is never pushed",
    )
    tables = parser.add_argument_group("scores of any program")
    tables.add_argument(
        "--predictions", metavar="FILE_OR_RUN", help="CSV or Parquet with a column for each finding, or a run folder"
    )
    tables.add_argument(
        "--labels", metavar="TABLE", help="CSV or Parquet with the labels and the patient of each image"
    )
    tables.add_argument("--scores", choices=SCORE_KINDS, help="what the scores are, if the file does not state it")
    tables.add_argument(
        "--shared", action="store_true", help="measure only the images and findings that both files have"
    )
    tables.add_argument("--validation", metavar="FILE", help="the same program's scores on a validation split")
    tables.add_argument("--validation_labels", metavar="TABLE", help="their labels, if they are in another table")
    own, rest = parser.parse_known_args(argv)
    check_own(parser, own)
    if own.out and os.path.exists(own.out / "config.json"):  # False for a name that is too long
        parser.error(f"{own.out} is a run folder, and its figures stay as they are; give another --out")
    return measure_scores(parser, own, rest) if own.predictions else measure_model(parser, own, rest)


def check_own(parser: OneLineParser, own: argparse.Namespace) -> None:
    """Refuse flags that contradict each other; status 2 with one line."""
    if own.model and own.predictions:
        parser.error("give --model or --predictions, not both; compare the second with --against")
    if not own.model and not own.predictions:
        given = [flag for flag in ("labels", "validation", "scores") if getattr(own, flag)]
        also = f" (--{given[0]} goes with --predictions)" if given else ""
        for word in parser.words:
            meant = difflib.get_close_matches(word.split("=")[0], ["--model", "--predictions"], n=1)
            if meant:
                parser.error(f"unknown word {word} in the command line; did you mean {meant[0]}?")
        parser.error(f"say what to measure: --model RUN_OR_HUB_ID, or --predictions FILE{also}")
    if own.model:
        for flag in ("labels", "scores", "shared", "validation", "validation_labels"):
            if getattr(own, flag):
                parser.error(
                    f"--{flag} goes with --predictions FILE; the labels of a model's images are the dataset's"
                )
    if own.mistakes is not None and own.mistakes < 1:
        parser.error(f"--mistakes is {own.mistakes}; give how many to show in each list, at least 1")
    if own.mistakes is not None and not (own.model and own.out):
        parser.error("--mistakes shows the images of --model and is written to --out DIR; give both")
    if own.study_score and own.by != "study":
        parser.error("--study_score goes with --by study")
    for flag in ("stress", "localize", "mistakes", "test_time_augmentation"):
        if getattr(own, flag) and own.by == "study":
            parser.error(f"--{flag} is about images: leave out --by study")
    own.studies = (own.study_score or "mean") if own.by == "study" else None
    for flag in ("stress", "localize", "test_time_augmentation"):
        if getattr(own, flag) and not own.model:
            parser.error(f"--{flag} needs the images and the model; scores in a file have neither: give --model")
    if own.against_scores and not own.against:
        parser.error("--against_scores goes with --against FILE")
    if own.validation_labels and not own.validation:
        parser.error("--validation_labels goes with --validation FILE")


def measure_model(parser: OneLineParser, own: argparse.Namespace, rest: Sequence[str]) -> int:
    """A saved model on images."""
    from hf_cxr.config import MEASURING, parse_arguments, take_config

    config, flags = take_config(rest)
    only = MEASURING | {"use_cpu"}
    if config is None:
        config = str(Path(own.model) / "config.yaml")
        only = MEASURING  # use_cpu in an old run's config.yaml is of the machine that it ran on
        if not Path(config).is_file() and any(flag.split("=")[0] == "--dataset" for flag in flags):
            config, only = None, MEASURING | {"use_cpu"}
        elif not Path(config).is_file():
            parser.error(f"{own.model} is not a run folder with a config.yaml; say which data: CONFIG.yaml, or a run")
    args = parse_arguments([*([config] if config else []), *flags], prog="hf-cxr evaluate", only=only)
    from accelerate import PartialState

    from hf_cxr.run.evaluating.evaluate import More, evaluate
    from hf_cxr.run.evaluating.stress import check_kinds

    more = More(
        against=own.against,
        against_kind=own.against_scores,
        mistakes=own.mistakes,
        controls=own.controls,
        stress=check_kinds(own.stress.split(",")) if own.stress else (),
        localize=own.localize,
        studies=own.studies,
        averaged_views=check_views(own.test_time_augmentation.split(",")) if own.test_time_augmentation else (),
    )
    state = PartialState()
    processes.connect()
    set_up_terminal(main_process=state.is_main_process)
    with place_for(own.out) if state.is_main_process else nullcontext() as place:
        evaluation = evaluate(
            own.model, args, split=own.split or "test", revision=own.revision, place=place, more=more
        )
        if state.is_main_process:
            finish(evaluation, own.out, place)
    return 0


def measure_scores(parser: OneLineParser, own: argparse.Namespace, rest: Sequence[str]) -> int:
    """Scores of any program, without torch."""
    processes.refuse_several("hf-cxr evaluate --predictions")
    data, evaluation, seed = parse_without_model(own.predictions, rest, also=list(parser._option_string_actions))
    from hf_cxr.run.evaluating.evaluate_tables import Inputs, evaluate_tables

    set_up_terminal()
    names = {field.name for field in dataclasses.fields(Inputs)}
    given = {name: value for name, value in vars(own).items() if name in names}
    inputs = Inputs(**given, kind=own.scores, against_kind=own.against_scores, data=data)
    with place_for(own.out) as place:
        measured = evaluate_tables(
            inputs,
            intervals=evaluation.intervals(seed),
            place=place,
            rule=evaluation.operating_point,
            target=evaluation.operating_target,
            controls=own.controls,
        )
        finish(measured, own.out, place)
    return 0


def parse_without_model(predictions: str, words: Sequence[str], *, also: Sequence[str] = ()) -> tuple[Any, Any, int]:
    """The data that flags name, and how intervals are drawn: those of the flags, of a run's config.yaml, or defaults.

    Args:
        predictions: file or run folder.
        words: flags of a dataset and of intervals; a YAML among them is one of a run, which names the data.
        also: the command's own flags, for the message about a misspelt one.

    Returns:
        `DataArguments`, or None if no flag is of a dataset; `EvaluationArguments`; and the seed of the draws.

    Raises:
        SystemExit: status 2 with one line.
    """
    from transformers import HfArgumentParser

    from hf_cxr.arguments.command_line import positionals_and_flags
    from hf_cxr.arguments.data import DataArguments
    from hf_cxr.arguments.evaluation import EvaluationArguments
    from hf_cxr.arguments.flags import recorded_flags
    from hf_cxr.yaml_files import read_yaml

    @dataclasses.dataclass
    class Draws:
        seed: int = recorded_flags().default("seed")  # as of a run whose config.yaml says nothing else

    class Parser(OneLineParser, HfArgumentParser):
        pass

    kinds = (DataArguments, EvaluationArguments, Draws)
    parser = Parser(kinds, prog="hf-cxr evaluate", allow_abbrev=False)
    positionals, flags = positionals_and_flags(parser, words)
    if positionals:  # the YAML of a run has keys of every kind, and the parser of all needs torch
        from hf_cxr.config import MEASURING, parse_arguments

        args = parse_arguments(list(words), prog="hf-cxr evaluate", only=MEASURING)
        data, evaluation, seed = args.data, args.evaluation, args.training.seed
    else:
        saved = Path(predictions) / "config.yaml"
        values = read_yaml(saved) if saved.is_file() else {}
        parser.set_defaults(**{key: values[key] for key in OF_INTERVALS if key in values})
        data, evaluation, draws = parse_dataclasses(parser, flags, also)
        seed = draws.seed
        of_data = {f"--{field.name}" for field in dataclasses.fields(DataArguments)}
        if not any(word.split("=")[0].replace("-", "_").replace("__", "--", 1) in of_data for word in flags):
            data = None
    return data, evaluation, seed


def parse_dataclasses(parser: Any, flags: Sequence[str], also: Sequence[str]) -> tuple[Any, ...]:
    """The dataclasses of a parser.

    Raises:
        SystemExit: status 2 with one line.
    """
    try:
        *parts, unknown = parser.parse_args_into_dataclasses(
            list(flags), return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    if unknown:
        known = [flag for flag in (*also, *parser._option_string_actions) if flag.startswith("--")]
        nearest = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see hf-cxr evaluate --help"
        parser.error(f"unknown word {unknown[0]} in the command line; {hint}")
    return tuple(parts)


def place_for(out: Path | None) -> Any:
    """The folder for results, held; None without one."""
    from hf_cxr.run.result_folder import held

    return held(out) if out else nullcontext()


def finish(evaluation: Any, out: Path | None, place: Path | None) -> None:
    """Print all figures; or write them if there is a place, print a summary, and say where the rest is."""
    from hf_cxr.prediction_tables.folders import PREDICTIONS
    from hf_cxr.reporting.mistakes import SHEET
    from hf_cxr.run.analysis import ANALYSIS
    from hf_cxr.run.result_folder import EVALUATION, PAGE

    print((evaluation.summary() if place else evaluation.document()).to_terminal())
    if place:
        evaluation.write(place)
        print(f"\nReport, with every table and figure: {out}/{PAGE}")
        print(f"As data: {out}/{EVALUATION}, {ANALYSIS} and {PREDICTIONS}")
        if evaluation.mistakes is not None:
            print(f"{out}/{SHEET} contains patients' images: do not share it")
