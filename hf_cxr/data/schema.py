"""The one schema that every source is brought to, and the checks of it.

| column     | type                                       | meaning                                       |
|------------|--------------------------------------------|-----------------------------------------------|
| image      | datasets.Image                             | the radiograph; absent in table-only mode     |
| labels     | list of C float32                          | 1 present, 0 absent, NaN unknown              |
| image_id   | string                                     | unique over all splits                        |
| patient_id | string                                     | never in two splits                           |
| study_id   | string                                     | the examination; only where the source has it |
| view       | string or None                             | "PA", "AP", "LATERAL"                         |
| age        | float32                                    | years; NaN unknown                            |
| sex        | string or None                             | "M", "F"                                      |
| boxes      | list of {finding: string, bbox: 4 float32} | x, y, width, height as fractions of the image |

A streamed split (`sources/streamed.py`) has a column ``stream`` in place of ``image``: where the image is.

Boxes are fractions and not pixels, because the image as loaded is rarely of the size on which the box was drawn.
"""

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow.compute as pc

COLUMNS = ("image", "labels", "image_id", "patient_id", "view", "age", "sex", "boxes")
STREAM = {  # a row of a row group of a Parquet file, and its image column
    "shard": datasets.Value("string"),
    "column": datasets.Value("string"),
    "row_group": datasets.Value("int32"),
    "row": datasets.Value("int32"),
}


def features(label_names: Sequence[str], *, images: bool = True, studies: bool = False) -> datasets.Features:
    """The `datasets.Features` of the schema for C findings.

    Args:
        label_names: the findings.
        images: False leaves the image column out.
        studies: with ``study_id``, for a source that knows its images' studies.
    """
    columns = {
        "image": datasets.Image(),
        "labels": datasets.List(datasets.Value("float32"), length=len(label_names)),
        "image_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "study_id": datasets.Value("string"),
        "view": datasets.Value("string"),
        "age": datasets.Value("float32"),
        "sex": datasets.Value("string"),
        "boxes": datasets.List(
            {"finding": datasets.Value("string"), "bbox": datasets.List(datasets.Value("float32"), length=4)}
        ),
    }
    if not images:
        del columns["image"]
    if not studies:
        del columns["study_id"]
    return datasets.Features(columns)


def label_matrix(dataset: datasets.Dataset) -> np.ndarray:
    """Labels of a split, (N, C) float32: 1 present, 0 absent, NaN unknown."""
    column = dataset.select_columns(["labels"]).with_format("arrow")[:]["labels"]
    width = getattr(dataset.features["labels"], "length", -1)
    flat = pc.list_flatten(column)
    lengths = pc.list_value_length(column)
    if width < 0 and len(column):
        width = lengths[0].as_py()
    if not column.null_count and pc.all(pc.equal(lengths, width)).as_py() is not False:
        return flat.to_numpy().astype(np.float32).reshape(len(column), max(width, 0))  # a copy: Arrow's is read-only
    column = dataset.with_format("numpy", columns=["labels"])["labels"]
    return np.asarray(column[:], dtype=np.float32)
