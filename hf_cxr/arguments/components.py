"""Components that are chosen by name, each with a mapping of its own options: the loss, the sampler, the architecture.

Which options a component has, their defaults and what they mean is written in its signature and its docstring (see
`hf_cxr.options`); here is how a config and a command line spell them. Several layers (a YAML, a comparison's method,
flags) override each other key by key: ``loss_kwargs: {gamma_neg: 2}`` or ``loss_kwargs.gamma_neg: 2``.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from hf_cxr.options import Option, filled, options_of
from hf_cxr.systems import register

# Key that chooses a component -> key of its options.
KWARGS = {"loss": "loss_kwargs", "sampler": "sampler_kwargs", "architecture": "model_kwargs"}

# In place of a layer: each network of timm has its own, see `hf_cxr.models.timm_models`.
OF_TIMM = "timm"

# What ``architecture`` may be, as transformers names it (model_type) -> the layer that a heat map is made of: a path
# below the backbone, or from the whole model if it begins with self; a number is a place in a list, -1 the last.
# `hf_cxr.models.architectures` checks its values.
ARCHITECTURES = {
    "beit": "layers.-1.layernorm_before",
    "bit": "norm",
    "convnext": "encoder.stages.-1",
    "convnextv2": "encoder.stages.-1",
    "csra": "self.grid",
    "data2vec-vision": "encoder.layer.-1.layernorm_before",
    "deit": "layers.-1.layernorm_before",
    "dinov2": "encoder.layer.-1.norm1",
    "dinov2_with_registers": "encoder.layer.-1.norm1",
    "dnet": "features.relu5",
    "efficientnet": "encoder.top_activation",
    "focalnet": "encoder.stages.-1.layers.-1",
    "ijepa": "layers.-1.layernorm_before",
    "poolformer": "encoder.block.-1.-1",
    "regnet": "encoder.stages.-1",
    "resnet": "encoder.stages.-1",
    "segformer": "stages.-1",
    "swin": "encoder.layers.-1.blocks.-1.layernorm_after",
    "swinchex": "encoder.layers.-1.blocks.-1.layernorm_after",
    "swinv2": "encoder.layers.-1.blocks.-1",
    "timm_wrapper": OF_TIMM,
    "vit": "layers.-1.layernorm_before",
    "vit_msn": "layers.-1.layernorm_before",
    "wang2017": "transition",
    "yao2017": "features.relu5",
}

# Keyword arguments of an architecture's config that a run sets itself, beside those that every config has.
SET_BY_THE_RUN = ("image_size", "num_channels", "num_labels")


def architecture_options(name: str) -> dict[str, Option]:
    """The keyword arguments of an architecture's config; none if transformers does not know it.

    >>> architecture_options("swin")["window_size"].default
    7
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig

    register()
    if name not in CONFIG_MAPPING:
        return {}
    return options_of(CONFIG_MAPPING[name], without={*inspect.signature(PretrainedConfig).parameters, *SET_BY_THE_RUN})


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another; the options of a component override each other key by key.

    >>> merged({"loss_kwargs": {"margin": 0.1}, "seed": 1}, {"loss_kwargs": {"decoupled": False}})
    {'loss_kwargs': {'margin': 0.1, 'decoupled': False}, 'seed': 1}
    >>> merged({"loss_kwargs": {"margin": 0.1}}, {"loss_kwargs.margin": 0.2})
    {'loss_kwargs': {'margin': 0.2}}
    """
    result = dict(values)
    for key, value in over.items():
        name, _, option = key.partition(".")
        if name in KWARGS.values() and (option or isinstance(value, Mapping)):
            result[name] = {**(result.get(name) or {}), **({option: value} if option else value)}
        else:
            result[key] = value
    return result


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a key for each option of a component.

    >>> flattened({"loss": "focal", "loss_kwargs": {"gamma": 2.0}})
    {'loss': 'focal', 'loss_kwargs.gamma': 2.0}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key in KWARGS.values() and isinstance(value, Mapping):
            result |= {f"{key}.{option}": entry for option, entry in value.items()}
        else:
            result[key] = value
    return result


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's values with every option that its components have; of a saved model, its config.json has them.

    >>> run = {"loss": "focal", "loss_kwargs": {}, "sampler": "shuffle", "model_name_or_path": "saved"}
    >>> with_defaults(run)["loss_kwargs"]
    {'gamma': 2.0, 'class_weights': 'none', 'beta': 0.9999}
    """
    from hf_cxr.losses import loss_options
    from hf_cxr.sampling import sampler_options

    options = {"loss_kwargs": loss_options(values["loss"]), "sampler_kwargs": sampler_options(values["sampler"])}
    if values.get("model_name_or_path") is None:
        options["model_kwargs"] = architecture_options(values["architecture"])
    return {**values, **{key: filled(values.get(key) or {}, known) for key, known in options.items()}}


def help_text(architecture: str, components: Mapping[str, Mapping[str, Mapping[str, Option]]]) -> str:
    """The part of ``--help`` on the options of every loss, sampler and architecture.

    Args:
        architecture: its options are listed with their meanings, those of the rest with their defaults alone.
        components: see `hf_cxr.arguments.flags.Flags`.
    """
    shared = components["loss"]["bce"]  # bce has no options but those of class weights
    losses = {
        name: {
            key: dataclasses.replace(option, meaning="see below") if key in shared else option
            for key, option in options.items()
            if option != shared.get(key)
        }
        for name, options in components["loss"].items()
    }
    unweighted = [name for name, options in components["loss"].items() if not shared.keys() <= options.keys()]
    losses[f"every loss but {', '.join(unweighted)}"] = dict(shared)
    known = components["architecture"]
    chosen = known[architecture] if architecture in known else architecture_options(architecture)
    return "\n".join(
        [
            *_section("loss_kwargs: options of --loss", losses),
            *_section("sampler_kwargs: options of --sampler", components["sampler"]),
            *_section(
                "model_kwargs: options of --architecture, the keyword arguments of its transformers config",
                {architecture: chosen},
            ),
            *_defaults({name: options for name, options in known.items() if name != architecture}),
        ]
    )


def _section(title: str, components: Mapping[str, Mapping[str, Option]]) -> list[str]:
    lines = ["", f"{title}:"]
    for name, options in components.items():
        lines.append(f"  {name}{'' if options else ' (none)'}")
        for option in options.values():
            text = f"{option.meaning.replace('`', '')} (default: {option.default})"
            lines += textwrap.wrap(text, 110, initial_indent=f"    {option.name:<23} ", subsequent_indent=" " * 28)
    return lines


def _defaults(architectures: Mapping[str, Mapping[str, Option]]) -> list[str]:
    """Each architecture with its options and their defaults, in a paragraph."""
    lines = ["", "Other architectures and their defaults (with --architecture NAME, --help gives the meanings):"]
    for name, options in architectures.items():
        text = ", ".join(f"{option.name} {option.default}" for option in options.values())
        lines += textwrap.wrap(f"{name}: {text}", 110, initial_indent="  ", subsequent_indent="    ")
    return lines
