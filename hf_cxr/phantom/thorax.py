"""The phantom's body: a thorax in centimetres, and its projection onto a film.

The picture is a sum of attenuations: tissue, bone and devices add; the air of the lungs takes away. A finding changes
how much of that air there is, so that it can never be denser than soft tissue nor lie outside a lung:

    attenuation = tissue - air * aerated * (1 - vessels)

Body coordinates are centimetres from the middle of the frame, x to the patient's left (right in the picture), y down.
Side -1 is the patient's right lung, +1 the left. Masks are analytic and soft, at the film's own resolution; only
vessels and devices, which are lines, are drawn large and reduced.

n = pixels along the film, which is larger than the image by a margin, for turning. h = columns of one half.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

FRAME_CM = 35.0  # side of the image
FILM_CM = 1.10 * FRAME_CM

PA, AP = "PA", "AP"


@dataclass(frozen=True)
class Thorax:
    """Shape of one body in one image. Lengths in cm; pairs are (right, left) of the patient."""

    scale: float  # 1 is an average man
    half_width: float  # of the lungs at their widest
    apex: float  # y of the lung's top
    dome: tuple[float, float]  # y of the diaphragm's highest point
    dome_height: float  # from there down to the costophrenic angle
    wall: float  # chest wall outside the lungs
    heart_right: float  # the heart's border right of the midline
    heart_left: float  # and left of it: together the transverse cardiac diameter
    heart_length: float
    aorta: float  # how far the aortic knob stands out
    mediastinum: float  # half width above the heart
    shift: float  # of heart and mediastinum, to the left
    density: float  # of the soft tissue
    air: float  # attenuation that a full-depth lung takes away
    breast: float  # 0 to 1
    breast_y: float
    clavicle: float  # y at the sternum
    clavicle_rise: float
    scapula: float  # x of its medial border
    rib_pitch: float
    rib_phase: float
    rib_slope: float
    bone: float
    bow: float  # of the spine, sideways


def body_of(seed: int, patient: int, *, age: float, sex: str) -> Thorax:
    """The patient's own anatomy, erect, inspired, in a PA view. The same in all images but for the years between."""
    rng = np.random.default_rng([seed, patient, 0xB0D7])
    grown = 0.64 + 0.36 * min(age / 17, 1.0)
    scale = (0.94 if sex == "F" else 1.02) * grown * rng.normal(1, 0.035)
    old = min(max((age - 45) / 40, 0.0), 1.0)
    fat = min(max(rng.normal(0.4, 0.3), 0.0), 1.2)
    half_width = 13.6 * scale * rng.normal(1, 0.03)
    ratio = rng.normal(0.435, 0.022) + 0.02 * old + 0.05 * (1 - grown)
    heart = 2 * half_width * min(ratio, 0.475)
    dome_right = 8.4 * scale + rng.normal(0, 0.7)
    return Thorax(
        scale=scale,
        half_width=half_width,
        apex=-14.0 * scale + rng.normal(0, 0.5),
        dome=(dome_right, dome_right + rng.uniform(0.7, 1.7)),
        dome_height=scale * rng.uniform(2.6, 3.8),
        wall=1.4 + 1.8 * fat,
        heart_right=heart * rng.uniform(0.28, 0.36),
        heart_left=heart * rng.uniform(0.66, 0.70),
        heart_length=scale * rng.uniform(10.6, 12.4),
        aorta=rng.uniform(0.4, 0.9) + 0.9 * old * rng.random(),
        mediastinum=scale * rng.uniform(2.3, 2.9),
        shift=0.0,
        density=0.82 + 0.07 * fat,
        air=0.60 - 0.07 * fat + rng.normal(0, 0.02),
        breast=(rng.uniform(0.2, 1.0) if sex == "F" and age > 12 else 0.0),
        breast_y=scale * rng.uniform(5.0, 7.5),
        clavicle=-9.8 * scale + rng.normal(0, 0.5),
        clavicle_rise=rng.uniform(2.0, 4.0),
        scapula=scale * rng.uniform(13.2, 14.5),
        rib_pitch=2.35 * scale * rng.normal(1, 0.04),
        rib_phase=rng.random(),
        rib_slope=rng.uniform(0.8, 1.2),
        bone=rng.uniform(0.8, 1.15) * (1 - 0.25 * old),
        bow=rng.normal(0, 0.25 + 0.5 * old),
    )


