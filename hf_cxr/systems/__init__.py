"""The field's published systems as transformers models: one file each, with its config and what its paper leaves open.

A module here defines a ``PreTrainedConfig`` and a ``PreTrainedModel`` whose forward pass takes ``pixel_values``
(B, 3, S, S) and returns ``ImageClassifierOutput`` with logits (B, C); both are named in `SYSTEMS`. Its last layer is
one linear layer, or an `output_layer.OutputLayer` where each finding has a separate output; such a model names
the part that has these outputs in ``own_outputs`` and starts it in ``start_outputs(bias_C)``.

Each offers ``load_backbone(state_dict, config)``: the weights of a saved model, as transformers names them, and its
config. It takes its backbone's from there, and raises ValueError for another architecture, other sizes and missing
weights, with their names (see `initial_weights`).

A model with ``takes_known_labels`` gets the labels of a batch as
``known_labels`` in training, and never in evaluation.

`register` makes transformers' Auto classes know them. Whatever loads a model in this package calls it; a program that
loads one by transformers alone calls ``hf_cxr.register()`` first. The folder imports nothing of the models' part,
because the arguments read the systems' options before any model is built.

B = images, C = findings, S = side of the image in pixels.
"""

from importlib import import_module

# model_type -> (module, config class, model class).
SYSTEMS: dict[str, tuple[str, str, str]] = {
    "csra": ("csra", "CSRAConfig", "CSRAForImageClassification"),
    "dnet": ("dnet", "DNetConfig", "DNet"),
    "swinchex": ("swinchex", "SwinCheXConfig", "SwinCheXForImageClassification"),
    "wang2017": ("wang2017", "Wang2017Config", "Wang2017"),
    "yao2017": ("yao2017", "Yao2017Config", "Yao2017"),
}


def register() -> None:
    """Let `AutoConfig` and `AutoModelForImageClassification` know every system. Calling it again changes nothing."""
    from transformers import AutoConfig, AutoModelForImageClassification

    for name, (module, config, model) in SYSTEMS.items():
        source = import_module(f"{__name__}.{module}")
        kind = getattr(source, config)
        AutoConfig.register(name, kind, exist_ok=True)
        AutoModelForImageClassification.register(kind, getattr(source, model), exist_ok=True)
