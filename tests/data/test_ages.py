"""Ages in years: one rule for tables and the NIH release."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from test_nih import rows_by_image, write_release

from hf_cxr.data import load_nih, load_table
from hf_cxr.data.ages import years

NAN = np.nan
WRITTEN = {
    "58": 58,
    "58.0": 58,
    "058Y": 58,
    "58y": 58,
    "058 Y": 58,
    "006M": 0.5,
    "018m": 1.5,
    "003W": 21 / 365.25,
    "010D": 10 / 365.25,
    "000D": 0,
    "0.5": 0.5,
    "120": 120,
    "": NAN,
    "121": NAN,
    "411": NAN,
    "-1": NAN,
    "-5Y": NAN,
    "90+": 90,
    "090Y+": 90,
    ">89": 90,
    "> 89": 90,
    ">=90": 90,
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_written_in_years(text):
    np.testing.assert_allclose(years(pd.Series([text]), "t"), [WRITTEN[text]], rtol=1e-6)


def test_the_order_and_the_repeats_of_rows_are_kept():
    age_N = years(pd.Series(["12M", "", "3", "12M"], index=[7, 3, 5, 1]), "t")
    assert age_N.dtype == np.float32
    np.testing.assert_array_equal(age_N, [1, NAN, 3, 1])


@pytest.mark.parametrize("text", ["NA", "unknown", "adult", "58X", "5 8", "58,5", "1Y6M", "inf", "--5", "0x20", "५"])
def test_what_is_not_an_age_is_refused_with_its_count(text):
    cells = pd.Series(["58", text, text, ""])
    with pytest.raises(ValueError, match=r"t\.csv: Age is not an age \(2 rows, such as .*leave the cell empty") as why:
        years(cells, "t.csv: Age")
    assert repr(text) in str(why.value)


def test_what_is_implausible_or_open_is_counted_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        years(pd.Series(["411", "-1", "58", "90+", "90+"]), "t")
    assert "2 ages below 0 or above 120" in caplog.text
    assert "2 ages without an upper limit, such as 90+" in caplog.text


def test_both_readers_read_the_same(tmp_path):
    """The same cells in a table of one's own and in the release's, in text and in numbers."""
    cells = ["058Y", "006M", "003w", "010 D", "58.0", ""]
    table = write_release(tmp_path, edition="v2020") / "Data_Entry_2017_v2020.csv"
    lines = table.read_text().splitlines()
    for number, cell in enumerate(cells, start=1):
        parts = lines[number].split(",")
        lines[number] = ",".join([*parts[:4], cell, *parts[5:]])
    table.write_text("\n".join(lines) + "\n")
    by_image = rows_by_image(load_nih(tmp_path, images=False))
    of_nih = [by_image[line.split(",")[0]]["age"] for line in lines[1 : len(cells) + 1]]
    rows = [
        {"f": f"{n}.png", "p": n, "s": ("train", "validation", "test")[n % 3], "a": a, "Mass": 1}
        for n, a in enumerate(cells)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    keys = {"files": "rows.json", "image_column": "f", "patient_column": "p", "split_column": "s", "age_column": "a"}
    (tmp_path / "t.yaml").write_text(json.dumps({**keys, "findings": ["Mass"]}))
    splits, _ = load_table(tmp_path / "t.yaml", images=False)
    of_table = {row["image_id"]: row["age"] for split in splits.values() for row in split}
    expected = [58, 0.5, 21 / 365.25, 10 / 365.25, 58, NAN]
    np.testing.assert_allclose(of_nih, expected, rtol=1e-6)
    np.testing.assert_allclose([of_table[f"{n}.png"] for n in range(len(cells))], expected, rtol=1e-6)


def test_years_of_birth_that_are_none_are_refused(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "f,p,s,b,d,Mass\n1.png,1,train,1951.0,20140915,1\n2.png,2,validation,born,2014,0\n3.png,3,test,,,0\n"
    )
    keys = {"files": "rows.csv", "image_column": "f", "patient_column": "p", "split_column": "s", "findings": ["Mass"]}
    keys |= {"birth_column": "b", "study_date_column": "d"}
    (tmp_path / "t.yaml").write_text(json.dumps(keys))
    with pytest.raises(ValueError, match=r"'b' does not begin with a year \(1 row, such as 'born'\)"):
        load_table(tmp_path / "t.yaml", images=False)
    (tmp_path / "rows.csv").write_text((tmp_path / "rows.csv").read_text().replace("born", "2015"))
    splits, _ = load_table(tmp_path / "t.yaml", images=False)
    np.testing.assert_array_equal([split["age"][0] for split in splits.values()], [63, NAN, NAN])