def positioned(body: Thorax, view: str, rng: np.random.Generator) -> Thorax:
    """The body as it stands or lies for one image: the depth of this breath, and what a supine AP view does to it.

    An AP view is taken close up, of a patient who cannot stand: the heart is magnified, the diaphragm higher, the
    inspiration shallow, the clavicles project above the apices and the scapulae over the lungs.
    """
    breath, lift, tilt = rng.normal(0, 0.6), rng.uniform(0.3, 3.0), rng.normal(0, 0.5)
    magnified, rise, cover = rng.uniform(1.06, 1.14), rng.uniform(1.0, 2.6), rng.uniform(1.5, 3.5)
    if view == PA:
        lift, magnified, rise, cover = 0.0, 1.0, 0.0, 0.0
    return replace(
        body,
        dome=(body.dome[0] + breath - lift, body.dome[1] + breath - lift),
        heart_right=body.heart_right * magnified,
        heart_left=body.heart_left * magnified,
        heart_length=body.heart_length * (1 - 0.03 * lift),
        mediastinum=body.mediastinum * (1 + 0.8 * (magnified - 1)),
        clavicle=body.clavicle - rise + 0.4 * tilt,
        scapula=body.scapula - cover,
        air=body.air * (1 - 0.03 * lift),
    )


class Film:
    """A film under exposure: what attenuates where, and the grid in body centimetres.

    Attributes:
        x_1n, y_n1: the grid.
        tissue, air, aerated, vessels: (n, n) float32; see the module's formula.
        tree: (n, n) float32 from 0 to 1, the branching of vessels and bronchi.
    """

    def __init__(self, thorax: Thorax, n: int):
        self.thorax, self.n, self.pixel = thorax, n, FILM_CM / n
        grid = ((np.arange(n, dtype=np.float32) + 0.5) * self.pixel - FILM_CM / 2).astype(np.float32)
        self.x_1n, self.y_n1 = grid[None, :], grid[:, None]
        self.middle = n // 2
        self.tissue = np.zeros((n, n), np.float32)
        self.air = np.zeros((n, n), np.float32)
        self.aerated = np.ones((n, n), np.float32)
        self.vessels = np.zeros((n, n), np.float32)
        self.tree = np.zeros((n, n), np.float32)

    def half(self, side: int) -> slice:
        """The columns of one side."""
        return slice(0, self.middle) if side < 0 else slice(self.middle, self.n)

    def ax(self, side: int) -> np.ndarray:
        """Distance from the midline (1, h) on one side."""
        return np.abs(self.x_1n[:, self.half(side)])

    def ramp(self, distance: np.ndarray, width: float = 0.0) -> np.ndarray:
        """0 to 1 as a signed distance in cm crosses 0; never sharper than the film."""
        t = distance * np.float32(1 / max(width, 1.3 * self.pixel))
        t += np.float32(0.5)
        np.maximum(t, 0, out=t)
        np.minimum(t, 1, out=t)
        smooth = t * np.float32(-2)
        smooth += 3
        smooth *= t
        smooth *= t
        return smooth

    def lateral(self) -> np.ndarray:
        """The inner chest wall's distance from the midline, (n, 1)."""
        return lateral_wall(self.thorax, self.y_n1)

    def diaphragm(self, side: int) -> np.ndarray:
        """Height y of the diaphragm, (1, h): a dome, falling to the costophrenic angle."""
        body, ax = self.thorax, self.ax(side)
        top = 0.42 * body.half_width
        outer = np.clip((ax - top) / (body.half_width - top), 0, None)
        inner = np.clip((top - ax) / top, 0, None)
        return body.dome[0 if side < 0 else 1] + body.dome_height * (outer**2 + 0.35 * inner**2)

    def heart_edge(self, side: int) -> np.ndarray:
        """Distance of the heart's and mediastinum's border from the midline on one side, (n, 1)."""
        body = self.thorax
        bottom = max(body.dome) + 1.0
        t = (self.y_n1 - (bottom - body.heart_length)) / body.heart_length
        if side < 0:
            bulge = np.clip(1 - ((t - 0.62) / 0.52) ** 2, 0, 1) ** 0.5 * body.heart_right
        else:
            bulge = np.clip(1 - ((t - 0.80) / 0.72) ** 2, 0, 1) ** 0.85 * body.heart_left
            knob = -5.6 * body.scale
            bulge = np.maximum(bulge, (body.mediastinum + body.aorta) * _hump(self.y_n1 - knob, 4.6))
            bulge = np.maximum(bulge, (body.mediastinum + 0.55) * _hump(self.y_n1 - knob - 3.8, 6.5))
        narrow = body.mediastinum * (0.84 + 0.06 * side) * (1 + 0.3 * np.clip(-self.y_n1 / 14 - 0.8, 0, 1))
        return (np.maximum(bulge, narrow) + side * body.shift).astype(np.float32)

    def opacify(self, side: int, fill: np.ndarray, bronchogram: float = 0.0) -> np.ndarray:
        """Fill part of one side's air, (n, h) from 0 to 1, sparing the bronchi; returns the attenuation added."""
        columns = self.half(side)
        if bronchogram:
            fill = fill * (1 - bronchogram * self.tree[:, columns])
        added = self.air[:, columns] * self.aerated[:, columns] * fill
        self.aerated[:, columns] *= 1 - fill
        return added

    def attenuation(self) -> np.ndarray:
        return self.tissue - self.air * self.aerated * (1 - self.vessels)

    def noise(self, rng: np.random.Generator, cell: float) -> np.ndarray:
        """Smooth noise (n, n), about standard normal, with grains of ``cell`` cm."""
        cells = int(FILM_CM / cell) + 3
        grains = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(1.6))
        return np.asarray(grains.resize((self.n, self.n), Image.Resampling.BICUBIC))


