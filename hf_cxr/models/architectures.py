"""What is checked before a model of an architecture is built.

A config.json may come from a stranger, and an option may be mistyped. Sizes that no machine could hold, values of
another type and parts that contradict each other are refused here by name, in milliseconds and without memory. What
the checks do not foresee shows in one pass of the model on the meta device, which computes shapes and no values.

Refused: an architecture that is not among `ARCHITECTURES`, other than three channels, a head that is not one linear
layer (see `head`), and what the architecture's own check refuses. Of transformers' other classifiers, `refused` says
why each is not used.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageClassification, PreTrainedConfig
from transformers.activations import ACT2FN

from hf_cxr.arguments.components import ARCHITECTURES, architecture_options
from hf_cxr.models.head import check_head
from hf_cxr.models.record import KEY as RECORD
from hf_cxr.models.record import ModelRecord
from hf_cxr.models.refused import why_refused
from hf_cxr.models.swin import check_swin
from hf_cxr.models.timm_models import TIMM, check_timm, timm_side, timm_values
from hf_cxr.models.values import MAX_BLOCKS, check_whole, short, some
from hf_cxr.models.vit import check_patches
from hf_cxr.options import check_options
from hf_cxr.saved_models import reading
from hf_cxr.systems import SYSTEMS, register
from hf_cxr.systems.yao2017 import check_label_order
from hf_cxr.words import error_words

# Architecture -> check of its own values. For the rest the common checks and the pass on the meta device are enough.
CHECKS: dict[str, Callable[[Mapping[str, Any], str], None]] = {
    "beit": check_patches,
    "data2vec-vision": check_patches,
    "deit": check_patches,
    "dinov2": check_patches,
    "dinov2_with_registers": check_patches,
    "ijepa": check_patches,
    "swin": check_swin,
    "swinchex": check_swin,
    TIMM: check_timm,
    "vit": check_patches,
    "vit_msn": check_patches,
    "yao2017": check_label_order,
}

IMAGE_SIZE, PATCH_SIZE = (1, 4096), (1, 256)  # least and most, in pixels
MAX_CLASSES = 100_000
MAX_PATCHES = 4_000_000
MAX_NUMBERS = 2_000_000_000  # parameters and position tables: ten times Swin-L, 8 GB in float32
MAX_VALUE, MAX_LIST = 1_000_000, 1_000  # for any number, and the length of any list, of a config
BACKBONE = "backbone_config"  # of a system whose backbone is any architecture
BLOCKS = ("depths", "num_hidden_layers")
REFUSED_KEYS = {
    "quantization_config": "quantized weights are not read; give the model in float32, float16 or bfloat16",
    "transformers_weights": "weights are read from model.safetensors alone; leave the key out",
}


def check_model_options(name: Any, kwargs: Mapping[str, Any], where: str) -> None:
    """Refuse an architecture that is not in the table, and options that it does not have or of another type.

    Raises:
        ValueError: no such architecture or option, or a value of another type; one line.
    """
    _check_name(name, where)
    try:
        check_options(name, kwargs, architecture_options(name))
    except ValueError as error:
        raise ValueError(f"model_kwargs for {where}: {error}") from error
    if kwargs.get(BACKBONE) is not None:
        inner = _backbone(kwargs, where)
        own = {key: value for key, value in inner.items() if key != "model_type"}
        check_model_options(inner["model_type"], own, f"the {BACKBONE} of {where}")


def checked_config(values: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """The config of these values, checked.

    Args:
        values: keys of a config.json, with whatever replaces them.
        where: what an error names: a file, or a fresh model.

    Raises:
        ValueError: a value that cannot be, parts that contradict each other, or an architecture that cannot be used.
    """
    name = values.get("model_type")
    _check_name(name, where)
    register()
    kind = CONFIG_MAPPING[name]
    defaults = kind()
    filled = {key: getattr(defaults, key) for key in kind.__dataclass_fields__} | dict(values)
    _check_values(name, filled, where)
    if BACKBONE in filled:
        inner = _backbone({BACKBONE: getattr(defaults, BACKBONE)} if filled[BACKBONE] is None else filled, where)
        own = CONFIG_MAPPING[inner["model_type"]]
        inner = {key: getattr(own(), key) for key in own.__dataclass_fields__} | inner
        _check_values(inner["model_type"], inner | {"image_size": filled["image_size"]}, f"the {BACKBONE} of {where}")
    # Where an architecture has two classifiers, transformers chooses by this list and takes the first without it.
    values = {**values, "architectures": values.get("architectures") or []}
    if name == TIMM:
        values = timm_values(values)
    config = reading(f"the config of {where}", partial(kind.from_dict, values))
    _check_runs(config, where)
    return config


def with_image_size(values: Mapping[str, Any], *sizes: int | None) -> dict[str, Any]:
    """Keys of a config.json with an ``image_size``: its own, else timm's, else the first of ``sizes`` or of the
    architecture's default that there is.

    A network of convolutions has no such key in its config.json, because its weights fit any size.

    Args:
        values: keys of a config.json.
        sizes: in pixels, None where unknown. The first stands before the architecture's default, the rest behind it.
    """
    if values.get("image_size") is not None:
        return dict(values)
    register()
    name = values.get("model_type")
    known = isinstance(name, str) and name in ARCHITECTURES
    default = getattr(CONFIG_MAPPING[name](), "image_size", None) if known else None
    found = (timm_side(values), *sizes[:1], default, *sizes[1:])
    return {**values, "image_size": next((size for size in found if size is not None), None)}


def _backbone(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of the backbone within a system's: of an architecture in the table, and not of a system."""
    inner = values[BACKBONE]
    inner = inner.to_dict() if isinstance(inner, PreTrainedConfig) else inner  # the default
    if not isinstance(inner, Mapping):
        raise ValueError(f"{BACKBONE} in {where} is {short(inner)}; it must be a mapping with model_type and options")
    _check_name(inner.get("model_type"), f"the {BACKBONE} of {where}")
    if inner["model_type"] in SYSTEMS:
        raise ValueError(f"{where}: its backbone is a {inner['model_type']}, which is a system itself")
    return dict(inner)


