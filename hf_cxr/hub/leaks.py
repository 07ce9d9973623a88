"""What must not leave this machine: access tokens, and paths on this machine or on the one that trained."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# The Hub's access tokens are "hf_" (an organisation's "api_org_") and 34 letters or digits; a browser's, "hf_oauth_".
_TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:hf_oauth|hf|api_org)_[A-Za-z0-9]{30,}")

# Network addresses; those on a disk, such as file: and sqlite:, are paths.
_URL = re.compile(r"\b(?:https?|ftps?|s3|gs|hf|ssh|git)://\S*", re.IGNORECASE)
LOCAL_PATH = re.compile(
    r"""
    file:/+[^\s"'<>|`)\]]+                              # file:///home/ann/x
    | (?<![\w\\])\\\\[\w.$-]+\\[^\s"'<>|`)\]]+          # \\server\share
    | (?<![\w])[A-Za-z]:[\\/][^\s"'<>|`)\]]*            # C:\Users\Ann, C:/Users/Ann
    | (?<![\w.~/])~(?:[a-z_][\w-]*)?[\\/][^\s"'<>|`)\]]*  # ~/x, ~ann/x
    | (?<![\w.<~/)\]}%])/{1,4}[\w.@~+-][^\s"'<>|`,;:)\]}]*   # /home/ann/x, sqlite:////home/ann/x
    """,
    re.VERBOSE,
)


def check_no_local_path(
    run_dir: Path,
    texts: dict[str, list[tuple[str, str]]],
    hidden: Iterable[str] = (),
    repair: str = "replace each by a name in that file and push again",
) -> None:
    """Refuse a file that contains a local path: a home folder names a person, and shows where patients' images are.

    Args:
        run_dir: for the message.
        texts: for each file, pairs of place in the file and text.
        hidden: relative paths that were left out of the settings.
        repair: for the message.
    """
    relative = [re.compile(rf"(?<![\w/.-]){re.escape(path)}(?![\w-])") for path in hidden]
    found = [
        f"{name} ({where}): {path}"
        for name, entries in texts.items()
        for where, text in entries
        for path in _local_paths(text, relative)
    ]
    found = list(dict.fromkeys(found))
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{run_dir}: local paths would be published: {'; '.join(found[:3])}{more}; {repair}")


def _local_paths(text: str, relative: Sequence[re.Pattern]) -> Iterator[str]:
    text = _URL.sub(" ", text)
    for match in LOCAL_PATH.finditer(text):
        path = match[0].rstrip(".,")
        if path.startswith("/path/to/"):  # what documentation writes for "your own"
            continue
        # "/" and one name may be prose; two names are a path.
        if not path.startswith("/") or path.strip("/").count("/") or Path(path).exists():
            yield path
    for pattern in relative:
        yield from (match[0] for match in pattern.finditer(text))


def check_no_token(run_dir: Path, data: dict[str, bytes], shown: dict[str, list[str]], token: str | None) -> None:
    """Refuse a file that contains an access token: once pushed, it is stolen.

    Args:
        run_dir: for the message.
        data: the bytes of each file.
        shown: the texts in it as a reader sees them: without escapes, not compressed.
        token: one that must not be in any file; whatever looks like one is refused too.
    """
    for name, texts in shown.items():
        for text in (data.get(name, b"").decode("utf-8", errors="replace"), *texts):
            if _TOKEN.search(text) or (token and token in text):
                raise ValueError(
                    f"{run_dir / name} contains an access token; remove it, and revoke it if anyone saw the file"
                )


def exposed_tokens(run_dir: str | Path, token: str | None = None) -> list[Path]:
    """Files of an earlier version's checkpoints that contain an access token in clear. They are never sent.

    transformers saves its arguments as a pickle, and a ``--hub_token`` was among them. The bytes are searched and not
    unpickled.
    """
    found = []
    for path in sorted(Path(run_dir).glob("checkpoint-*/training_args.bin")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if _TOKEN.search(text) or (token and token in text):
                found.append(path)
    return found