def lateral_wall(body: Thorax, y: np.ndarray | float) -> np.ndarray:
    """The inner chest wall's distance from the midline at height y."""
    t = (y - body.apex) / (0.80 * (body.dome[0] + 2 - body.apex))
    rounded = (1 - np.clip(1 - t, 0, 1) ** 2.6) ** 0.62
    return (body.half_width * (rounded - 0.02 * np.clip(t - 1, 0, 1))).astype(np.float32)


def expose_anatomy(film: Film, rng: np.random.Generator, tree: np.ndarray) -> None:
    """Draw the healthy thorax. Takes the same random numbers whatever the body's shape."""
    film.tree[:] = tree
    _soft_tissue(film, rng)
    for side in (-1, 1):
        _lung(film, side)
        _ribs(film, side)
        _shoulder(film, side)
    _spine_and_trachea(film)
    _heart(film)
    _abdomen(film, rng)
    np.multiply(film.tree, 0.30, out=film.vessels)


def _hump(y: np.ndarray, width: float) -> np.ndarray:
    return np.clip(1 - (2 * y / width) ** 2, 0, 1) ** 0.6


def _quarter(p: np.ndarray) -> np.ndarray:
    """Depth of a round solid, 0 at its edge to 1, where p is the distance from the edge over the radius."""
    p = np.minimum(np.maximum(p, 0), 1)
    return p * (2 - p)


def _soft_tissue(film: Film, rng: np.random.Generator) -> None:
    body = film.thorax
    uneven = film.noise(rng, 14.0)
    for side in (-1, 1):
        ax, y = film.ax(side), film.y_n1
        flank = np.maximum(film.lateral(), 0.84 * body.half_width) + body.wall + 0.06 * np.clip(y, 0, None)
        slope = body.apex - 3.6 + 0.30 * np.clip(ax - 5.5, 0, None) + 0.012 * np.clip(ax - 5.5, 0, None) ** 2
        neck = _quarter((6.0 * body.scale - ax) / 4.0)
        torso = np.sqrt(_quarter((flank - ax) / 5.0) * np.maximum(_quarter((y - slope) / 5.0), 0.75 * neck))
        axilla = body.apex + 6.5 + 0.30 * ax - 0.5 * body.wall
        arm = 0.80 * np.sqrt(_quarter((y - slope) / 4.0) * _quarter((axilla - y) / 5.0))
        tissue = film.tissue[:, film.half(side)]
        tissue += body.density * np.maximum(torso, arm)
        if body.breast:
            radius = body.half_width * (0.36 + 0.14 * body.breast)
            across = ((ax - 0.58 * body.half_width) / radius) ** 2
            down = (y - body.breast_y) / radius
            inside = np.clip(1 - across - np.where(down > 0, down**2, 0.35 * down**2), 0, 1)
            tissue += np.float32(0.06 + 0.09 * body.breast) * np.sqrt(inside)
    film.tissue *= 1 + np.float32(0.02) * uneven


