"""The arguments behind every YAML key and every flag, and the door at which they are checked.

Seven dataclasses, one of them a subclass of `transformers.TrainingArguments`; the longest are in
`hf_cxr.arguments`. A YAML file gives defaults, flags win, and an unknown or misspelt key is an error that names the
nearest one:

    scripts/train.py configs/nih_swin_base.yaml --nih_root /data/nih --loss asymmetric --loss_kwargs.gamma_neg 2

The options of the loss, the sampler and the model are not known here: they are those of the component's own signature,
see `hf_cxr.arguments.components`.
"""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from hf_cxr.arguments.command_line import OneLineParser, positionals_and_flags, take_mappings
from hf_cxr.arguments.components import KWARGS, help_text, merged, with_defaults
from hf_cxr.arguments.data import DATA_PATHS, SOURCE_OPTIONS, DataArguments
from hf_cxr.arguments.evaluation import EvaluationArguments
from hf_cxr.arguments.method import LossArguments, SamplingArguments, StageArguments
from hf_cxr.arguments.model import ModelArguments
from hf_cxr.arguments.spelling import check_flags, current_spelling
from hf_cxr.arguments.training import NOT_COMPARED, CXRTrainingArguments
from hf_cxr.arguments.yaml_values import convert, is_text
from hf_cxr.yaml_files import read_yaml

__all__ = [
    "ARGUMENTS",
    "CONFIGS",
    "FROM_DEVICES",
    "NOT_COMPARED",
    "NOT_SAVED",
    "PATHS",
    "CXRTrainingArguments",
    "DataArguments",
    "EvaluationArguments",
    "LossArguments",
    "ModelArguments",
    "RunArguments",
    "SamplingArguments",
    "StageArguments",
    "known_keys",
    "parse_arguments",
    "split_words",
    "take_config",
    "text_keys",
    "unknown_key",
    "without_others_options",
]

CONFIGS = Path(__file__).parent / "configs"
if not CONFIGS.is_dir():  # a checkout keeps them at its top, a wheel inside the package
    CONFIGS = Path(__file__).parents[1] / "configs"


# What measuring a model takes from a run's config.yaml: which data and how they are measured, nothing of the training
# or of the machine that it ran on.
MEASURING = frozenset(
    {item.name for arguments in (DataArguments, EvaluationArguments) for item in dataclasses.fields(arguments)}
    | {"seed", "per_device_eval_batch_size", "dataloader_num_workers"}
)

# Keys whose value may be a local path.
PATHS = ("model_name_or_path", *DATA_PATHS)

# Prefixes of keys that are for one call or one process and not of the run: left out of its config.yaml.
NOT_SAVED = ("hub_", "local_rank", "on_existing_run", "push_to_hub", "resume_from_checkpoint")

# What a run takes from the machine it is on: no reason to take it for another run.
FROM_DEVICES = ("dataloader_multiprocessing_context", "dataloader_pin_memory", "images_per_step", "use_cpu")

# Keys of older releases of transformers, and of its examples -> what to write.
RENAMED = {
    "dispatch_batches": "leave it out",
    "evaluation_strategy": "write eval_strategy",
    "fp16_backend": "leave it out",
    "group_by_length": "leave it out",
    "half_precision_backend": "leave it out",
    "jit_mode_eval": "leave it out",
    "logging_dir": "trackers write into output_dir; leave it out",
    "no_cuda": "write use_cpu",
    "overwrite_output_dir": "write on_existing_run: move_aside, which keeps the earlier run",
    "past_index": "leave it out",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "per_gpu_train_batch_size": "write per_device_train_batch_size",
    "save_safetensors": "leave it out: weights are always saved so",
    "use_mps_device": "leave it out: an Apple GPU is used where there is one",
    "warmup_ratio": "write warmup_steps, which below 1 is a share of all steps",
}

ARGUMENTS = (
    DataArguments,
    ModelArguments,
    LossArguments,
    SamplingArguments,
    StageArguments,
    EvaluationArguments,
    CXRTrainingArguments,
)


