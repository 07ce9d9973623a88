"""A run's flags as they are recorded in flags.json, so that help and a misspelt flag do not wait for torch.

The flags come from dataclasses, one of them a subclass of `transformers.TrainingArguments`, and their options from the
signatures of losses, samplers and architectures. To read them there takes seconds of imports: `signatures` does it and
writes the record. The record names the version of transformers and a digest of the source files that it was made of;
where one of them differs, the signatures themselves are read, without a message. A test compares the record
with the signatures. After a change of a flag: ``python -m hf_cxr.arguments.signatures``.
"""

import argparse
import functools
import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.options import Option

RECORD = Path(__file__).with_name("flags.json")

# Files below the package that decide a flag: its name, type, default, choices or help, or an option of a component.
DECIDING = (
    "arguments/components.py",
    "arguments/data.py",
    "arguments/evaluation.py",
    "arguments/method.py",
    "arguments/model.py",
    "arguments/run.py",
    "arguments/signatures.py",
    "arguments/training.py",
    "data/sources/*.py",
    "data/sources/table/__init__.py",
    "evaluation/draws.py",
    "evaluation/kernels.py",
    "evaluation/threshold_rules.py",
    "losses/__init__.py",
    "losses/listwise.py",
    "losses/modules.py",
    "losses/reduction.py",
    "options.py",
    "sampling.py",
)


@dataclass(frozen=True)
class Flag:
    """One flag as argparse takes it.

    ``kind`` is the type of its value: a key of ``KINDS``, or "module:name" of a class that is imported for a value;
    None: the flag takes no value and sets False. ``group`` is the dataclass that it belongs to.
    """

    names: Sequence[str]
    dest: str
    group: str
    kind: str | None
    nargs: str | None
    const: Any
    default: Any
    choices: Sequence[str] | None
    help: str | None

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        own = {"dest": self.dest, "default": deepcopy(self.default), "help": self.help}
        if self.kind is None:
            parser.add_argument(*self.names, action="store_false", **own)
        else:
            kind = KINDS.get(self.kind) or _Later(self.kind)
            value = {"type": kind, "nargs": self.nargs, "const": self.const, "choices": self.choices}
            parser.add_argument(*self.names, **own, **value)


@dataclass(frozen=True)
class Flags:
    """Every flag of a run, and what reading a config needs to know of them.

    ``components`` has the options of each component: key that chooses it -> name -> option -> `Option`, with the
    default as text. ``fixed`` are the keys that must keep their default, ``mappings`` those of transformers that hold
    a mapping, ``of_sources`` those that belong to one dataset.
    """

    flags: Sequence[Flag]
    components: Mapping[str, Mapping[str, Mapping[str, Option]]]
    fixed: Collection[str]
    mappings: Collection[str]
    of_sources: Collection[str]

    @property
    def keys(self) -> list[str]:
        """Every YAML key, in order."""
        return list(dict.fromkeys(flag.dest for flag in self.flags))

    def default(self, key: str) -> Any:
        return next(flag.default for flag in self.flags if flag.dest == key)

    def parser(self, groups: Collection[str] | None = None, **kwargs: Any) -> OneLineParser:
        """A parser of these flags, or of those of some dataclasses, whose errors are one line."""
        parser = OneLineParser(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs)
        for flag in self.flags:
            if groups is None or flag.group in groups:
                flag.add_to(parser)
        return parser

    def to_json(self, stamp: Mapping[str, str]) -> str:
        """The record, a line a flag and an option, so that a change of one is a change of its line."""
        values = {
            "stamp": dict(stamp),
            "fixed": sorted(self.fixed),
            "mappings": sorted(self.mappings),
            "of_sources": sorted(self.of_sources),
            "flags": [vars(flag) for flag in self.flags],
            "components": {
                key: {
                    name: {option.name: [option.default, option.meaning] for option in options.values()}
                    for name, options in components.items()
                }
                for key, components in self.components.items()
            },
        }
        return _lines(values, depth=3) + "\n"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Flags":
        components = {
            key: {
                name: {option: Option(option, default, meaning=meaning) for option, (default, meaning) in own.items()}
                for name, own in components.items()
            }
            for key, components in values["components"].items()
        }
        flags = tuple(Flag(**flag) for flag in values["flags"])
        return cls(flags, components, values["fixed"], values["mappings"], values["of_sources"])


@functools.cache
def recorded_flags() -> Flags:
    """A run's flags: from the record if it is of these sources and this transformers, else from the signatures."""
    if RECORD.is_file():
        values = json.loads(RECORD.read_text(encoding="utf-8"))
        if values["stamp"] == current_stamp():
            return Flags.from_json(values)
    from hf_cxr.arguments.signatures import flags_of_signatures

    return flags_of_signatures()


def current_stamp() -> dict[str, str]:
    """What the record depends on: the version of transformers, and a digest of this package's deciding files."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for pattern in DECIDING:
        for path in sorted(package.glob(pattern)):
            digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return {"transformers": importlib.metadata.version("transformers"), "sources": digest.hexdigest()[:16]}


def true_or_false(text: str | bool) -> bool:
    """The value of a switch, spelled as `transformers.HfArgumentParser` takes it.

    >>> true_or_false("no")
    False
    """
    if isinstance(text, bool):
        return text
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(
        f"Truthy value expected: got {text} but expected one of yes/no, true/false, t/f, y/n, 1/0 (case insensitive)."
    )


# Type of a value -> what makes it of a word.
KINDS = {"str": str, "int": int, "float": float, "dict": dict, "switch": true_or_false}


class _Later:
    """A class that is imported when a word becomes a value of it."""

    def __init__(self, place: str):
        self.module, _, self.__name__ = place.partition(":")

    def __call__(self, word: str) -> Any:
        return getattr(importlib.import_module(self.module), self.__name__)(word)


def _lines(values: Any, depth: int, indent: str = "") -> str:
    """JSON with a line for each entry down to a depth."""
    if depth == 0 or not isinstance(values, dict | list) or not values:
        return json.dumps(values, ensure_ascii=False)
    inner = indent + " "
    if isinstance(values, dict):
        entries = [f"{json.dumps(key)}: {_lines(value, depth - 1, inner)}" for key, value in values.items()]
    else:
        entries = [_lines(value, depth - 2, inner) for value in values]
    opening, closing = "{}" if isinstance(values, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(entries) + f"\n{indent}{closing}"
