"""Log lines for people: the time and the message; a level and an origin where it is not the usual one.

run.log has every line with date, level and origin.
"""

import logging
import sys


class TerminalHandler(logging.StreamHandler):
    """Writes to standard error, above a progress bar if there is one."""

    def __init__(self):
        super().__init__(sys.stderr)
        self.setFormatter(TerminalFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # not imported here: without it there is no bar
        if bars is None or not hasattr(bars, "tqdm"):
            super().emit(record)
            return
        with bars.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class TerminalFormatter(logging.Formatter):
    """``TIME message`` for what this package reports; a warning is called one, and another package is named."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        words = [] if record.levelno == logging.INFO else [record.levelname.lower()]
        if record.name.split(".")[0] != "hf_cxr":
            words.append(f"({record.name})")
        mark = f"{' '.join(words)}: " if words else ""
        return f"{record.asctime} {mark}{record.message}"
