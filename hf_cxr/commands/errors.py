"""What a command prints when it fails: one line, with what is wrong and where; the traceback on request.

`run_guarded` runs every command, of `hf-cxr` and of scripts/*.py. The exit status is 2 after an error that input,
disk, memory or a worker process caused, 130 after Ctrl-C, and 1 after any other error, which is a bug.
"""

import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

from hf_cxr import processes
from hf_cxr.files import is_disk_full
from hf_cxr.words import one_line

DEBUG = "HF_CXR_DEBUG"
BUG = "this may be a bug"
LONGEST = 1500  # characters in a line: a message may quote a whole file

# Beginnings of the names of error classes that user input, damaged files, lack of memory or worker processes can
# cause. By name, because importing their packages takes seconds.
CAUSED_BY_INPUT = (
    "builtins.EOFError",
    "builtins.ImportError",
    "builtins.KeyError",
    "builtins.MemoryError",
    "builtins.OSError",
    "builtins.RecursionError",
    "builtins.RuntimeError",
    "builtins.ValueError",
    "_csv.Error",
    "PIL.",
    "concurrent.futures.",
    "datasets.exceptions.",
    "fsspec.",
    "hf_cxr.",
    "httpx.",
    "huggingface_hub.",
    "lzma.LZMAError",
    "multiprocessing.",
    "_pickle.",
    "pickle.",
    "pyarrow.",
    "pydicom.",
    "requests.",
    "safetensors",
    "struct.error",
    "tarfile.",
    "urllib3.",
    "yaml.",
    "zipfile.",
    "zlib.error",
)
# Classes that match the above and are bugs nevertheless.
BUGS = ("builtins.NotImplementedError",)

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory|bad allocation", re.IGNORECASE)


def run_guarded(
    name: str, command: Callable[[Sequence[str]], int], words: Sequence[str], *, debug: bool, again: str = ""
) -> int:
    """Run a command's main and turn whatever it raises into one line on standard error and an exit status.

    Args:
        name: of the command, such as "hf-cxr train".
        command: its main, which returns the exit status.
        words: the command line.
        debug: print the traceback too.
        again: what the same command would do after Ctrl-C.
    """
    before = os.environ.get(DEBUG)
    if debug:
        os.environ[DEBUG] = "1"  # for `report_error`, and for processes that the command starts
    try:
        status = command(words)
        sys.stdout.flush()  # so that a full disk or a closed pipe shows here, and not when the interpreter ends
    except KeyboardInterrupt as stop:
        print_traceback(stop)
        if processes.fails_first():
            _print_line(f"{name}: stopped{again and f'; {again}'}")
        return 130
    except Exception as error:
        return report_error(name, error)
    finally:
        leave_process_group()
        if debug and before is None:
            del os.environ[DEBUG]
    return status


def leave_process_group() -> None:
    """End the threads through which the processes of a run communicate.

    If they are alive when the interpreter ends, it is sometimes killed (SIGABRT, "terminate called without an active
    exception"), and a finished run would have the exit status of a crash. The threads end with the last reference to
    their group. A wrapped model is one, and it is part of reference cycles, so these are collected first.
    """
    processes.leave()
    distributed = sys.modules.get("torch.distributed")  # not imported here: without it there is no group
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def report_error(name: str, error: BaseException) -> int:
    """Print the line of an error, its traceback too with --debug, and return the exit status.

    Of several processes, the first that fails prints its line.
    """
    print_traceback(error)
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter would try to write the buffer to the closed pipe or full disk again when it ends.
        discard(sys.stdout)
    if not isinstance(error, processes.OtherProcessFailedError) and processes.fails_first():
        _print_line(f"{name}: {describe_error(error)}")
    return 2 if caused_by_input(error) else 1


def caused_by_input(error: BaseException) -> bool:
    """Whether input, disk, memory or a worker can have caused the error, rather than a bug."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    return not any(name in BUGS for name in names) and any(name.startswith(CAUSED_BY_INPUT) for name in names)


def describe_error(error: BaseException) -> str:
    """The message of an error, in one line, without a Python traceback.

    >>> describe_error(ValueError("no such column:\\n  age"))
    'no such column: age'
    >>> describe_error(RuntimeError("Caught ValueError in worker 0.\\nTraceback (most recent call last):\\n"
    ...                             "  File 'x.py', line 1\\nValueError: a.png cannot be read"))
    'a.png cannot be read'
    """
    text, cause = _message(error), _wrapped(error)
    if type(error).__module__.startswith("hf_cxr."):  # our own messages say where and what to do
        return _shortened(text)
    if is_disk_full(cause):
        place = getattr(cause, "filename", None)
        where = f"with {place}" if place else f"({text})"
        return _shortened(f"the disk is full {where}; free disk space and run the same command again")
    if isinstance(error, MemoryError):
        return _shortened(
            f"out of memory{f' ({text})' if text else ''}; close other programs, or lower the batch size"
        )
    if OUT_OF_MEMORY.search(text) and not isinstance(error, OSError | ValueError):
        return _shortened(f"out of memory: {text.split('. ')[0]}; lower per_device_train_batch_size or image_size")
    if isinstance(error, BrokenPipeError):
        return "the program that reads the output has closed it"
    kind = type(error).__name__
    if isinstance(error, KeyError):
        return _shortened(f"unexpected KeyError: {text}: a file does not have this key, or {BUG}; {_how_to_see()}")
    if not caused_by_input(error):
        return _shortened(f"unexpected {kind}: {text}: {BUG}; {_how_to_see()}")
    if "SafetensorError" in kind:
        return _shortened(f"a safetensors file cannot be read: {text}; it is damaged: download or write it again")
    if isinstance(error, EOFError):
        where = f": {text}" if text else ""
        return _shortened(f"a file ends too early{where}; it is damaged: download or write it again")
    if "BrokenProcessPool" in kind or "exited unexpectedly" in text or "killed by signal" in text:
        return _shortened(f"a worker process was killed, probably out of memory: {text}; use fewer workers")
    return _shortened(text or kind)


def _wrapped(error: BaseException) -> BaseException:
    """The error itself: `datasets` wraps it in one that only says that something failed."""
    while type(error).__module__.startswith("datasets.") and error.__cause__:
        error = error.__cause__
    return error


def _message(error: BaseException) -> str:
    text = str(_wrapped(error))
    if "Traceback (most recent call last)" not in text:
        return text
    # A worker process sends its whole traceback as text; the message begins at the last line that is not indented.
    lines = text.rstrip().splitlines()
    last = max((i for i, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(: |$)", line)), default=0)
    return re.sub(r"^[A-Za-z_][\w.]*(: |$)", "", "\n".join(lines[last:])) or lines[last]


def _shortened(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def _how_to_see() -> str:
    return "run hf-cxr --debug COMMAND ... to see where"


def print_traceback(error: BaseException) -> None:
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)


def _print_line(line: str) -> None:
    print(line, file=sys.stderr)


def discard(stream: TextIO) -> None:
    """Discard all later output to a stream: it has no reader, or its disk is full."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # not a file (as in tests), or closed
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
