"""Files are written under another name and renamed: no reader, and no job killed while it writes, sees half of one.

Every output that a user names goes through here, and one rule holds for all of them:

| the name is ...                               | what happens                                                     |
|-----------------------------------------------|------------------------------------------------------------------|
| a regular file                                | replaced in one step; its permissions stay                       |
| a link                                        | stays a link: the file that it leads to is replaced, or created  |
| a link that leads back to itself              | refused                                                          |
| a folder, device, pipe or socket              | refused                                                          |
| one of the command's own inputs, by any name  | refused by `check_output_file` and `check_output_folder`         |
| an image or another format than is written    | refused by `check_output_file`                                   |

A command calls `check_output_file` or `check_output_folder` before its work, so that it is refused then and not at the
end. A full disk, a used-up quota and missing permissions are an `OutputError`: one line with the place and the repair.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Suffixes of what is not a table. Any other suffix may be one: predictions.2024, results.v1.
NOT_A_TABLE = re.compile(
    r"\.(a?png|avif|bmp|dib|gif|heic|j2[ck]|jfif|jp[2cefgx]|jpeg|jxl|p[bfgnp]m|svg|tiff?|webp"
    r"|dcm|dicom|ima|nii|nrrd|mh[ad]"
    r"|arrow|feather|parquet|h5|hdf5|np[yz]|safetensors|bin|ckpt|onnx|pkl|pickle|pth?|xlsx?|ods"
    r"|7z|bz2|gz|tar|tgz|xz|zip|zst"
    r"|html?|ipynb|jsonl?|lock|log|md|pdf|py|sh|tex|toml|ya?ml)"
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG file
LINKS = 40  # as many in a row as Linux follows

_REPAIRS = {
    errno.EACCES: ("permission denied", "fix the permissions or give another place"),
    errno.EPERM: ("the system does not permit it", "fix the permissions or give another place"),
    errno.EROFS: ("the file system is read-only", "give another place"),
    errno.ENOSPC: ("the disk is full", "free disk space or give another place"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space or give another place"),
    errno.EFBIG: ("the file would be larger than the system permits", "raise the limit or give another place"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter one"),
    errno.ELOOP: ("it is a link that leads back to itself", "remove the link or give another name"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "give another place"),
    errno.EEXIST: ("a part of the path is not a folder", "give another place"),
    errno.EIO: ("the disk reports an error", "check the disk or give another place"),
}
# Errors that only writing causes. Any other error inside a `replacing` block may come from what is read there.
_WRITING_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

# As libraries write it that do not say the number. The last two are torch.save, which does not say more.
_DISK_FULL = re.compile(
    r"No space left on device|os error 28|Disk quota exceeded|inline_container.* unexpected pos|basic_ios::clear"
)


class OutputError(OSError):
    """An output that cannot be written: what is wrong, where, and the repair, in one line; ``errno`` if known."""

    def __init__(self, message: str, number: int | None = None):
        super().__init__(message)  # with one argument, which the text of the error then is
        self.errno = number

    @classmethod
    def of(cls, path: str | Path, error: BaseException, repair: str | None = None) -> "OutputError":
        """The error in words; ``repair`` in place of the usual one.

        >>> print(OutputError.of("a.csv", OSError(errno.ENOSPC, "No space left on device")))
        cannot write a.csv: the disk is full; free disk space or give another place
        """
        number = _error_number(error)
        reason, usual = _REPAIRS.get(number, (getattr(error, "strerror", None) or str(error), "give another place"))
        return cls(f"cannot write {path}: {reason}; {repair or usual}", number)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path next to ``path`` that takes its place when the block ends well, and else is removed.

    The content is on the disk before the name is, so a power cut leaves the old file or the new one. A link is written
    through. Missing folders are made.

    Raises:
        OutputError: see the table at the top of this module; or the disk is full, within the block as well.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as beside:
    ...     _ = beside.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    target = output_target(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = _temporary(target)
    except OSError as error:
        raise OutputError.of(path, error) from error
    try:
        yield beside
        _put_in_place(beside, target)
    except OutputError:
        raise
    except Exception as error:  # not all are OSErrors: safetensors has its own for a full disk
        if _error_number(error) in _WRITING_ERRORS:
            raise OutputError.of(path, error) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def output_target(path: str | Path) -> Path:
    """The file that ``path`` names, through any links; it need not exist.

    Raises:
        OutputError: it is a folder, a device, a pipe or a socket, or a link that leads back to itself.
    """
    target = Path(path)
    try:
        status = os.stat(target)  # of /dev/stdout, which no reading of links finds
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise OutputError.of(path, error) from error
    if status is not None and not stat.S_ISREG(status.st_mode):
        kind, repair = _kind(status.st_mode)
        raise OutputError(f"cannot write {path}: it is {kind}; {repair}")
    for _ in range(LINKS):
        if not target.is_symlink():
            return target
        target = target.parent / os.readlink(target)
    raise OutputError.of(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))


def check_output_file(path: str | Path, *, inputs: Iterable[str | Path] = (), table: bool = False) -> None:
    """Refuse a place where a file cannot be written, or must not be, before the work whose result it is to hold.

    Nothing is left behind: folders that are missing are not made here.

    Args:
        path: the file to be written.
        inputs: files and folders that the command reads; a file may not be one of them, by whatever name.
        table: whether CSV is written: refuses a name with the suffix of another format, and a file in one.

    Raises:
        OutputError: see the table at the top of this module; the message names the place and the repair.
    """
    target = output_target(path)
    if target.exists():
        for other in inputs:
            if _same(target, other):
                raise OutputError(f"cannot write {path}: it is an input of this command; give another file")
        for number, stream in ((1, "standard output"), (2, "standard error")):
            if _same(target, number):
                raise OutputError(f"cannot write {path}: {stream} goes to this file; give another")
    if table:
        _check_table(path, target)
    _check_folder_of(target, path)


def check_output_folder(
    path: str | Path, *, inputs: Iterable[str | Path] = (), closed: Iterable[str | Path] = ()
) -> None:
    """Refuse a place where a folder of results cannot be, before the work. Nothing is made or left behind.

    Args:
        path: the folder to be filled; it may exist.
        inputs: files and folders that the command reads; the folder may not be one of them.
        closed: input folders that results may not be inside of either, such as a folder of images.

    Raises:
        OutputError: it is a file, or a link that leads nowhere; it is an input; it cannot be written to.
    """
    path, closed = Path(path), [Path(folder) for folder in closed]
    try:
        if not path.is_dir():
            if path.is_symlink():
                path.stat()
                raise OutputError(f"cannot write {path}: it is a link to a file, not a folder; give another folder")
            if path.exists():
                raise OutputError(f"cannot write {path}: it is a file, not a folder; give another folder")
    except FileNotFoundError as error:
        raise OutputError(
            f"cannot write {path}: it is a link that leads nowhere; remove it or give another folder"
        ) from error
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.of(path, error) from error
    for other in (*inputs, *closed):
        if _same(path, other):
            raise OutputError(f"cannot write {path}: it is an input of this command; give another folder")
    real = Path(os.path.realpath(path))
    for folder in closed:
        if any(_same(parent, folder) for parent in real.parents):
            raise OutputError(f"cannot write {path}: it is inside the input folder {folder}; give another folder")
    _check_folder_of(path / "file", path)


def replace_all(source: str | Path, target: str | Path, *, last: str) -> None:
    """Move the files of a folder over those of another, ``last`` at the end: a reader looks for that one first."""
    files = sorted(Path(source).iterdir(), key=lambda file: file.name == last)
    for file in files:
        path = Path(target) / file.name
        if path.is_symlink():  # its target may be on another disk
            with replacing(path) as beside:
                shutil.copyfile(file, beside)
        else:
            _put_in_place(file, output_target(path))


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whole or not at all; a number that is not finite becomes null, as `plain` has it."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path, *, repair: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        repair: what the user can do about a damaged one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not valid JSON, or not an object; one line that names the file and the repair.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): {repair}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object but a {type(value).__name__}: {repair}")
    return value


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """The value as JSON can hold it: tuples are lists, and NaN and infinities, which JSON lacks, are None.

    >>> plain({"auc": float("nan"), "grad_norm": (1.0, float("inf"))})
    {'auc': None, 'grad_norm': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def version_of(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns: a file that was changed has different ones.

    Raises:
        OSError: the file's status cannot be read.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def is_leftover(name: str) -> bool:
    """Whether a name is one that only a killed writer leaves: of `replacing`, or of a hidden temporary folder.

    >>> is_leftover(".a-k3_xx81a.txt"), is_leftover("a.txt")
    (True, False)
    """
    return re.fullmatch(r"\.[^/]+-[a-z0-9_]{8}(\.\w+)?", name) is not None


def _temporary(target: Path) -> Path:
    """An empty file next to ``target``, of the same suffix: writers of figures and tables go by it."""
    suffix = target.suffix if len(target.suffix) <= 20 else ""
    # A name as long as the system permits leaves no room for more.
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}-", suffix=suffix, dir=target.parent)
    os.close(handle)
    return Path(name)


def _put_in_place(beside: Path, target: Path) -> None:
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        mode = 0o666 & ~_umask()  # temporary files are made with mode 0600; this one should be as any other
    with beside.open("r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    beside.chmod(mode)  # after that: the old file may have been read-only
    os.replace(beside, target)


def _check_table(path: str | Path, target: Path) -> None:
    for suffix in (Path(path).suffix.lower(), target.suffix.lower()):
        if NOT_A_TABLE.fullmatch(suffix):
            raise OutputError(
                f"cannot write {path}: a table (CSV) is not named {suffix}; give a name that ends in .csv"
            )
    if not target.exists():
        return
    try:
        with target.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise OutputError.of(path, error) from error
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))  # spreadsheets save "Unicode text" so
    binary = not utf16 and re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)
    other = re.match(rb"\s*[{<]|%PDF|#!|P[1-7fF]\s", head.removeprefix(b"\xef\xbb\xbf"))
    if binary or other:
        raise OutputError(
            f"cannot write {path}: the file there is not a table (CSV); give another name or move it away"
        )


