"""Help and misspelt flags do not wait for torch: what each command imports until it has printed them."""

import json
import subprocess
import sys

HEAVY = ("torch", "transformers", "datasets", "pandas", "sklearn", "scipy", "matplotlib", "accelerate", "evaluate")

# One interpreter for all, as a command that imported something heavy is the first one after which it is there.
CODE = f"""
import contextlib, io, json, sys
from hf_cxr.commands import COMMANDS, main

found = {{}}
def said(name, words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    found[name] = [status, len(out.getvalue()), err.getvalue(), [m for m in {HEAVY!r} if m in sys.modules]]

for command in COMMANDS:
    said(command, [command, "--help"])
said("unknown flag", ["train", "configs/quickstart.yaml", "--sede", "1"])
said("bad value", ["train", "configs/quickstart.yaml", "--seed", "one"])
said("bad choice", ["describe", "--loss", "bec"])
said("no config", ["train", "configs/nothing.yaml"])
json.dump(found, sys.stdout)
"""


def test_help_and_a_misspelt_flag_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {name: modules for name, (*_, modules) in found.items() if modules} == {}, "see test_flags.py"
    helped = {name: entry for name, entry in found.items() if " " not in name}
    assert len(helped) > 10
    assert {(status, err) for status, _, err, _ in helped.values()} == {(0, "")}
    assert all(printed > 200 for _, printed, _, _ in helped.values())
    refused = {name: err for name, (status, _, err, _) in found.items() if status == 2}
    assert refused.keys() == found.keys() - helped.keys()
    assert "did you mean seed?" in refused["unknown flag"]
    assert "invalid int value: 'one'" in refused["bad value"]
    assert "invalid choice: 'bec'" in refused["bad choice"]
    assert "shipped ones" in refused["no config"]
