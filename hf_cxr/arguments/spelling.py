"""Options of losses, samplers and models as they were spelled before: flat keys, such as ``margin: 0.2``.

The config.yaml of such a run is translated when it is read, so that the run resumes and is measured as before.
In a YAML that a person wrote, and on the command line, an old key is an error that prints the new spelling.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# Old key -> the mapping that it went to, and its name there.
MOVED = {
    **{
        name: ("loss_kwargs", name)
        for name in (
            *("class_weights", "given_class_weights", "margin", "decoupled", "gamma", "alpha", "gamma_pos"),
            *("gamma_neg", "pos_weight_cap", "max_margin", "logit_scale", "map_alpha", "map_beta", "map_mu"),
            *("negative_scale", "bias_scale", "hill_lambda", "epsilon_pos", "epsilon_pos_pow", "logit_margin"),
            *("tau", "temperature_pos", "temperature_neg"),
        )
    },
    "effective_number_beta": ("loss_kwargs", "beta"),
    **{
        name: ("sampler_kwargs", name)
        for name in (*("oversample_share", "undersample_ratio", "repeat_factor_threshold", "class_aware_no_finding"),)
    },
    **{
        f"swin_{name}": ("model_kwargs", name)
        for name in ("patch_size", "window_size", "embed_dim", "depths", "num_heads", "initializer_range")
    },
    "swin_absolute_embeddings": ("model_kwargs", "use_absolute_embeddings"),
    "drop_path_rate": ("model_kwargs", "drop_path_rate"),
}

# A run wrote all of its keys, so its config.yaml has these together.
OF_A_RUN = {"adam_epsilon", "confidence", "drop_path_rate", "effective_number_beta", "phantom_seed", "swin_depths"}


def modern_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's config.yaml as they are spelled now; those of today's runs are returned as they are.

    A key without a value was not given. Every run wrote the shape of a fresh model and a beta of 0.9999, read or not.

    >>> modern_values({"loss": "focal", "gamma": 1.0, "margin": None, "seed": 3})
    {'loss': 'focal', 'seed': 3, 'loss_kwargs': {'gamma': 1.0}}
    """
    result = {key: value for key, value in values.items() if key not in MOVED}
    saved = values.get("model_name_or_path") is not None
    for key, (mapping, option) in MOVED.items():
        if values.get(key) is None or (saved and key.startswith("swin_")):
            continue
        if key == "effective_number_beta" and values[key] == 0.9999:
            continue
        result[mapping] = {**result.get(mapping, {}), option: values[key]}
    return result


def current_spelling(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a YAML: those of an earlier run translated, and what a person wrote as it is.

    Raises:
        ValueError: an old key that a person wrote, with the new spelling of its line.

    >>> current_spelling({"margin": 0.2, "tau": 1}, "x.yaml")
    Traceback (most recent call last):
    ValueError: x.yaml: margin: 0.2, tau: 1 is now loss_kwargs: {margin: 0.2, tau: 1}
    """
    if values.keys() >= OF_A_RUN:
        return modern_values(values)
    old: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key in MOVED:
            old.setdefault(MOVED[key][0], {})[key] = value
    if old:
        lines = [
            f"{_flow(entries)} is now {mapping}: {{{_flow({MOVED[key][1]: entries[key] for key in entries})}}}"
            for mapping, entries in old.items()
        ]
        raise ValueError(f"{where}: {'; '.join(lines)}")
    return dict(values)


def check_flags(words: Sequence[str]) -> None:
    """Refuse old flags, each with the one that takes its place.

    Raises:
        ValueError: all of them, in one line.

    >>> check_flags(["--swin_depths", "1", "2", "--seed", "1", "--margin=0.1"])
    Traceback (most recent call last):
    ValueError: --swin_depths 1 2 is now --model_kwargs.depths '[1, 2]'; --margin 0.1 is now --loss_kwargs.margin 0.1
    """
    moved = [place for place, word in enumerate(words) if word.startswith("--") and _key(word) in MOVED]
    if moved:
        raise ValueError("; ".join(_new_flag(words, place) for place in moved))


def _key(word: str) -> str:
    """The key of a flag, such as margin for --margin=0.1 and decoupled for --no_decoupled."""
    return word.partition("=")[0].removeprefix("--").replace("-", "_").removeprefix("no_")


def _new_flag(words: Sequence[str], place: int) -> str:
    """What an old flag and its values are called now."""
    flag, equals, value = words[place].partition("=")
    end = next((i for i, later in enumerate(words[place + 1 :], place + 1) if later.startswith("--")), len(words))
    given = [value] if equals else list(words[place + 1 : end])
    mapping, option = MOVED[_key(flag)]
    if not given:  # a switch
        new = "false" if flag.replace("-", "_").startswith("__no_") else "true"
    else:
        new = given[0] if len(given) == 1 else f"'[{', '.join(given)}]'"
    return f"{' '.join([flag, *given])} is now --{mapping}.{option} {new}"


def _flow(values: Mapping[str, Any]) -> str:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return ", ".join(f"{key}: {text}" for key, text in texts.items())
