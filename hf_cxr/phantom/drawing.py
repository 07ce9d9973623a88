"""Phantoms drawn by several processes, in order and to the bit as one process draws them.

A phantom depends on its case and the seed alone, so it does not matter who draws it. The cases are cut into blocks,
which go round the processes; each draws its own and sends them through a pipe. A process is
``python -m hf_cxr.phantom.drawing``: it imports this family alone, and nothing of the program that asks. It ends when
that one does, or no longer reads.

Refused: a process that ends before it has drawn its blocks.
"""

import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from hf_cxr.phantom.cases import Case, draw_cases
from hf_cxr.phantom.render import encode_png, render_phantom

BLOCK = 8
"""Images that a process draws and sends at once."""

AHEAD = 1 << 20
"""Bytes that a pipe holds where the system allows it: a process draws so far ahead of the reader."""

SECONDS = 0.5
"""So much drawing is worth a process, which takes about 0.2 s to start."""


class Drawn(NamedTuple):
    """A rendered case: its PNG, and its boxes as `render_phantom` gives them."""

    png: bytes
    boxes: list[dict]


def draw(case: Case, *, seed: int, size: int) -> Drawn:
    """One case, rendered."""
    pixels, boxes = render_case(case, seed=seed, size=size)
    return Drawn(encode_png(pixels), boxes)


def render_case(case: Case, *, seed: int, size: int) -> tuple[np.ndarray, list[dict]]:
    """The pixels (size, size) uint8 and the boxes of one case, as `render_phantom` gives them."""
    return render_phantom(
        case.findings,
        view=case.view,
        age=case.age,
        sex=case.sex,
        patient=case.patient,
        image=case.image,
        seed=seed,
        size=size,
    )


def draw_phantoms(
    images: int, *, split: str, seed: int, size: int, prevalence_floor: float, processes: int
) -> Iterator[tuple[Case, Drawn]]:
    """The cases of `draw_cases`, in its order, each with its picture.

    Args:
        images, split, seed, prevalence_floor: as `draw_cases`.
        size: pixels along a side.
        processes: how many draw; with 1 this one does.

    Raises:
        OSError: a process has ended early, for example because memory ran out.
    """
    cases = draw_cases(images, split=split, seed=seed, prevalence_floor=prevalence_floor)
    if processes == 1:
        for case in cases:
            yield case, draw(case, seed=seed, size=size)
        return
    what = {"images": images, "split": split, "seed": seed, "size": size, "prevalence_floor": prevalence_floor}
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker({**what, "first": i, "of": processes})) for i in range(processes)]
        for worker in itertools.cycle(workers):
            block = list(itertools.islice(cases, BLOCK))
            if not block:
                return
            yield from zip(block, worker.receive(), strict=True)


def processes_worth(images: int, size: int, cores: int) -> int:
    """How many processes to draw in: one for each `SECONDS` of drawing, at most one a core.

    >>> processes_worth(100, 73, cores=8), processes_worth(3200, 73, cores=2), processes_worth(9000, 256, cores=64)
    (1, 2, 64)
    """
    seconds = images * (0.002 + 0.006 * (size / 256) ** 2)  # measured, to a factor of two
    return max(1, min(cores, int(seconds / SECONDS)))


class _Worker:
    """A drawing process, from its start to its end."""

    def __init__(self, what: dict):
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hf_cxr.phantom.drawing", json.dumps(what)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pipesize=AHEAD,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the program that asks; this one then ends with the pipe
        )

    def receive(self) -> list[Drawn]:
        """Its next block."""
        try:
            return [Drawn(*entry) for entry in pickle.load(self.process.stdout)]
        except (EOFError, pickle.UnpicklingError) as error:
            status = self.process.wait()
            raise OSError(
                f"a process that draws phantoms ended early (status {status}), probably out of memory; close other "
                "programs and run the same command again"
            ) from error

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


def serve(out: BinaryIO, *, first: int, of: int, seed: int, size: int, **cases) -> None:
    """Draw every ``of``-th block of the cases from the ``first`` on, and write each as one pickle."""
    rest = draw_cases(seed=seed, **cases)
    for number in itertools.count():
        block = list(itertools.islice(rest, BLOCK))
        if not block:
            return
        if number % of == first:
            pickle.dump([tuple(draw(case, seed=seed, size=size)) for case in block], out, protocol=5)
            out.flush()


if __name__ == "__main__":
    try:
        serve(sys.stdout.buffer, **json.loads(sys.argv[1]))
    except BrokenPipeError:  # nobody reads any more
        os._exit(0)
