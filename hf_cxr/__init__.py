"""hf_cxr: fine-tune a network to recognise many findings on chest X-rays, and say honestly how good it is.

The public names are loaded when they are first used, so that ``import hf_cxr`` is quick.
"""

from hf_cxr.late_names import late_names

__version__ = "0.1.0"

_HOME = {
    "AsymmetricLoss": "hf_cxr.losses",
    "BinaryCrossEntropyLoss": "hf_cxr.losses",
    "CXRTrainer": "hf_cxr.training.trainer",
    "ClassAwareLoss": "hf_cxr.losses",
    "Classifier": "hf_cxr.inference.classifier",
    "FocalLoss": "hf_cxr.losses",
    "LabelSpace": "hf_cxr.labels",
    "NIH14": "hf_cxr.labels",
    "Predictions": "hf_cxr.predictions",
    "build_loss": "hf_cxr.losses",
    "evaluate_predictions": "hf_cxr.evaluation",
    "load_nih": "hf_cxr.data",
    "load_phantom": "hf_cxr.data",
    "load_table": "hf_cxr.data",
    "map_labels": "hf_cxr.data",
    "read_predictions": "hf_cxr.prediction_tables",
    "register": "hf_cxr.systems",
}

__all__ = sorted(_HOME)


__getattr__, __dir__ = late_names(__name__, _HOME)
