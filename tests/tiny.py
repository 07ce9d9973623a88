"""A Swin and a dataset small enough for tests that train: 32 pixels, 8 channels, random images with unknown cells."""

import numpy as np
import torch

from hf_cxr.config import CXRTrainingArguments, ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.losses import build_loss
from hf_cxr.models.build import build_model
from hf_cxr.models.head import freeze_backbone
from hf_cxr.processing import PixelProcessor, build_image_processor
from hf_cxr.sampling import EpochSampler
from hf_cxr.training.mixup import Mixup
from hf_cxr.training.trainer import CXRTrainer

SWIN = {
    "image_size": 32,
    "resize_size": 36,
    "model_kwargs": {
        "patch_size": 2,
        "window_size": 2,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
    },
}

# Options of a small model of each architecture, at 32 pixels.
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
CONVOLUTIONS = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
DENSE = {"growth_rate": 4, "depths": [2, 2], "width": 8, "bottleneck": 2}
WINDOWS = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
MODELS = {
    "beit": TRANSFORMER,
    "bit": CONVOLUTIONS | {"embedding_size": 8, "num_groups": 4},
    "convnext": CONVOLUTIONS,
    "convnextv2": CONVOLUTIONS,
    "csra": {"backbone_config": {"model_type": "convnextv2"} | CONVOLUTIONS},
    "data2vec-vision": TRANSFORMER,
    "deit": TRANSFORMER,
    "dinov2": TRANSFORMER,
    "dinov2_with_registers": TRANSFORMER,
    "dnet": DENSE,
    "efficientnet": {
        "initializer_range": 0.3,
        "batch_norm_momentum": 0.1,
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "hidden_dim": 128,
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [2, 2],
        "kernel_sizes": [3, 3],
        "expand_ratios": [1, 2],
        "num_block_repeats": [1, 1],
    },
    "focalnet": {"embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]},
    "ijepa": TRANSFORMER,
    "poolformer": CONVOLUTIONS,
    "regnet": CONVOLUTIONS | {"embedding_size": 8, "groups_width": 4},
    "resnet": CONVOLUTIONS | {"embedding_size": 8},
    "segformer": CONVOLUTIONS | {"num_attention_heads": [1, 1, 1, 1], "decoder_hidden_size": 8},
    "swin": WINDOWS,
    "swinchex": WINDOWS | {"head_sizes": [8, 4]},
    "swinv2": WINDOWS,
    "vit": TRANSFORMER,
    "vit_msn": TRANSFORMER,
    "wang2017": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "transition_size": 12},
    "yao2017": DENSE | {"state_size": 8, "input_size": 6},
}

# What a report says of how a run was made; tests change what they are about.
PROTOCOL = {
    "dataset": "a hospital's table",
    "synthetic": False,
    "splits": {name: {"images": 40, "patients": 20} for name in ("train", "validation", "test")},
    "split_fingerprint": "f" * 64,
    "splits_from": "the table's own",
    "split_file": None,
    "training_views": {"PA": 40},
    "labels_shuffled": False,
    "training_images_limited_to": None,
    "missing_images": {},
    "unreadable_images": {},
    "initial_weights": "random",
    "base_model": None,
    "loss": {"name": "bce", "options": {}, "class_weights_kind": "none"},
    "sampler": {"name": "shuffle", "options": {}},
    "stages": {
        "reweight_from_epoch": None,
        "ema_decay": None,
        "freeze_backbone": False,
        "reinitialize_head": True,
        "feature_oversampling": None,
    },
    "selection": "best validation auc",
    "calibration": None,
    "calibration_exceptions": {},
    "seed": 0,
}


def swin(**kwargs):
    """The tiny Swin's settings with other ``model_kwargs``."""
    return SWIN | {"model_kwargs": SWIN["model_kwargs"] | kwargs}


def save_model(folder, names=NIH14, *, spread=None, seed=0):
    """A model folder: a Swin of one block for these findings, with its image processor.

    ``spread``: standard deviation of the head's weights, so that other pixels have other probabilities.
    """
    torch.manual_seed(seed)
    model = build_model(ModelArguments(**swin(depths=[1], num_heads=[1])), names)
    if spread is not None:
        torch.nn.init.normal_(model.classifier.weight, std=spread)
    model.save_pretrained(folder)
    build_image_processor(SWIN["resize_size"], SWIN["image_size"]).save_pretrained(folder)
    return folder


def rows(n_images=40, seed=0):
    """Random images whose labels are partly unknown, and unevenly so: some rows wholly."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_images, 14)) < 0.3).astype(np.float32)
    labels[rng.random((n_images, 14)) < 0.2] = np.nan
    labels[: n_images // 6] = np.nan
    pixels = rng.integers(0, 256, (n_images, 36, 36), dtype=np.uint8)
    return [{"pixels": pixels[i], "labels": labels[i], "row": i} for i in range(n_images)]


def trainer(
    output_dir,
    *,
    dataset=None,
    loss="class_aware",
    drop_path_rate=0.0,
    callbacks=None,
    average=None,
    eval_dataset=None,
    freeze=False,
    sampler=None,
    interpolation=None,
    rates=None,
    mixup_alpha=0.0,
    compute_metrics=None,
    model=None,
    **kwargs,
):
    """A CXRTrainer whose weights depend on nothing but the arguments."""
    torch.manual_seed(0)
    dataset = rows() if dataset is None else dataset
    model = model or build_model(ModelArguments(**swin(drop_path_rate=drop_path_rate)), NIH14)
    if freeze:
        freeze_backbone(model)
    defaults = {
        "output_dir": str(output_dir),
        "max_grad_norm": 0.0,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "logging_steps": 1,  # what is logged is the mean over processes
        "use_cpu": True,
    }
    args = CXRTrainingArguments(**(defaults | kwargs))
    label_NC = np.stack([row["labels"] for row in dataset])
    step_images = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    sampler = sampler or EpochSampler(np.ones(len(dataset)), batch_size=step_images, seed=3)
    mixup = Mixup(np.ones(len(dataset)), alpha=mixup_alpha, seed=3) if mixup_alpha else None
    if mixup:
        sampler, dataset = mixup.sampler(sampler), mixup.dataset(dataset)
    return CXRTrainer(
        model=model,
        args=args,
        loss=build_loss(loss, positives_C=np.nansum(label_NC, 0), known_C=(~np.isnan(label_NC)).sum(0)),
        pixels=PixelProcessor(build_image_processor(36, 32), horizontal_flip=0.5, rotation_degrees=15, seed=3),
        sampler=sampler,
        decay_all_parameters=args.optimizer != "adamw",
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
        average=average,
        interpolation=interpolation,
        rates=rates,
        mixup=mixup,
        compute_metrics=compute_metrics,
    )
