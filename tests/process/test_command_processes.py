"""Commands in processes of their own: a closed pipe, a system without POSIX."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_closed_pipe_ends_a_command_quietly():
    code = "import sys; from hf_cxr.commands import errors; sys.exit(errors.run_guarded('x', lambda w: [print('y' * 9999) for _ in w] and 0, range(99), debug=False))"  # fmt: skip  # noqa: E501
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "x: the program that reads the output has closed it\n"
    assert process.wait() == 2


WITHOUT = """
import builtins, importlib, pkgutil
real = builtins.__import__
def hidden(name, globals=None, *rest, **named):
    if name in ("resource", "fcntl", "pwd", "grp", "termios") and str((globals or {}).get("__name__")).startswith("hf_cxr"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, globals, *rest, **named)
builtins.__import__ = hidden
import hf_cxr
for module in pkgutil.walk_packages(hf_cxr.__path__, "hf_cxr."):
    if "triton" not in module.name or importlib.util.find_spec("triton"):  # which comes with torch for CUDA
        importlib.import_module(module.name)
from hf_cxr.run.peak_memory import peak_memory_gib
print(peak_memory_gib())
"""  # noqa: E501 - what Python on Windows lacks, for this package's own imports


def test_every_module_imports_without_the_modules_of_posix():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "None\n"  # Linux tells psutil no peak
