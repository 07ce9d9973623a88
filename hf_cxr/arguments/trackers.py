"""Experiment trackers that transformers can report to, and what each needs."""

import difflib
from collections.abc import Sequence

from hf_cxr.extras import install_line

# Name -> what transformers asks to see whether it can be used, and how to install it.
TRACKERS = {
    "azure_ml": ("is_azureml_available", "pip install azureml-sdk"),
    "clearml": ("is_clearml_available", "pip install clearml"),
    "codecarbon": ("is_codecarbon_available", "pip install codecarbon"),
    "comet_ml": ("is_comet_available", "pip install comet-ml, and set COMET_API_KEY"),
    "dagshub": ("is_dagshub_available", "pip install dagshub mlflow"),
    "dvclive": ("is_dvclive_available", "pip install dvclive"),
    "flyte": ("is_flyte_deck_standard_available", "pip install flytekit flytekitplugins-deck-standard pandas"),
    "kubeflow": ("is_kubeflow_available", "run inside a Kubeflow TrainJob, which sets KUBEFLOW_TRAINER_SERVER_URL"),
    "mlflow": ("is_mlflow_available", "pip install mlflow"),
    "neptune": ("is_neptune_available", "pip install neptune"),
    "swanlab": ("is_swanlab_available", "pip install swanlab"),
    "tensorboard": ("is_tensorboard_available", install_line("track")),
    "trackio": ("is_trackio_available", install_line("track")),
    "wandb": ("is_wandb_available", "pip install wandb"),
}


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Refuse a tracker that transformers does not know, or whose package is not installed.

    Args:
        report_to: a name, several, "none" or "all" (every tracker that is installed).

    Raises:
        ValueError: with the nearest name, or with what to install.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    if names in ([], ["none"], ["all"]):
        return
    from transformers.integrations import integration_utils

    for name in names:
        if name not in TRACKERS:
            nearest = difflib.get_close_matches(str(name), [*TRACKERS, "none", "all"], n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"choose from none, all, {', '.join(TRACKERS)}"
            raise ValueError(f"report_to {name} is not a tracker that transformers knows; {hint}")
        available, repair = TRACKERS[name]
        if not getattr(integration_utils, available)():
            package = "" if name == "kubeflow" else f" needs the package {name}, which is not installed or not usable"
            raise ValueError(f"report_to {name}{package}: {repair}")
