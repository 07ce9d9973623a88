"""A run's flags from the dataclasses and signatures that define them; this imports torch and transformers.

``python -m hf_cxr.arguments.signatures`` writes the record that `flags` reads in their place; with ``--check`` it
writes nothing and fails when the record is out of date.
"""

import argparse
import sys

from transformers import HfArgumentParser

from hf_cxr.arguments.components import ARCHITECTURES, architecture_options
from hf_cxr.arguments.data import SOURCE_OPTIONS
from hf_cxr.arguments.flags import KINDS, RECORD, Flag, Flags, current_stamp
from hf_cxr.arguments.run import ARGUMENTS
from hf_cxr.arguments.training import FIXED, MAPPINGS
from hf_cxr.files import write_text
from hf_cxr.losses import LOSSES, loss_options
from hf_cxr.options import Option
from hf_cxr.sampling import SAMPLERS, sampler_options

# Types of values with a name of their own, by the name that argparse prints of them.
NAMED = {"string_to_bool": "switch", "<lambda>": "str"}  # the second is HfArgumentParser's of a choice among texts


def flags_of_signatures() -> Flags:
    """Every flag of a run, as transformers makes them of the dataclasses, and the options of every component."""
    flags = []
    for group in ARGUMENTS:
        parser = HfArgumentParser(group, add_help=False)
        flags += [_flag(action, group.__name__) for action in parser._actions]
    components = {
        "loss": {name: loss_options(name) for name in LOSSES},
        "sampler": {name: sampler_options(name) for name in SAMPLERS},
        "architecture": {name: architecture_options(name) for name in ARCHITECTURES},
    }
    printed = {
        key: {name: {key: as_printed(option) for key, option in own.items()} for name, own in options.items()}
        for key, options in components.items()
    }
    return Flags(tuple(flags), printed, sorted(FIXED), sorted(MAPPINGS), sorted(SOURCE_OPTIONS))


def as_printed(option: Option) -> Option:
    """The option with its default as text, which is all that help needs."""
    return Option(option.name, str(option.default), meaning=option.meaning)


def _flag(action: argparse.Action, group: str) -> Flag:
    kind = None
    if action.nargs != 0:
        name = action.type.__name__
        kind = NAMED.get(name, name)
        if kind not in KINDS:
            kind = f"{action.type.__module__}:{name}"
    choices = None if action.choices is None else [str(choice) for choice in action.choices]
    own = {key: getattr(action, key) for key in ("dest", "nargs", "const", "default", "help")}
    return Flag(list(action.option_strings), kind=kind, choices=choices, group=group, **own)


if __name__ == "__main__":
    record = flags_of_signatures().to_json(current_stamp())
    if sys.argv[1:] == ["--check"]:
        if not RECORD.exists() or RECORD.read_text(encoding="utf-8") != record:
            sys.exit(f"{RECORD} is out of date: run: make format")
    else:
        write_text(RECORD, record)
        print(f"wrote {RECORD}")
