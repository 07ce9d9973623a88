"""The card and the report of a run whose names hold anything: what a reader sees is the name."""

import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from tiny import PROTOCOL
from transformers import SwinConfig

from hf_cxr.config import ModelArguments
from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.models.build import describe_initial_weights
from hf_cxr.reporting.card import model_card as card
from hf_cxr.reporting.run import Report
from hf_cxr.systems.dnet import DNetConfig
from hf_cxr.words import markdown, one_line

NAMES = [
    "a|b",
    "*bold* **strong**",
    "_x_ __y__",
    "Pleural_Thickening",
    "`code` ``",
    "<b>x</b> <script>alert(1)</script> <!-- gone",
    "> quoted",
    "[link](https://example.org) ![image](x.png)",
    "# heading #",
    "a ##",
    "- item",
    "1. item",
    "~~struck~~ ~x~",
    "&lt; &amp; &copy; &#65;",
    "back\\slash \\* \\| \\",
    "$x$ $$y$$",
    "a: b",
    "'single' \"double\"",
    "---",
    "{{ report.name }} {% if x %}",
    "null",
    "🫁 ‍é 胸部",
    "x" * 500,
    "*",
    "|",
]
# A finding's name is one line; that of a run or a dataset may be anything.
ANY = [*NAMES, "two\nlines\r\n\n| three | four |\n|---|---|", "tab\tand\x00control\x1b[31m"]


class Words(HTMLParser):
    """The text that a page shows: of each cell, heading, item and paragraph."""

    def __init__(self):
        super().__init__()
        self.blocks, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in ("td", "th", "h1", "li", "p", "summary"):
            self.blocks.append("")

    def handle_data(self, data):
        if self.blocks:
            self.blocks[-1] += data


def shown(markdown: str) -> Words:
    words = Words()
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    words.feed(renderer.render(markdown))
    words.blocks = [block.strip("\n") for block in words.blocks]
    return words


@pytest.mark.parametrize(
    ("frame", "tag", "block"),
    [
        ("# {}\n", "h1", "{}"),
        ("- key: {}\n", "li", "key: {}"),
        ("Findings: {}, and more.\n", "p", "Findings: {}, and more."),
        ("- **See {}.**\n", "li", "See {}."),
        ("| a | b |\n| --- | --- |\n| {} | 1 |\n", "td", "{}"),
    ],
)
def test_an_escaped_name_is_shown_as_it_is(frame, tag, block):
    for name in ANY:
        words = shown(frame.format(markdown(name)))
        assert block.format(one_line(name)) in words.blocks, name
        assert words.tags <= {tag, "ul", "strong", "table", "thead", "tbody", "tr", "th", "td"}, name


def test_ordinary_names_stay_as_they_are():
    for name in ("Pleural_Thickening", "Support Devices", "Effusion (left)", "3.5 % of 1,000 – 2"):
        assert markdown(name) == name


@pytest.fixture(scope="module")
def report() -> Report:
    """A report of findings with all those names."""
    rng = np.random.default_rng(0)
    label_NC = (rng.random((40, len(NAMES))) < 0.5).astype(float)
    label_NC[:, 0] = 1  # "a|b" is undefined, so a caution names it
    result = evaluate_predictions(
        rng.random((40, len(NAMES))), label_NC, [str(i) for i in range(40)], label_names=NAMES, resamples=20
    )
    return Report(
        name="run",
        model_id="you/name",
        protocol=PROTOCOL | {"dataset": "set", "splits_from": "a table", "selection": "last epoch"},
        test=result,
        validation=result,
        calibration=None,
        training={
            "epochs": 1.0,
            "best_epoch": None,
            "images_per_second": None,
            "resumed_from": None,
            "peak_memory_gib": 1.0,
        },
        history=[],
        environment={"hf_cxr": "0.1.0", "device": "cpu"},
    )


CONFIG = SwinConfig(image_size=32)


def test_the_example_of_a_published_system_registers_it_first(report):
    text = card.render(report, DNetConfig(image_size=32))
    example = next(block for block in text.split("```") if block.startswith("python\n"))
    lines = [line.partition("  #")[0] for line in example.splitlines()[1:] if line]
    assert lines[:3] == ["import hf_cxr", "from transformers import pipeline", "hf_cxr.register()"]
    assert ModelCard(text).data.library_name == "hf_cxr"
    stock = card.render(report, CONFIG)
    assert "hf_cxr.register" not in stock
    assert ModelCard(stock).data.library_name == "transformers"