def _check_values(name: str, filled: Mapping[str, Any], where: str) -> None:
    _check_common(filled, where)
    own_check = CHECKS.get(name)
    if own_check is not None:
        own_check(filled, where)


def check_findings(values: Mapping[str, Any], where: str) -> None:
    """Refuse an id2label that does not name the outputs 0, 1, 2, ... once each.

    Raises:
        ValueError: it has gaps, names that are not text, or a name twice.
    """
    names = values.get("id2label")
    if not isinstance(names, Mapping) or not names:
        raise ValueError(
            f"{where} has no id2label: which finding each output means is unknown; a backbone without a classifier "
            "must be fine-tuned first, by hf-cxr train --model_name_or_path"
        )
    if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise ValueError(f"id2label in {where} must number the findings 0 to {len(names) - 1}; it has {some(names)}")
    invalid = [name for name in names.values() if not isinstance(name, str) or not name.strip()]
    if invalid:
        raise ValueError(f"id2label in {where} names a finding {invalid[0]!r}; a name is text and not empty")
    if len(set(names.values())) < len(names):
        raise ValueError(f"id2label in {where} has one name for two findings: {some(names.values())}")


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known, why = ", ".join(ARCHITECTURES), why_refused(name)
        raise ValueError(f"the architecture of {where} (model_type) is {short(name)}{why}; hf_cxr works with {known}")


