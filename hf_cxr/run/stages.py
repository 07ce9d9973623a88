"""One run, as a method section: load, train, calibrate on validation, measure once on test, write.

Only the main process writes. The run folder is complete when metrics.json is there: it is written last.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedModel, set_seed
from transformers.image_processing_utils import BaseImageProcessor

import hf_cxr
from hf_cxr import hub
from hf_cxr.config import RunArguments
from hf_cxr.data import (
    DecodedImages,
    Source,
    StreamedImages,
    check_positives,
    is_streamed,
    label_matrix,
    load_source,
    with_images,
)
from hf_cxr.evaluation import EvaluationReport, evaluate_predictions
from hf_cxr.evaluation.calibration import Calibration, fit_calibration
from hf_cxr.evaluation.hf_metric import MultiLabelMetric
from hf_cxr.evaluation.metrics import counts
from hf_cxr.inference.classifier import Classifier, stock_images, stock_pipeline
from hf_cxr.labels import LabelSpace
from hf_cxr.losses import MultiLabelLoss, build_loss
from hf_cxr.models.build import build_model, check_model, describe_initial_weights, fold_into_head, freeze_backbone
from hf_cxr.predictions import Predictions
from hf_cxr.processing import PixelProcessor, image_processor_for
from hf_cxr.reporting.run import Report
from hf_cxr.run.checks import check_loss, check_reweighting
from hf_cxr.run.folder import (
    UNCALIBRATED,
    logged_to,
    on_main_process,
    opened_run_folder,
    save_model_folder,
    write_run_folder,
    write_validation,
)
from hf_cxr.run.preflight import LeftOut, check_run, unreadable_ids, way_out_named
from hf_cxr.run.provenance import describe_environment, describe_protocol, describe_training
from hf_cxr.run.resume import check_resume
from hf_cxr.sampling import EpochSampler, RepeatedRows, expected_counts, expected_draws
from hf_cxr.training.callbacks import DeferredReweighting, EarlyStopping, WeightAverage
from hf_cxr.training.feature_oversampling import FeatureOversampling, features_of
from hf_cxr.training.trainer import CXRTrainer

logger = logging.getLogger(__name__)

PIPELINE_TOLERANCE = 1e-4  # in probability, for images that need no resizing; see `compare_with_stock_pipeline`


def run(args: RunArguments) -> Report | None:
    """Fine-tune, calibrate, measure and document one model.

    Args:
        args: from `config.parse_arguments`.

    Returns:
        The report, on the main process; None on the rest, and with ``measure_test`` false, which stops after
        validation and writes validation.json. The run folder ``args.training.output_dir`` holds the same and the
        model. If a push failed, ``report.push_error`` says why; the folder is complete all the same.

    Raises:
        ValueError: the arguments contradict each other, the data or the run folder.
    """
    check_loss(args)
    state = PartialState()
    run_dir = Path(args.training.output_dir)
    with opened_run_folder(args, state) as checkpoint, logged_to(run_dir / "run.log", state):
        check_model(args.model)  # before a repository is made or data are read
        processor = image_processor_for(args.model)
        repo_id = on_main_process(state, lambda: prepare_hub(args, run_dir))
        with state.main_process_first():  # the first process renders or reads into the cache, the others find it there
            loaded = load_source(args.data, seed=args.training.seed)
        log_splits(loaded.splits, loaded.labels)
        check_positives(loaded.splits["train"])
        loaded.check_pixels(processor.size["height"], int(processor.resample))
        source, left_out = check_run(args, loaded)
        unreadable = unreadable_ids(loaded.splits, left_out)
        origin = on_main_process(state, lambda: check_resume(args, run_dir, checkpoint, loaded, unreadable=unreadable))
        splits, label_names = source.splits, source.labels

        draws_N = draw_training_images(args, splits["train"])
        loss, head_bias_C = build_training_loss(args, splits["train"], draws_N)
        set_seed(args.training.seed)  # the Trainer does it too, but only after the model has its first weights
        weights = describe_initial_weights(args.model)
        model = build_model(args.model, label_names, head_bias_C, keep_head=not args.stages.reinitialize_head)
        check_first_stage(args, model, source)
        if args.stages.freeze_backbone:
            freeze_backbone(model)
        model.config.hf_cxr = {"version": hf_cxr.__version__, "split": source.fingerprint, "loss": loss.describe()}
        model.config.hf_cxr |= {**origin, "dataset": source.name, "synthetic": source.synthetic}
        trainer = build_trainer(args, model, processor, loss, draws_N, splits, label_names, left_out)

        logger.info("%s", f"resuming from {checkpoint}" if checkpoint else "training from the start")
        with way_out_named():
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model(str(run_dir / UNCALIBRATED))
        state.wait_for_everyone()

        if not args.evaluation.measure_test:
            if state.is_main_process:
                protocol = describe_protocol(args, source, loss, None, trainer, left_out, weights)
                write_validation(run_dir, protocol, describe_training(trainer, checkpoint), trainer.state)
                logger.info("stopped after validation, as measure_test is false: no test image was predicted")
            state.wait_for_everyone()
            return None

        logger.info("calibrating on validation, then measuring once on test")
        classifier = Classifier(run_dir / UNCALIBRATED)  # from disk, in float32: as a user loads it
        validation = predict(classifier, splits, "validation", args)
        calibration = fit_calibration(validation.logits, validation.labels, label_names=label_names)
        validation = calibrate(validation, calibration, args)
        test = calibrate(predict(classifier, splits, "test", args), calibration, args)
        report = None
        if state.is_main_process:
            report = Report(
                name=run_dir.name,
                model_id=repo_id or ".",
                protocol=describe_protocol(args, source, loss, calibration, trainer, left_out, weights),
                test=measure(test, label_names, args),
                validation=measure(validation, label_names, args),
                calibration=calibration.to_dict() if args.evaluation.calibrate else None,
                training=describe_training(trainer, checkpoint),
                history=trainer.state.log_history,
                environment=describe_environment(state),
            )
            save_calibrated(run_dir, classifier.model, processor, calibration, args)
            report.stock_pipeline = compare_with_stock_pipeline(run_dir, splits["test"], test)
            write_run_folder(run_dir, classifier.model.config, report, (validation, test))
            push(args, run_dir, repo_id, report)
        state.wait_for_everyone()
    return report


def prepare_hub(args: RunArguments, run_dir: Path) -> str | None:
    """Create the Hub repository if the run is to be pushed: before the training hours, not after."""
    if not args.training.push_to_hub:
        return None
    name, private = hub.push_target(args.training)
    repo_id = hub.prepare_repo(name, private=private, token=args.training.hub_token)
    command = hub.push_command(run_dir, repo_id, private=private)
    logger.info("the run goes to %s at its end; if that push is interrupted, finish it with: %s", repo_id, command)
    return repo_id


def push(args: RunArguments, run_dir: Path, repo_id: str | None, report: Report) -> None:
    """Push the finished run folder and note its address in the report, or why it could not be pushed."""
    if repo_id is None:
        return
    _, private = hub.push_target(args.training)
    try:
        report.hub_url = hub.push_run(run_dir, repo_id, private=private, token=args.training.hub_token)
    except (hub.HubError, ValueError, OSError) as error:
        command = hub.push_command(run_dir, repo_id, private=private)
        report.push_error = f"{error}. The run folder is complete; push it with: {command}"
        logger.error("not pushed: %s", report.push_error)


def check_first_stage(args: RunArguments, model: PreTrainedModel, source: Source) -> None:
    """Refuse a model of this package that was trained on another cut of the same data: it knows test patients.

    One trained on other data may be fine-tuned: whether they share patients is unknown here, so a warning is logged.
    """
    name, before = args.model.model_name_or_path, getattr(model.config, "hf_cxr", None) or {}
    if not before or before.get("split") == source.fingerprint:
        return
    if before.get("dataset", source.name) == source.name:
        raise ValueError(
            f"{name} was trained on the split {before.get('split')} of {source.name}, the data are now "
            f"{source.fingerprint}: images that are now for validation and test may have been trained on; give the "
            "data it was trained with, or another --model_name_or_path"
        )
    logger.warning(
        "%s was trained on %s: if they share patients with these data, the figures are inflated",
        name,
        before["dataset"],
    )


def log_splits(splits: datasets.DatasetDict, label_names: LabelSpace) -> None:
    """Log how many images each split has, and which findings cannot be learnt."""
    logger.info("%s", ", ".join(f"{name}: {len(split):,} images" for name, split in splits.items()))
    positives_C = counts(label_matrix(splits["train"]))[0]
    without = [name for name, positives in zip(label_names, positives_C, strict=True) if positives == 0]
    if without:
        logger.warning("no positive training image of %s: it cannot be learnt", ", ".join(without))


def draw_training_images(args: RunArguments, train: datasets.Dataset) -> np.ndarray:
    """How often an epoch draws each training image on average, (N,)."""
    label_NC = label_matrix(train)
    draws_N = expected_draws(args.sampling.sampler, label_NC, **args.sampling.options())
    if args.sampling.sampler != "shuffle":
        logger.info(
            "sampler %s: %s draws an epoch, %.1f %% of the images on average",
            args.sampling.sampler,
            f"{draws_N.sum():,.0f}",
            100 * np.minimum(draws_N, 1).mean(),
        )
    return draws_N


def build_training_loss(
    args: RunArguments, train: datasets.Dataset, draws_N: np.ndarray
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
        class_weights=args.loss.class_weights,
        given_class_weights=args.loss.given_class_weights,
        beta=args.loss.effective_number_beta,
        **args.loss.options(),
    )
    check_reweighting(args, loss)
    loss.set_label_smoothing(args.training.label_smoothing_factor)
    if args.loss.head_bias == "zero":
        return loss, None
    known_C = positives_C + negatives_C
    prevalence_C = np.divide(positives_C, known_C, out=np.zeros_like(known_C), where=known_C > 0)
    return loss, loss.no_information_logits(torch.as_tensor(prevalence_C), label_NC, draws_N).numpy()


def build_trainer(
    args: RunArguments,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    loss: MultiLabelLoss,
    draws_N: np.ndarray,
    splits: datasets.DatasetDict,
    label_names: LabelSpace,
    left_out: LeftOut,
) -> CXRTrainer:
    """The Trainer with the run's loss, sampler, pixels, optimizer and validation metrics."""
    # A copy without the Hub's keys. The folder is pushed once, complete, by hub.py; the Trainer would push checkpoints
    # without card and report. And the Trainer and its callbacks save their arguments: a token must not be among them.
    training = copy.copy(args.training)
    training.push_to_hub, training.hub_token = False, None
    seed = training.seed if training.data_seed is None else training.data_seed
    pixels = PixelProcessor(
        processor,
        horizontal_flip=args.model.horizontal_flip,
        rotation_degrees=args.model.rotation_degrees,
        seed=seed,
    )
    train, validation = open_images(args, pixels, splits, seed, left_out)
    start, decay = args.stages.reweight_from_epoch, args.stages.ema_decay
    callbacks = [] if start is None else [DeferredReweighting(loss, start)]
    if training.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(training.early_stopping_patience, training.early_stopping_threshold or 0.0))
    sampler = None
    if not is_streamed(splits["train"]):
        sampler = EpochSampler(draws_N, batch_size=training.images_per_step, seed=seed)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return CXRTrainer(
        model=model,
        args=training,
        loss=loss,
        pixels=pixels,
        sampler=sampler,
        decay_all_parameters=training.optimizer == "adam",
        average=None if decay is None else WeightAverage(decay),
        interpolation=build_interpolation(args, model, pixels, train, label_matrix(splits["train"]), seed),
        callbacks=callbacks,
        train_dataset=train if sampler is None else RepeatedRows(train),
        eval_dataset=validation,
        processing_class=processor,
        compute_metrics=validation_metrics(label_names),
        optimizer_cls_and_kwargs=(
            optimizer,
            {
                "lr": training.learning_rate,
                "betas": (training.adam_beta1, training.adam_beta2),
                "eps": training.adam_epsilon,
            },
        ),
    )