def _check_folder_of(target: Path, path: str | Path) -> None:
    """Try to write in the nearest folder above ``target`` that exists; ``path`` is what the user calls it."""
    try:
        with suppress(FileNotFoundError):
            os.stat(target)  # whether the system takes a name of this length
        folder = target.parent
        while not os.path.lexists(folder):
            folder = folder.parent
        if not folder.is_dir():
            kind = "a link that leads nowhere" if folder.is_symlink() else "a file, not a folder"
            raise OutputError(f"cannot write {path}: {folder} is {kind}; give another place")
        beside = _temporary(folder / "try")
        try:
            beside.write_bytes(bytes(4096))  # a full disk has room for names
        finally:
            beside.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.of(path, error) from error


def _same(one: str | Path, other: str | Path | int) -> bool:
    """Whether two names, or a name and an open file's number, are one file or folder; what is missing is neither."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except (OSError, ValueError):
        return False


def _kind(mode: int) -> tuple[str, str]:
    if stat.S_ISDIR(mode):
        return "a folder", "give the name of a file"
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device"), "give the name of a regular file"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full or its quota is used up; its causes are not looked at.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError(errno.EIO, "I/O error"))
    (True, False)
    """
    return _error_number(error) in (errno.ENOSPC, errno.EDQUOT) or bool(_DISK_FULL.search(str(error)))


def _error_number(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):  # as libraries in Rust write it
        number = int(found[1])
    return number


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
