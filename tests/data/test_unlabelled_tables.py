"""Tables without findings: images to pre-train on. Everything but their loading for that is refused."""

import numpy as np
import pytest
from table_files import own

from hf_cxr.arguments.data import DataArguments
from hf_cxr.data import label_matrix, load_source, split_fingerprint
from hf_cxr.data.sources.table.description import TableDescription, load_description

ROWS = "file,patient,part\na.png,1,train\nb.png,1,train\nc.png,2,train\nd.png,3,train\n"
PLAIN = {"findings": [], "split_column": None, "blank": None}


def test_every_label_is_unknown_and_no_split_is_needed(tmp_path):
    splits, names = own(tmp_path, ROWS, **PLAIN)
    assert len(splits["train"]) == 4
    assert len(splits["validation"]) == len(splits["test"]) == 0
    assert len(names) == 1
    assert np.isnan(label_matrix(splits["train"])).all()
    assert not load_description(tmp_path / "table.yaml").labelled


def test_splits_that_are_named_or_cut_stay_splits(tmp_path):
    parts = ROWS.replace("d.png,3,train", "d.png,3,test")
    splits, _ = own(tmp_path, parts, **PLAIN | {"split_column": "part"})
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [3, 0, 1]
    splits, _ = own(tmp_path, ROWS, **PLAIN | {"test_fraction": 0.3, "validation_fraction": 0.3})
    assert sum(map(len, splits.values())) == 4
    assert all(len(split) for split in splits.values())


def test_only_pretraining_loads_it(tmp_path):
    own(tmp_path, ROWS, **PLAIN)
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"))
    with pytest.raises(ValueError, match="has no findings: such images can only be used for pre-training"):
        load_source(args, images=False)
    source = load_source(args, images=False, unlabelled=True)
    assert not source.labelled
    assert source.held_out == ""


def test_a_labelled_table_still_needs_its_splits(tmp_path):
    with pytest.raises(ValueError, match="no key says which images are"):
        own(tmp_path, split_column=None)
    with pytest.raises(ValueError, match="no names, so label_format and no_finding say nothing"):
        TableDescription(findings=[], files="rows.csv", no_finding="None", image_column="f", patient_column="p")


def test_the_fingerprint_of_what_is_held_out_leaves_the_training_set_aside(tmp_path):
    own(tmp_path)
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"))
    whole = load_source(args, images=False)
    limited = load_source(DataArguments(**vars(args) | {"train_limit": 1}), images=False)
    assert whole.fingerprint != limited.fingerprint
    assert whole.held_out == limited.held_out
    rows = {name: split for name, split in whole.splits.items() if name != "train"}
    assert whole.held_out == split_fingerprint(rows)
    assert whole.held_out not in ("", whole.fingerprint)
