"""Log lines in a terminal: the time and the message; a level and an origin only where they say something."""

import io
import logging
import sys

from tqdm import tqdm

from hf_cxr.commands.terminal import TerminalHandler


def written(monkeypatch, name, level, message, *, bar=False):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = TerminalHandler()
    record = logging.LogRecord(name, level, "file.py", 1, message, (), None)
    if bar:
        with tqdm(total=2, file=terminal, ncols=40, mininterval=0) as progress:
            progress.update()
            handler.emit(record)
    else:
        handler.emit(record)
    return terminal.getvalue()


def test_a_message_of_this_package_is_time_and_words(monkeypatch):
    time, words = written(monkeypatch, "hf_cxr.run.stages", logging.INFO, "training from the start").split(" ", 1)
    assert words == "training from the start\n"
    assert len(time.split(":")) == 3


def test_a_warning_and_another_package_are_named(monkeypatch):
    assert " warning: no such\n" in written(monkeypatch, "hf_cxr.data", logging.WARNING, "no such")
    assert " (fsspec): found\n" in written(monkeypatch, "fsspec", logging.INFO, "found")
    assert " error (fsspec): lost\n" in written(monkeypatch, "fsspec", logging.ERROR, "lost")


def test_a_line_stands_above_the_bar(monkeypatch):
    shown = written(monkeypatch, "hf_cxr.run", logging.INFO, "a row", bar=True)
    before, after = shown.split("a row\n")
    assert before.split("\r")[-1].strip().count(":") == 2  # the bar was wiped before the line: only its time is there
    assert "1/2" in before
    assert "1/2" in after  # and drawn again below it