def _check_common(values: Mapping[str, Any], where: str) -> None:
    for key, why in REFUSED_KEYS.items():
        if values.get(key):
            raise ValueError(f"{key} in {where}: {why}")
    if values.get("return_dict") is not True:
        raise ValueError(f"return_dict in {where} is {short(values.get('return_dict'))}; leave it out")
    try:
        ModelRecord.of(values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    channels = values.get("num_channels", 3)
    if type(channels) is not int or channels != 3:
        raise ValueError(
            f"{where} takes {short(channels)} channel{'' if channels == 1 else 's'} (num_channels); this package "
            "feeds 3 equal ones: give a model with num_channels 3"
        )
    check_whole(values.get("image_size"), "image_size", *IMAGE_SIZE, where)
    if "patch_size" in values:
        check_whole(values["patch_size"], "patch_size", *PATCH_SIZE, where)
        side = math.ceil(values["image_size"] / values["patch_size"])
        if side**2 > MAX_PATCHES:
            raise ValueError(
                f"{where} cuts an image of {values['image_size']} pixels into {side**2:,} patches of "
                f"{values['patch_size']}; the most is {MAX_PATCHES:,}"
            )
    if "hidden_act" in values and values["hidden_act"] not in tuple(ACT2FN):
        raise ValueError(f"hidden_act in {where} is {short(values['hidden_act'])}; transformers has no such function")
    _check_classes(values, where)
    for key, value in values.items():
        if key not in ("id2label", "label2id", RECORD):
            _check_numbers(value, key, where)
    for key in BLOCKS:
        if key in values:
            _check_blocks(values[key], key, where)


def _check_numbers(value: Any, key: str, where: str) -> None:
    for entry in _entries(value):
        if isinstance(entry, list | tuple) and len(entry) > MAX_LIST:
            raise ValueError(f"{key} in {where} has {len(entry):,} entries; the most is {MAX_LIST:,}")
        if isinstance(entry, int | float) and not abs(entry) <= MAX_VALUE:
            raise ValueError(f"{key} in {where} is {short(entry)}; the largest number that is taken is {MAX_VALUE:,}")


def _entries(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, list | tuple):
        for entry in value[: MAX_LIST + 1]:
            yield from _entries(entry)


def _check_blocks(value: Any, key: str, where: str) -> None:
    blocks = value if isinstance(value, list | tuple) else [value]
    for number in blocks:
        check_whole(number, key, 1, MAX_BLOCKS, where)
    if sum(blocks) > MAX_BLOCKS:
        raise ValueError(f"{key} in {where} has {sum(blocks):,} blocks; at most {MAX_BLOCKS} are built")


def _check_classes(values: Mapping[str, Any], where: str) -> None:
    names, number = values.get("id2label"), values.get("num_labels")
    if names is not None and not isinstance(names, Mapping):
        raise ValueError(f"id2label in {where} is {short(names)}; it must name each output")
    if names and not all(str(key).isdecimal() for key in names):
        raise ValueError(f"id2label in {where} must number the outputs 0, 1, 2, ...; it has {some(names)}")
    if number is not None:
        check_whole(number, "num_labels", 1, MAX_CLASSES, where)
    if names is not None and len(names) > MAX_CLASSES:
        raise ValueError(f"id2label in {where} has {len(names):,} classes; at most {MAX_CLASSES:,} are built")
    if names is not None and number not in (None, len(names)):
        raise ValueError(f"{where} has num_labels {number}, but its id2label names {len(names)}")


def _check_runs(config: PreTrainedConfig, where: str) -> None:
    """Build the model on the meta device and run it: nothing is allocated and no random number is drawn."""
    with torch.device("meta"), torch.no_grad():
        # transformers writes the dtype into the config that it is given.
        own, dtype = copy.deepcopy(config), torch.float32
        build = partial(AutoModelForImageClassification.from_config, own, dtype=dtype, trust_remote_code=False)
        model = reading(f"the config of {where}", build).eval()
        numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
        if numbers > MAX_NUMBERS:
            raise ValueError(f"{where} has {numbers:.1e} parameters; at most {MAX_NUMBERS:.0e} are built")
        side = config.image_size
        try:
            check_head(model, torch.zeros(1, 3, side, side))
        except ValueError as error:
            raise ValueError(f"{where}: {error_words(error)}") from error
        except Exception as error:  # whatever a model of transformers raises on sizes that do not fit
            raise ValueError(f"{where} cannot take an image of {side} pixels: {error_words(error)}") from error
