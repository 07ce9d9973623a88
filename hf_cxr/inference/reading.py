"""Images read, decoded and resized ahead of the model, in threads: in order, and a few batches at a time.

Reading a file, inflating, the compiled decoder and Pillow all work without the interpreter's lock, and so does the
model, so threads are enough. What a thread reads is 8-bit grey at the model's size: few bytes wait, however many
images there are. Whatever is wrong with one image stays its own; nothing but an interrupt is raised.

Files and the bytes of files are read in threads. PIL images, arrays and pydicom data sets are read where they are
given: a caller may change them afterwards, or give one of them twice, and Pillow loads an image in one thread alone.

S = side of the resized image in pixels.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hf_cxr.cores import usable_cores
from hf_cxr.data.images.grey import ImageError, resize_grey
from hf_cxr.files import version_of
from hf_cxr.inference.answers import Version
from hf_cxr.inference.sources import AnyImage, read_image

BATCHES_AHEAD = 2  # that wait for the model, read or not
MOST_THREADS = 16

NO_VERSION: Version = (-1, -1)


@dataclass(frozen=True)
class ReadImage:
    """An image as the model gets it.

    Attributes:
        name: what to call it.
        version: of a file, from before it was read; `NO_VERSION` for anything else.
        pixel_SS: 8-bit grey at the model's size, or why there is none.
        remarks: sentences about what was read and may not be what was meant, see `read_grey`.
    """

    name: str
    version: Version
    pixel_SS: NDArray[np.uint8] | ImageError
    remarks: tuple[str, ...] = ()


def read_and_resize(image: AnyImage, name: str, *, size: int, resample: int) -> ReadImage:
    """Read one image.

    Args:
        image: see `inference.sources`.
        name: what to call it in an error.
        size: side S.
        resample: Pillow's filter.
    """
    before = NO_VERSION
    try:
        is_file = isinstance(image, str | os.PathLike)
        if is_file:
            before = version_of(image)
        remarks: list[str] = []
        pixel_SS = resize_grey(read_image(image, name, remarks), size, resample)
        if is_file and version_of(image) != before:
            changed = ImageError(name, "it changed while it was read; run again when it is complete")
            return ReadImage(name, before, changed)
        return ReadImage(name, before, pixel_SS, tuple(remarks))
    except ImageError as error:
        return ReadImage(name, before, error)
    except MemoryError:
        too_large = ImageError(name, "it is too large, or its sides too unequal, to decode and resize")
        return ReadImage(name, before, too_large)
    except Exception as error:  # whatever is wrong with this image, the rest are predicted
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return ReadImage(name, before, ImageError(name, " ".join(str(reason).split())))


def read_ahead(
    images: Iterable[tuple[AnyImage, str]],
    *,
    size: int,
    resample: int,
    batch_size: int,
    workers: int | None = None,
) -> Iterator[ReadImage]:
    """Each image with its name, read, in order.

    Args:
        images: of a generator, up to ``BATCHES_AHEAD`` batches are taken before the first answer.
        size: side S.
        resample: Pillow's filter.
        batch_size: images that the model gets at once.
        workers: threads; 0 reads in this thread, when an image is asked for; None for `default_workers`.
    """
    workers = default_workers() if workers is None else workers
    read = partial(read_and_resize, size=size, resample=resample)
    if workers == 0:
        for image, name in images:
            yield read(image, name)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    try:
        waiting: deque[Future[ReadImage]] = deque()
        for image, name in images:
            waiting.append(_start(pool, read, image, name))
            if len(waiting) > max(BATCHES_AHEAD * batch_size, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for no more than the images begun


def default_workers() -> int:
    """Threads that read ahead: the cores of this process's share of the machine, 1 to ``MOST_THREADS``."""
    share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(share, 1), MOST_THREADS)


def _start(pool: ThreadPoolExecutor, read: Callable[..., ReadImage], image: AnyImage, name: str) -> Future[ReadImage]:
    if isinstance(image, str | os.PathLike | bytes):
        return pool.submit(read, image, name)
    done: Future[ReadImage] = Future()
    done.set_result(read(image, name))
    return done
