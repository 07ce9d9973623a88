"""The arguments behind every YAML key and every flag, and the one place where they are checked.

Seven dataclasses, one of them a subclass of `transformers.TrainingArguments`; the longest are in
`hf_cxr.arguments`. A YAML file gives defaults, flags win, and an unknown or misspelt key is an error that names the
nearest one:

    scripts/train.py configs/nih_swin_base.yaml --nih_root /data/nih --loss asymmetric --loss_kwargs.gamma_neg 2

The options of the loss, the sampler and the model are not known here: they are those of the component's own signature,
see `hf_cxr.arguments.components`.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser, positionals_and_flags, take_mappings
from hf_cxr.arguments.components import KWARGS, help_text, merged
from hf_cxr.arguments.flags import Flags, recorded_flags
from hf_cxr.arguments.masking import pretraining_flags
from hf_cxr.arguments.model import INITIAL_WEIGHTS
from hf_cxr.arguments.spelling import check_flags, current_spelling
from hf_cxr.arguments.yaml_values import convert, is_text
from hf_cxr.late_names import late_names
from hf_cxr.yaml_files import read_yaml

if TYPE_CHECKING:
    from hf_cxr.arguments.pretraining import PretrainArguments
    from hf_cxr.arguments.run import RunArguments

# Names that are imported from here, and where they are: with torch, so at their first use.
_HOME = {
    "ARGUMENTS": "run",
    "MEASURING": "run",
    "NOT_COMPARED": "training",
    "NOT_SAVED": "run",
    "PATHS": "run",
    "CXRTrainingArguments": "training",
    "DataArguments": "data",
    "EvaluationArguments": "evaluation",
    "LossArguments": "method",
    "ModelArguments": "model",
    "PretrainArguments": "pretraining",
    "RunArguments": "run",
    "SamplingArguments": "method",
    "StageArguments": "method",
}

__all__ = [
    *_HOME,
    "CONFIGS",
    "FROM_DEVICES",
    "config_file",
    "known_keys",
    "parse_arguments",
    "parse_pretraining",
    "split_words",
    "take_config",
    "text_keys",
    "unknown_key",
    "without_replaced_options",
]


__getattr__, __dir__ = late_names(__name__, {name: f"hf_cxr.arguments.{module}" for name, module in _HOME.items()})


CONFIGS = Path(__file__).parent / "configs"
if not CONFIGS.is_dir():  # a checkout keeps them at its top, a wheel inside the package
    CONFIGS = Path(__file__).parents[1] / "configs"

# Keys whose values come from the machine: a difference in them does not make it another run.
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


def parse_arguments(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "train.py",
    only: Collection[str] | None = None,
    needs_config: bool = False,
) -> "RunArguments":
    """A YAML file and flags, in any order, to the dataclasses.

    Args:
        argv: without the program's name. None reads the command line. Without a YAML file the quickstart's is taken.
        only: the keys that are taken from the YAML file; the rest of it is checked for unknown keys and left.
        needs_config: refuse a command line without a YAML file.

    Raises:
        SystemExit: status 2 with one line that names the key, where it is and the nearest known one.
    """
    examples = (
        "configs/quickstart.yaml (synthetic images, a few minutes), configs/nih_small.yaml or "
        "configs/nih_swin_base.yaml (the reference recipe)"
    )
    values = _parsed(
        argv, recorded_flags(), prog=prog, only=only, examples=examples if needs_config else "", components=True
    )
    return _built("run", "RunArguments", values, prog)


def parse_pretraining(argv: Sequence[str] | None = None, *, prog: str = "pretrain.py") -> "PretrainArguments":
    """As `parse_arguments`, for `hf-cxr pretrain`, which needs a YAML file.

    Raises:
        SystemExit: status 2 with one line that names the key, where it is and the nearest known one.
    """
    examples = "configs/pretrain_phantoms.yaml (synthetic images, a few minutes) or configs/pretrain_nih.yaml"
    return _built(
        "pretraining", "PretrainArguments", _parsed(argv, pretraining_flags(), prog=prog, examples=examples), prog
    )


def _parsed(
    argv: Sequence[str] | None,
    flags: Flags,
    *,
    prog: str,
    only: Collection[str] | None = None,
    examples: str = "",
    components: bool = False,
) -> dict[str, Any]:
    """Every key of the flags with its value.

    Args:
        examples: configs to name where none is given; without them none is needed.
        components: ``--help`` lists the options of losses, samplers and architectures.
    """
    parser = flags.parser(
        prog=prog,
        usage=f"{prog} {'CONFIG.yaml' if examples else '[CONFIG.yaml]'} [--key value ...]",
        description="A YAML file gives defaults, flags win.",
    )
    try:
        config, words = take_config(list(sys.argv[1:] if argv is None else argv), flags)
        if examples and config is None and not {"-h", "--help"} & set(words):
            raise ValueError(f"no config is given; give one, such as {examples}")
        words, mappings = take_mappings(words, KWARGS.values())
        path = CONFIGS / "quickstart.yaml" if config is None else config_file(config)
        values = _read_values(parser, flags, path) if config or not examples else {}
        values = {key: value for key, value in values.items() if only is None or key in only}
        values = merged(without_replaced_options(values, _chosen(words)) | mappings.whole, mappings.entries)
        parser.set_defaults(**values)
        if components and {"-h", "--help"} & set(words):
            parser.more = help_text(
                _chosen(words).get("architecture", flags.default("architecture")), flags.components
            )
        given, rest = parser.parse_known_args(words)
        if rest:
            raise ValueError(
                unknown_key(
                    rest[0].lstrip("-").split("=")[0].replace("-", "_"),
                    "the command line",
                    None if components else flags.keys,
                )
            )
        return vars(given)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))


def _built(module: str, name: str, values: Mapping[str, Any], prog: str) -> Any:
    """The dataclasses of parsed values; with torch: whatever can be refused before is refused before."""
    try:
        return getattr(importlib.import_module(f"hf_cxr.arguments.{module}"), name).of(values)
    except (ValueError, TypeError, OSError) as error:
        OneLineParser(prog=prog).error(str(error))


def config_file(given: str | Path) -> Path:
    """The YAML file that a command line names: the file itself, or else the one of that name in the package.

    One rule for every command that takes a config: ``configs/NAME.yaml`` is looked for where the command is given, and
    then among the configs that come with the package, so that an installed package needs no checkout. Standard error
    says which file is read in the second case. Any other path is taken as it is, whether or not it exists.
    """
    path = Path(given)
    if path.is_absolute() or path.parts[:1] != ("configs",) or ".." in path.parts or path.exists():
        return path
    shipped = CONFIGS.joinpath(*path.parts[1:])
    if not shipped.is_file():
        return path
    if processes.is_main():
        print(f"{path} is not in this folder: reading {shipped}, which comes with the package", file=sys.stderr)
    return shipped


def split_words(words: Sequence[str], flags: Flags | None = None) -> tuple[list[str], list[str]]:
    """The words of a command line that belong to no flag, and the flags with their values, both in order.

    Args:
        flags: that there are; by default a run's.

    Raises:
        ValueError: a flag of an earlier version, with the one that takes its place.
    """
    check_flags(words)
    return positionals_and_flags((flags or recorded_flags()).parser(), words)


def take_config(words: Sequence[str], flags: Flags | None = None) -> tuple[str | None, list[str]]:
    """The YAML file among a run's words, and the flags; ``flags`` as for `split_words`.

    It is the first word, if that is not a flag; else a word that ends with .yaml or .yml and belongs to no flag.

    Raises:
        ValueError: there are two, or a word that is neither a config nor the value of a flag.

    >>> take_config(["--table", "own.yaml", "--bf16", "x.yaml", "--seed", "1"])
    ('x.yaml', ['--table', 'own.yaml', '--bf16', '--seed', '1'])
    """
    positionals, given = split_words(words, flags)
    configs = [word for word in positionals if word == words[0] or word.endswith((".yaml", ".yml"))]
    if len(configs) > 1:
        raise ValueError(f"two configs are given, {configs[0]} and {configs[1]}; give one")
    extra = [word for word in positionals if word not in configs]
    if extra:
        raise ValueError(f"{extra[0]} in the command line belongs to no key; write --key {extra[0]}")
    return (configs[0] if configs else None), given


def without_replaced_options(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file without the options of a loss, sampler, model, dataset or rule that another one replaces.

    Another architecture starts without the weights that the file names, which are of the one before.

    asymmetric does not take class_aware's decoupled, and a split file belongs to one dataset. An option that is given
    together with the new choice is an error if the new component does not take it.

    >>> without_replaced_options({"loss": "class_aware", "loss_kwargs": {"margin": 0.1}, "seed": 1}, {"loss": "bce"})
    {'loss': 'class_aware', 'seed': 1}
    """
    flags = recorded_flags()
    for key, options in (
        ("loss", {"loss_kwargs"}),
        ("sampler", {"sampler_kwargs"}),
        ("architecture", {"model_kwargs", "model_name_or_path", "backbone_name_or_path"}),
        ("model_name_or_path", {"model_kwargs", "backbone_name_or_path"}),
        ("backbone_name_or_path", {"model_name_or_path"}),
        ("dataset", flags.of_sources),
        ("table", {"table_root", "split_file", "fold"}),
        ("operating_point", {"operating_target"}),
    ):
        if key in chosen and chosen[key] != values.get(key, flags.default(key)):
            values = {name: value for name, value in values.items() if name not in options}
    return dict(values)


