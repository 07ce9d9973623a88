"""What the pixels of a grey image say of it without a model: `picture_statistics` and `layout`.

The input check compares them with those of the images that a model was validated on.

| statistic                        | unit                                                                       |
|----------------------------------|----------------------------------------------------------------------------|
| quantiles of the grey levels     | grey levels, at `QUANTILES`                                                |
| mean, standard deviation         | grey levels                                                                |
| correlation with the mirror image, and with the image upside down | -1 to 1                                   |
| steps between neighbours, across and down | log of the mean in grey levels: noise, text and texture have many |
| corners                          | log of the mean mixed second difference: what is finer still               |
| steps between the cells of a grid of 32 by 32 | log of the mean in grey levels                                |
| entropy of the grey levels       | nat, in 32 bins                                                            |
| share of black and of white      | 0 to 1, below 5 and above 250                                              |
| mean of each cell of a grid of 4 by 4 | grey levels                                                           |

N = images, S = side in pixels, G = cells on a side of a grid, K = statistics.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
COARSE, CELLS, LAYOUT = 32, 4, 8
LEAST = np.array([1.0] * 9 + [0.01] * 2 + [0.02] * 5 + [0.001] * 2 + [1.0] * CELLS**2)
"""What counts as no difference in each statistic, (K,): a spread among ordinary images below it is taken for it."""


def picture_statistics(pixel_NSS: Pixels) -> Array:
    """The statistics of resized grey images (N, S, S), (N, K), in the order of the table.

    >>> grey = np.full((1, 16, 16), 100, np.uint8)
    >>> picture_statistics(grey)[0, :9].round().tolist()
    [100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 0.0]
    """
    count_NL = np.stack([np.bincount(pixel_SS.ravel(), minlength=256) for pixel_SS in pixel_NSS]) / pixel_NSS[0].size
    coarse_NGG = cell_means(pixel_NSS, COARSE)
    return np.column_stack(
        [
            _levels(count_NL),
            _correlation(coarse_NGG, coarse_NGG[:, :, ::-1]),
            _correlation(coarse_NGG, coarse_NGG[:, ::-1]),
            _steps(pixel_NSS),
            _log_mean(np.diff(coarse_NGG, axis=1)) + _log_mean(np.diff(coarse_NGG, axis=2)),
            _entropy(count_NL.reshape(len(pixel_NSS), COARSE, -1).sum(axis=2)),
            count_NL[:, :5].sum(axis=1),
            count_NL[:, 251:].sum(axis=1),
            cell_means(pixel_NSS, CELLS).reshape(len(pixel_NSS), -1),
        ]
    )


def layout(pixel_NSS: Pixels) -> Array:
    """Where images (N, S, S) are bright and dark: the means of a grid of 8 by 8 cells, in grey levels, (N, 64)."""
    return cell_means(pixel_NSS, LAYOUT).reshape(len(pixel_NSS), -1)


def cell_means(pixel_NSS: Pixels, cells: int) -> Array:
    """The mean of each cell of a grid, (N, G, G); a pixel on a border counts in each cell by its share.

    >>> cell_means(np.array([[[0, 3, 6], [0, 3, 6], [0, 3, 6]]], np.uint8), 2).tolist()
    [[[1.0, 5.0], [1.0, 5.0]]]
    """
    side = pixel_NSS.shape[1]
    edge = np.linspace(0, side, cells + 1)
    pixel_S = np.arange(side)
    weight_GS = np.minimum(pixel_S + 1, edge[1:, None]) - np.maximum(pixel_S, edge[:-1, None])
    weight_GS = np.maximum(weight_GS, 0) * cells / side
    return np.stack([weight_GS @ pixel_SS @ weight_GS.T for pixel_SS in pixel_NSS])


def grey_range(pixel_SS: Pixels) -> int:
    """Grey levels between the darkest and the brightest 1 % of an image's pixels."""
    low, high = np.quantile(pixel_SS, (QUANTILES[0], QUANTILES[-1]), method="inverted_cdf")
    return int(high) - int(low)


def _levels(count_NL: Array) -> Array:
    """Quantiles, mean and standard deviation, from the shares of the 256 grey levels."""
    level_L, below_NL = np.arange(256.0), count_NL.cumsum(axis=1)
    quantile_NQ = np.stack([(below_NL < quantile - 1e-9).sum(axis=1) for quantile in QUANTILES], axis=1)
    mean_N = count_NL @ level_L
    variance_N = np.maximum(count_NL @ level_L**2 - mean_N**2, 0)
    return np.column_stack([quantile_NQ, mean_N, np.sqrt(variance_N)])


def _correlation(first_NGG: Array, second_NGG: Array) -> Array:
    """Over the cells; a standard deviation of one grey level is added, so that a blank image has 0."""
    first, second = (value - value.mean(axis=(1, 2), keepdims=True) for value in (first_NGG, second_NGG))
    spread = np.sqrt((first**2).mean(axis=(1, 2)) * (second**2).mean(axis=(1, 2)))
    return (first * second).mean(axis=(1, 2)) / (spread + 1)


def _steps(pixel_NSS: Pixels) -> Array:
    rows = []
    for pixel_SS in pixel_NSS.astype(np.int16):  # an image at a time stays in the processor's cache
        across, down = np.diff(pixel_SS, axis=1), np.diff(pixel_SS, axis=0)
        rows.append([np.abs(step).mean() for step in (across, down, np.diff(across, axis=0))])
    return np.log(np.array(rows) + 0.1)


def _log_mean(step_NGG: Array) -> Array:
    return np.log(np.abs(step_NGG).mean(axis=(1, 2)) + 0.1)


def _entropy(share_NB: Array) -> Array:
    return -(share_NB * np.log(np.maximum(share_NB, 1e-12))).sum(axis=1)
