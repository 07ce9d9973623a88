"""`hf-cxr ensemble RUN RUN... --out DIR`: average the probabilities of finished runs, and measure that as one model.

A member is a run folder, of which the predictions are read, or a checkpoint folder inside one (`RUN/checkpoint-500`, a
snapshot), which is loaded and predicts validation and test of the run's own config.yaml. Other flags, such as
--nih_root DIR, are those of `hf-cxr train --help`.

DIR gets predictions/validation.parquet, predictions/test.parquet and metrics.json. It holds no model: an average of
probabilities is not one Swin, and the stock pipeline cannot load it. To predict new images, ask each member.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import MEASURING, parse_arguments, split_words
from hf_cxr.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; what it raises, `run_command` prints as one line."""
    parser = OneLineParser(
        prog="hf-cxr ensemble",
        usage="hf-cxr ensemble RUN RUN... --out DIR [--key value ...]",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, required=True, help="new folder for predictions and metrics.json")
    own, rest = parser.parse_known_args(argv)
    words, flags = split_words(rest)
    members = [Path(word) for word in words]
    if not members:
        parser.error("give the members: run folders, or checkpoints in them")
    # isdir is False, and raises nothing, for a name that is too long.
    names = [path.name for path in own.out.iterdir()] if os.path.isdir(own.out) else []
    if any(".hf-cxr" not in name for name in names):  # with it are the names that a killed command leaves
        parser.error(f"{own.out} is not empty; give another --out")
    if len({member.resolve() for member in members}) < len(members):
        parser.error("a member is named twice: it would weigh twice")
    for member in members:
        if not any((folder / "config.yaml").is_file() for folder in (member, member.parent)):
            parser.error(f"{member} is neither a run folder with a config.yaml nor a checkpoint inside one")
    from hf_cxr.run.result_folder import held

    first = members[0]
    config = next(folder / "config.yaml" for folder in (first, first.parent) if (folder / "config.yaml").is_file())
    args = parse_arguments([str(config), *flags], prog="hf-cxr ensemble", only=MEASURING)
    set_up_terminal()
    with held(own.out) as place:
        average(members, flags, args, place)
        print(f"wrote {own.out}/metrics.json and predictions/; it holds no model that a pipeline could load")
    return 0


def average(members: Sequence[Path], flags: Sequence[str], args, place: Path) -> None:
    """Average the members, print, and write to the place.

    Raises:
        ValueError, OSError: members that do not go together, or a place that holds something.
    """
    from hf_cxr.run.ensemble import build_ensemble
    from hf_cxr.run.result_folder import check_ensemble_place, write_whole

    check_ensemble_place(place)
    ensemble = build_ensemble(
        {str(member): predictions_of(member, flags) for member in members},
        calibrate=args.evaluation.calibrate,
        resamples=args.evaluation.bootstrap_resamples,
        confidence=args.evaluation.confidence,
        seed=args.training.seed,
    )
    print(ensemble.to_text())

    def write(folder: Path) -> None:
        for split in (ensemble.validation, ensemble.test):
            split.save(folder / "predictions" / f"{split.split}.parquet")
        write_json(folder / "metrics.json", ensemble.to_dict())

    write_whole(place, write, last="metrics.json")


def predictions_of(member: Path, flags: Sequence[str]):
    """(validation, test) predictions of a run folder as they are saved, or of a checkpoint as they are now made."""
    from hf_cxr.predictions import Predictions

    if (member / "predictions").is_dir():
        return tuple(Predictions.load(member / "predictions" / f"{name}.parquet") for name in ("validation", "test"))
    from hf_cxr.data import load_source
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.run.resume import check_split
    from hf_cxr.run.stages import predict

    args = parse_arguments([str(member.parent / "config.yaml"), *flags], prog="hf-cxr ensemble", only=MEASURING)
    source = load_source(args.data, seed=args.training.seed)
    check_split(source.fingerprint, member)
    classifier = Classifier(member)
    return tuple(predict(classifier, source.splits, name, args) for name in ("validation", "test"))
