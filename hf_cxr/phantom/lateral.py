"""A lateral radiograph of a phantom: the thorax of one patient from the side, without findings.

No run is trained on one. It is what an input check for frontal radiographs should report, see
`inference.odd_images`. The patient looks to the left of the picture: sternum on the left, spine on the right, and both
lungs one behind the other.

Body coordinates are centimetres as in `thorax`, but x is from front (negative) to back. n = pixels along the film.
"""

import numpy as np

from hf_cxr.phantom.render import check_size, develop
from hf_cxr.phantom.thorax import FILM_CM, FRAME_CM, Film, Thorax, body_of, lung_tree


def render_lateral(*, patient: int, seed: int, age: float = 55, sex: str = "M", size: int = 256) -> np.ndarray:
    """Render the healthy thorax of one patient from the side.

    Args:
        patient, seed: non-negative integers; they fix the anatomy, which is that of the patient's frontal images.
        age: years.
        sex: "M" or "F".
        size: pixels along a side, 32 to 2048.

    Returns:
        The image, (size, size) uint8, air dark.

    Raises:
        ValueError: the size is out of range.
    """
    check_size(size)
    rng = np.random.default_rng([seed, patient, 0x1A7E])
    body = body_of(seed, patient, age=age, sex=sex)
    n = round(size * FILM_CM / FRAME_CM)
    film = Film(body, n)
    front, back = _walls(film)
    _soft_tissue(film, front, back, rng)
    _lungs(film, front, back)
    _heart_and_aorta(film, front, back)
    _bones(film, front, back)
    tree = lung_tree(seed, patient, n, round(body.scale, 2))
    film.vessels[:] = 0.30 * np.maximum(tree, tree[:, ::-1])  # the vessels of both lungs, seen through each other
    pixels, _ = develop(film, [], rng, portable=False, size=size)
    return pixels


def _depth(body: Thorax) -> float:
    """From sternum to spine: a thorax is about 0.75 times as deep as it is wide."""
    return 0.75 * 2 * body.half_width


def _walls(film: Film) -> tuple[np.ndarray, np.ndarray]:
    """x of the sternum's back and of the lungs' back, each (n, 1): the sternum leans forward, the back is round."""
    body = film.thorax
    t = np.clip((film.y_n1 - body.apex) / (max(body.dome) - body.apex), -0.2, 1.4)
    depth = _depth(body)
    front = -0.5 * depth + depth * 0.30 * np.clip(1 - t, 0, 1.2) ** 1.5
    back = 0.5 * depth - depth * 0.10 * (2 * t - 1) ** 2
    return front.astype(np.float32), back.astype(np.float32)


def _soft_tissue(film: Film, front: np.ndarray, back: np.ndarray, rng: np.random.Generator) -> None:
    """Trunk, and the shoulders above it: the arms are raised."""
    body, x, y = film.thorax, film.x_1n, film.y_n1
    ahead, behind = front - 1.6 - body.wall, back + 4.0 + body.wall
    across = np.minimum(x - ahead, behind - x)
    trunk = np.sqrt(np.clip(across / 4.5, 0, 1)) * film.ramp(y - body.apex + 5.5, 3.0)
    film.tissue += body.density * trunk
    shoulder = 1 - ((x - 1.0) / 7.5) ** 2 - ((y - body.apex + 2.5) / 6.5) ** 2
    film.tissue += np.float32(0.30) * np.sqrt(np.clip(shoulder, 0, 1))
    if body.breast:
        inside = 1 - ((x - front + 1.5) / (2 + 3 * body.breast)) ** 2 - ((y - body.breast_y) / 5.0) ** 2
        film.tissue += np.float32(0.06 + 0.09 * body.breast) * np.sqrt(np.clip(inside, 0, 1))
    film.tissue *= 1 + np.float32(0.02) * film.noise(rng, 14.0)


def _diaphragm(film: Film, front: np.ndarray, back: np.ndarray, dome: float) -> np.ndarray:
    """Height of one half of the diaphragm, (1, n): highest in the front half, deepest behind."""
    body = film.thorax
    u = film.x_1n / (0.5 * _depth(body))
    return dome + body.dome_height * np.where(u < -0.2, 0.45 * (u + 0.2) ** 2, 1.15 * (u + 0.2) ** 2)


