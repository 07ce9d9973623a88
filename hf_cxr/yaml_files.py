"""The settings files of this package, read and written as YAML: one reader and one writer for all of them.

Numbers are those of YAML 1.2: 1e-4, 1E5, .5e3 and 1_000 are numbers everywhere, in a list and inside a
mapping too (YAML 1.1, which PyYAML reads, takes 1e-4 for text). 010 is ten and 1:30 is text: YAML 1.1 takes them for
octal and for minutes and seconds. true, yes and on are true. Quoted values are text, and so is a date.

Refused, in one line: what is not YAML, and a key that occurs twice in one mapping, of which the last would win.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
TIMESTAMP, NULL, MERGE = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"

NUMBERS = {
    INT: re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)$"),
    FLOAT: re.compile(
        r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
}


def _resolvers(base: type, without: Collection[str] = ()) -> dict[str, list]:
    kept = {
        first: [(tag, pattern) for tag, pattern in pairs if tag not in without]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    for first in "-+.0123456789":  # integers first: the float's pattern takes them as well
        kept[first] = [*NUMBERS.items(), *kept.get(first, [])]
    return kept


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader, without=(INT, FLOAT, TIMESTAMP))
    text_keys: Collection[str] = ()

    def construct_mapping(self, node, deep=False):
        # A key is the text that is written: a method may be called "no", and 1e-3 is not 0.001 to its reader.
        seen = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key has to be one word", key.start_mark)
            if key.tag == MERGE:
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"{key.value} occurs twice in one mapping, in lines {seen[key.value]} and {line}")
            seen[key.value] = key.start_mark.line + 1
        self.flatten_mapping(node)  # what "<<" brings in
        for key, value in node.value:
            key.tag = self.DEFAULT_SCALAR_TAG
            # "no" for a key that wants text is the word, not false, and the commit 1234567 is not a number.
            if key.value in self.text_keys and isinstance(value, yaml.ScalarNode) and value.tag != NULL:
                value.tag = self.DEFAULT_SCALAR_TAG
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    # Text that looks like a number to this reader, or to one of YAML 1.1, is written in quotes.
    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper)

    def ignore_aliases(self, data):
        return True


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0) if re.match(r"[-+]?0[xob]", text) else int(text, 10)


_Loader.add_constructor(INT, _integer)


def parse_yaml(text: str, *, text_keys: Collection[str] = ()) -> Any:
    """The value of a YAML text; None for an empty one.

    Args:
        text: the YAML.
        text_keys: keys, at any depth, whose value is text as it is written, whatever it looks like.

    Raises:
        ValueError: it is not YAML, or a key occurs twice; one line.

    >>> parse_yaml("{min_lr: 1e-6, betas: [.9, 1_000, 010], quoted: '1e-6'}")
    {'min_lr': 1e-06, 'betas': [0.9, 1000, 10], 'quoted': '1e-6'}
    """
    loader = type("Loader", (_Loader,), {"text_keys": frozenset(text_keys)})
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split()).replace(' in "<unicode string>"', "")  # it has several lines
        raise ValueError(f"not valid YAML: {words}") from error
    except RecursionError as error:
        raise ValueError("not valid YAML: it is nested too deeply") from error


def read_yaml(path: str | Path, *, text_keys: Collection[str] = ()) -> Any:
    """The value of a YAML file in UTF-8, as `parse_yaml`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a YAML file, or a key occurs twice; one line that names the file.
    """
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8-sig"), text_keys=text_keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a YAML file: it is not text in UTF-8 ({error})") from error
    except ValueError as error:
        if str(error).startswith("not valid YAML: "):
            raise ValueError(f"{path} is not a YAML file: {str(error).removeprefix('not valid YAML: ')}") from error
        raise ValueError(f"{path}: {error}") from error


def dump_yaml(value: Any) -> str:
    """The value as YAML that `parse_yaml` reads back as the same value; keys in order of the alphabet.

    >>> parse_yaml(dump_yaml({"run_name": "1e-4", "learning_rate": 1e-4}))
    {'learning_rate': 0.0001, 'run_name': '1e-4'}
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True)
