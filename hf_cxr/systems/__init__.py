"""The field's published systems as transformers models: one file each, with its config and what its paper leaves open.

A module here defines a ``PreTrainedConfig`` and a ``PreTrainedModel`` whose forward pass takes ``pixel_values``
(B, 3, S, S) and returns ``ImageClassifierOutput`` with logits (B, C); both are named in `SYSTEMS`. Its last layer is
one linear layer, or an `output_layer.OutputLayer` where each finding has an output of its own; such a model names
the modules of these outputs in ``own_outputs`` and starts them in ``start_outputs(bias_C)``.

Each offers ``load_backbone(state_dict, config)``: the weights of a saved model's backbone (its ``base_model``, named
as transformers names them there) and its config. It raises ValueError for another architecture, other sizes, and
weights that are missing or left over, with their names (see `backbone_weights`).

`register` makes transformers' Auto classes know them. The folder imports nothing of the models' part, because the
arguments read the systems' options before any model is built.

B = images, C = findings, S = side of the image in pixels.
"""

from importlib import import_module

# model_type -> (module, config class, model class).
SYSTEMS: dict[str, tuple[str, str, str]] = {
    "csra": ("csra", "CSRAConfig", "CSRAForImageClassification"),
    "swinchex": ("swinchex", "SwinCheXConfig", "SwinCheXForImageClassification"),
}


def register() -> None:
    """Let `AutoConfig` and `AutoModelForImageClassification` know every system. Calling it again changes nothing."""
    from transformers import AutoConfig, AutoModelForImageClassification

    for name, (module, config, model) in SYSTEMS.items():
        source = import_module(f"{__name__}.{module}")
        kind = getattr(source, config)
        AutoConfig.register(name, kind, exist_ok=True)
        AutoModelForImageClassification.register(kind, getattr(source, model), exist_ok=True)