def _lung(film: Film, side: int) -> None:
    body, ax, y = film.thorax, film.ax(side), film.y_n1
    top = body.apex + 0.030 / body.scale * (ax - 5.2 * body.scale) ** 2
    depth = _quarter((film.lateral() - ax) / 4.5) * _quarter((y - top) / 6.0)
    depth *= _quarter((ax - 1.5 - side * body.shift) / 3.5) * _quarter((film.diaphragm(side) - y) / 2.2)
    film.air[:, film.half(side)] = np.float32(body.air) * np.sqrt(depth)


def _ribs(film: Film, side: int) -> None:
    """Posterior ribs leave the spine and fall outwards; anterior ribs fall inwards and end in unseen cartilage."""
    body, ax, y = film.thorax, film.ax(side), film.y_n1
    s = ax / body.half_width
    start = y - body.apex - body.rib_phase
    posterior = start / body.rib_pitch - (1.9 * s**2 - 0.7 * s) * body.rib_slope - 0.9 * s**8
    anterior = start / (1.12 * body.rib_pitch) - 2.6 - 2.3 * body.rib_slope * (1 - s)
    cage = film.ramp(film.lateral() + 0.8 - ax, 0.5) * (1 - 0.55 * film.ramp(y - body.dome[0] - 1.5, 3.0))
    tissue = film.tissue[:, film.half(side)]
    for phase, half, level, fade in (
        (posterior, 0.19, 0.115, np.clip((s - 0.08) * 3.5, 0, 1)),
        (anterior, 0.24, 0.080, np.clip((s - 0.36) * 4, 0, 1)),
    ):
        off = np.floor(phase)
        np.subtract(phase, off, out=off)
        off -= np.float32(0.5)
        np.abs(off, out=off)
        band = film.ramp((half - off) * body.rib_pitch, 0.22)
        band *= 0.62 + (0.38 / half) * np.minimum(off, half)
        band *= (phase > 0) & (phase < 10)
        band *= cage
        band *= fade * np.float32(level * body.bone)
        tissue += band


def _shoulder(film: Film, side: int) -> None:
    body, ax, y = film.thorax, film.ax(side), film.y_n1
    s = ax / body.half_width
    centre = body.clavicle - body.clavicle_rise * s + 0.45 * np.sin(5.0 * s)
    rows = slice(*np.searchsorted(y[:, 0], (float(centre.min()) - 2, float(centre.max()) + 2)))
    off = np.abs(y[rows] - centre)
    band = film.ramp(0.70 - off, 0.25) * (0.55 + 0.6 * np.minimum(off, 0.7))
    band *= film.ramp(ax - 1.6, 0.8) * film.ramp(1.22 * body.half_width - ax, 0.8)
    columns = film.half(side)
    film.tissue[rows, columns] += np.float32(0.13 * body.bone) * band
    rows = slice(*np.searchsorted(y[:, 0], (body.apex - 1, body.apex + 16)))
    y = y[rows]
    x_edge = body.scapula - 0.10 * (y - body.apex - 4)
    blade = film.ramp(ax - x_edge, 0.3) * film.ramp(x_edge + 4.5 - ax, 3.0)
    blade *= film.ramp(y - body.apex - 3 - 0.2 * (ax - 10), 1.0) * film.ramp(body.apex + 13 - 0.6 * (ax - 11) - y, 1.5)
    film.tissue[rows, columns] += np.float32(0.055 * body.bone) * blade
    head = np.clip(1 - ((ax - 1.32 * body.half_width) / 2.6) ** 2 - ((y - body.apex - 2.6) / 2.8) ** 2, 0, 1)
    film.tissue[rows, columns] += np.float32(0.12 * body.bone) * np.sqrt(head)


