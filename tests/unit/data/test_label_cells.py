"""A cell says the same in a table of a dataset and in a table of predictions."""

import numpy as np
import pandas as pd
import pytest

from hf_cxr.data.label_cells import NOTHING, PLACEHOLDERS, UNCERTAIN, label_of
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.labels import labels_of
from hf_cxr.prediction_tables import read_labels

CELLS = ["1", "0.0", "TRUE", "False", "-1", *sorted(PLACEHOLDERS)]


def test_both_readers_of_labels_agree(tmp_path):
    description = TableDescription(
        findings=["Mass"],
        files={"all": ["x.csv"]},
        validation_fraction=0.1,
        test_fraction=0.1,
        image_column="image",
        image_is_patient=True,
    )
    of_source_NC = labels_of(pd.DataFrame({"Mass": CELLS}), description)
    frame = pd.DataFrame({"image": [f"{row}.png" for row in range(len(CELLS))], "patient_id": "p", "Mass": CELLS})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv").labels, of_source_NC)
    assert of_source_NC[:5, 0].tolist()[:4] == [1, 0, 1, 0]
    assert np.isnan(of_source_NC[4:]).all()


def test_a_column_of_placeholders_alone_is_not_a_finding(tmp_path):
    rows = "image,patient_id,Mass,note\na.png,p,1,-\nb.png,q,--,n/a\n"
    (tmp_path / "labels.csv").write_text(rows)
    table = read_labels(tmp_path / "labels.csv")
    assert tuple(table.label_names) == ("Mass",)
    assert table.extra == {"note": (None, None)}


@pytest.mark.parametrize(
    ("cell", "label"),
    [(1, 1.0), (np.float32(0), 0.0), (True, 1.0), (-1.0, UNCERTAIN), (pd.NA, NOTHING), (pd.NaT, NOTHING), (2, None)],
)
def test_cells_that_are_not_text(cell, label):
    assert label_of(cell) == label
