"""The words of a command line: a run's flags with their values, and the words next to them.

Every command takes its flags and its positional words in any order. argparse alone cannot: a flag that needs no value,
such as ``--bf16``, would take the config or run folder that follows it.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hf_cxr import processes
from hf_cxr.words import one_line
from hf_cxr.yaml_files import parse_yaml


class OneLineParser(argparse.ArgumentParser):
    """argparse, whose errors are one line without the usage before it, and name the nearest flag."""

    words: Sequence[str] = ()  # of the command line, once it is parsed
    more = ""  # text at the end of --help

    def parse_known_args(self, args=None, namespace=None):
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            nearest = difflib.get_close_matches(rest[0].split("=")[0], flags, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"see {self.prog} --help"
            self.error(f"unknown word {rest[0]} in the command line; {hint}")
        return known

    def format_help(self) -> str:
        return f"{super().format_help()}{self.more}" + ("\n" if self.more else "")

    def error(self, message: str) -> NoReturn:
        if not processes.fails_first():
            self.exit(2)  # all processes of a launch have the same words
        self.exit(2, f"{self.prog}: {one_line(self._misspelt(message) or message)}\n")

    def _misspelt(self, message: str) -> str | None:
        """For a message of argparse that a flag is required: the word that looks like it, if there is one."""
        if "arguments are required" not in message:
            return None
        required = [flag for action in self._actions if action.required for flag in action.option_strings]
        for word in self.words:
            flag = word.split("=")[0]
            nearest = difflib.get_close_matches(flag, required, n=1)
            if flag.startswith("-") and flag not in self._option_string_actions and nearest:
                return f"unknown word {word} in the command line; did you mean {nearest[0]}?"
        return None


@dataclass(frozen=True)
class Mappings:
    """What flags give keys that hold a mapping: a mapping in place of a file's, and single entries over it."""

    whole: dict[str, dict[str, Any]] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)


def take_mappings(words: Sequence[str], keys: Collection[str]) -> tuple[list[str], Mappings]:
    """Take the flags of keys that hold a mapping out of a command line.

    Args:
        words: flags with their values.
        keys: such as loss_kwargs.

    Returns:
        The words without these flags; what they give. A single entry counts before the mapping of the same key,
        wherever it is.

    Raises:
        ValueError: a flag without a value, or a value that is not a mapping.

    >>> take_mappings(["--loss_kwargs.gamma", "1e-1", "--seed", "2"], ["loss_kwargs"])
    (['--seed', '2'], Mappings(whole={}, entries={'loss_kwargs.gamma': 0.1}))
    >>> take_mappings(["--loss_kwargs", '{"gamma": 2}'], ["loss_kwargs"])[1].whole
    {'loss_kwargs': {'gamma': 2}}
    """
    left, mappings, rest = [], Mappings(), list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.partition("=")
        name, dot, entry = flag.removeprefix("--").replace("-", "_").partition(".")
        if not flag.startswith("--") or name not in keys:
            left.append(word)
            continue
        if not equals and not rest:
            raise ValueError(f"{flag} has no value; write {flag} VALUE")
        text = text if equals else rest.pop(0)
        value = parse_yaml(text)  # JSON is YAML
        if dot:
            mappings.entries[f"{name}.{entry}"] = value
        elif isinstance(value, dict):
            mappings.whole[name] = value
        else:
            raise ValueError(
                f"{flag} is {text}; it must be a mapping, such as '{{\"name\": 1}}', or use {flag}.NAME 1"
            )
    return left, mappings


def output_path(text: str) -> Path:
    """The ``type`` of an option that names an output: an empty name, which a shell variable may be, is not a place.

    >>> str(output_path("runs/first"))
    'runs/first'
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty; give the place to write to")
    return Path(text)


def positionals_and_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that belong to no flag, and the flags with their values, both in order.

    Args:
        parser: knows the flags. An unknown one is taken to have one value, so that its own name is reported later.
        words: the command line.

    >>> parser = argparse.ArgumentParser()
    >>> _ = [parser.add_argument("--seed", type=int), parser.add_argument("--depths", type=int, nargs="+")]
    >>> positionals_and_flags(parser, ["--depths", "2", "2", "a", "--seed", "1", "b"])
    (['a', 'b'], ['--depths', '2', '2', '--seed', '1'])
    """
    positionals: list[str] = []
    flags: list[str] = []
    known = parser._option_string_actions
    action, awaits_value = None, False  # of the last flag
    for word in words:
        if word.startswith("-") and not (awaits_value and _is_value(action, word)):
            flags.append(word)
            action = known.get(word.split("=")[0])
            # A flag that takes several values may have more of them after "=".
            awaits_value = "=" not in word and (action is None or action.nargs != 0)
        elif awaits_value and _is_value(action, word):
            flags.append(word)
            awaits_value = action is not None and action.nargs in ("+", "*")
        else:
            positionals.append(word)
            awaits_value = False
    return positionals, flags


def _is_value(action: argparse.Action | None, word: str) -> bool:
    """Whether a flag takes the word that follows it."""
    if word.startswith("-"):
        return _is_a(float, word)  # a negative number
    return action is None or action.nargs is None or _is_a(action.type, word)


def _is_a(kind: Callable, word: str) -> bool:
    try:
        kind(word)
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        return False
    return True