@dataclass
class RunArguments:
    """Everything that a run is given."""

    data: DataArguments
    model: ModelArguments
    loss: LossArguments
    sampling: SamplingArguments
    stages: StageArguments
    evaluation: EvaluationArguments
    training: CXRTrainingArguments

    def __post_init__(self):
        start, epochs = self.stages.reweight_from_epoch, self.training.num_train_epochs
        if start is not None and self.training.max_steps <= 0 and start >= epochs:
            raise ValueError(f"reweight_from_epoch is {start}, and training ends after {epochs:g} epochs")
        if self.stages.feature_oversampling is not None and self.sampling.sampler in ("shuffle", "under"):
            raise ValueError(
                f"feature_oversampling acts on images drawn again, and the sampler {self.sampling.sampler} draws each "
                "once at most: choose --sampler class_aware, repeat_factor, over or mixed"
            )
        if not self.evaluation.measure_test and self.training.eval_strategy == "no":
            raise ValueError(
                "measure_test false stops after validation, and --eval_strategy no never measures it: leave out one"
            )
        if self.data.streaming and self.sampling.sampler != "shuffle":
            raise ValueError(
                f"sampler {self.sampling.sampler} draws images by number, and a stream has an order of its own: leave "
                "out --streaming or --sampler"
            )
        loss = self.loss.without_data()
        loss.set_label_smoothing(self.training.label_smoothing_factor)
        if start is not None and loss.class_weights_kind == "none":
            raise ValueError(
                f"reweight_from_epoch is {start}, but {self.loss.loss} has no class weights here: give "
                "--loss_kwargs.class_weights, such as effective_number"
            )
        for name, value in (("freeze_backbone", True), ("reinitialize_head", False)):
            if getattr(self.stages, name) is value and self.model.model_name_or_path is None:
                raise ValueError(
                    f"{name} {str(value).lower()} needs --model_name_or_path: a fresh model has learnt nothing yet"
                )

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, as plain YAML types.

        Defaults are there. The Hub's keys are not: neither a token, nor the wish to push, which a repetition of the
        run would inherit and overwrite what was published; nor what was to be done with an earlier run.
        """
        training = {key: value for key, value in self.training.to_config().items() if not key.startswith(NOT_SAVED)}
        ours = (self.data, self.model, self.loss, self.sampling, self.stages, self.evaluation)
        values = {key: value for part in ours for key, value in dataclasses.asdict(part).items()}
        return with_defaults(values | training)


def parse_arguments(
    argv: Sequence[str] | None = None, *, prog: str = "train.py", only: Collection[str] | None = None
) -> RunArguments:
    """A YAML file and flags, in any order, to the dataclasses.

    Args:
        argv: without the program's name. None reads the command line. Without a YAML file the quickstart's is taken.
        only: the keys that are taken from the YAML file; the rest of it is checked for unknown keys and left.

    Raises:
        SystemExit: status 2 with one line that names the key, where it is and the nearest known one.
    """
    parser = _Parser(
        ARGUMENTS,
        prog=prog,
        allow_abbrev=False,
        usage=f"{prog} [CONFIG.yaml] [--key value ...]",
        description="A YAML file gives defaults, flags win.",
    )
    try:
        config, words = take_config(list(sys.argv[1:] if argv is None else argv))
        words, mappings = take_mappings(words, KWARGS.values())
        path = CONFIGS / "quickstart.yaml" if config is None else Path(config)
        values = _read_values(parser, path)
        values = {key: value for key, value in values.items() if only is None or key in only}
        values = merged(without_others_options(values, _chosen(words)) | mappings.whole, mappings.entries)
        parser.set_defaults(**values)
        *parts, rest = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
        if rest:
            raise ValueError(unknown_key(rest[0].lstrip("-").split("=")[0].replace("-", "_"), "the command line"))
        return RunArguments(*parts)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that belong to no flag, and a run's flags with their values, both in order.

    Raises:
        ValueError: a flag of an earlier version, with the one that takes its place.
    """
    check_flags(words)
    return positionals_and_flags(_Parser(ARGUMENTS, allow_abbrev=False), words)