def _lungs(film: Film, front: np.ndarray, back: np.ndarray) -> None:
    """The air of both lungs, each with its own diaphragm; below one dome the other lung still has air."""
    body, x, y = film.thorax, film.x_1n, film.y_n1
    wide = np.sqrt(np.clip((x - front) / 2.5, 0, 1)) * np.sqrt(np.clip((back - x) / 2.0, 0, 1))
    top = body.apex + 0.06 / body.scale * (x - 0.5) ** 2
    wide = wide * np.sqrt(np.clip((y - top) / 5.0, 0, 1))
    for dome in body.dome:
        below = np.clip((_diaphragm(film, front, back, dome) - y) / 1.2, 0, 1)
        film.air += np.float32(0.5 * body.air) * wide * np.sqrt(below)


def _heart_and_aorta(film: Film, front: np.ndarray, back: np.ndarray) -> None:
    """The heart in front and below, the aorta's arch, the hila, and the trachea's dark band above them."""
    body, x, y = film.thorax, film.x_1n, film.y_n1
    depth, bottom = _depth(body), max(body.dome) + 0.5
    cx, cy = -0.17 * depth, bottom - 0.42 * body.heart_length
    along, tall = 0.26 * depth, 0.50 * body.heart_length
    lean = x - cx + 0.35 * (y - cy)
    heart = np.sqrt(np.clip(1 - (lean / along) ** 2 - ((y - cy) / tall) ** 2, 0, 1))
    film.air *= 1 - np.float32(0.75) * heart
    film.tissue += np.float32(0.05) * heart
    carina = body.apex + 9.2 * body.scale
    radius = np.hypot(x - 0.04 * depth, y - carina)
    arch = film.ramp(1.3 + body.aorta * 0.4 - np.abs(radius - 4.2 * body.scale), 0.8) * film.ramp(carina - y, 1.5)
    film.air *= 1 - np.float32(0.35) * arch
    hilum = np.clip(1 - ((x - 0.02 * depth) / 2.6) ** 2 - ((y - carina - 1.5) / 2.6) ** 2, 0, 1)
    film.air *= 1 - np.float32(0.45) * np.sqrt(hilum)
    windpipe = np.clip(1 - ((x - 0.02 * depth - 0.12 * (y - carina)) / (0.95 * body.scale)) ** 2, 0, 1)
    film.tissue -= np.float32(0.14) * np.sqrt(windpipe) * film.ramp(carina - y, 0.8)


def _bones(film: Film, front: np.ndarray, back: np.ndarray) -> None:
    """Vertebrae, which look darker further down over the lungs; the sternum; ribs that fall from back to front."""
    body, x, y = film.thorax, film.x_1n, film.y_n1
    pitch = 2.5 * body.scale
    phase = (y - body.apex) / pitch
    disc = film.ramp(np.abs(phase - np.round(phase)) * pitch - 0.35, 0.3)
    spine = film.ramp(1.7 * body.scale - np.abs(x - back + 0.3), 0.5) * (0.07 + 0.08 * disc)
    sternum = film.ramp(0.55 - np.abs(x - front + 0.7), 0.4) * film.ramp(y - body.apex - 3, 1.0)
    film.tissue += np.float32(body.bone) * (
        spine + np.float32(0.09) * sternum * film.ramp(max(body.dome) - 2 - y, 1.0)
    )
    fall = (y - body.apex - body.rib_phase) / body.rib_pitch + 1.2 * body.rib_slope * (x / _depth(body) - 0.5)
    off = np.abs(fall - np.floor(fall) - 0.5)
    rib = film.ramp((0.17 - off) * body.rib_pitch, 0.3) * film.ramp(x - front, 1.0) * film.ramp(back + 1.5 - x, 1.0)
    rib *= film.ramp(max(body.dome) + 3 - y, 3.0) * film.ramp(y - body.apex, 2.0)
    film.tissue += np.float32(0.09 * body.bone) * rib
