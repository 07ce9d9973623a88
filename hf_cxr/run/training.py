"""The parts of a run's training: the draws, the loss, the images and the Trainer that holds them.

N = images, C = findings, D = features.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback, set_seed
from transformers.image_processing_utils import BaseImageProcessor

import hf_cxr
from hf_cxr.augmentation import Augmentation
from hf_cxr.config import CXRTrainingArguments, ModelArguments, PretrainArguments, RunArguments
from hf_cxr.data import DecodedImages, Source, StreamedImages, is_streamed, label_matrix
from hf_cxr.data.fingerprint import load_state
from hf_cxr.data.images.held import held
from hf_cxr.evaluation import headline_metrics
from hf_cxr.evaluation.hf_metric import MultiLabelMetric
from hf_cxr.labels import LabelSpace
from hf_cxr.losses import MultiLabelLoss, build_loss
from hf_cxr.models.attention import use_attention
from hf_cxr.models.batch_norm import batch_norms, check_batch_norm
from hf_cxr.models.build import build_model, check_model, initial_record
from hf_cxr.models.head import freeze_backbone
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import PixelProcessor
from hf_cxr.reporting.weights_origin import origin_cautions
from hf_cxr.run.data import OpenedData, RunData
from hf_cxr.sampling import EpochSampler, RepeatedRows, expected_counts, expected_draws
from hf_cxr.training.callbacks import DeferredReweighting, EarlyStopping, WeightAverage
from hf_cxr.training.feature_oversampling import FeatureOversampling, features_of
from hf_cxr.training.layer_rates import LayerRates
from hf_cxr.training.mixup import Mixup
from hf_cxr.training.sharding import uses_fsdp
from hf_cxr.training.trainer import CXRTrainer
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

# Devices with fused optimizers. On one CPU thread a step of Adam takes 1/7 of the time, of AdamW 1/5 (8 million
# weights).
FUSED_OPTIMIZER = ("cpu", "cuda", "mps", "xpu")


def draw_training_images(args: RunArguments, train: datasets.Dataset) -> np.ndarray:
    """How often an epoch draws each training image on average, (N,)."""
    label_NC = label_matrix(train)
    draws_N = expected_draws(args.sampling.sampler, label_NC, **args.sampling.sampler_kwargs)
    if args.sampling.sampler != "shuffle":
        logger.info(
            "sampler %s: %s draws an epoch, %.1f %% of the images on average",
            args.sampling.sampler,
            f"{draws_N.sum():,.0f}",
            100 * np.minimum(draws_N, 1).mean(),
        )
    return draws_N


def build_training_loss(
    args: RunArguments, train: datasets.Dataset, draws_N: np.ndarray, label_names: LabelSpace
) -> tuple[MultiLabelLoss, np.ndarray | None]:
    """The loss with its class weights, and where its head's bias (C,) starts, in logits.

    Weights, prevalence and bias come from what an epoch is expected to draw (N,): under re-sampling that is what the
    model is trained on. The calibration on validation brings the natural prevalence back.
    """
    label_NC = label_matrix(train)
    positives_C, negatives_C = expected_counts(draws_N, label_NC)
    loss = build_loss(
        args.loss.loss,
        positives_C=positives_C,
        known_C=positives_C + negatives_C,
        label_names=label_names,
        **args.loss.loss_kwargs,
    )
    loss.set_label_smoothing(args.training.label_smoothing_factor)
    if args.loss.head_bias == "zero":
        return loss, None
    known_C = positives_C + negatives_C
    # NaN where nothing is known: no information about a finding is a probability of 0.5, not of 0.
    prevalence_C = np.divide(positives_C, known_C, out=np.full_like(known_C, np.nan), where=known_C > 0)
    return loss, loss.no_information_logits(torch.as_tensor(prevalence_C), label_NC, draws_N).numpy()


def build_first_model(
    args: RunArguments, data: RunData, loss: MultiLabelLoss, head_bias_C: np.ndarray | None
) -> PreTrainedModel:
    """The model before its first step: its record says which data and which loss it is of.

    Raises:
        ValueError: its weights are refused; see `check_first_stage` and `models.build`.
    """
    set_seed(args.training.seed)  # the Trainer does it too, but only after the model has its first weights
    model = build_model(args.model, data.label_names, head_bias_C, keep_head=not args.stages.reinitialize_head)
    check_first_stage(args, model, data.source)
    before = initial_record(args.model)
    choose_attention(args, model)
    if args.stages.freeze_backbone:
        freeze_backbone(model)
    blank = len(data.blank_rows)
    if blank and batch_norms(model):
        logger.warning(
            "%s that cannot be read are blank in training, and batch norm measures them too: remove them",
            plural(blank, "training image"),
        )
    origin = before and before.weights_origin
    first_record(data, before, loss=loss.describe(), weights_origin=origin).write(model.config)
    return model


def first_record(data: OpenedData, before: ModelRecord | None, **own: Any) -> ModelRecord:
    """The record of a model before its first step: its data, its earlier stages, and the fields given.

    Args:
        data: that it is trained on.
        before: the record of its initial weights; None without one.
        own: further fields.
    """
    source = data.source
    return ModelRecord(
        version=hf_cxr.__version__,
        dataset=source.name,
        synthetic=source.synthetic,
        split=source.fingerprint,
        licence_note=source.licence_note,
        earlier_stages=before and (before.stages or None),
        **data.origin,
        **own,
    )


def choose_attention(args: RunArguments | PretrainArguments, model: PreTrainedModel) -> None:
    """Let the model compute attention as asked for, or as it is fastest on the run's device."""
    chosen = use_attention(
        model,
        args.model.attention,
        device=args.training.device.type,
        bf16=args.training.bf16,
        sharded=uses_fsdp(),
    )
    logger.info("attention: %s", chosen)


