"""Renders one phantom: a synthetic radiograph of the thorax, with boxes around its findings.

Who is drawn, with which findings, is in `cases`; the body in `thorax`; the signs in `findings`. An image depends on
(seed, patient, image number) and its case alone, never on how many are drawn, nor in which order. Refuses unknown
findings and views, and sizes that it cannot draw.
"""

import io
import math
import zlib
from collections.abc import Collection

import numpy as np
from PIL import Image, PngImagePlugin

from hf_cxr.labels import NIH14
from hf_cxr.phantom.findings import SIGNS, Box
from hf_cxr.phantom.thorax import (
    AP,
    FILM_CM,
    FRAME_CM,
    PA,
    Film,
    body_of,
    expose_anatomy,
    expose_devices,
    lung_tree,
    positioned,
)

SIZES = (32, 2048)
NOTICE = "synthetic phantom, not a patient"


def check_size(size: int) -> None:
    """Refuse a side that cannot be drawn.

    Raises:
        ValueError: it is not 32 to 2048 pixels.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size is {size}; it must be {SIZES[0]} to {SIZES[1]} pixels")


def render_phantom(
    findings: Collection[str], *, view: str, age: float, sex: str, patient: int, image: int, seed: int, size: int = 256
) -> tuple[np.ndarray, list[dict]]:
    """Render one radiograph.

    Args:
        findings: names from NIH14, in any order; none draws the healthy thorax.
        view: "PA" or "AP". An AP view is portable: of a patient in bed, often with leads and lines.
        age: years; a child's thorax is small, an old one's aorta wide.
        sex: "M" or "F".
        patient, image, seed: non-negative integers. Patient and seed fix the anatomy and where findings sit.
        size: pixels along a side, 32 to 2048. 256 takes about 8 ms.

    Returns:
        The image, (size, size) uint8, air dark; and its boxes, {"finding", "bbox": [x, y, width, height]} in
        fractions of the image, one or more for each finding that has a place.

    Raises:
        ValueError: a finding, view or sex is unknown, the size is out of range or a number is negative.
    """
    columns = sorted({NIH14.index(name) for name in findings})
    if view not in (PA, AP) or sex not in ("M", "F"):
        raise ValueError(f"view is 'PA' or 'AP' and sex is 'M' or 'F'; got {view!r} and {sex!r}")
    check_size(size)
    keys = {column: ([seed, patient, column], [seed, patient, image, column]) for column in columns}
    rng = np.random.default_rng([seed, patient, image, len(NIH14)])
    body = body_of(seed, patient, age=age, sex=sex)
    thorax = positioned(body, view, rng)
    for column in columns:
        if reshape := SIGNS[NIH14[column]].reshape:
            thorax = reshape(thorax, *map(np.random.default_rng, keys[column]))
    n = round(size * FILM_CM / FRAME_CM)
    film = Film(thorax, n)
    expose_anatomy(film, rng, lung_tree(seed, patient, n, round(body.scale, 2)))
    found: list[tuple[str, Box]] = []
    for column in columns:
        boxes = SIGNS[NIH14[column]].mark(film, *map(np.random.default_rng, keys[column]))
        found += [(NIH14[column], box) for box in boxes]
    if view == AP and rng.random() < 0.6:
        expose_devices(film, rng)
    return develop(film, found, rng, portable=view == AP, size=size)


def encode_png(pixels: np.ndarray) -> bytes:
    """An 8-bit grey image as PNG that says in its metadata that it is synthetic."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", NOTICE)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, format="PNG", pnginfo=text, compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY
    )
    return buffer.getvalue()


def develop(
    film: Film, found: list[tuple[str, Box]], rng: np.random.Generator, *, portable: bool, size: int
) -> tuple[np.ndarray, list[dict]]:
    """Turn and shift the film as the patient lay, scatter, expose, add grain; and carry the boxes along.

    Portable films are turned more, scatter more and are exposed less evenly.
    """
    wide = 1.8 if portable else 1.0
    turn, dx, dy = rng.normal(0, [0.014 * wide, 0.45 * wide, 0.6 * wide])
    turn, dx, dy = np.clip(turn, -0.07, 0.07), np.clip(dx, -1.8, 1.8), np.clip(dy, -1.8, 1.8)
    haze, contrast, bright, grain = rng.uniform(0, 0.10 * wide), *rng.normal([1, 0, 0.014], [0.07, 0.035, 0.003])
    cos, sin = math.cos(turn), math.sin(turn)
    pixel, per_cm, half = FRAME_CM / size, film.n / FILM_CM, FRAME_CM / 2
    # Body centimetres of an image point are R (point - half - shift); PIL wants film pixels from image pixels.
    rows = []
    for a, b in ((cos, sin), (-sin, cos)):
        offset = a * (-half - dx) + b * (-half - dy) + FILM_CM / 2
        rows += [a * pixel * per_cm, b * pixel * per_cm, offset * per_cm]
    exposed = Image.fromarray(film.attenuation()).transform(
        (size, size), Image.Transform.AFFINE, rows, resample=Image.Resampling.BILINEAR
    )
    level = rng.standard_normal((size, size), dtype=np.float32)
    level *= np.float32(abs(grain) * min(size / 256, 2) ** 0.5)
    level += np.asarray(exposed) * np.float32((1 - haze) * contrast)
    level += np.float32(haze * 0.75 + bright)
    np.clip(level, 0, 1.04, out=level)
    level *= 331.5 - np.float32(84.0) * level  # the shoulder of the film's curve
    pixels = np.minimum(level, 255).astype(np.uint8)
    boxes = []
    for name, (x, y, width, height) in found:
        cx, cy = x + width / 2, y + height / 2
        left = (cos * cx - sin * cy + dx + half - width / 2) / FRAME_CM
        top = (sin * cx + cos * cy + dy + half - height / 2) / FRAME_CM
        right, bottom = min(left + width / FRAME_CM, 1.0), min(top + height / FRAME_CM, 1.0)
        left, top = max(left, 0.0), max(top, 0.0)
        boxes.append({"finding": name, "bbox": [left, top, right - left, bottom - top]})
    return pixels, boxes