def open_images(
    args: RunArguments, pixels: PixelProcessor, splits: datasets.DatasetDict, seed: int, left_out: LeftOut
) -> tuple[Dataset, Dataset]:
    """Training and validation as rows of pixels: decoded when asked for, or streamed in an order of their own."""
    training, size = args.training, (pixels.resize_size, pixels.resample)
    if not is_streamed(splits["train"]):
        train = DecodedImages(splits["train"], *size, left_out=left_out.get("train", ()))
        return train, DecodedImages(splits["validation"], *size)
    share = {"processes": training.world_size, "process": training.process_index}
    train = StreamedImages(
        splits["train"],
        *size,
        batch_size=training.train_batch_size,
        step_size=training.images_per_step,
        shuffle=True,
        buffer=args.data.streaming_buffer,
        seed=seed,
        **share,
    )
    return train, StreamedImages(splits["validation"], *size, batch_size=training.eval_batch_size, **share)


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
    """Macro AUC and mean average precision, for choosing the checkpoint; intervals come at the end."""
    metric = MultiLabelMetric(label_names)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        result = metric.compute(predictions=prediction.predictions, references=prediction.label_ids)
        return {name: result[name] for name in ("auc", "mean_average_precision")}

    return compute


def predict(classifier: Classifier, splits: datasets.DatasetDict, name: str, args: RunArguments) -> Predictions:
    """Logits of a split; all processes share the work and each gets the whole."""
    with way_out_named():
        return classifier.predict_split(
            splits[name],
            name,
            batch_size=args.training.per_device_eval_batch_size,
            workers=args.training.dataloader_num_workers,
        )


