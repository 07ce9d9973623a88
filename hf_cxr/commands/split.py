"""`hf-cxr split [CONFIG.yaml] --out FILE.csv [--fractions 0.7 0.1 0.2 | --folds 5]`, and `hf-cxr split --check`.

With --out, all images of the source are re-split, by patient and stratified on findings (--seed picks another
split), and written to a CSV that training takes as --split_file. With --check, the splits that training would use are
counted and searched for patients and images in common: for tables without images this takes seconds; --images reads
every image and reports byte- and near-identical ones. The source is described as in training (YAML and flags).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments
from hf_cxr.files import check_output_file
from hf_cxr.words import plural

if TYPE_CHECKING:
    from hf_cxr.config import RunArguments

HASHES = {"file_sha256", "perceptual_hash"}  # columns that a prepared data set has


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 for bad input, and for splits that share a patient or an image, named on standard error."""
    parser = OneLineParser(
        prog="hf-cxr split",
        description=__doc__,
        epilog="All other words and flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, help="the CSV to write: image_id, patient_id and split or fold")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="shares of the images, which add up to 1; by default 0.7 0.1 0.2",
    )
    how.add_argument("--folds", type=int, help="number of folds, 3 or more, in place of the three splits")
    parser.add_argument("--check", action="store_true", help="check the splits that training would use; write nothing")
    parser.add_argument("--images", action="store_true", help="with --check: read and compare every image")
    own, rest = parser.parse_known_args(argv)
    if own.check == (own.out is not None):
        parser.error("give either --out FILE.csv, to write a split, or --check")
    if own.check and (own.fractions or own.folds is not None):
        parser.error("--fractions and --folds need --out")
    if own.images and not own.check:
        parser.error("--images needs --check")
    if own.folds is not None and own.folds < 3:
        parser.error(f"--folds is {own.folds}; it must be 3 or more: test, validation and at least one to train on")
    args = parse_arguments(rest, prog="hf-cxr split")
    set_up_terminal()
    return check(args, images=own.images) if own.check else write(args, own.out, own.fractions, own.folds)


def write(args: "RunArguments", out: Path, fractions: Sequence[float] | None, folds: int | None) -> int:
    """Re-split the images of all splits and write the file."""
    import datasets
    import numpy as np

    from hf_cxr.data import label_matrix, load_source
    from hf_cxr.data.split_files import SPLITS, write_split_file
    from hf_cxr.data.splits import patient_folds, patient_fractions, warn_of_near_shared

    inputs = [place for place in (args.data.split_file, args.data.table) if place]
    check_output_file(out, inputs=inputs, table=True)
    if out.exists():
        raise ValueError(f"{out} already exists, and runs may refer to it; give another --out")
    if args.data.train_limit is not None or args.data.shuffle_labels:
        raise ValueError("train_limit and shuffle_labels are for training: a split uses all images with their labels")
    source = load_source(args.data, images=False, unlabelled=True)
    whole = datasets.concatenate_datasets(list(source.splits.values()))
    label_NC, image_ids, patient_ids = label_matrix(whole), whole["image_id"][:], whole["patient_id"][:]
    seed = args.training.seed
    if folds is not None:
        side_N = patient_folds(label_NC, patient_ids, folds=folds, seed=seed)
        parts = {f"fold {fold}": whole.select(np.flatnonzero(side_N == fold)) for fold in range(folds)}
    else:
        shares = dict(zip(SPLITS, fractions or (0.7, 0.1, 0.2), strict=True))
        side_N = patient_fractions(label_NC, patient_ids, shares, seed=seed)
        parts = {name: whole.select(np.flatnonzero(side_N == name)) for name in SPLITS}
    warn_of_near_shared(parts)
    write_split_file(out, image_ids, patient_ids, side_N.tolist(), column="split" if folds is None else "fold")
    print(summary(parts, source.labels))
    print(f"\nwrote {out} (seed {seed}); train on it with --split_file {out}{'' if folds is None else ' --fold 0'}")
    return 0


