"""A search's YAML: what its values are, and what is refused before anything is trained."""

import pytest
import yaml

from hf_cxr.run.tuning.search_space import Choices, Range, load_search

BASE = {"dataset": "phantom", "loss": "asymmetric"}
SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "loss_kwargs.gamma_neg": {"low": 0, "high": 4},
    "rotation_degrees": {"low": 0, "high": 15, "type": "float"},
    "lr_scheduler_type": ["cosine", "linear"],
}


def write(folder, **changes):
    path = folder / "search.yaml"
    values = {key: value for key, value in ({"base": BASE, "space": SPACE} | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_search_is_read_with_its_defaults(tmp_path):
    search = load_search(write(tmp_path), ["--weight_decay", "0"])
    assert (search.name, search.trials, search.seed, search.by, search.prune) == ("search", 20, 1000, "auc", False)
    assert search.space["learning_rate"] == Range(1e-5, 1e-3, whole=False, log=True)
    assert search.space["loss_kwargs.gamma_neg"] == Range(0, 4, whole=True)
    assert search.space["rotation_degrees"] == Range(0, 15, whole=False)
    assert search.space["lr_scheduler_type"] == Choices(("cosine", "linear"))
    assert load_search(write(tmp_path, trials=5), trials=7).trials == 7
    values = search.values({"learning_rate": 1e-4, "loss_kwargs.gamma_neg": 2})
    assert values == BASE | {"learning_rate": 1e-4, "loss_kwargs": {"gamma_neg": 2}}


def test_extremes_have_every_choice_and_both_ends(tmp_path):
    search = load_search(write(tmp_path, space=SPACE | {"loss": ["bce", "focal", "asymmetric"]}))
    points = search.extremes()
    assert {point["loss"] for point in points} == {"bce", "focal", "asymmetric"}
    assert {point["learning_rate"] for point in points} == {1e-5, 1e-3}
    assert all(isinstance(point["loss_kwargs.gamma_neg"], int) for point in points)


def test_choices_may_be_lists_and_numbers():
    choices = Choices(([1, 2], 0.5, "x", None, True))
    assert [choices.of_name(name) for name in choices.names] == list(choices.values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spaces": {}}, "spaces in .*mean space"),
        ({"space": None}, "has no key space"),
        ({"space": {"learning_rte": [1, 2]}}, "learning_rte in space .*mean learning_rate"),
        ({"space": {"seed": [1, 2]}}, "seed cannot be set for space .*: the search sets it"),
        ({"base": BASE | {"push_to_hub": True}}, "push_to_hub cannot be set for base .*: the search sets it"),
        ({"space": {"output_dir": ["a", "b"]}}, "output_dir cannot be set"),
        ({"space": {"measure_test": [True, False]}}, "measure_test cannot be set"),
        ({"space": {"hub_model_id": ["a", "b"]}}, "hub_model_id cannot be set"),
        ({"space": {"learning_rate": 1e-3}}, "write a list of choices, or"),
        ({"space": {"learning_rate": [1e-3]}}, "two or more different values"),
        ({"space": {"learning_rate": {"low": 1}}}, "write a list of choices, or"),
        ({"space": {"learning_rate": {"low": 1, "high": 2, "lg": True}}}, "unknown key lg .*mean log"),
        ({"space": {"learning_rate": {"low": 2, "high": 1}}}, "low must be below high"),
        ({"space": {"learning_rate": {"low": "a", "high": 1}}}, "low of learning_rate .*must be a number"),
        ({"space": {"learning_rate": {"low": 0.0, "high": 1, "log": True}}}, "a low above 0"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 1, "type": "int"}}}, "is of whole numbers"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 1, "step": 2}}}, "step is 2"),
        ({"trials": 0}, "trials of .*at least 1"),
        ({"seed": -1}, "seed of .*at least 0"),
        ({"prune": "yes please"}, "true or false"),
        ({"by": "test_auc"}, "reads validation alone, and never the test set"),
        ({"by": "accuracy"}, "by in .*choose from"),
        ({"base": "gone.yaml"}, "no such file: gone.yaml"),
    ],
)
def test_bad_searches_are_refused_at_the_door(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_search(write(tmp_path, **changes))


def test_flags_of_what_the_search_sets_are_refused(tmp_path):
    for flag in ("--seed", "--learning-rate", "--loss_kwargs.gamma_neg", "--measure_test", "--output_dir"):
        with pytest.raises(ValueError, match="cannot be given to all trials"):
            load_search(write(tmp_path), [flag, "1"])
