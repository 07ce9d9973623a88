"""`hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID [--split test]`: measure a saved model on radiographs.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR); without a YAML, a run
folder's own config.yaml is taken. Nothing is fitted: the model is measured as it is. Data with other findings (such as
--dataset table --table chexpert) are measured on those that both have, by name and alias.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.commands import report_error, set_up_terminal
from hf_cxr.config import parse_arguments
from hf_cxr.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    config = [words.pop(0)] if words and not words[0].startswith("-") else []
    parser = argparse.ArgumentParser(
        prog="hf-cxr evaluate", description=__doc__, epilog="All other flags are those of `hf-cxr train --help`."
    )
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="what is measured")
    parser.add_argument("--out", type=Path, help="folder for evaluation.json and predictions.parquet")
    own, rest = parser.parse_known_args(words)
    if own.out and (own.out / "config.json").exists():
        parser.error(f"{own.out} is a run folder, and its figures stay as they are; give another --out")
    if not config:
        config = [str(Path(own.model) / "config.yaml")]
        if not Path(config[0]).is_file():
            parser.error(f"{own.model} is no run folder with a config.yaml; say what to measure on: CONFIG.yaml first")
    args = parse_arguments(config + rest, prog="hf-cxr evaluate")
    from accelerate import PartialState

    from hf_cxr.data import (
        check_prepared,
        count_missing,
        dataset_name,
        describe_split_source,
        is_synthetic,
        load_splits,
        split_fingerprint,
    )
    from hf_cxr.inference import Classifier
    from hf_cxr.labels import LabelSpace
    from hf_cxr.preflight import inspect, leave_out
    from hf_cxr.run import measure, predict

    set_up_terminal(main_process=PartialState().is_main_process)
    try:
        with PartialState().main_process_first():
            splits, label_names = load_splits(args.data)
        classifier = Classifier(own.model, revision=own.revision)
        check_prepared(args.data, classifier.pixels.resize_size, classifier.pixels.resample)
        fingerprint = split_fingerprint(splits)
        splits, not_shared = in_the_findings_of(classifier, splits, label_names)
        trained_on = warn_of_other_split(classifier, fingerprint, own.split)
        if args.data.unreadable_images == "skip":
            found = inspect(args, {own.split: splits[own.split]})
            listed, splits = len(splits[own.split]), leave_out(splits, found) if found.count else splits
            not_shared |= {"unreadable_images": listed - len(splits[own.split])}
        predictions = predict(classifier, splits, own.split, args)
        report = measure(predictions, LabelSpace(classifier.label_names), args)
    except (ValueError, OSError) as error:
        return report_error("hf-cxr evaluate", error)
    if PartialState().is_main_process:
        measured_on = {
            "dataset": dataset_name(args.data),
            "synthetic": is_synthetic(args.data),
            "split": own.split,
            "split_fingerprint": fingerprint,
            **not_shared,
            "missing_images": count_missing(args.data, splits),
        }
        print(f"{own.model} on {', '.join(f'{key} {value}' for key, value in measured_on.items())}\n")
        print(report.to_markdown())
        if own.out:
            predictions.save(own.out / "predictions.parquet")
            measured_on |= describe_split_source(args.data)
            figures = {"model": own.model, "trained_on_split": trained_on, **measured_on, **report.to_dict()}
            write_json(own.out / "evaluation.json", figures)
            print(f"wrote {own.out}/evaluation.json and predictions.parquet")
    return 0


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
