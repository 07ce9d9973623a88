"""The commands: `hf-cxr COMMAND ...` and `scripts/COMMAND.py ...` are the same program."""

import difflib
import importlib
import logging
import sys
from collections.abc import Sequence

COMMANDS = {
    "download": "bring a public dataset into a folder",
    "prepare": "decode and resize every image once, into a folder that training reads",
    "describe": "count findings, patients and co-occurrence in each split, from the tables alone",
    "split": "deal the images anew by patient and write it down; check splits for patients and images in common",
    "train": "fine-tune, calibrate on validation, measure once on test, write the run folder",
    "evaluate": "measure a saved model on a test or validation set",
    "ensemble": "average the probabilities of several runs and measure them as one model",
    "compare": "train several methods with several seeds, tuned alike, and write one table",
    "predict": "probabilities of each finding for image files",
    "push": "send a finished run folder to the Hub",
}


def set_up_terminal(*, main_process: bool = True) -> None:
    """Plain log lines from this package and warnings from others; no bars but those of long work."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of reading and writing weights, a line each; the Trainer's own bar stays
    logging.basicConfig(
        level=logging.INFO if main_process else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    for noisy in ("httpx", "httpx2", "matplotlib", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main(argv: Sequence[str] | None = None) -> int:
    """`hf-cxr COMMAND ...`: hand the rest of the line to the command's own main."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: hf-cxr COMMAND ...\n")
        print("\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items()))
        print("\n`hf-cxr COMMAND --help` lists a command's own options.")
        return 0
    command = words.pop(0)
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(COMMANDS)}"
        print(f"hf-cxr: unknown command {command}; {hint}", file=sys.stderr)
        return 2
    return importlib.import_module(f"hf_cxr.commands.{command}").main(words)
