"""What a data set holds: an independent count, the laws of the figures, and refusals."""

import json

import datasets
import numpy as np
import pandas as pd
import pytest

from hf_cxr.commands import main
from hf_cxr.data.schema import features
from hf_cxr.data.statistics import co_occurrence, describe_draws, describe_splits

NAN = float("nan")
NAMES = ("Effusion", "Mass", "Hernia")
TRAIN = [  # labels, patient, view, age, sex
    ([1, 0, 0], "a", "PA", 58, "M"),
    ([1, 1, NAN], "a", "PA", 59, "M"),
    ([0, 0, 0], "b", "AP", 0.5, "F"),
    ([0, NAN, NAN], "b", None, NAN, "F"),
    ([NAN, NAN, NAN], "c", "PA", 93, None),
    ([NAN, 1, 0], "d", "AP", 60, " "),
    ([1, 1, 1], "a", "PA", 119.5, "M"),
]
TEST = [
    ([1, 1, 0], "x", "PA", 30, "F"),
    ([0, 1, 0], "y", "PA", NAN, "F"),
    ([0, 0, 0], "y", "AP", 31, "F"),
]


def split_of(rows) -> datasets.Dataset:
    table = [
        {
            "labels": labels,
            "image_id": f"i{row}",
            "patient_id": patient,
            "view": view,
            "age": age,
            "sex": sex,
            "boxes": [],
        }
        for row, (labels, patient, view, age, sex) in enumerate(rows)
    ]
    schema = features(NAMES, images=False)
    return datasets.Dataset.from_dict({name: [row[name] for row in table] for name in schema}, features=schema)


def labels_only(label_NC, patients=None) -> datasets.Dataset:
    patients = patients if patients is not None else [f"p{row}" for row in range(len(label_NC))]
    return datasets.Dataset.from_dict({"labels": np.asarray(label_NC).tolist(), "patient_id": patients})