def take_config(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The YAML file among a run's words, and the flags.

    It is the first word, if that is not a flag; else a word that ends with .yaml or .yml and belongs to no flag.

    Raises:
        ValueError: there are two, or a word that is neither a config nor the value of a flag.

    >>> take_config(["--table", "own.yaml", "--bf16", "x.yaml", "--seed", "1"])
    ('x.yaml', ['--table', 'own.yaml', '--bf16', '--seed', '1'])
    """
    positionals, flags = split_words(words)
    configs = [word for word in positionals if word == words[0] or word.endswith((".yaml", ".yml"))]
    if len(configs) > 1:
        raise ValueError(f"two configs are given, {configs[0]} and {configs[1]}; give one")
    extra = [word for word in positionals if word not in configs]
    if extra:
        raise ValueError(f"{extra[0]} in the command line is the value of no key; write --key {extra[0]}")
    return (configs[0] if configs else None), flags


class _Parser(OneLineParser, HfArgumentParser):
    """HfArgumentParser, whose errors are one line, and whose help has the options of every component."""

    def format_help(self) -> str:
        architecture = _chosen(self.words).get("architecture", ModelArguments.architecture)
        return f"{super().format_help()}{help_text(architecture)}\n"


def without_others_options(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file when another loss, sampler, model or dataset is chosen: without the options of the first.

    asymmetric does not take class_aware's decoupled, and a split file belongs to one dataset. An option that is given
    with the choice is an error if the component does not take it.

    >>> without_others_options({"loss": "class_aware", "loss_kwargs": {"margin": 0.1}, "seed": 1}, {"loss": "bce"})
    {'loss': 'class_aware', 'seed': 1}
    """
    for key, default, options in (
        ("loss", LossArguments.loss, {"loss_kwargs"}),
        ("sampler", SamplingArguments.sampler, {"sampler_kwargs"}),
        ("architecture", ModelArguments.architecture, {"model_kwargs"}),
        ("model_name_or_path", None, {"model_kwargs"}),
        ("dataset", DataArguments.dataset, SOURCE_OPTIONS),
        ("table", None, {"table_root", "split_file", "fold"}),
    ):
        if key in chosen and chosen[key] != values.get(key, default):
            values = {name: value for name, value in values.items() if name not in options}
    return dict(values)


def known_keys() -> list[str]:
    """Every YAML key and flag, in order."""
    return [item.name for arguments in ARGUMENTS for item in dataclasses.fields(arguments) if item.init]


def unknown_key(key: str, where: str, known: Sequence[str] | None = None) -> str:
    """The message for a key that does not exist, with the nearest one of ``known`` (by default of a run's keys)."""
    if known is None and key in RENAMED:
        return f"unknown key {key} in {where}: {RENAMED[key]}"
    nearest = difflib.get_close_matches(str(key), known or known_keys(), n=1, cutoff=0.5)
    see = f"known: {', '.join(known)}" if known else "see --help"
    return f"unknown key {key} in {where}" + (f"; did you mean {nearest[0]}?" if nearest else f"; {see}")


def text_keys() -> set[str]:
    """The keys whose values are text: `eval_strategy: no` means the word."""
    return {action.dest for action in _Parser(ARGUMENTS)._actions if is_text(action)}


def _read_values(parser: HfArgumentParser, path: Path) -> dict[str, Any]:
    if (path / "config.yaml").is_file():
        raise ValueError(f"{path} is a folder; give the config in it: {path / 'config.yaml'}")
    if not path.is_file():
        raise FileNotFoundError(f"no such config: {path} (shipped ones: {', '.join(sorted(_shipped()))})")
    values = read_yaml(path, text_keys={action.dest for action in parser._actions if is_text(action)})
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one 'key: value' a line; it holds a {type(values).__name__}")
    if {"base", "methods"} <= values.keys():
        raise ValueError(f"{path} is a comparison and not one run: use `hf-cxr compare {path}`")
    values = current_spelling(values, str(path))
    for key in values:
        if key not in known_keys():
            raise ValueError(unknown_key(key, str(path)))
    if "local_rank" in values:  # written by an earlier version, which saved what the machine had decided
        values = {key: value for key, value in values.items() if key not in FROM_DEVICES or key == "images_per_step"}
    actions = {action.dest: action for action in reversed(parser._actions)}  # not the --no_ twin of a switch
    return {key: convert(actions[key], value, str(path)) for key, value in values.items()}


def _chosen(words: Sequence[str]) -> dict[str, str]:
    """The components and the data that flags choose."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for key in (*KWARGS, "dataset", "table"):
        chooser.add_argument(f"--{key}")
    chooser.add_argument("--model_name_or_path", "--model-name-or-path")
    return vars(chooser.parse_known_args(words)[0])


def _shipped() -> list[str]:
    return [f"configs/{path.name}" for path in CONFIGS.glob("*.yaml")]