def check(args: "RunArguments", *, images: bool) -> int:
    """Count the splits and look for what they share: patients and image ids always, images where they are hashed."""
    from hf_cxr.data import load_source, near_shared_images, near_shared_patients
    from hf_cxr.data.duplicates import find_duplicates, hash_images

    # Splits that share a patient or an image id are refused here, by name.
    source = load_source(args.data, seed=args.training.seed, images=images, unlabelled=True)
    splits = source.splits
    print(summary(splits, source.labels))
    near = [*near_shared_patients(splits), *near_shared_images(splits)]
    print(f"\n{disjoint_claim(near)}")
    if all(set(split.column_names) >= HASHES for split in splits.values()):
        hashed = splits
    elif images:
        hashed = hash_images(splits)
    else:
        print("images were not compared: --images reads them all")
        return 0
    duplicates = find_duplicates(hashed)
    across = [duplicate for duplicate in duplicates if duplicate.split != duplicate.other_split]
    within = [duplicate for duplicate in duplicates if duplicate.split == duplicate.other_split]
    print(f"images that repeat one of another split: {len(across):,}; of their own split: {len(within):,}")
    for duplicate in within[:10]:
        print(f"  {duplicate}")
    if across:
        print(f"hf-cxr split: {plural(len(across), 'image is', 'images are')} also in another split:", file=sys.stderr)
        print("\n".join(f"  {duplicate}" for duplicate in across), file=sys.stderr)
    return 2 if across else 0


def disjoint_claim(near: Sequence[str]) -> str:
    """What the check may say once no id is shared: unqualified only if no two ids are alike."""
    if not near:
        return "no patient and no image id is in two splits"
    lines = [f"! {sentence}" for sentence in near]
    lines.append(
        "otherwise no id is in two splits; if such ids are the same patients or images, spell them the same way"
    )
    return "\n".join(lines)


def summary(splits, label_names: Sequence[str]) -> str:
    """Images, patients and positives of each split, the largest shift of a prevalence, the fingerprint."""
    import numpy as np

    from hf_cxr.data import split_fingerprint
    from hf_cxr.data.sources.table.description import UNLABELLED
    from hf_cxr.data.statistics import describe_splits
    from hf_cxr.reporting.document import Table, text_table

    statistics = describe_splits(splits, label_names)
    described = statistics.splits
    rows = [
        ["images", *(f"{split.images:,}" for split in described.values())],
        ["patients", *(f"{split.patients:,}" for split in described.values())],
        ["without any known label", *(f"{split.unlabelled:,}" for split in described.values())],
        *(
            [f"positive: {name}", *(f"{split.positives_C[column]:,}" for split in described.values())]
            for column, name in enumerate(label_names)
            if name != UNLABELLED
        ),
    ]
    lines = [text_table(Table.of(["", *described], rows)), ""]
    reference = "train" if "train" in described else "all"
    chosen = [described["train"]] if reference == "train" else described.values()
    positives_C = sum(split.positives_C for split in chosen)
    prevalence_C = positives_C / np.maximum(positives_C + sum(split.negatives_C for split in chosen), 1)
    for name, split in described.items():
        known_C = (prevalence_C > 0) & ~np.isnan(split.prevalence_C)
        if name != reference and known_C.any():
            shift_C = np.where(known_C, split.prevalence_C / np.where(known_C, prevalence_C, 1), 1)
            most = int(np.argmax(np.abs(np.log(np.maximum(shift_C, 1e-9)))))
            times = f"{shift_C[most]:.3f} times its prevalence in {reference}"
            lines.append(f"largest shift of {name}: {label_names[most]}, {times}")
    for name, split in described.items():
        without = [finding for finding, count in zip(label_names, split.positives_C, strict=True) if count == 0]
        if without and UNLABELLED not in without:
            fate = ": it cannot be learnt" if name == "train" else ""
            lines.append(f"! {name}: no positive image of {', '.join(without)}{fate}")
    return "\n".join([*lines, f"fingerprint {split_fingerprint(splits)}"])
