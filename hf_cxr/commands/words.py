"""A command line of a command's own options and a run's keys, in any order.

argparse must know which of the run's keys take a value, or it would take the value for the command's config.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """argparse, whose errors are one line and not the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def output_path(text: str) -> Path:
    """The ``type`` of an option that names an output: an empty name, which a shell variable may be, is no folder.

    >>> str(output_path("runs/first"))
    'runs/first'
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty; give the place to write to")
    return Path(text)


class _Keep(argparse.Action):
    """Keep a flag and its values as they were typed; `config.parse_arguments` reads them."""

    def __call__(self, parser, namespace, values, option_string=None):
        words = [] if values is None else values if isinstance(values, list) else [values]
        namespace.flags = [*namespace.flags, option_string, *words]


def split_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options and positionals, and the run's flags with their values, as typed.

    Args:
        parser: with the command's own arguments, and ``allow_abbrev=False``; it gets the run's keys.
        words: the command line without the command's name.

    Raises:
        SystemExit: status 2, for an unknown key or a positional too many.
    """
    from transformers import HfArgumentParser

    from hf_cxr.config import ARGUMENTS, unknown_key

    own = set(parser._option_string_actions)
    for action in HfArgumentParser(ARGUMENTS)._actions:
        names = [name for name in action.option_strings if name not in own]
        if names and action.dest != "help":
            parser.add_argument(*names, dest="flags", action=_Keep, nargs=action.nargs, help=argparse.SUPPRESS)
    parser.set_defaults(flags=[])
    parser.usage = _usage(parser, own)
    namespace, rest = parser.parse_known_intermixed_args(list(words))
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        parser.error(unknown_key(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), "the command line"))
    if rest:
        parser.error(f"{rest[0]} is one argument too many; see {parser.prog} --help")
    flags = namespace.flags
    del namespace.flags
    return namespace, flags


def _usage(parser: argparse.ArgumentParser, own: set[str]) -> str:
    """The usage line without the run's two hundred keys."""
    shown = argparse.ArgumentParser(prog=parser.prog, add_help=False)
    for action in parser._actions:
        if not action.option_strings or set(action.option_strings) & own:
            shown._add_action(action)
    return f"{shown.format_usage().removeprefix('usage: ').strip()} [--key value ...]".replace("%", "%%")
