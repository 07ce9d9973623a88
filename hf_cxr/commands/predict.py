"""`hf-cxr predict IMAGE_OR_FOLDER... --model RUN_OR_HUB_ID`: probabilities of each finding, as a table and as CSV."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.commands import report_error, set_up_terminal
from hf_cxr.files import check_writable, replacing


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input."""
    parser = argparse.ArgumentParser(prog="hf-cxr predict", description=__doc__)
    parser.add_argument(
        "paths", nargs="+", metavar="IMAGE_OR_FOLDER", help="png, jpg, tif or dcm files, or folders of them"
    )
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--csv", type=Path, help="also write all probabilities to this file, a row an image")
    parser.add_argument("--top", type=int, default=5, help="findings an image in the table, most probable first")
    parser.add_argument("--batch_size", type=int, default=16, help="images a batch")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.top < 1:
        parser.error("--batch_size and --top must be at least 1")
    from hf_cxr.inference import Classifier, find_images

    set_up_terminal()
    try:
        if args.csv:
            check_writable(args.csv)  # now and not when all images are done
        classifier = Classifier(args.model, revision=args.revision)
        paths = find_images(args.paths)
        if (getattr(classifier.model.config, "hf_cxr", None) or {}).get("synthetic"):
            print("note: this model was trained on synthetic phantoms; it knows nothing of patients", file=sys.stderr)
        rows, unreadable = predict_and_print(classifier, paths, args.batch_size, args.top)
        if args.csv:
            write_csv(args.csv, classifier.label_names, rows)
            print(f"wrote {len(rows)} rows to {args.csv}")
    except (ValueError, OSError) as error:
        return report_error("hf-cxr predict", error)
    for error in unreadable:
        print(f"hf-cxr predict: {error}", file=sys.stderr)
    return 2 if unreadable else 0


def predict_and_print(classifier, paths: Sequence[Path], batch_size: int, top: int):
    """A line an image as it is done; the rows (path, probabilities), and the errors of what could not be read."""
    rows, unreadable = [], []
    width = max(len(str(path)) for path in paths)
    for path, answer in classifier.predict_files(paths, batch_size=batch_size):
        if isinstance(answer, Exception):
            unreadable.append(answer)
            continue
        rows.append((path, answer))
        best = answer.argsort()[::-1][:top]
        print(f"{path!s:<{width}}  " + "  ".join(f"{classifier.label_names[i]} {answer[i]:.3f}" for i in best))
    return rows, unreadable


def write_csv(path: Path, label_names: Sequence[str], rows) -> None:
    """A header and a row an image, whole or not at all."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *label_names])
        writer.writerows([name, *(f"{value:.6f}" for value in probability_C)] for name, probability_C in rows)