def test_every_finding_is_shown_literally_in_the_card(report):
    words = shown(ModelCard(card.render(report, CONFIG)).text)
    columns = [block for block in words.blocks if block in map(one_line, NAMES)]
    assert columns == [one_line(name) for name in NAMES]  # the table's first column, in order
    text = "\n".join(words.blocks)
    assert ", ".join(map(one_line, NAMES)) in text
    assert "left out of the macro mean: a|b." in text
    assert not {"script", "b", "s", "blockquote"} & words.tags


@pytest.mark.parametrize("name", ANY)
def test_a_run_or_dataset_of_any_name_gives_valid_metadata(report, name):
    protocol = report.protocol | {"dataset": name, "splits_from": name}
    text = card.render(dataclasses.replace(report, name=name, protocol=protocol), CONFIG)
    block = text.split("\n---\n")[0].removeprefix("---\n")
    (model,) = yaml.safe_load(block)["model-index"]
    assert model["name"] == one_line(name)
    assert {result["dataset"]["name"] for result in model["results"]} == {one_line(name)}
    parsed = ModelCard(text)
    assert parsed.data.model_name == one_line(name)
    words = shown(parsed.text)
    assert words.blocks[0] == one_line(name)
    assert f"data: {one_line(name)}" in words.blocks
    assert f"splits from: {one_line(name)}" in words.blocks


def test_the_report_page_shows_names_and_runs_nothing(report, tmp_path):
    page = dataclasses.replace(report, name="<script>alert(1)</script>").document().to_html(tmp_path)
    assert page.count("<script") == 1  # the page's own
    words = Words()
    words.feed(page)
    shown = {block.strip() for block in words.blocks}
    assert "<script>alert(1)</script>" in shown
    assert {*NAMES} <= shown


def test_the_card_says_what_its_example_loads(report, tmp_path):
    assert card.model_id(tmp_path / "README.md") == "."
    for name in ("you/name", "."):
        (tmp_path / "README.md").write_text(card.render(dataclasses.replace(report, model_id=name), CONFIG))
        assert card.model_id(tmp_path / "README.md") == name


def test_initial_weights_are_a_hub_id_or_a_local_name(report, tmp_path):
    folder = tmp_path / "ann" / "first"
    folder.mkdir(parents=True)
    local = describe_initial_weights(ModelArguments(model_name_or_path=str(folder)))
    assert local == {"initial_weights": "local folder first", "base_model": None}
    (folder / "config.json").write_text('{"hf_cxr": {"split": "abc"}}')
    assert "abc" in describe_initial_weights(ModelArguments(model_name_or_path=f"{folder}/"))["initial_weights"]
    (folder / "checkpoint-8").mkdir()
    checkpoint = describe_initial_weights(ModelArguments(model_name_or_path=str(folder / "checkpoint-8")))
    assert checkpoint["initial_weights"] == "local folder checkpoint-8 of first"
    hub = describe_initial_weights(ModelArguments(model_name_or_path="microsoft/swin-base"))
    assert hub == {"initial_weights": "microsoft/swin-base", "base_model": "microsoft/swin-base"}
    assert describe_initial_weights(ModelArguments())["base_model"] is None

    def made(weights):
        return ModelCard(card.render(dataclasses.replace(report, protocol=report.protocol | weights), CONFIG))

    assert made(hub).data.base_model == "microsoft/swin-base"
    assert "`microsoft/swin-base`" in made(hub).text
    assert made(local).data.base_model is None
    assert "fine-tuned from local folder first" in made(local).text
    assert str(tmp_path) not in str(made(local))
    assert "from random weights" in made({}).text


def test_the_origin_of_converted_weights_is_said_of_a_folder_and_of_a_hub_id(tmp_path, monkeypatch):
    origin = {"kind": "converted", "source": "the lab", "licence": "MIT", "saw_test_images": "yes", "note": None}
    (tmp_path / "config.json").write_text(json.dumps({"hf_cxr": {"weights_origin": origin}}))
    local = describe_initial_weights(ModelArguments(model_name_or_path=str(tmp_path)))
    assert local["weights_origin"] == origin
    assert local["initial_weights"] == f"local folder {tmp_path.name}, from the lab"
    cached = tmp_path / "models--you--weights"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c" * 40)
    snapshot = cached / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text((tmp_path / "config.json").read_text())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub = describe_initial_weights(ModelArguments(model_name_or_path="you/weights"))
    assert hub == {"initial_weights": "you/weights", "base_model": "you/weights", "weights_origin": origin}
