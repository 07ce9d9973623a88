"""The page of a search: which trial is best, and what the page says that figure is worth."""

import math

import pytest

from hf_cxr.reporting.tuning import Trial, TuningResults, tuning_document, write_tuning

NAN = math.nan


def trial(number, auc, *, state="finished", rate=1e-3, loss="bce", **more):
    return Trial(number, state, {"learning_rate": rate, "loss": loss}, {"auc": auc, "ap": auc / 2}, **more)


@pytest.fixture
def results():
    trials = (
        trial(0, 0.7, seconds=60.0),
        trial(1, 0.8, rate=1e-4, loss="focal"),
        trial(2, NAN, state="pruned", steps=12),
        trial(3, NAN, state="failed", reason="no memory"),
        trial(4, 0.8, rate=2e-4),
    )
    space = {"learning_rate": "1e-05 to 0.001, logarithmic", "loss": "bce, focal"}
    return TuningResults("search", "auc", space, trials, seed=7, pruned=True)


def test_the_earlier_of_equal_trials_is_best(results):
    assert [one.number for one in results.finished] == [1, 4, 0]
    assert results.best.number == 1
    assert results.to_dict()["best"] == 1
    assert TuningResults("s", "auc", {"loss": ""}, (trial(0, NAN),), seed=0).best is None


def test_the_page_ranks_trials_and_says_that_the_best_figure_is_optimistic(results, tmp_path):
    document = tuning_document(results)
    printed = document.to_terminal()
    assert "Best of 5 trials: trial 0001, validation macro AUC 0.800: learning_rate 0.0001, loss focal." in printed
    assert "optimistic: it is the best of 3 trials" in " ".join(printed.split())
    assert "pruned at step 12" in printed
    assert "no memory" in printed
    rows = next(block for block in document.blocks if hasattr(block, "frame")).frame
    assert rows["trial"].tolist() == ["0001", "0004", "0000", "0002", "0003"]
    write_tuning(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"tuning.{suffix}" for suffix in ("md", "csv", "html", "json")),
        "figures",
    }
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"trials.png", "settings.png"}