def log_unused_gpus(training: CXRTrainingArguments, command: str = "train") -> None:
    """Log how to use the GPUs that this process leaves unused: a process has one device.

    Args:
        training: of the run.
        command: of hf-cxr.
    """
    if not training.unused_gpus:
        return
    count, images = training.unused_gpus + 1, training.images_per_step
    if training.per_device_train_batch_size % count == 0:
        step = f"--per_device_train_batch_size {training.per_device_train_batch_size // count}"
    elif training.gradient_accumulation_steps % count == 0:
        step = f"--gradient_accumulation_steps {training.gradient_accumulation_steps // count}"
    else:
        step = f"--images_per_step {count * images} (another recipe: {count} do not share {images} images evenly)"
    logger.warning(
        "one process uses one of the %d GPUs (CUDA_VISIBLE_DEVICES says which); to use all of them: accelerate launch "
        "--multi_gpu --num_processes %d -m hf_cxr %s ... %s",
        count,
        count,
        command,
        step,
    )


def check_training_model(args: RunArguments) -> None:
    """Refuse at the start, before data are read, a model that cannot be built or not be trained as asked.

    Raises:
        ValueError, OSError: as `models.build.build_model`, `models.batch_norm.check_batch_norm` and
            `training.layer_rates.LayerRates.check`.
    """
    model, training = check_model(args.model), args.training
    if args.stages.freeze_backbone:
        freeze_backbone(model)
    check_batch_norm(
        model,
        images=training.images_per_step,
        accumulation=training.gradient_accumulation_steps,
        processes=training.world_size,
        device=training.device.type,
        sharded=uses_fsdp(),
    )
    rates = layer_rates(training)
    if rates is not None:
        rates.check(model)


