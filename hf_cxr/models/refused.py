"""Why each of transformers' other image classifiers is not among `ARCHITECTURES`."""

from typing import Any

from transformers import CONFIG_MAPPING

TEXT_TOO = "it is a model of images and text: size and options of its vision part are in a config inside its config"
SMALL = "nothing here tests it; efficientnet is small too, and timm has it (timm_wrapper)"
TWO_SIDES = "its config gives the image's two sides, and this package feeds squares; timm has it (timm_wrapper)"
TWO_HEADS = (
    "it has two classifiers, whose mean are its logits, so a calibration cannot be folded into one linear layer"
)
LAST_STEP = (
    "transformers' batch norm keeps the averages of the last step alone (a momentum of 0.997 that torch reads the "
    "other way round); timm has it (timm_wrapper)"
)

# model_type -> the reason. A test compares it, together with `ARCHITECTURES`, with transformers' own list.
REFUSED = {
    "clip": TEXT_TOO,
    "cvt": "its last stage has a class token next to the patches, and no grid for heat maps",
    "dinat": "it needs natten, compiled for one release of torch",
    "donut-swin": "it is the encoder of a reader of documents; swin is the same network",
    "hgnet_v2": SMALL,
    "hiera": TWO_SIDES,
    "imagegpt": "it takes colour clusters, not pixels",
    "levit": SMALL,
    "metaclip_2": TEXT_TOO,
    "mobilenet_v1": LAST_STEP,
    "mobilenet_v2": LAST_STEP,
    "mobilevit": SMALL,
    "mobilevitv2": SMALL,
    "perceiver": "its head is a decoder with a query, not one linear layer, and it has three classifiers",
    "pp_lcnet": "its classifier returns last_hidden_state and no logits, which the stock pipeline cannot read",
    "pvt": "its last stage has a class token next to the patches; timm has pvt_v2 (timm_wrapper)",
    "pvt_v2": TWO_SIDES,
    "shieldgemma2": "it is a language model that answers yes or no about an image",
    "siglip": TEXT_TOO,
    "siglip2": "it takes patches of images of any shape, not pixels",
    "swiftformer": TWO_HEADS,
    "textnet": "it is made for finding text in images, and its config gives the image's two sides",
}


def why_refused(name: Any) -> str:
    """The reason in words, to follow the name of a model_type; "" for a name that transformers does not know."""
    if not isinstance(name, str):
        return ""
    if name in REFUSED:
        return f": {REFUSED[name]}"
    return ": transformers has no image classifier of it" if name in CONFIG_MAPPING else ""