def _spine_and_trachea(film: Film) -> None:
    body, y = film.thorax, film.y_n1
    bow = body.bow * np.sin((y - body.apex) / 7.0)
    columns = slice(*np.searchsorted(film.x_1n[0], (-6.0, 6.0)))
    x = film.x_1n[:, columns]
    pitch = 2.5 * body.scale
    phase = (y - body.apex) / pitch
    disc = film.ramp(np.abs(phase - np.round(phase)) * pitch - 0.28, 0.3)
    spine = film.ramp(1.9 * body.scale - np.abs(x - bow), 0.5) * (0.045 + 0.030 * disc)
    carina = body.apex + 9.2 * body.scale
    windpipe = np.sqrt(np.clip(1 - ((x - bow - body.shift + 0.25) / (0.95 * body.scale)) ** 2, 0, 1))
    windpipe = windpipe * film.ramp(carina - y, 0.8)
    fall = y - carina
    for side in (-1, 1):
        lean = bow + body.shift + side * np.clip(fall * (0.75 if side < 0 else 1.1), 0, None)
        bronchus = np.clip(1 - ((x - lean + 0.25) / 0.75) ** 2, 0, 1)
        windpipe = np.maximum(windpipe, 0.7 * bronchus * film.ramp(fall, 0.6) * film.ramp(3.0 - fall, 1.5))
    film.tissue[:, columns] += np.float32(body.bone) * spine - np.float32(0.11) * windpipe


def _heart(film: Film) -> None:
    """Heart and great vessels: dense in the middle, with a border as sharp as that of a round solid."""
    body = film.thorax
    above = film.ramp(film.y_n1 - body.apex + 2, 3.0)
    for side in (-1, 1):
        edge, ax = film.heart_edge(side), film.ax(side)
        depth = np.sqrt(_quarter((edge - ax) / (0.55 * np.maximum(edge, 1.5)))) * above
        below = film.ramp(film.diaphragm(side) + 1.5 - film.y_n1, 3.0)
        columns = film.half(side)
        film.tissue[:, columns] += np.float32(0.07) * depth * below
        # The heart is in front of the lung and leaves little of its air to be seen.
        film.air[:, columns] *= 1 - np.float32(0.80) * depth


def _abdomen(film: Film, rng: np.random.Generator) -> None:
    """The organs below the diaphragm, and gas: the stomach's bubble under the left dome, and some bowel."""
    body, y = film.thorax, film.y_n1
    gas = rng.random(8).tolist()
    for side in (-1, 1):
        ax, dome = film.ax(side), film.diaphragm(side)
        tissue = film.tissue[:, film.half(side)]
        tissue += film.ramp(y - dome - 0.6, 2.2) * (np.float32(0.085) * film.ramp(body.half_width + 1 - ax, 4.0))
    bubbles = [(4.5 + 3 * gas[0], 2.2 + gas[1], 1.2 + 1.6 * gas[2], 0.7 + 0.9 * gas[3])]
    if gas[4] < 0.35:
        bubbles.append((8 - 12 * gas[5], 6.0 + 1.5 * gas[6], 1.5 + gas[7], 0.9))
    for x, below, rx, ry in bubbles:
        level = body.dome[1] + below
        rows = slice(*np.searchsorted(y[:, 0], (level - ry, level + ry)))
        columns = slice(*np.searchsorted(film.x_1n[0], (x - rx, x + rx)))
        inside = 1 - ((film.x_1n[:, columns] - x) / rx) ** 2 - ((y[rows] - level) / ry) ** 2
        gas_depth = np.sqrt(np.clip(inside, 0, 1)) * film.ramp(level + 0.5 * ry - y[rows])
        film.tissue[rows, columns] -= np.float32(0.20 if gas[3] > 0.25 else 0.05) * gas_depth