def check_first_stage(args: RunArguments | PretrainArguments, model: PreTrainedModel, source: Source) -> None:
    """Refuse weights that this package ever trained on another cut of the same data: they know test patients.

    Every stage that the weights went through is looked at, not only the last one. Weights that were trained on other
    data are accepted: whether they share patients is unknown here, so a warning is logged.
    """
    name = args.model.initial_model
    before = ModelRecord.of(model.config) if args.model.backbone_name_or_path is None else initial_record(args.model)
    if before is None:
        return
    if before.split is None and before.weights_origin is not None:  # converted: its own data are in no split of ours
        for caution in origin_cautions(before.weights_origin):
            logger.warning(caution)
    elsewhere = []
    for stage in before.stages:
        split, held_out = stage.get("split"), stage.get("held_out")
        if split == source.fingerprint or (held_out and held_out == source.held_out):
            continue  # its validation and test rows are those of these data
        if stage.get("dataset") in (None, source.name):
            raise ValueError(
                f"{name} was trained on the split {split} of {source.name}, the data are now {source.fingerprint}: "
                "images that are now for validation and test may have been trained on; give the data it was trained "
                "with, or other initial weights"
            )
        elsewhere.append(stage["dataset"])
    if not elsewhere:
        return
    shared = trained_on(name, source)  # the last stage's: the folders of those before it are not known
    words = f"; {shared:,} of its training images have the ids of validation and test images here" if shared else ""
    logger.warning(
        "%s was trained on %s: if they share patients with these data, the figures are inflated%s",
        name,
        " and ".join(dict.fromkeys(elsewhere)),
        words,
    )


def trained_on(folder: str, source: Source) -> int:
    """How many image ids of validation and test a run or pre-training in a folder was trained on, as far as it is
    recorded there: in the data.parquet of a folder on this machine.
    """
    state = load_state(folder)
    if state is None:
        return 0
    trained = set(state.filter(pc.equal(state["split"], "train"))["image_id"].to_pylist())
    return sum(
        len(trained.intersection(split["image_id"][:])) for name, split in source.splits.items() if name != "train"
    )


def without_hub(training: CXRTrainingArguments) -> CXRTrainingArguments:
    """A copy without the Hub's keys, for the Trainer.

    The folder is pushed once, complete, by `hub`; the Trainer would push checkpoints without card and report. And the
    Trainer and its callbacks save their arguments: a token must not be among them.
    """
    own = copy.copy(training)  # dataclasses.replace would set up the devices again
    own.push_to_hub, own.hub_token = False, None
    return own


def build_trainer(
    args: RunArguments,
    data: RunData,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    loss: MultiLabelLoss,
    draws_N: np.ndarray,
    further: Sequence[TrainerCallback] = (),
) -> CXRTrainer:
    """The Trainer with the run's loss, sampler, pixels, optimizer and validation metrics; and further callbacks."""
    training, splits = without_hub(args.training), data.splits
    seed = training.order_seed
    pixels = build_pixels(args.model, processor, seed)
    images = open_images(args, pixels, splits["train"], data.blank_rows)
    validation = open_measured_images(training, pixels, splits["validation"])
    start, decay = args.stages.reweight_from_epoch, args.stages.ema_decay
    callbacks = [] if start is None else [DeferredReweighting(loss, start)]
    if training.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(training.early_stopping_patience, training.early_stopping_threshold or 0.0))
    sampler, train = drawn_images(training, images, draws_N)
    mixup = None
    if args.sampling.mixup_alpha:
        mixup = Mixup(draws_N, alpha=args.sampling.mixup_alpha, seed=seed)
        sampler, train = mixup.sampler(sampler), mixup.dataset(train)
    return CXRTrainer(
        **trainer_options(training, model, processor, pixels),
        loss=loss,
        sampler=sampler,
        average=None if decay is None else WeightAverage(decay),
        interpolation=build_interpolation(args, model, pixels, images, label_matrix(splits["train"]), seed),
        rates=layer_rates(training),
        mixup=mixup,
        callbacks=[*callbacks, *further],
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=validation_metrics(data.label_names),
    )


def trainer_options(
    training: CXRTrainingArguments, model: PreTrainedModel, processor: BaseImageProcessor, pixels: PixelProcessor
) -> dict[str, Any]:
    """Keywords of the Trainer of a run and of a pre-training: model, pixels and optimizer."""
    return {
        "model": model,
        "args": training,
        "pixels": pixels,
        "processing_class": processor,
        "decay_all_parameters": training.optimizer != "adamw",
        "optimizer_cls_and_kwargs": optimizer_of(training),
    }


