"""The 14 findings of ChestX-ray14, each drawn by its radiographic sign.

A sign has up to two parts: it reshapes the thorax before the exposure (a large heart, a flat diaphragm), and it marks
the film after it (an opacity, a line). Size and density are exaggerated, for a small network at 96 pixels has to learn
from a few thousand images; noise, anatomy and overlap are there to make it work for that.

Signs are those of the Fleischner Society's glossary (Hansell et al., Radiology 246:697, 2008), cited as [F], where it
has the term; otherwise of Goodman, Felson's Principles of Chest Roentgenology (4th ed. 2014), cited as [G].

``place`` draws what stays with the patient (the side, the spot), ``rng`` what changes from image to image. Bounding
boxes are (x, y, width, height) in body centimetres, of the upper left corner.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hf_cxr.phantom.thorax import Film, Thorax, lateral_wall

Box = tuple[float, float, float, float]
Reshape = Callable[[Thorax, np.random.Generator, np.random.Generator], Thorax]
Mark = Callable[[Film, np.random.Generator, np.random.Generator], list[Box]]

BOX_LEVEL = 0.25  # of its strongest change: as far out as that a finding's box reaches
NODULE_DIAMETER = (1.6, 2.8)  # cm; [F]: a nodule measures up to 3 cm
MASS_DIAMETER = (3.6, 7.5)  # cm; [F]: a mass is larger than 3 cm


class Sign(NamedTuple):
    """How a finding shows. Both parts get generators seeded alike, so they agree on side and spot."""

    mark: Mark
    reshape: Reshape | None = None


def _side(place: np.random.Generator) -> int:
    return -1 if place.random() < 0.5 else 1


def _dome(body: Thorax, side: int) -> float:
    return body.dome[0 if side < 0 else 1]


def _spot(film: Film, side: int, u: float, v: float) -> tuple[float, float]:
    """A point of the lung that is clear of the heart: u from medial to lateral, v from apex to diaphragm, 0 to 1."""
    body = film.thorax
    y = body.apex + v * (_dome(body, side) - body.apex)
    row = int(np.clip((y / film.pixel) + film.n / 2, 0, film.n - 1))
    inner, outer = float(film.heart_edge(side)[row, 0]), float(lateral_wall(body, y))
    return side * (inner + u * (outer - inner)), y


def _bump(film: Film, side: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """A smooth hill (n, h), 1 at its top and exactly 0 outside its ellipse."""
    across = ((film.x_1n[:, film.half(side)] - x) / rx) ** 2
    return np.clip(1 - across - ((film.y_n1 - y) / ry) ** 2, 0, 1)


def _mottle(film: Film, side: int, rng: np.random.Generator, cell: float, depth: float) -> np.ndarray:
    """Uneven density (n, h), from 1 - depth to 1."""
    return 1 - np.float32(depth) * np.clip(0.5 - 0.45 * film.noise(rng, cell)[:, film.half(side)], 0, 1)


def _box_of(film: Film, side: int, change: np.ndarray) -> list[Box]:
    """The box around what a finding changed on one side, if it changed anything to be seen."""
    strong = change > max(BOX_LEVEL * float(change.max()), 0.01)
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    if not len(rows):
        return []
    left, top = film.x_1n[0, film.half(side)][columns[0]], film.y_n1[rows[0], 0]
    width, height = (columns[-1] - columns[0] + 1) * film.pixel, (rows[-1] - rows[0] + 1) * film.pixel
    return [(float(left) - film.pixel / 2, float(top) - film.pixel / 2, width, height)]


def lose_volume(body: Thorax, place: np.random.Generator, rng: np.random.Generator) -> Thorax:
    """Atelectasis is loss of volume: the hemidiaphragm is raised, heart and mediastinum are drawn over [F, G]."""
    side = _side(place)
    raised = [body.dome[0], body.dome[1]]
    raised[0 if side < 0 else 1] -= rng.uniform(1.3, 2.8)
    return replace(body, dome=(raised[0], raised[1]), shift=body.shift + side * rng.uniform(0.3, 1.1))


def atelectasis(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Plate-like bands across the lung base, nearly horizontal, over a hazy base [F, linear atelectasis]."""
    side = _side(place)
    fill = np.zeros((film.n, film.ax(side).shape[1]), np.float32)
    for v in np.linspace(0.74, 0.94, int(place.integers(2, 4))).tolist():
        x, y = _spot(film, side, place.uniform(0.3, 0.55), v)
        slope, half, reach = place.normal(0, 0.22), rng.uniform(0.30, 0.55), rng.uniform(3.0, 4.8)
        along = film.x_1n[:, film.half(side)] - x
        off = np.abs(film.y_n1 - y - slope * along)
        taper = np.clip(1.3 * (1 - np.abs(along) / reach), 0, 1)
        band = film.ramp(half * (0.4 + 0.6 * taper) - off, 0.4) * np.sqrt(taper)
        fill = np.maximum(fill, np.float32(rng.uniform(0.55, 0.8)) * band)
    base = film.ramp(film.y_n1 - _dome(film.thorax, side) + 2.0, 4.0)
    return _box_of(film, side, film.opacify(side, np.maximum(fill, np.float32(0.25) * base)))


