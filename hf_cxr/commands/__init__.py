"""The commands: `hf-cxr COMMAND ...` and `scripts/COMMAND.py ...` are the same program."""

import atexit
import difflib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hf_cxr import processes
from hf_cxr.commands.errors import DEBUG, report_error, run_guarded
from hf_cxr.commands.terminal import TerminalHandler
from hf_cxr.cores import set_threads, warn_of_busy_cores

__all__ = ["COMMANDS", "Command", "main", "report_error", "run_command", "set_up_terminal"]


@dataclass(frozen=True)
class Command:
    """A command of `hf-cxr`; its main is that of the module `hf_cxr.commands.NAME`.

    Attributes:
        summary: what it does, in the list that `hf-cxr --help` prints.
        after_stop: what the same command does after Ctrl-C; "" if it begins again.
        alone: its work cannot be shared by several processes, so a launch of several is refused.
    """

    summary: str
    after_stop: str = ""
    alone: bool = False


CONTINUES = "the same command continues from here"
RESUMES = "the same command resumes from the last checkpoint"

COMMANDS = {
    "download": Command("download a public dataset into a folder", CONTINUES, alone=True),
    "prepare": Command("decode and resize every image once, into a folder that training reads", CONTINUES),
    "describe": Command("count findings, patients and co-occurrence in each split, from the tables alone", alone=True),
    "split": Command(
        "re-split the images by patient into a file; check splits for patients and images in common", alone=True
    ),
    "convert": Command(
        "weights of other programs (official Swin, timm, SimMIM, Ark, ...) to a folder to train from", alone=True
    ),
    "pretrain": Command(
        "pre-train a Swin on training images without labels (SimMIM); train starts from its folder", RESUMES
    ),
    "train": Command("fine-tune, calibrate on validation, measure once on test, write the run folder", RESUMES),
    "calibrate": Command(
        "fit the calibration of a run again, then measure and report it; or copy it for other prevalences",
        CONTINUES,
        alone=True,
    ),
    "report": Command("write the report, the figures and the card of a finished run again", alone=True),
    "evaluate": Command("measure a saved model, or the scores of any program, on a test or validation set"),
    "ensemble": Command("average the probabilities of several runs and measure them as one model"),
    "compare": Command(
        "train several methods with several seeds, tuned alike, and write one table", CONTINUES, alone=True
    ),
    "tune": Command(
        "search settings on validation with Optuna, and write the best as a config", CONTINUES, alone=True
    ),
    "predict": Command("probabilities of each finding for image files"),
    "explain": Command("heat maps of findings over image files; or their score on boxes, next to controls"),
    "export": Command(
        "a model as ONNX, in 8-bit integers, as a torch program or a page for a browser, each compared with it",
        alone=True,
    ),
    "demo": Command(
        "a page in the browser to try a model: bars, thresholds, heat maps; or the folder of a Space", alone=True
    ),
    "serve": Command("answer requests for predictions over HTTP, in batches", alone=True),
    "push": Command(
        "send a finished run folder, or a prepared dataset, to the Hub",
        "the same command sends what had not arrived",
        alone=True,
    ),
}


QUICK = frozenset({"predict"})
"""Commands of a few seconds that close every file themselves."""


def set_up_terminal(*, main_process: bool = True) -> None:
    """Plain log lines from this package, warnings from other packages, and progress bars for long work only.

    Where standard error is not a terminal, as in the log of a batch job, there is no bar.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of reading and writing weights, a line each
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is imported
        if "datasets" in sys.modules:
            sys.modules["datasets"].disable_progress_bars()
    logging.basicConfig(level=logging.INFO if main_process else logging.ERROR, handlers=[TerminalHandler()])
    for noisy in ("httpx", "httpx2", "matplotlib", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if main_process:
        warn_of_busy_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def main(argv: Sequence[str] | None = None) -> int:
    """`hf-cxr [--debug] COMMAND ...`: hand the rest of the line to the command's own main."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = words[:1] == ["--debug"]
    words = words[1:] if debug else words
    if not words or words[0] in ("-h", "--help"):
        print("usage: hf-cxr [--debug] COMMAND ...\n")
        print("\n".join(f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()))
        print("\n`hf-cxr COMMAND --help` lists a command's own options; --debug shows where an error comes from.")
        return 0
    name = words.pop(0)
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(COMMANDS)}"
        print(f"hf-cxr: unknown command {name}; {hint}", file=sys.stderr)
        return 2
    if argv is None and name in QUICK:
        atexit.register(gc.freeze)  # the interpreter's last search for garbage would take a second
    return run_command(name, words, debug=debug)


def run_command(command: str, argv: Sequence[str] | None = None, *, debug: bool = False) -> int:
    """One command, from its words to its exit status: what it raises becomes one line, see `commands.errors`.

    Args:
        command: a name of ``COMMANDS``.
        argv: its words; None reads the command line. ``--debug`` among them, or HF_CXR_DEBUG=1, shows the traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = debug or "--debug" in words or os.environ.get(DEBUG, "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    set_threads()

    def run(words: Sequence[str]) -> int:
        if COMMANDS[command].alone:
            processes.refuse_several(f"hf-cxr {command}")
        return importlib.import_module(f"hf_cxr.commands.{command}").main(words)

    return run_guarded(f"hf-cxr {command}", run, words, debug=debug, again=COMMANDS[command].after_stop)
