"""`hf-cxr ensemble RUN RUN... --out DIR`: average the probabilities of finished runs, and measure that as one model.

A member is a run folder, of which the predictions are read, or a checkpoint folder inside one (`RUN/checkpoint-500`, a
snapshot), which is loaded and predicts validation and test of the run's own config.yaml. Other flags, such as
--nih_root DIR, are those of `hf-cxr train --help`.

Under `accelerate launch` the processes share the predictions of checkpoints.

DIR gets predictions/validation.parquet, predictions/test.parquet and metrics.json. It contains no model: an average of
probabilities is not one model, and the stock pipeline cannot load it. To predict new images, ask each member.
"""

import dataclasses
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_arguments, split_words


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
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
        parser.error("a member is named twice and would count twice")
    for member in members:
        if not any((folder / "config.yaml").is_file() for folder in (member, member.parent)):
            parser.error(f"{member} is neither a run folder with a config.yaml nor a checkpoint inside one")
    from hf_cxr.run.ensemble import build_ensemble, member_predictions, origins_of
    from hf_cxr.run.measuring import intervals_of
    from hf_cxr.run.result_folder import check_ensemble_place, held

    arguments = [arguments_of(member, flags) for member in members]
    main = processes.is_main()
    processes.connect()
    set_up_terminal(main_process=main)
    with held(own.out) if main else nullcontext() as place:
        if main:
            check_ensemble_place(place)
        pairs = {
            str(member): member_predictions(member, args) for member, args in zip(members, arguments, strict=True)
        }
        if not main:
            return 0
        ensemble = build_ensemble(
            pairs,
            calibrate=arguments[0].evaluation.calibrate,
            intervals=intervals_of(arguments[0]),
        )
        ensemble = dataclasses.replace(ensemble, origins=origins_of(members))
        print(ensemble.document().to_terminal())
        ensemble.write(place)
        print(f"wrote {own.out}/metrics.json and predictions/; an ensemble has no model for a pipeline to load")
    return 0


def arguments_of(member: Path, flags: Sequence[str]):
    """The arguments of the run that a member is, or is a checkpoint of."""
    from hf_cxr.config import MEASURING

    config = next(path for folder in (member, member.parent) if (path := folder / "config.yaml").is_file())
    return parse_arguments([str(config), *flags], prog="hf-cxr ensemble", only=MEASURING)