def calibrate(predictions: Predictions, calibration: Calibration, args: RunArguments) -> Predictions:
    """The predictions as the calibrated model makes them; as they are if calibration is turned off."""
    if not args.evaluation.calibrate:
        return predictions
    return dataclasses.replace(
        predictions,
        logits=calibration.apply(predictions.logits),
        metadata={**predictions.metadata, "calibrated": True},
    )


def save_calibrated(
    run_dir: Path,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    calibration: Calibration,
    args: RunArguments,
) -> None:
    """Fold the calibration into the model's head and write the model's folder."""
    if args.evaluation.calibrate:
        weight_CD, bias_C = (parameter.detach().cpu().numpy() for parameter in model.classifier.parameters())
        fold_into_head(model, *calibration.fold(weight_CD, bias_C))
        model.config.hf_cxr = {**model.config.hf_cxr, "calibration": calibration.to_dict()}
    save_model_folder(run_dir, model, processor)


def measure(predictions: Predictions, label_names: LabelSpace, args: RunArguments) -> EvaluationReport:
    """Every figure of a split; AUC and average precision with patient-clustered intervals."""
    return evaluate_predictions(
        predictions.probabilities,
        predictions.labels,
        predictions.patient_ids,
        label_names=label_names,
        resamples=args.evaluation.bootstrap_resamples,
        confidence=args.evaluation.confidence,
        seed=args.training.seed,
    )


