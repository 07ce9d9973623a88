"""`hf-cxr predict IMAGE_OR_FOLDER... --model RUN_OR_HUB_ID`: probabilities of each finding, as a table and as CSV."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.files import replacing


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input."""
    parser = argparse.ArgumentParser(prog="hf-cxr predict", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="IMAGE_OR_FOLDER", help="png or jpg files, or folders of them")
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--csv", type=Path, help="also write all probabilities to this file, a row an image")
    parser.add_argument("--top", type=int, default=5, help="findings an image in the table, most probable first")
    parser.add_argument("--batch_size", type=int, default=16, help="images a batch")
    args = parser.parse_args(argv)
    from hf_cxr.inference import Classifier, find_images

    try:
        classifier = Classifier(args.model, revision=args.revision)
        rows = list(classifier.predict_files(find_images(args.paths), batch_size=args.batch_size))
    except (ValueError, OSError) as error:
        print(f"hf-cxr predict: {error}", file=sys.stderr)
        return 2
    width = max(len(str(path)) for path, _ in rows)
    for path, probability_C in rows:
        top = probability_C.argsort()[::-1][: args.top]
        print(f"{path!s:<{width}}  " + "  ".join(f"{classifier.label_names[i]} {probability_C[i]:.3f}" for i in top))
    if args.csv:
        with replacing(args.csv) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *classifier.label_names])
            writer.writerows([path, *(f"{value:.6f}" for value in probability_C)] for path, probability_C in rows)
        print(f"wrote {len(rows)} rows to {args.csv}")
    return 0