def known_keys() -> list[str]:
    """Every YAML key and flag, in order."""
    return recorded_flags().keys


def unknown_key(key: str, where: str, known: Sequence[str] | None = None) -> str:
    """The message for a key that does not exist, with the nearest one of ``known`` (by default of a run's keys)."""
    if known is None and key in RENAMED:
        return f"unknown key {key} in {where}: {RENAMED[key]}"
    nearest = difflib.get_close_matches(str(key), known or known_keys(), n=1, cutoff=0.5)
    see = f"known: {', '.join(known)}" if known and len(known) < 40 else "see --help"
    return f"unknown key {key} in {where}" + (f"; did you mean {nearest[0]}?" if nearest else f"; {see}")


def text_keys() -> set[str]:
    """The keys whose values are text: `eval_strategy: no` means the word."""
    flags = recorded_flags()
    return _text_keys(flags.parser(), flags)


def _text_keys(parser: OneLineParser, flags: Flags) -> set[str]:
    return {action.dest for action in parser._actions if is_text(action, flags)}


def _read_values(parser: OneLineParser, flags: Flags, path: Path) -> dict[str, Any]:
    if (path / "config.yaml").is_file():
        raise ValueError(f"{path} is a folder; give the config in it: {path / 'config.yaml'}")
    if not path.is_file():
        raise FileNotFoundError(f"no such config: {path} (shipped ones: {', '.join(sorted(_shipped()))})")
    values = read_yaml(path, text_keys=_text_keys(parser, flags))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path} must contain one 'key: value' a line; it contains a {type(values).__name__}")
    if {"base", "methods"} <= values.keys():
        raise ValueError(f"{path} is a comparison and not one run: use `hf-cxr compare {path}`")
    if {"base", "space"} <= values.keys():
        raise ValueError(f"{path} is a search and not one run: use `hf-cxr tune {path}`")
    values = current_spelling(values, str(path))
    for key in values:
        if key not in flags.keys:
            raise ValueError(unknown_key(key, str(path), None if flags is recorded_flags() else flags.keys))
    if "local_rank" in values:  # written by an earlier version, which saved what the machine had decided
        values = {key: value for key, value in values.items() if key not in FROM_DEVICES or key == "images_per_step"}
    actions = {action.dest: action for action in reversed(parser._actions)}  # not the --no_ twin of a switch
    return {key: convert(actions[key], value, str(path), flags) for key, value in values.items()}


def _chosen(words: Sequence[str]) -> dict[str, str]:
    """The components and the data that flags choose."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for key in (*KWARGS, "dataset", "table", "operating_point"):
        chooser.add_argument(f"--{key}")
    for key in INITIAL_WEIGHTS:
        chooser.add_argument(f"--{key}", f"--{key.replace('_', '-')}")
    return vars(chooser.parse_known_args(words)[0])


def _shipped() -> list[str]:
    return [f"configs/{path.name}" for path in CONFIGS.glob("*.yaml")]
