"""Backbones with a multi-label head. Any classifier of transformers whose head is one linear layer can be one.

- `build`: a fresh model, or one from a Hub id or folder, checked; `fresh(name, kwargs, label_names, image_size)`.
- `head`: the only module that knows where the head is: `head(model)`, `features(model, pixel_values)`, folding,
  freezing, starting again.
- `architectures`: what is checked before a model is built; `swin` and `vit` have the checks of a family. To add an
  architecture that transformers knows, add its line to `hf_cxr.arguments.components.ARCHITECTURES`.
- `batch_norm`: the rule for training it. `timm_models`: timm's own ways. `refused`: what cannot be used.
- `attention`: which attention a model runs on; `fast_swin`, `window_plan` and `window_attention` are the fast one.
- `map_layer`: the layer that heat maps are made of, which that line names, as a grid of places.
- `record`: what a model was trained on, as its config.json says. `names`: what a report calls its network.
"""

from hf_cxr.models.build import fresh
from hf_cxr.models.head import features, head
from hf_cxr.models.record import ModelRecord

__all__ = ["ModelRecord", "features", "fresh", "head"]