def drawn_images(
    training: CXRTrainingArguments, images: Dataset, draws_N: np.ndarray
) -> tuple[EpochSampler | None, Dataset | RepeatedRows]:
    """What draws an epoch's images, and the images by its numbers; a stream has its own order, and no sampler."""
    if isinstance(images, StreamedImages):
        return None, images
    return EpochSampler(draws_N, batch_size=training.images_per_step, seed=training.order_seed), RepeatedRows(images)


def build_pixels(args: ModelArguments, processor: BaseImageProcessor, seed: int) -> PixelProcessor:
    """Preprocessing and augmentation of batches."""
    return PixelProcessor(processor, seed=seed, **vars(Augmentation.of(args)))


def optimizer_of(training: CXRTrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class of a run's optimizer and its keyword arguments."""
    options = {"lr": training.learning_rate, "fused": training.device.type in FUSED_OPTIMIZER}
    if training.optimizer == "sgd":
        return torch.optim.SGD, options | {"momentum": training.sgd_momentum}
    options |= {"betas": (training.adam_beta1, training.adam_beta2), "eps": training.adam_epsilon}
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer], options


def layer_rates(training: CXRTrainingArguments) -> LayerRates | None:
    """How the learning rates of layers and head differ; None if they do not."""
    names = [field.name for field in dataclasses.fields(LayerRates)]
    rates = LayerRates(**{name: getattr(training, name) for name in names})
    return None if rates == LayerRates() else rates


def open_images(
    args: RunArguments | PretrainArguments,
    pixels: PixelProcessor,
    train: datasets.Dataset,
    blank_rows: Collection[int],
) -> Dataset:
    """Training images as rows of pixels: decoded when asked for, or streamed in an order of their own."""
    training, size = args.training, (pixels.resize_size, pixels.resample)
    if not is_streamed(train):
        return held(DecodedImages(train, *size, left_out=blank_rows), training.dataloader_num_workers)
    return StreamedImages(
        train,
        *size,
        batch_size=training.train_batch_size,
        step_size=training.images_per_step,
        shuffle=True,
        buffer=args.data.streaming_buffer,
        seed=training.order_seed,
        processes=training.world_size,
        process=training.process_index,
    )


def open_measured_images(training: CXRTrainingArguments, pixels: PixelProcessor, split: datasets.Dataset) -> Dataset:
    """The images that an epoch ends with, as rows of pixels in their order."""
    size = (pixels.resize_size, pixels.resample)
    if not is_streamed(split):
        return held(DecodedImages(split, *size), training.dataloader_num_workers)
    share = {"processes": training.world_size, "process": training.process_index}
    return StreamedImages(split, *size, batch_size=training.eval_batch_size, **share)


def build_interpolation(
    args: RunArguments,
    model: PreTrainedModel,
    pixels: PixelProcessor,
    images: DecodedImages,
    label_NC: np.ndarray,
    seed: int,
) -> FeatureOversampling | None:
    """Feature-space over-sampling, from one pass over the images with findings; None unless it is asked for."""
    if args.stages.feature_oversampling is None:
        return None
    feature_ND = features_of(
        model,
        pixels,
        images,
        np.flatnonzero((label_NC == 1).any(axis=1)),
        device=args.training.device,
        batch_size=args.training.per_device_eval_batch_size,
        workers=args.training.dataloader_num_workers,
    )
    return FeatureOversampling(feature_ND, label_NC, neighbours=args.stages.feature_oversampling, seed=seed)


def validation_metrics(label_names: LabelSpace) -> Callable[[EvalPrediction], dict[str, float]]:
    """Every headline metric, as a macro mean, for choosing the checkpoint; intervals come at the end."""
    metric = MultiLabelMetric(label_names)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        result = metric.compute(predictions=prediction.predictions, references=prediction.label_ids)
        return {name: result[name] for name in headline_metrics()}

    return compute
