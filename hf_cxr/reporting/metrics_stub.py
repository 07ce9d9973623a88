from types import SimpleNamespace

METRICS = {
    "auc": SimpleNamespace(key="auc", title="AUC", macro_title="macro AUC", chance=0.5, higher_is_better=True),
    "ap": SimpleNamespace(
        key="ap", title="average precision", macro_title="mAP", chance=None, higher_is_better=True
    ),
}