@functools.lru_cache(maxsize=8)
def lung_tree(seed: int, patient: int, n: int, scale: float) -> np.ndarray:
    """The patient's branching lung vessels, (n, n) float32 from 0 to 1; read-only, the same in all their images."""
    rng = np.random.default_rng([seed, patient, 0x7EE])
    canvas = Image.new("L", (2 * n, 2 * n))
    pen = ImageDraw.Draw(canvas)
    per_cm = 2 * n / FILM_CM
    for width, lines in reversed(_branches(rng, scale)):
        drawn = max(1, round(width * per_cm))
        level = int(255 * min(1.0, (width / 0.5) ** 0.6) * min(1.0, width * per_cm / drawn))
        for line in ((lines + FILM_CM / 2) * per_cm).reshape(len(lines), -1).tolist():
            pen.line(line, fill=level, width=drawn)
    tree = np.asarray(canvas.reduce(2), dtype=np.float32) / 255
    tree.setflags(write=False)
    return tree


def _branches(rng: np.random.Generator, scale: float) -> list[tuple[float, np.ndarray]]:
    """Curved segments level by level: (width in cm, (lines, points, 2) body coordinates)."""
    side = np.repeat([-1.0, 1.0], 8)
    roots = np.stack([side * 2.6, np.where(side < 0, -1.8, -2.6)], axis=1) * scale
    angle = np.tile(np.linspace(-1.25, 1.35, 8), 2) + rng.normal(0, 0.1, 16)
    levels, start = [], roots + rng.normal(0, 0.35, (16, 2))
    for width, length in ((0.46, 2.8), (0.32, 2.8), (0.22, 2.8), (0.14, 2.8), (0.10, 2.6)):
        bend = rng.normal(0, 0.16, len(angle))
        points = [start]
        for step in range(3):
            turned = angle + bend * step
            go = np.stack([side * np.cos(turned), np.sin(turned)], axis=1)
            points.append(points[-1] + go * (length * scale / 3 * rng.uniform(0.75, 1.25, (len(angle), 1))))
        levels.append((width, np.stack(points, axis=1)))
        start, side, angle = (np.repeat(a, 2, axis=0) for a in (points[-1], side, angle + 2 * bend))
        angle = angle + np.tile([-0.33, 0.33], len(angle) // 2) + rng.normal(0, 0.14, len(angle))
    return levels


def expose_devices(film: Film, rng: np.random.Generator) -> None:
    """What lies on a bedridden patient: leads with their electrodes, a tube in the trachea, a central line.

    Chest drains are left out: they would tell of a pneumothorax without one being seen.
    """
    body, n = film.thorax, film.n
    canvas = Image.new("L", (2 * n, 2 * n))
    pen = ImageDraw.Draw(canvas)
    per_cm = 2 * n / FILM_CM
    chosen = rng.random(3)

    def line(points: np.ndarray, width: float, level: int) -> None:
        drawn = max(1, round(width * per_cm))
        level = int(level * min(1.0, width * per_cm / drawn))
        pen.line(((points + FILM_CM / 2) * per_cm).ravel().tolist(), fill=level, width=drawn, joint="curve")

    t = np.linspace(0, 1, 12)
    for side, reach in ((-1, rng.uniform(-9, 2)), (1, rng.uniform(-9, 2)), (1, rng.uniform(3, 9))):
        x0, bend = side * rng.uniform(6, 12), rng.normal(0, 3)
        points = np.stack([x0 + side * 9 * t + bend * np.sin(3 * t), reach - 12 * t**1.5], axis=1)
        if chosen[0] < 0.6:
            line(points, 0.16, 120)
            centre, r = (points[0] + FILM_CM / 2) * per_cm, 0.55 * per_cm
            pen.ellipse([*(centre - r), *(centre + r)], fill=150)
    if chosen[1] < 0.3:
        line(np.stack([0 * t - 0.2, -22 + (22 + body.apex + 6) * t], axis=1), 0.22, 130)
    if chosen[2] < 0.4:
        points = np.stack([-10 + 7.5 * np.sqrt(t), body.clavicle - 1 + 9 * t**3], axis=1)
        line(points, 0.18, 120)
    film.tissue += np.asarray(canvas.reduce(2), dtype=np.float32) * np.float32(0.30 / 255)
