"""How often the test set of a run was measured is counted over repeated, killed and old stages."""

import json

import pytest

from hf_cxr.reporting.protocol import measurement_words
from hf_cxr.run import stage_files as files


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def measure(folder):
    """What the measure and document stages do to the count."""
    files.forget(folder, "measure")
    count = files.next_measurement(folder)
    write(folder / files.LAST_FILE["measure"], {"test_measurements": count})
    (folder / files.LAST_FILE["measure"]).replace(folder / files.LAST_FILE["document"])
    return count


def test_each_repetition_counts_once_however_often_it_is_killed(tmp_path):
    assert measure(tmp_path)["times"] == 1
    for times in (2, 3, 4):
        for _ in range(3):  # settings are changed, the fit begins, and is killed and begins again
            files.forget(tmp_path, "calibrate")
        assert not files.is_done(tmp_path, "measure")
        count = measure(tmp_path)
        assert (count["times"], count["repeated_from"]) == (times, ["calibrate"] * (times - 1))
        assert not count["at_least"]


def test_a_kill_before_the_figures_are_removed_does_not_count_twice(tmp_path):
    measure(tmp_path)
    figures = (tmp_path / "metrics.json").read_bytes()
    files.forget(tmp_path, "calibrate")
    (tmp_path / "metrics.json").write_bytes(figures)  # the count was written, the removal was not done
    files.forget(tmp_path, "calibrate")
    assert measure(tmp_path)["times"] == 2


def test_an_unfinished_stage_that_resumes_is_no_second_look(tmp_path):
    for stage in ("predict", "calibrate", "measure"):
        files.forget(tmp_path, stage)
    assert measure(tmp_path) == {"times": 1, "at_least": False, "repeated_from": []}


@pytest.mark.parametrize("content", ["{}", "damaged"])
def test_figures_without_a_count_are_at_least_one_measurement(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    count = measure(tmp_path)
    assert (count["times"], count["at_least"]) == (2, True)
    assert "at least 2 times" in measurement_words(count)


def test_only_a_first_measurement_is_called_the_only_one():
    def words(times, stages):
        return measurement_words({"times": times, "at_least": False, "repeated_from": stages})

    assert measurement_words(None) == ""
    assert "once" in words(1, [])
    for stages in (["calibrate"], ["measure"], ["calibrate", "calibrate"]):
        assert "once" not in words(len(stages) + 1, stages)
        assert ("hf-cxr calibrate" in words(len(stages) + 1, stages)) == ("calibrate" in stages)
