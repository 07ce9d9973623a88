"""`hf-cxr evaluate [CONFIG.yaml] --model RUN_OR_HUB_ID [--split test]`: measure a saved model on radiographs.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR); without a YAML, a run
folder's own config.yaml is taken, of which only the data and the way of measuring matter here. Flags that choose
another --dataset leave the run's own behind. Nothing is fitted: the model is measured as it is. Data with other
findings (such as --dataset table --table chexpert) are measured on those that both have, by name and alias.
"""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import MEASURING, parse_arguments, take_config


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

    from hf_cxr.run.evaluate import evaluate
    from hf_cxr.run.result_folder import EVALUATION, PREDICTIONS, held

    state = PartialState()
    set_up_terminal(main_process=state.is_main_process)
    with held(own.out) if own.out and state.is_main_process else nullcontext() as place:
        evaluation = evaluate(own.model, args, split=own.split, revision=own.revision, place=place)
        if state.is_main_process:
            print(evaluation.document().to_terminal())
        if place:
            evaluation.write(place)
            print(f"wrote {own.out}/{EVALUATION} and {PREDICTIONS}")
    return 0
