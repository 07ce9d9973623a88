"""What `hf-cxr describe` shows: the counts themselves, in every form, and what is undefined by name."""

import json

import datasets
import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_cxr.data.statistics import describe_draws, describe_splits
from hf_cxr.reporting import description_plots as plots
from hf_cxr.reporting.description import NOT_CHECKED, description_document, draw
from hf_cxr.reporting.document import TERMINAL_COLUMNS, Heading, Note, Table
from hf_cxr.reporting.plots import save

NAN = float("nan")
NAMES = ("Effusion", "Mass", "Hernia")
TRAIN = [[1, 0, 0], [1, 1, NAN], [0, 0, 0], [0, NAN, NAN], [NAN, NAN, NAN], [NAN, 1, 0], [1, 1, 1]]
TEST = [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def split(label_NC) -> datasets.Dataset:
    """Rows with these labels, each image of a patient of its own."""
    patients = [f"p{row}" for row in range(len(label_NC))]
    return datasets.Dataset.from_dict({"labels": np.asarray(label_NC).tolist(), "patient_id": patients})


@pytest.fixture(scope="module")
def described():
    return describe_splits({"train": split(TRAIN), "test": split(TEST)}, NAMES)


def tables(document) -> dict[str, Table]:
    """Each table by the heading that it stands under."""
    found, heading = {}, ""
    for block in document.blocks:
        heading = block.text if isinstance(block, Heading) else heading
        if isinstance(block, Table):
            found[heading] = block
    return found


def column(table, name) -> list[str]:
    return table.frame[name].tolist()


def test_the_tables_have_the_counts(described):
    document = description_document(described)
    shown = tables(document)
    assert column(shown["Findings"], "finding") == list(NAMES)
    assert column(shown["Findings"], "train\npositives") == ["3", "3", "1"]
    assert column(shown["Findings"], "train\n%") == ["60.00", "60.00", "25.00"]
    assert column(shown["Findings"], "test\n/train") == ["0.56", "1.11", "0.00"]
    assert column(shown["Negative and unknown cells"], "train\nunknown") == ["2", "2", "3"]
    images = dict(zip(column(shown["Images"], ""), column(shown["Images"], "train"), strict=True))
    assert images["images"] == "7"
    assert images["without findings"] == "2 (33.3 %)"
    assert images["without any known cell"] == "1"
    (pair, *_) = shown["Findings that occur together most often, in train"].rows
    assert pair[:2] == ["Effusion (A), Mass (B)", "2"]
    assert json.loads(document.to_json()) == described.to_dict()


def test_what_is_absent_or_undefined_is_named():
    labels = {"train": split([[0, NAN], [1, NAN]]), "test": split([[1, 1]])}
    document = description_document(describe_splits(labels, ("A", "B")))
    (note,) = [block for block in document.blocks if isinstance(block, Note)]
    assert note.sentences == ("train: no positive image of B",)
    shown = tables(document)
    assert column(shown["Findings"], "train\n%") == ["50.00", "–"]
    assert "infinite" in column(shown["Images"], "train")
    nothing = description_document(describe_splits({"only": split([[NAN, NAN]])}, ("A", "B")))
    assert "–" in nothing.to_terminal()
    assert "tier" not in tables(nothing)["Findings"].frame


@pytest.mark.parametrize("n_findings", [3, 45])
@pytest.mark.parametrize("n_splits", [1, 3, 8])
def test_the_text_fits_the_terminal(n_findings, n_splits):
    rng = np.random.default_rng(0)
    names = [f"Finding_with_a_long_name_{number}" for number in range(n_findings)]
    splits = {f"split_{s}" if s else "train": split(rng.integers(0, 2, (9, n_findings))) for s in range(n_splits)}
    text = description_document(describe_splits(splits, names)).to_terminal()
    assert max(map(len, text.splitlines())) <= TERMINAL_COLUMNS
    assert all(text.count(name) >= 2 for name in names)
    assert all(name in text for name in splits)


def test_what_a_sampler_draws_stands_beside_what_there_is(described):
    train = split([[1, NAN], [0, 1], [0, 0], [NAN, NAN]])
    draws = describe_draws(train, ("A", "B"), np.array([3.0, 1.0, 0.5, 0.0]))
    document = description_document(describe_splits({"train": train}, ("A", "B")), draws, "some")
    table = tables(document)["Training images as the sampler some draws them"]
    assert [column(table, name)[0] for name in ("positives", "drawn\npositives", "%", "drawn\n%", "ratio")] == [
        "1", "3", "33.33", "66.67", "2.00"
    ]  # fmt: skip
    assert "2 distinct ones (62.5 %), one at most 3 times" in document.to_terminal()
    assert json.loads(document.to_json())["sampler"] == draws.to_dict()
    assert "sampler" not in json.loads(description_document(described).to_json())


def test_rows_that_may_lack_their_image_are_said_to_be_rows(described):
    assert NOT_CHECKED not in description_document(described).to_markdown()
    assert NOT_CHECKED in description_document(described, from_tables=True).to_markdown()


def test_the_page_embeds_its_figures(described, tmp_path):
    figures = draw(described)
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png", dpi=30)
    page = description_document(described).to_html(tmp_path)
    assert page.count("data:image/png;base64,") == len(figures) == 4
    assert "Not found" not in page


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_figures_show_the_counts(described):
    train, test = described.splits.values()
    counts = {"train": (train.positives_C, train.negatives_C), "test": (test.positives_C, test.negatives_C)}
    assert texts(plots.finding_counts(counts, NAMES)) == ["3", "3", "1", "1", "2", "0"]
    share = texts(plots.findings_per_image({"train": train.findings_per_image.histogram}))
    assert share == ["33.3 %\n2", "33.3 %\n2", "16.7 %\n1", "16.7 %\n1"]
    figure = plots.co_occurrence(train.co_occurrence.both_CC, train.co_occurrence.conditional_CC, NAMES, "title")
    assert texts(figure)[:3] == ["3", "67 %\n2", "50 %\n1"]
    nothing = plots.co_occurrence(np.zeros((2, 2), int), np.full((2, 2), NAN), ("A", "B"), "title")
    assert texts(nothing) == ["0", "–", "–", "0"]
    assert texts(plots.co_occurrence(np.eye(2, dtype=int), np.eye(2), ("A", "B"), "title")) == ["1", "0", "0", "1"]
    unknown = plots.finding_counts({"train": (np.zeros(2, int), np.zeros(2, int))}, ("A", "B"))
    assert texts(unknown) == ["0", "0"]
    assert unknown.axes[0].get_xlim() == (0.5, 3)


def test_what_is_unknown_everywhere_is_one_line_and_tiers_are_explained():
    plain = split([[1, 0], [0, 1]])
    known = plain.add_column("sex", ["F", "M"])
    for rows, named in ((plain, {"view", "sex", "age"}), (known, {"view", "age"})):
        document = description_document(describe_splits({"train": rows}, ("A", "B")))
        shown = {cell.split(" ")[0] for cell in column(tables(document)["Images"], "")}
        (line,) = [block.text for block in document.blocks if getattr(block, "text", "").startswith("Not known")]
        assert (
            {"view", "sex", "age"} - shown == named == set(line[line.index(":") + 1 : -1].replace(" ", "").split(","))
        )
    caption = tables(document)["Findings"].caption
    assert "5,000" in caption
    assert "1,000" in caption
