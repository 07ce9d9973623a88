"""The card of runs of every kind: a part is there where it was measured, and every link is a file that is pushed."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from markdown_it import MarkdownIt
from tiny import PROTOCOL
from transformers import SwinConfig

from hf_cxr.data.sources.nih import LICENCE_NOTE
from hf_cxr.data.sources.table.description import load_description, ready_names
from hf_cxr.evaluation import METRICS, evaluate_predictions
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import choose_operating_points
from hf_cxr.hub.file_list import PUSHED
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.card import citations
from hf_cxr.reporting.card import model_card as card
from hf_cxr.reporting.card.parts import MOST_GAPS, CardParts
from hf_cxr.reporting.document import Heading, Text
from hf_cxr.reporting.protocol import measurement_words
from hf_cxr.reporting.run import Report
from hf_cxr.reporting.sections.section import Section
from hf_cxr.reporting.sections.table import SECTIONS
from hf_cxr.run.analysis import analyse
from hf_cxr.systems.dnet import DNetConfig
from hf_cxr.words import markdown

CONFIG = SwinConfig(image_size=32)
NAMES = ("Effusion", "Mass", "Hernia")
THRESHOLDS = "per finding, chosen on validation for the highest F1"
CALIBRATION = "per finding, affine in the logit, fitted on validation"
KNOWN_LINKS = {"https://doi.org/10.1148/ryai.240300"}


def predictions(names, seed, n=120):
    """Scores that rank; of 120 images of 60 patients, half of them AP, where the model is worse."""
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((n, len(names))) < 0.4).astype(np.float32)
    ap_N = np.arange(n) % 2 == 0
    logit_NC = (label_NC - 0.5) * np.where(ap_N, 0.2, 3.0)[:, None] + rng.normal(size=(n, len(names)))
    return Predictions(
        logits=logit_NC.astype(np.float32),
        labels=label_NC,
        image_ids=tuple(f"secret-{i}" for i in range(n)),
        patient_ids=tuple(f"person-{i // 2}" for i in range(n)),
        label_names=names,
        view=tuple("AP" if one else "PA" for one in ap_N),
        age=rng.uniform(20, 80, n).astype(np.float32),
        sex=tuple(rng.choice(["M", "F"], n)),
        split="test",
    )


@functools.cache
def analysed(names):
    """Figures and analyses of a test set, by the functions that a run uses."""
    test, validation = predictions(names, 0), predictions(names, 1)
    points = choose_operating_points(validation.probabilities, validation.labels, label_names=names, rule="f1")
    figures = evaluate_predictions(test.probabilities, test.labels, test.patient_ids, label_names=names, resamples=20)
    without = ("calibration_maps", "prevalence_shift", "decision_curves")
    values = analyse(test, validation=validation, points=points, without=without, intervals=Intervals(resamples=20))
    return figures, values


def report(names=NAMES, *, keys=(), model_id=".", **protocol):
    """A run with these analyses."""
    figures, values = analysed(names)
    return Report(
        name="run",
        model_id=model_id,
        protocol=PROTOCOL | {"training_views": {"AP": 40, "PA": 60}} | protocol,
        test=figures,
        validation=figures,
        calibration=None,
        training={"epochs": 1.0, "best_epoch": None, "images_per_second": None, "resumed_from": None,
                  "peak_memory_gib": None, "parameters": 28_000_000},
        history=[],
        environment={"hf_cxr": "0.1.0", "torch": "2.13", "device": "cpu"},
        analysis={key: values[key] for key in keys} | {"not_done": {}},
    )  # fmt: skip


FULL = ("curves", "reliability", "operating_points", "subgroups", "controls", "conformal")
VARIANTS = {
    "full": lambda: report(keys=FULL, calibration=CALIBRATION, operating_points=THRESHOLDS),
    "bare": lambda: report(),
    "one finding": lambda: report(("Hernia",), keys=FULL[:4], operating_points=THRESHOLDS),
    "synthetic": lambda: report(synthetic=True, dataset="synthetic phantoms (no patients)", keys=FULL[:1]),
    "nih": lambda: report(dataset="ChestX-ray14", splits_from="official test list", model_id="you/name"),
    "old": lambda: report(operating_points=THRESHOLDS),
}


def rendered(name, config=None, **record):
    config = config or SwinConfig(image_size=32)
    ModelRecord(**record).write(config)
    return card.render(VARIANTS[name](), config)


def html_of(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table"]).render(ModelCard(text).text)


def headings(text):
    return re.findall(r"<h[23]>(.*?)</h[23]>", html_of(text))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_link_and_picture_is_a_pushed_file_or_a_known_page(name):
    html = html_of(rendered(name))
    targets = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert set(targets) >= {"report.html", "metrics.json", "config.yaml", "figures/roc_test.png"}
    relative = {target for target in targets if "://" not in target}
    assert relative <= set(PUSHED)
    assert set(targets) - relative <= KNOWN_LINKS


@pytest.mark.parametrize("name", VARIANTS)
def test_the_metadata_go_round_and_are_valid(name):
    made = ModelCard(rendered(name))
    results = made.data.eval_results
    again = model_index_to_eval_results(eval_results_to_model_index(made.data.model_name, results))
    assert again == (made.data.model_name, results)
    figures = VARIANTS[name]().test.headline()
    assert {one.metric_type: one.metric_value for one in results} == {
        key: round(measured.macro, 4) for key, measured in figures.items()
    }
    assert {one.metric_name for one in results} == {METRICS[key].macro_title for key in figures}
    assert {one.task_type for one in results} == {"image-classification"}
    assert made.data.license is None


def test_a_hub_dataset_is_named_by_its_id_and_commit():
    hub = f"you/set at commit {'c' * 40}"
    made = ModelCard(card.render(report(hub_dataset=hub), SwinConfig(image_size=32)))
    assert made.data.datasets == ["you/set"]
    assert {(one.dataset_type, one.dataset_revision) for one in made.data.eval_results} == {("you/set", "c" * 40)}
    unknown = report(hub_dataset="you/set at commit unknown (a local copy that does not say)")
    results = ModelCard(card.render(unknown, SwinConfig(image_size=32))).data.eval_results
    assert {one.dataset_revision for one in results} == {None}


def test_figures_of_a_part_of_a_test_set_are_not_in_the_metadata():
    for change in ({"missing_images": {"test": 3}}, {"labels_shuffled": True}):
        assert not ModelCard(card.render(report(**change), SwinConfig(image_size=32))).data.eval_results


def test_parts_that_were_not_measured_are_not_there():
    measured = {"Operating points", "For whom it is worse", "More measurements"}
    always = {"Use", "Intended use", "Out of scope", "How good it is", "Probabilities", "Data", "Limits"}
    always |= {"How it was trained", "Reporting checklist", "How to cite"}
    full, bare = (set(headings(rendered(name))) for name in ("full", "bare"))
    assert full - bare == measured
    assert always <= bare
    assert "Unsuitable images" not in full


def test_an_input_check_is_shown_if_the_run_has_one(monkeypatch):
    blocks = (Heading("Input check"), Text("2 % of frontal radiographs are flagged.", strong=True))
    monkeypatch.setitem(SECTIONS, "input_check", lambda values: Section(blocks))
    run = report()
    run.analysis["input_check"] = {}
    text = card.render(run, SwinConfig(image_size=32))
    assert "Unsuitable images" in headings(text)
    assert text.count("2 % of frontal radiographs are flagged.") == 1


def test_the_card_says_who_runs_the_input_check_and_where_it_is_read(monkeypatch):
    monkeypatch.setitem(SECTIONS, "input_check", lambda values: Section((Heading("Check"), Text("It checks."))))
    run = VARIANTS["bare"]()
    said = []
    for analysis in (run.analysis, run.analysis | {"input_check": {}}):
        text = card.render(dataclasses.replace(run, analysis=analysis), SwinConfig(image_size=32))
        said.append(("print(result.input_check)" in text, "Only hf_cxr runs this check" in text))
    assert said == [(False, False), (True, True)]


def test_card_and_metrics_have_the_count_of_measurements():
    once = {"times": 1, "at_least": False, "repeated_from": []}
    again = {"times": 2, "at_least": False, "repeated_from": ["calibrate"]}
    for count in (None, once, again, again | {"at_least": True}):
        counted = dataclasses.replace(VARIANTS["bare"](), test_measurements=count)
        text = card.render(counted, SwinConfig(image_size=32))
        assert measurement_words(count) in text
        assert ("set was measured" in text) == (count is not None)
        assert Report.from_dict(counted.to_dict()).test_measurements == count


def test_calibration_and_thresholds_are_said_as_they_are():
    full, bare, old = (rendered(name) for name in ("full", "bare", "old"))
    assert f"Calibration: {CALIBRATION}." in full
    assert "| output | a probability of each finding, calibrated on validation |" in full
    assert "| output | a probability of each finding, not calibrated |" in bare
    assert "calibration is in the weights" in full
    for text in (bare, old):
        assert "The probabilities were not calibrated." in text
        assert "calibration is in the weights" not in text
    assert "No thresholds were chosen" in bare
    assert "finding.called" not in bare
    assert "finding.called" in full
    assert "were not measured" in old
    assert "hf_cxr.operating_points" in old


def test_the_rates_at_the_thresholds_are_those_that_were_measured():
    text = rendered("full")
    values = analysed(NAMES)[1]["operating_points"]
    table = text.split("### Operating points")[1].split("###")[0]
    for name in NAMES:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
        cells = row.strip("| ").split(" | ")[1:]
        chosen = values["sets"]["chosen"]
        assert float(cells[0].split(" ")[0]) == pytest.approx(chosen["threshold"][name], abs=6e-4)
        for cell, key in zip(cells[1:], ("sensitivity", "specificity", "ppv"), strict=True):
            one = chosen[key]
            wanted = [one[side][name] for side in ("value", "low", "high")]
            assert [float(part) for part in re.findall(r"\d\.\d+", cell)] == pytest.approx(wanted, abs=6e-4)


def test_the_worst_groups_come_first_and_none_is_better_than_the_rest():
    values = analysed(NAMES)[1]["subgroups"]
    gaps = {
        f"{attribute}: {name}": group["measures"]["auc"]["gap"]["macro"]["value"]
        for attribute, content in values["attributes"].items()
        for name, group in content["groups"].items()
        if group["measures"] and not content["from_labels"]
    }
    expected = [name for name, gap in sorted(gaps.items(), key=lambda one: one[1]) if gap < 0][:MOST_GAPS]
    _, table = CardParts.of(VARIANTS["full"](), CONFIG).subgroups()
    assert [row[0] for row in table.rows] == expected
    assert any("AP" in row[0] for row in table.rows)  # as these predictions were made


def test_no_image_and_no_patient_is_named():
    text = rendered("full")
    assert "secret" not in text
    assert "person" not in text.replace("for a person", "")


def test_one_finding_is_spoken_of_as_one():
    text = rendered("one finding")
    assert "one chest X-ray finding" in text
    assert "they do not add up" not in text
    assert "top_k=1)" in text
    assert "| finding | Hernia |" in text


def test_synthetic_images_are_for_nothing_but_trying():
    text = rendered("synthetic")
    assert "synthetic phantoms: the numbers show" in text.split("## Use")[0]
    assert "output on a patient's image is meaningless" in text
    assert "terms of the data" not in text
    assert "Real radiographs" not in rendered("nih")


def test_the_terms_are_those_of_the_models_record():
    assert markdown(LICENCE_NOTE) in rendered("nih", licence_note=LICENCE_NOTE)
    assert "recorded neither source nor terms" in rendered("nih")


def test_the_device_line_is_above_everything_else():
    for name in VARIANTS:
        lines = [line for line in ModelCard(rendered(name)).text.splitlines() if line]
        assert lines[1] == "**Not a medical device. Not for diagnosis or treatment. For research only.**"


def test_views_that_it_never_saw_are_out_of_scope():
    def scope(**views):
        return " ".join(CardParts.of(report(training_views=views), CONFIG).out_of_scope().sentences)

    assert "lateral views" in scope(PA=3, AP=2)
    assert "lateral views" not in scope(PA=3, LATERAL=2)
    frontal, mixed = (CardParts.of(report(training_views=one), CONFIG) for one in ({"PA": 1}, {"LATERAL": 1}))
    assert "frontal" in frontal.input_words()
    assert "frontal" not in mixed.input_words()


def test_the_checklist_is_counted_and_what_is_left_is_named():
    text = rendered("full").split("## Reporting checklist")[1]
    full, part, authors, undone = map(
        int, re.search(r"answers (\d+) .* (\d+) in part; (\d+) .* (\d+) were", text).groups()
    )
    assert full + part + authors + undone == 44
    assert f"{authors - 1}" == str(text.split("Left to the authors: ")[1].split("\n")[0].count("; "))
    assert text.count("<details>") == text.count("</details>") == 1
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 44
    for number in ("38", "36"):  # measured in the one and not in the other
        row = re.compile(rf"^\| {number} \|.*\| not done \|", re.MULTILINE)
        assert not row.search(text)
        assert row.search(rendered("bare"))


def test_every_described_dataset_has_its_citation():
    for name in ("ChestX-ray14", *(load_description(one).name for one in ready_names())):
        entries = citations.dataset_citations(name)
        assert entries, name
        for entry in entries:
            assert re.match(r"@\w+\{\w+,\n", entry)
            assert entry.count("{") == entry.count("}")
            for field in ("author", "title", "year"):
                assert re.search(rf"^  {field}\s*= \{{.+\}},?$", entry, re.MULTILINE), (entry, field)
    assert "wang2017chestxray8" in rendered("nih")
    assert "as their publisher asks" in rendered("bare")


def test_an_onnx_file_is_mentioned_if_it_is_there():
    config = SwinConfig(image_size=32)
    assert "`onnx/model.onnx`, where it is published" in card.render(report(), config, onnx=True)
    assert "ONNX" not in card.render(report(), config)


@pytest.mark.parametrize("config", [SwinConfig(image_size=32), DNetConfig(image_size=32)])
def test_its_python_is_python_and_names_the_model_twice(config):
    text = card.render(report(model_id="you/name", operating_points=THRESHOLDS), config)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")
        assert block.count('model="you/name"') == 1


def test_an_earlier_versions_protocol_is_enough():
    old = report()
    for key in ("training_views", "unreadable_images"):
        del old.protocol[key]
    text = card.render(dataclasses.replace(old), SwinConfig(image_size=32))
    assert "one chest radiograph," in text


def test_the_software_is_cited_as_the_repository_says():
    citation = yaml.safe_load((Path(__file__).parents[4] / "CITATION.cff").read_text(encoding="utf-8"))
    entry = citations.software_citation(str(citation["version"])).replace("\\", "")
    assert citation["title"].startswith(f"hf_cxr: {citations.SUBTITLE}")
    assert f"version = {{{citation['version']}}}" in entry
    assert citation["authors"][0]["name"] in entry