def compare_with_stock_pipeline(run_dir: Path, split: datasets.Dataset, predictions: Predictions) -> dict[str, Any]:
    """What the stock pipeline says of the first eight test images, beside what was evaluated.

    Law 1 of the design is looked at in each run and not only in the tests. Files that the pipeline can't read alike
    (16 bits, DICOM) go in as the evaluation's 8-bit grey.

    Returns:
        The largest difference of a probability, and of the first image with a finding: id, labels and scores. Those
        of a patient's image are for the terminal only, see `Report.to_dict`.
    """
    rows = sorted({*range(min(8, len(split))), int(np.argmax(np.nansum(predictions.labels, axis=1) > 0))})
    answers = stock_pipeline(run_dir, stock_images(with_images(split, rows), range(len(rows))))
    evaluated = predictions.probabilities
    difference = max(
        abs(answer[name] - evaluated[row, column])
        for row, answer in zip(rows, answers, strict=True)
        for column, name in enumerate(predictions.label_names)
    )
    if difference > PIPELINE_TOLERANCE:
        logger.warning("the stock pipeline's probabilities differ from the evaluation's by up to %.1e", difference)
    shown = next((i for i, row in enumerate(rows) if np.nansum(predictions.labels[row]) > 0), 0)
    cells = zip(predictions.label_names, predictions.labels[rows[shown]], strict=True)
    return {
        "images": len(rows),
        "largest_difference": float(difference),
        "image_id": predictions.image_ids[rows[shown]],
        "labels": [name for name, cell in cells if cell == 1],
        "scores": answers[shown],
    }
