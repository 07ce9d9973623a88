"""`hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID [--split test]`: measure a saved model on radiographs.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR); without a YAML, a run
folder's own config.yaml is taken, of which only the data and the way of measuring matter here. Flags that choose
another --dataset leave the run's own behind. Nothing is fitted: the model is measured as it is. Data with other
findings (such as --dataset table --table chexpert) are measured on those that both have, by name and alias.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import MEASURING, parse_arguments, take_config
from hf_cxr.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; what it raises, `run_command` prints as one line."""
    parser = OneLineParser(
        prog="hf-cxr evaluate",
        usage="hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID [--split NAME] [--out DIR] [--key value ...]",
        description=__doc__,
        epilog="All other flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="what is measured")
    parser.add_argument("--out", type=output_path, help="folder for evaluation.json and predictions.parquet")
    own, rest = parser.parse_known_args(argv)
    config, flags = take_config(rest)
    if own.out and os.path.exists(own.out / "config.json"):  # False for a name that is too long
        parser.error(f"{own.out} is a run folder, and its figures stay as they are; give another --out")
    only = MEASURING | {"use_cpu"}
    if config is None:
        config = str(Path(own.model) / "config.yaml")
        only = MEASURING  # use_cpu in an old run's config.yaml is of the machine that it ran on
        if not Path(config).is_file():
            parser.error(f"{own.model} is not a run folder with a config.yaml; say which data: CONFIG.yaml, or a run")
    args = parse_arguments([config, *flags], prog="hf-cxr evaluate", only=only)
    from accelerate import PartialState

    from hf_cxr.run.result_folder import held

    state = PartialState()
    set_up_terminal(main_process=state.is_main_process)
    with held(own.out) if own.out and state.is_main_process else nullcontext() as place:
        evaluate(own, args, place)
    return 0


def evaluate(own: argparse.Namespace, args, place: Path | None) -> None:
    """Measure, print, and write to the place if there is one.

    Raises:
        ValueError, OSError: bad data, a bad model, or a place that holds something else.
    """
    from accelerate import PartialState

    from hf_cxr.data import load_source
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.labels import LabelSpace
    from hf_cxr.run.preflight import inspect, leave_out
    from hf_cxr.run.result_folder import (
        EVALUATION,
        PREDICTIONS,
        check_evaluation_folder,
        check_same_evaluation,
        write_whole,
    )
    from hf_cxr.run.stages import measure, predict
    from hf_cxr.saved_models import fingerprint, model_folder

    if place:
        check_evaluation_folder(place)
    classifier = Classifier(own.model, revision=own.revision)  # first: it is quick to refuse, and data are not
    with PartialState().main_process_first():
        source = load_source(args.data, seed=args.training.seed)
    source.check_pixels(classifier.pixels.resize_size, classifier.pixels.resample)
    identity = {"dataset": source.name, "split": own.split, "split_fingerprint": source.fingerprint}
    if place:
        identity = {"model_sha256": fingerprint(model_folder(own.model, own.revision)), **identity}
        check_same_evaluation(place, identity, own.model)
    splits, not_shared = in_the_findings_of(classifier, source.splits, source.labels)
    trained_on = warn_of_other_split(classifier, identity["split_fingerprint"], own.split)
    if args.data.unreadable_images == "skip":
        found = inspect(args, source.with_splits({own.split: splits[own.split]}))
        listed, splits = len(splits[own.split]), leave_out(splits, found) if found.count else splits
        not_shared |= {"unreadable_images": listed - len(splits[own.split])}
    predictions = predict(classifier, splits, own.split, args)
    report = measure(predictions, LabelSpace(classifier.label_names), args)
    if not PartialState().is_main_process:
        return
    measured_on = {
        "dataset": identity["dataset"],
        "synthetic": source.synthetic,
        "split": own.split,
        "split_fingerprint": identity["split_fingerprint"],
        **not_shared,
        "missing_images": source.missing,
    }
    print(f"{own.model} on {', '.join(f'{key} {value}' for key, value in measured_on.items())}\n")
    print(report.to_markdown())
    if not place:
        return
    measured_on |= source.split_origin
    figures = {"model": own.model, "model_sha256": identity["model_sha256"], "trained_on_split": trained_on}
    figures |= {**measured_on, **report.to_dict()}
    named = dataclasses.replace(predictions, metadata={**predictions.metadata, "measured": identity})

    def write(folder: Path) -> None:
        named.save(folder / PREDICTIONS)
        write_json(folder / EVALUATION, figures)

    write_whole(place, write, last=EVALUATION)
    print(f"wrote {own.out}/{EVALUATION} and {PREDICTIONS}")


def in_the_findings_of(classifier, splits, label_names):
    """The splits with the model's findings for labels, unknown where the data lack one; and what is not shared.

    Returns:
        The splits, and {} for the same findings, else {"findings_not_in_data": [...], "findings_not_in_model": [...]}.

    Raises:
        ValueError: no finding is shared.
    """
    from hf_cxr.data import map_labels

    if classifier.label_names == tuple(label_names):
        return splits, {}
    splits, shared, rest = map_labels(splits, label_names, classifier.label_names)
    print(f"note: measured on the {len(shared)} findings that model and data share", file=sys.stderr)
    return splits, {"findings_not_in_data": list(rest["target"]), "findings_not_in_model": list(rest["source"])}


def warn_of_other_split(classifier, fingerprint: str, split: str) -> str | None:
    """Say so when the model was trained on another cut of the data: its training patients may be among these.

    Returns:
        The fingerprint of what the model was trained on, if it says.
    """
    trained_on = (getattr(classifier.model.config, "hf_cxr", None) or {}).get("split")
    if trained_on != fingerprint:
        print(
            f"note: the model's split fingerprint is {trained_on}, this data's is {fingerprint}: it is another set or "
            f"another cut, and if they overlap, patients of this {split} set may have been trained on",
            file=sys.stderr,
        )
    return trained_on
