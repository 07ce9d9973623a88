"""No cell of a CSV file is shifted to another column or lost."""

import pytest

from hf_cxr.data.csv_files import first_repeated, read_csv, read_header
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.files import read_rows
from hf_cxr.prediction_tables import read_labels

HOW = {"delimiter": ",", "encoding": "utf-8-sig"}


def test_a_delimiter_at_the_end_of_each_row_shifts_nothing(tmp_path):
    path = tmp_path / "a.csv"
    for end in (",", ",,"):
        path.write_text(f"a, b\n01,2{end}\n3,{end}\n")
        assert read_header(path, **HOW) == ["a", "b"]
        frame = read_csv(path, **HOW)
        assert [*frame.columns] == ["a", " b"]
        assert frame.to_numpy().tolist() == [["01", "2"], ["3", ""]]


def test_rows_that_are_longer_than_the_header_are_refused_by_every_reader(tmp_path):
    """Pandas cuts them off, with a warning alone: here the label of each image would be lost."""
    path = tmp_path / "a.csv"
    path.write_text("image,patient_id,Mass\na.png,p,,1\nb.png,q,,0\n")
    description = TableDescription(
        findings=["Mass"],
        files={"all": ["a.csv"]},
        validation_fraction=0.1,
        test_fraction=0.1,
        image_column="image",
        patient_column="patient_id",
    )
    for read in (lambda: read_csv(path, **HOW), lambda: read_labels(path), lambda: read_rows(description, tmp_path)):
        with pytest.raises(ValueError, match="more cells than its header"):
            read()


def test_spaces_after_a_delimiter_are_skipped_if_that_is_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1, "2, 3"\n')
    assert read_csv(path, **HOW, skip_spaces=True).iloc[0].tolist() == ["1", "2, 3"]


def test_a_repeated_name_is_found_whatever_its_spaces():
    assert first_repeated(["b", "a ", "c", " a", "b"]) == "a"
    assert first_repeated(["a", "b", "", ""]) is None