def enlarge_heart(body: Thorax, place: np.random.Generator, rng: np.random.Generator) -> Thorax:
    """Cardiomegaly: the transverse cardiac diameter is more than half of the thorax's inner one [G]."""
    width = 2 * body.half_width * (place.uniform(0.57, 0.67) + rng.normal(0, 0.005))
    wider = max(width / (body.heart_right + body.heart_left), 1.15)
    return replace(
        body,
        heart_right=body.heart_right * wider,
        heart_left=min(body.heart_left * wider, 0.90 * body.half_width),
        heart_length=body.heart_length * wider**0.35,
    )


def cardiomegaly(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """The large heart is the body's own (`enlarge_heart`); its box spans the cardiac diameter."""
    body = film.thorax
    right, left = float(film.heart_edge(-1).max()), float(film.heart_edge(1).max())
    bottom = max(body.dome) + 1.0
    return [(-right, bottom - body.heart_length, right + left, body.heart_length)]


def effusion(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Fluid fills the costophrenic angle and climbs the wall as a meniscus; it hides the diaphragm [G]."""
    first = _side(place)
    boxes = []
    for side in (first, -first) if place.random() < 0.3 else (first,):
        body, ax = film.thorax, film.ax(side)
        s = ax / body.half_width
        angle = _dome(body, side) + body.dome_height
        height = place.uniform(3.0, 9.0) + rng.uniform(0.0, 1.5)
        meniscus = angle - height * (0.35 + 0.65 * np.clip((s - 0.25) / 0.75, 0, 1) ** 2.2)
        fluid = film.ramp(film.y_n1 - meniscus, 1.3) * np.float32(0.96)
        boxes += _box_of(film, side, film.opacify(side, fluid))
    return boxes


def infiltration(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Ill-defined, mottled, mild opacity in patches that keep to no lobe [F; the term itself is discouraged]."""
    boxes = []
    first = _side(place)
    sides = (first, -first) if place.random() < 0.45 else (first,)
    for side in sides:
        fill = np.zeros((film.n, film.ax(side).shape[1]), np.float32)
        for _ in range(int(place.integers(1, 4))):
            x, y = _spot(film, side, place.uniform(0.15, 0.65), place.uniform(0.25, 0.85))
            fill += _bump(film, side, x + rng.normal(0, 0.4), y, place.uniform(3.5, 5.5), place.uniform(3.5, 6.0))
        fill = np.clip(fill, 0, 1) * _mottle(film, side, rng, 1.3, 0.8) * np.float32(rng.uniform(0.40, 0.60))
        boxes += _box_of(film, side, film.opacify(side, fill))
    return boxes


def _round_opacity(film: Film, side: int, x: float, y: float, radius: float, fill: float) -> Box:
    """A ball: as deep as it is wide, with a sharp edge. Its box is its diameter."""
    ball = np.sqrt(_bump(film, side, x, y, radius, radius))
    film.opacify(side, np.float32(fill) * ball)
    return x - radius, y - radius, 2 * radius, 2 * radius


def mass(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """A round opacity larger than 3 cm [F]."""
    side, radius = _side(place), place.uniform(*MASS_DIAMETER) / 2
    x, y = _spot(film, side, place.uniform(0.3, 0.6), place.uniform(0.2, 0.78))
    return [_round_opacity(film, side, x, y, radius, rng.uniform(0.70, 0.92))]


def nodule(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Round opacities, one to three, of up to 3 cm [F]."""
    boxes = []
    for _ in range(int(place.choice([1, 1, 2, 3]))):
        side, radius = _side(place), place.uniform(*NODULE_DIAMETER) / 2
        x, y = _spot(film, side, place.uniform(0.25, 0.8), place.uniform(0.22, 0.85))
        boxes.append(_round_opacity(film, side, x, y, radius, rng.uniform(0.55, 0.80)))
    return boxes


def pneumonia(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """One segmental, patchy opacity of moderate density through which air-filled bronchi show [F, air bronchogram]."""
    side = _side(place)
    x, y = _spot(film, side, place.uniform(0.3, 0.5), place.uniform(0.55, 0.75))
    patch = _bump(film, side, x, y, place.uniform(4.8, 6.2), place.uniform(4.5, 6.0)) ** np.float32(0.8)
    fill = patch * _mottle(film, side, rng, 2.2, 0.5) * np.float32(rng.uniform(0.62, 0.80))
    return _box_of(film, side, film.opacify(side, fill, bronchogram=0.9))


def pneumothorax(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """A thin white pleural line, and outside of it air with no lung markings, deepest at the apex [F]."""
    side = _side(place)
    body, ax, y = film.thorax, film.ax(side), film.y_n1
    depth = place.uniform(1.8, 4.5) + rng.uniform(0, 1.0)
    v = np.clip((y - body.apex) / (_dome(body, side) - body.apex), 0, 1)
    top = body.apex + 1.1 * depth + 0.04 * (ax - 4.5) ** 2
    wall, round_off = film.lateral() - depth * (1 - 0.7 * v) - ax, np.float32(5.0)
    inside = round_off - np.hypot(np.maximum(round_off - wall, 0), np.maximum(round_off - 0.9 * (y - top), 0))
    outside = film.ramp(-inside, 0.15)
    columns = film.half(side)
    film.vessels[:, columns] *= 1 - outside
    gas = film.air[:, columns] * outside
    film.air[:, columns] += np.float32(0.22) * gas
    film.aerated[:, columns] = np.maximum(film.aerated[:, columns], outside * 0.9)
    line = np.clip(1.6 - np.abs(inside) / max(0.13, 0.7 * film.pixel), 0, 1) * np.float32(0.42)
    film.opacify(side, np.maximum(line, np.float32(0.14) * (1 - outside)))
    return _box_of(film, side, gas)


def consolidation(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """A lobe as dense as soft tissue, cut off sharply by a fissure, with few air bronchograms [F]."""
    side, upper = _side(place), place.random() < 0.4
    ax, y = film.ax(side), film.y_n1
    fissure = _spot(film, side, 0.5, place.uniform(0.40, 0.52) if upper else place.uniform(0.50, 0.66))[1]
    fissure = fissure + place.normal(0.0, 0.15) * (ax - 7) + 0.035 * (ax - 6) ** 2 + rng.normal(0, 0.3)
    reach = film.ramp(ax - 2.0, 3.0) if upper else film.ramp(film.thorax.half_width * 1.05 - ax, 1.5)
    lobe = film.ramp((fissure - y) if upper else (y - fissure), 0.6) * reach
    fill = lobe * _mottle(film, side, rng, 3.0, 0.35) * np.float32(rng.uniform(0.78, 0.95))
    return _box_of(film, side, film.opacify(side, fill, bronchogram=0.45))


def edema(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Bilateral haze about the hila, wide vessels, and Kerley B lines: short, level, at the lateral bases [F, G]."""
    body, y = film.thorax, film.y_n1
    film.vessels *= np.float32(1.35)
    strength = place.uniform(0.42, 0.64)
    for side in (-1, 1):
        ax = film.ax(side)
        x, y_hilum = _spot(film, side, 0.18, place.uniform(0.48, 0.58))
        wing = np.sqrt(_bump(film, side, x, y_hilum, 0.62 * body.half_width, 8.5 * body.scale))
        fill = wing * _mottle(film, side, rng, 1.2, 0.4) * np.float32(strength + rng.normal(0, 0.03))
        inward = film.lateral() - ax
        lines = np.clip(1 - np.abs((y / 0.9 + rng.random()) % 1 - 0.5) / 0.22, 0, 1) * film.ramp(2.6 - inward, 0.8)
        lines *= film.ramp(y - _dome(body, side) + 5.5, 2.5) * np.float32(0.38)
        film.opacify(side, np.maximum(fill, lines))
    return []


def hyperinflate(body: Thorax, place: np.random.Generator, rng: np.random.Generator) -> Thorax:
    """Emphysema: the diaphragm low and flat, the heart narrow [G]."""
    lower = place.uniform(1.3, 2.6)
    return replace(
        body,
        dome=(body.dome[0] + lower, body.dome[1] + lower),
        dome_height=body.dome_height * place.uniform(0.22, 0.40),
        heart_right=body.heart_right * 0.84,
        heart_left=body.heart_left * 0.80,
        half_width=body.half_width * 1.03,
    )


def emphysema(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Hyperlucent lungs with few vessels; see `hyperinflate` for their shape [F, G]."""
    film.air *= np.float32(place.uniform(1.12, 1.22))
    film.vessels *= np.float32(rng.uniform(0.35, 0.60))
    return []


def shrink_lungs(body: Thorax, place: np.random.Generator, rng: np.random.Generator) -> Thorax:
    """Fibrosis costs volume on both sides: the diaphragm rises [F, pulmonary fibrosis]."""
    raised = place.uniform(0.8, 2.0)
    return replace(body, dome=(body.dome[0] - raised, body.dome[1] - raised))


def fibrosis(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Reticulation, a net of fine lines, at both bases and along the periphery [F, reticular pattern]."""
    body, y = film.thorax, film.y_n1
    coarse, strength = place.uniform(0.65, 0.95), place.uniform(0.42, 0.60)
    net = np.clip(1.15 - np.abs(film.noise(place, coarse)) * 2.2, 0, 1)
    for side in (-1, 1):
        v = (y - body.apex) / (_dome(body, side) - body.apex)
        inward = film.lateral() - film.ax(side)
        where = np.maximum(
            np.clip(2.6 * v - 1.15, 0, 1), 0.8 * film.ramp(2.6 - inward, 2.0) * np.clip(3 * v - 0.6, 0, 1)
        )
        film.opacify(side, where * (np.float32(0.14) + np.float32(strength) * net[:, film.half(side)]))
    return []


def pleural_thickening(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """A dense band of uneven width along the inner chest wall, or a cap over the apex [F, apical cap, plaque]."""
    first, apical = _side(place), place.random() < 0.4
    boxes = []
    for side in (first, -first) if place.random() < 0.35 else (first,):
        body, ax, y = film.thorax, film.ax(side), film.y_n1
        thick = place.uniform(1.4, 2.2) * (1 + 0.18 * film.noise(place, 4.0)[:, film.half(side)])
        v = (y - body.apex) / (_dome(body, side) - body.apex)
        if apical:
            top = body.apex + 0.030 / body.scale * (ax - 5.2 * body.scale) ** 2
            band = film.ramp(top + 2.4 * thick - y, 0.4)
        else:
            band = film.ramp(thick - (film.lateral() - ax), 0.35)
            band *= film.ramp(v - place.uniform(0.15, 0.4), 0.15) * film.ramp(place.uniform(0.85, 1.2) - v, 0.15)
        boxes += _box_of(film, side, film.opacify(side, band * np.float32(rng.uniform(0.72, 0.90))))
    return boxes


def hernia(film: Film, place: np.random.Generator, rng: np.random.Generator) -> list[Box]:
    """Hiatal hernia: a round bubble behind the heart, gas over fluid with a level between, in a dense wall [G]."""
    body = film.thorax
    rx, ry = place.uniform(3.2, 4.6), place.uniform(2.8, 3.8)
    x, y = place.uniform(-0.5, 2.0), body.dome[0] + 0.5 - ry
    r = np.sqrt(((film.x_1n - x) / rx) ** 2 + ((film.y_n1 - y) / ry) ** 2)
    level = y + ry * rng.uniform(-0.25, 0.3)
    sac = film.ramp((1 - r) * rx, 0.3)
    lumen = film.ramp((0.86 - r) * rx, 0.3)
    gas = lumen * film.ramp(level - film.y_n1, 0.15)
    film.air *= 1 - np.float32(0.95) * sac
    film.tissue += np.float32(0.07) * sac - np.float32(0.34) * gas
    return [(x - rx, y - ry, 2 * rx, 2 * ry)]


SIGNS: Mapping[str, Sign] = {
    "Atelectasis": Sign(atelectasis, lose_volume),
    "Cardiomegaly": Sign(cardiomegaly, enlarge_heart),
    "Effusion": Sign(effusion),
    "Infiltration": Sign(infiltration),
    "Mass": Sign(mass),
    "Nodule": Sign(nodule),
    "Pneumonia": Sign(pneumonia),
    "Pneumothorax": Sign(pneumothorax),
    "Consolidation": Sign(consolidation),
    "Edema": Sign(edema),
    "Emphysema": Sign(emphysema, hyperinflate),
    "Fibrosis": Sign(fibrosis, shrink_lungs),
    "Pleural_Thickening": Sign(pleural_thickening),
    "Hernia": Sign(hernia),
}
