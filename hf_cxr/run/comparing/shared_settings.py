"""What the runs of a comparison and the trials of a search have in common: settings from a YAML and flags for all.

Each is parsed and checked as `hf-cxr train` will do it, before anything is started, and all read the same data.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_cxr.arguments.components import KWARGS, merged
from hf_cxr.config import RunArguments, known_keys, parse_arguments, without_replaced_options
from hf_cxr.run.data import REVISION, pinned_data
from hf_cxr.run.training import check_training_model
from hf_cxr.yaml_files import dump_yaml, parse_yaml


def parsed(values: Mapping[str, Any], flags: Sequence[str], *, name: str, prog: str) -> RunArguments:
    """The arguments of a run, parsed as its YAML and the flags for all are.

    Args:
        values: what its YAML says.
        flags: for all runs.
        name: of its YAML in messages, without .yaml.
        prog: the program's name in messages.

    Raises:
        SystemExit: status 2 with one line, as `parse_arguments`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(dump_yaml(dict(values)), encoding="utf-8")
        return parse_arguments([str(path), *flags], prog=prog)


def check_fresh_model(args: RunArguments, what: str) -> None:
    """Refuse a fresh model that cannot be built or not be trained as asked; the weights of a saved one are not read.

    Args:
        args: of the run.
        what: the run or the values that the message begins with.

    Raises:
        ValueError: as `check_training_model`.
    """
    if args.model.initial_model is None:
        try:
            check_training_model(args)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error


def pinned_settings(
    base: Mapping[str, Any], flags: Sequence[str], args: RunArguments, started: Mapping[str, Any] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Base and flags with the data of this moment, the same for every run: see `run.data.pinned_data`.

    Args:
        base: the keys of every run.
        flags: for all runs; a branch that one of them names is replaced too.
        args: of one of the runs, parsed.
        started: the settings of a run of an earlier start; None if there is none.
    """
    revision = pinned_data(args.data, started).table_revision
    if revision == args.data.table_revision:
        return dict(base), tuple(flags)
    return {**base, REVISION: revision}, without_flag(flags, REVISION)


def without_flag(flags: Sequence[str], key: str) -> tuple[str, ...]:
    """The words of the flags without one that takes one value.

    >>> without_flag(["--seed", "1", "--table-revision", "main", "--table_revision=v2"], "table_revision")
    ('--seed', '1')
    """
    kept, skip = [], False
    for word in flags:
        if skip:
            skip = False
        elif _key(word) == key:
            skip = "=" not in word
        else:
            kept.append(word)
    return tuple(kept)


def with_flags(values: Mapping[str, Any], flags: Sequence[str], args: RunArguments) -> dict[str, Any]:
    """What one YAML must say to give the same run without the flags.

    Args:
        values: what the run's YAML says.
        flags: that override it.
        args: both, parsed.
    """
    resolved = parse_yaml(dump_yaml(args.to_dict()))
    given: dict[str, Any] = {}
    for key in filter(None, map(_key, flags)):
        mapping, dot, option = key.partition(".")
        if dot and mapping in KWARGS.values():
            given[key] = resolved[mapping][option]
        elif key in resolved:
            given[key] = resolved[key]
    return merged(without_replaced_options(values, given), given)


def _key(word: str) -> str | None:
    """The key that a word of a command line sets; None for a value."""
    if not word.startswith("--"):
        return None
    key, dot, option = word.lstrip("-").split("=")[0].partition(".")
    key = key.replace("-", "_")  # argparse takes --weight-decay as well
    key = key.removeprefix("no_") if key not in known_keys() else key  # the twin that turns a switch off
    return key + dot + option