def random_labels(seed, n_images=400, unknown=0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((n_images, 5)) < [0.5, 0.3, 0.2, 0.1, 0.02]).astype(np.float32)
    label_NC[rng.random(label_NC.shape) < unknown] = np.nan
    label_NC[: n_images // 20] = np.nan
    return label_NC


def test_a_hand_made_table():
    described = describe_splits({"train": split_of(TRAIN), "test": split_of(TEST)}, NAMES)
    train = described.splits["train"]
    assert (train.images, train.patients) == (7, 4)
    assert train.positives_C.tolist() == [3, 3, 1]
    assert train.negatives_C.tolist() == [2, 2, 3]
    assert train.unknown_C.tolist() == [2, 2, 3]
    assert train.prevalence_C.tolist() == [3 / 5, 3 / 5, 1 / 4]
    assert described.shift["test"] == pytest.approx([(1 / 3) / (3 / 5), (2 / 3) / (3 / 5), 0])
    assert list(described.shift) == ["test"]
    assert train.imbalance_ratio == 3
    assert described.tiers == dict.fromkeys(NAMES, "tail")
    assert (train.without_findings, train.unlabelled) == (2, 1)  # the row of NaN is not one without findings
    assert train.share_without_findings == 2 / 6
    assert train.findings_per_image.histogram == {0: 2, 1: 2, 2: 1, 3: 1}
    assert train.images_per_patient.to_dict() == {
        "mean": 7 / 4,
        "median": 1.5,
        "max": 3,
        "histogram": {"1": 2, "2": 1, "3": 1},
    }
    assert train.view == {"PA": 4, "AP": 2, "unknown": 1}
    assert train.sex == {"M": 3, "F": 2, "unknown": 2}
    assert {decade: count for decade, count in train.age.items() if count} == {
        "0-9": 1,
        "50-59": 2,
        "60-69": 1,
        "90+": 2,
        "unknown": 1,
    }
    assert train.age_summary == {"mean": 65, "median": 59.5, "min": 0.5, "max": 119.5}
    assert train.co_occurrence.both_CC.tolist() == [[3, 2, 1], [2, 3, 1], [1, 1, 1]]
    assert train.co_occurrence.known_CC.tolist() == [[5, 4, 3], [4, 5, 4], [3, 4, 4]]
    # Effusion and Hernia are both known on three images, on two of them with effusion: P(Hernia | Effusion) = 1/2.
    assert train.co_occurrence.conditional_CC[0].tolist() == [1, 2 / 3, 1 / 2]
    assert train.co_occurrence.lift_CC[0, 2] == pytest.approx((1 / 3) / (2 / 3 * 1 / 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_agreement_with_loops_over_cells(seed):
    label_NC = random_labels(seed)
    names = tuple("ABCDE")
    split = describe_splits({"train": labels_only(label_NC)}, names).splits["train"]
    frame = pd.DataFrame(label_NC, columns=list(names))
    for column, name in enumerate(names):
        counts = frame[name].value_counts(dropna=False)
        assert split.positives_C[column] == counts[1.0]
        assert split.negatives_C[column] == counts[0.0]
        assert split.unknown_C[column] == frame[name].isna().sum() > 0
        assert split.prevalence_C[column] == pytest.approx(frame[name].mean(), rel=1e-6)
        for other_column, other in enumerate(names):
            known = [(x, y) for x, y in zip(frame[name], frame[other], strict=True) if x == x and y == y]
            both = sum(x == y == 1 for x, y in known)
            rows, columns = sum(x == 1 for x, _ in known), sum(y == 1 for _, y in known)
            assert split.co_occurrence.known_CC[column, other_column] == len(known)
            assert split.co_occurrence.both_CC[column, other_column] == both
            assert split.co_occurrence.conditional_CC[column, other_column] == pytest.approx(both / rows)
            lift = both / len(known) / (rows / len(known) * columns / len(known))
            assert split.co_occurrence.lift_CC[column, other_column] == pytest.approx(lift)


def test_laws():
    label_NC = random_labels(3)
    split = describe_splits({"all": labels_only(label_NC)}, tuple("ABCDE")).splits["all"]
    assert sum(split.findings_per_image.histogram.values()) == split.images - split.unlabelled
    assert split.unlabelled == len(label_NC) // 20 > 0
    assert sum(number * count for number, count in split.findings_per_image.histogram.items()) == (label_NC == 1).sum()
    assert np.array_equal(split.positives_C + split.negatives_C + split.unknown_C, np.full(5, split.images))
    lift_CC = split.co_occurrence.lift_CC
    assert np.array_equal(lift_CC, lift_CC.T)
    assert np.diag(lift_CC) == pytest.approx(1 / split.prevalence_C)
    assert not np.array_equal(split.co_occurrence.conditional_CC, split.co_occurrence.conditional_CC.T)
    assert np.array_equal(np.diag(split.co_occurrence.conditional_CC), np.ones(5))
    assert np.array_equal(np.diag(split.co_occurrence.both_CC), split.positives_C)
    whole = describe_splits({"all": labels_only(np.nan_to_num(label_NC))}, tuple("ABCDE")).splits["all"]
    assert sum(whole.findings_per_image.histogram.values()) == whole.images


def test_lift_is_1_for_independent_findings_and_not_for_others():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((200_000, 3)) < [0.3, 0.2, 0.4]).astype(np.float32)
    label_NC[:, 2] = label_NC[:, 0]
    label_NC[rng.random(label_NC.shape) < 0.3] = np.nan
    lift_CC = co_occurrence(label_NC).lift_CC
    assert lift_CC[0, 1] == pytest.approx(1, abs=0.02)
    assert lift_CC[0, 2] == pytest.approx(1 / 0.3, rel=0.02)


def test_order_of_rows_and_of_findings_does_not_matter():
    rng = np.random.default_rng(1)
    rows = [TRAIN[row] for row in rng.integers(0, len(TRAIN), 60)]
    straight = describe_splits({"train": split_of(rows)}, NAMES).to_dict()
    mixed = split_of([rows[row] for row in rng.permutation(60)])
    assert describe_splits({"train": mixed}, NAMES).to_dict() == straight
    assert describe_splits({"train": split_of(rows[1:])}, NAMES).to_dict() != straight
    turned = [(labels[::-1], *rest) for labels, *rest in rows]
    other = describe_splits({"train": split_of(turned)}, NAMES[::-1]).to_dict()["splits"]["train"]
    assert other["findings"] == straight["splits"]["train"]["findings"]
    assert (
        np.array(other["co_occurrence"]["both"])[::-1, ::-1].tolist()
        == (straight["splits"]["train"]["co_occurrence"]["both"])
    )


def test_selected_rows_are_what_is_counted():
    whole = split_of(TRAIN)
    part = describe_splits({"train": whole.select([2, 6])}, NAMES)
    assert part.to_dict() == describe_splits({"train": split_of([TRAIN[2], TRAIN[6]])}, NAMES).to_dict()


def test_undefined_values_are_named():
    label_NC = [[0, NAN], [1, NAN]]
    described = describe_splits({"train": labels_only(label_NC), "test": labels_only([[1, 1]])}, ("A", "B"))
    train = described.splits["train"]
    assert np.isinf(train.imbalance_ratio)
    assert np.isnan([train.prevalence_C[1], described.shift["test"][1], train.co_occurrence.lift_CC[0, 1]]).all()
    assert train.view == train.sex == {"unknown": 2}
    assert train.age["unknown"] == 2
    assert np.isnan(train.age_summary["mean"])
    written = described.to_dict()["splits"]
    assert written["train"]["imbalance_ratio"] is written["train"]["findings"]["B"]["prevalence"] is None
    assert written["test"]["findings"]["A"]["prevalence_ratio_to_train"] == 2
    nothing = describe_splits({"only": labels_only([[NAN, NAN]])}, ("A", "B"))
    assert np.isnan(nothing.splits["only"].share_without_findings)
    assert (nothing.shift, nothing.tiers) == ({}, {})


def test_json_round_trip_without_ids():
    written = describe_splits({"train": split_of(TRAIN), "test": split_of(TEST)}, NAMES).to_dict()
    text = json.dumps(written, allow_nan=False)
    assert json.loads(text) == written
    assert '"i0"' not in text
    assert '"x"' not in text


BAD = {  # what is wrong: split, message
    "other values": (
        labels_only([[0, 1, 0], [1, -1, 0.5]]),
        r"'bad' has 2 labels other than.*such as -1 for Mass in row 1",
    ),
    "other width": (labels_only([[0, 1], [1, 0]]), "rows of 2 labels; expected 3, one for each of Effusion, Mass"),
    "ragged": (labels_only(np.array([[0.0, 1, 0], [1.0]], dtype=object)), "rows of 1, 3 labels; expected 3"),
    "no patient": (labels_only([[0, 1, 0]] * 3, ["a", None, " "]), "2 of 3 rows of split 'bad' .*such as row 1"),
    "no label column": (labels_only([[0, 1, 0]]).remove_columns("labels"), "no column labels; it has patient_id"),
    "empty": (split_of(TRAIN).select([]), "'bad' has no image"),
    "negative age": (split_of([*TEST, ([0, 0, 0], "z", "PA", -3, "F")]), r"1 age below 0 years, such as -3"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused(fault):
    split, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        describe_splits({"train": split_of(TRAIN), "bad": split}, NAMES)


def test_no_split_and_repeated_names_are_refused():
    with pytest.raises(ValueError, match="no split to describe"):
        describe_splits({}, NAMES)
    with pytest.raises(ValueError, match="must be unique; repeated: Mass"):
        describe_splits({"train": split_of(TRAIN)}, ("Mass", "Mass", "Hernia"))


def test_draws_are_counted_cell_by_cell():
    split = labels_only([[1, NAN], [0, 1], [0, 0], [NAN, NAN]])
    drawn = describe_draws(split, ("A", "B"), np.array([3.0, 1.0, 0.5, 0.0]))
    written = drawn.to_dict()
    assert written["findings"]["A"] == {
        "positives": 1,
        "negatives": 2,
        "prevalence": pytest.approx(1 / 3),
        "drawn_positives": 3.0,
        "drawn_negatives": 1.5,
        "drawn_prevalence": pytest.approx(3 / 4.5),
    }
    assert written["findings"]["B"]["drawn_prevalence"] == pytest.approx(1 / 1.5)
    assert (written["images"], written["draws"], written["distinct_images"]) == (4, 4.5, 2.5)
    assert written["without_findings"] == {"images": 2, "draws": 0.5}
    once = describe_draws(split, ("A", "B"), np.ones(4)).to_dict()
    assert once["findings"]["A"]["drawn_prevalence"] == once["findings"]["A"]["prevalence"]


def test_the_command_needs_no_image_and_shows_what_a_sampler_draws(tmp_path, capsys):
    cells = np.random.default_rng(0).integers(0, 2, (60, 3))
    parts = np.repeat(["train", "validation", "test"], [50, 4, 6])
    rows = [f"{n}.png,{n // 2},{parts[n]},{','.join(map(str, cells[n]))}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["file,patient,part," + ",".join(NAMES), *rows]))
    description = {
        "name": "rows",
        "files": {"all": "rows.csv"},
        "split_column": "part",
        "image_column": "file",
        "patient_column": "patient",
        "findings": list(NAMES),
    }
    (tmp_path / "table.yaml").write_text(json.dumps(description))
    flags = ["--dataset", "table", "--table", str(tmp_path / "table.yaml"), "--out", str(tmp_path / "out")]
    sampler = ["--sampler", "class_aware", "--sampler_kwargs.class_aware_no_finding", "false"]
    assert main(["describe", *flags, *sampler]) == 0
    printed = capsys.readouterr().out
    assert "Hernia" in printed
    assert "as the sampler class_aware draws them" in printed
    written = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "statistics.json",
        "description.html",
        "finding_counts.png",
        "findings_per_image.png",
        *(f"co_occurrence_{split}.png" for split in written["splits"]),
    }
    images = written["splits"]["train"]["images"]
    drawn = written["sampler"]
    assert drawn["without_findings"]["draws"] == 0 < drawn["without_findings"]["images"] < images
    assert drawn["draws"] == pytest.approx(images, abs=0.01)


def test_the_command_describes_phantoms_and_refuses_in_one_line(tmp_path, capsys):
    flags = ["--phantom_train", "6", "--phantom_validation", "3", "--phantom_test", "3", "--phantom_size", "32"]
    assert main(["describe", *flags]) == 0
    shown = capsys.readouterr().out
    assert "Pleural_Thickening" in shown
    assert "as the sampler" not in shown
    assert main(["describe", "--dataset", "nih", "--nih_root", str(tmp_path / "absent")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-cxr describe: ")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["describe", "--ouput", "x"])
    assert "unknown key ouput" in capsys.readouterr().err
