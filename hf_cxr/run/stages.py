"""One run, as a method section: train, predict, calibrate on validation, measure once on test, document, push.

Each stage is a function over a run folder: it reads what the stages before it wrote there, and may be repeated alone
(then those after it have to be repeated too). Which files each writes, and how a stage is known to be done, is listed
in `hf_cxr.run.stage_files`. A run that is started again does not repeat a stage that is done.

All processes train and predict; the main process alone does the rest and writes.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from transformers import AutoConfig, TrainerCallback

from hf_cxr import processes
from hf_cxr.config import RunArguments
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.exported_files import EXPORT, MODEL
from hf_cxr.files import file_sha256, write_json, write_text
from hf_cxr.hub import push_run as push  # the last stage
from hf_cxr.hub.file_list import FIGURES
from hf_cxr.models.build import describe_initial_weights, describe_positions
from hf_cxr.models.head import fold_into_head
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.processing import PixelProcessor, image_processor_for
from hf_cxr.reporting.card import model_card as card
from hf_cxr.reporting.card.benchmark import Benchmark, benchmark_entry, write_benchmark, written_benchmark
from hf_cxr.reporting.run import Report
from hf_cxr.run import stage_files as files
from hf_cxr.run.analysis import ANALYSES, ANALYSIS, analyse, write_analysis
from hf_cxr.run.data import RunData, open_data, pinned
from hf_cxr.run.figures import measure_predictions
from hf_cxr.run.folder import logged_to, on_main_process, opened_run_folder
from hf_cxr.run.input_check import check_inputs, with_input_check
from hf_cxr.run.measuring import (
    calibrate_pair,
    intervals_of,
    label_sets,
    operating_points,
    predict_split,
    prevalence,
    stored_points,
)
from hf_cxr.run.preflight import image_errors_explained
from hf_cxr.run.provenance import (
    describe_calibration,
    describe_environment,
    describe_method,
    describe_operating_points,
    describe_protocol,
    describe_training,
)
from hf_cxr.run.publish import prepare_hub, push_after_training
from hf_cxr.run.stock import compare_with_stock_pipeline
from hf_cxr.run.training import (
    build_first_model,
    build_trainer,
    build_training_loss,
    check_training_model,
    draw_training_images,
    log_unused_gpus,
)
from hf_cxr.run.validation import write_validation
from hf_cxr.saved_models import CONFIG, WEIGHTS, read_json
from hf_cxr.systems import register

__all__ = ["calibrate", "document", "finish", "measure", "predict", "push", "run", "train"]

logger = logging.getLogger(__name__)


def run(args: RunArguments, callbacks: Sequence[TrainerCallback] = ()) -> Report | None:
    """Fine-tune, calibrate, measure and document one model.

    Args:
        args: from `config.parse_arguments`.
        callbacks: of the Trainer, in addition to the run's own.

    Returns:
        The report, on the main process; None on the rest, and with ``measure_test`` false, which stops after
        validation and writes validation.json. The run folder ``args.training.output_dir`` holds the same and the
        model. If a push failed, ``report.push_error`` says why; the folder is complete all the same.

    Raises:
        ValueError: the arguments contradict each other, the data or the run folder.
    """
    state = PartialState()
    run_dir = Path(args.training.output_dir)
    report = None
    args = pinned(args)
    with opened_run_folder(args, state) as checkpoint, logged_to(run_dir / "run.log", state):
        log_unused_gpus(args.training)
        check_training_model(args)  # before a repository is made or data are read
        processor = image_processor_for(args.model)
        repo_id = on_main_process(lambda: prepare_hub(args.training, run_dir))
        done = on_main_process(lambda: files.done_stages(run_dir))
        trained = "train" in done
        before = files.trained_folder(run_dir) if trained else checkpoint
        data = open_data(args, run_dir, before, PixelProcessor(processor), trained=trained)
        log_start(done, checkpoint)
        if not trained:
            train(run_dir, args, data, checkpoint, callbacks)
        if not args.evaluation.measure_test:
            if state.is_main_process:
                write_validation(run_dir, args, data)
        else:
            if "predict" not in done:
                predict(run_dir, args, data)
            if state.is_main_process:
                report = finish(run_dir, args, data.splits, done=done, model_id=repo_id)
                report = push_after_training(run_dir, args.training, repo_id, report)
        processes.meet()
    return report


def train(
    run_dir: Path,
    args: RunArguments,
    data: RunData,
    checkpoint: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Fine-tune the model, from a checkpoint if one is given, and write it uncalibrated."""
    state = PartialState()
    draws_N = draw_training_images(args, data.splits["train"])
    loss, head_bias_C = build_training_loss(args, data.splits["train"], draws_N, data.label_names)
    weights = describe_initial_weights(args.model)  # now: a local folder can be gone after training
    if positions := describe_positions(args.model):
        weights["initial_weights"] += f"; {positions}"
    model = build_first_model(args, data, loss, head_bias_C)
    trainer = build_trainer(args, data, model, image_processor_for(args.model), loss, draws_N, callbacks)
    with image_errors_explained(), processes.watched():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model(str(run_dir / files.TRAINED))
    processes.meet()
    if state.is_main_process:
        trained = {
            "protocol": describe_method(args, trainer, loss, weights),
            "training": describe_training(trainer, checkpoint),
            "history": trainer.state.log_history,
            "environment": describe_environment(state),
        }
        write_json(run_dir / files.LAST_FILE["train"], trained)
    processes.meet()


def predict(run_dir: Path, args: RunArguments | None = None, data: RunData | None = None) -> None:
    """Uncalibrated logits of validation and test.

    Args:
        run_dir: the run folder, trained.
        args: of the run; by default those in its config.yaml.
        data: of the run; by default loaded and checked here.
    """
    state = PartialState()
    args = args or files.saved_arguments(run_dir)
    classifier = files.trained_classifier(run_dir, args.model.attention)
    data = data or open_data(args, run_dir, files.trained_folder(run_dir), classifier.pixels, trained=True)
    if state.is_main_process:
        files.forget(run_dir, "predict")
    pair = [predict_split(classifier, data.splits[name], name, args) for name in files.SPLITS]
    if state.is_main_process:
        trained = read_json(run_dir / files.LAST_FILE["train"])
        write_json(run_dir / files.PROTOCOL, describe_protocol(args, data, trained["protocol"]))
        files.save_pair(run_dir / files.STAGES, pair)
    processes.meet()


def calibrate(run_dir: Path, args: RunArguments | None = None) -> None:
    """Fit the calibration on the uncalibrated validation predictions, fold it into the classifier, choose the
    operating points and fit the label sets on validation as calibrated, and write the model.

    Repeated with the same settings it writes the same bytes: it always starts from the classifier as it was trained.

    Raises:
        ValueError, FileNotFoundError: the folder lacks what the stages before write.
    """
    args = args or files.saved_arguments(run_dir)
    classifier = files.trained_classifier(run_dir)
    pair = files.load_pair(run_dir / files.STAGES)
    files.forget(run_dir, "calibrate")
    model = classifier.model
    files.save_head(run_dir, model)
    record = ModelRecord.of(model.config) or ModelRecord()
    if args.evaluation.calibrate:
        pair, calibration = calibrate_pair(pair)
        fold_into_head(model, calibration.fold)
        record = dataclasses.replace(record, calibration=calibration.to_dict(), prevalence=prevalence(pair[0]))
    points = operating_points(pair[0], args)
    sets = label_sets(pair[0])
    record = dataclasses.replace(record, operating_points=points.to_dict(), conformal=sets and sets.to_dict())
    record.write(model.config)
    files.save_model_folder(run_dir, model)
    files.save_pair(run_dir / "predictions", pair)


def measure(
    run_dir: Path, args: RunArguments | None = None, test_images: datasets.Dataset | None = None
) -> dict[str, Any]:
    """Every figure of validation and test, and how far the stock pipeline is from them.

    Args:
        run_dir: the run folder, calibrated.
        args: of the run; by default those in its config.yaml.
        test_images: the test set with its images; without it the stock pipeline is not checked.

    Returns:
        What the stock pipeline says, see `compare_with_stock_pipeline`; {} without images. Scores of a patient's
        image are in no file.
    """
    args = args or files.saved_arguments(run_dir)
    trained = read_json(run_dir / files.LAST_FILE["train"])
    record = ModelRecord.of(read_json(run_dir / CONFIG))
    calibration = record.calibration and Calibration.from_dict(record.calibration)
    described = describe_calibration(calibration) | describe_operating_points(record.operating_points)
    validation, test = files.load_pair(run_dir / "predictions")
    points = stored_points(record)
    files.forget(run_dir, "measure")
    stock = {} if test_images is None else compare_with_stock_pipeline(run_dir, test_images, test)
    protocol = read_json(run_dir / files.PROTOCOL) | described
    how = {"training_positives": protocol.get("training_positives"), "intervals": intervals_of(args)}
    report = Report(
        name=run_dir.absolute().name,
        model_id=".",
        protocol=protocol,
        test=measure_predictions(test, points, **how),
        validation=measure_predictions(validation, points, **how),
        calibration=calibration and calibration.to_dict(),
        training=trained["training"],
        history=trained["history"],
        environment=trained["environment"],
        stock_pipeline=stock,
        test_measurements=files.next_measurement(run_dir),
    )
    uncalibrated, _ = files.load_pair(run_dir / files.STAGES)
    analysis = analyse(
        test,
        validation=validation,
        uncalibrated=uncalibrated,
        points=points,
        prevalence=record.prevalence,
        intervals=intervals_of(args),
    )
    if "calibration_maps" in analysis:
        analysis["calibration_maps"]["used"] = "affine" if calibration else "none"
    write_analysis(run_dir, with_input_check(run_dir, analysis))
    metrics = report.to_dict() | {"model_sha256": file_sha256(run_dir / WEIGHTS)}
    write_json(run_dir / files.LAST_FILE["measure"], metrics)
    return stock


def document(run_dir: Path, model_id: str | None = None, *, benchmark: Benchmark | None = None) -> Report:
    """Every figure as picture and number, the report and the card; metrics.json gets its name last.

    Args:
        run_dir: the run folder, measured; it may be of an earlier version.
        model_id: what the card's example loads; by default what the present card says, or the folder of the card.
        benchmark: of the Hub, for which the test figure is written; by default the one of before, or none.

    Raises:
        FileNotFoundError, ValueError: the folder is not measured, or its files are damaged.
    """
    measured = run_dir / files.LAST_FILE["measure"]
    finished = run_dir / files.LAST_FILE["document"]
    metrics = read_json(measured if measured.is_file() else finished)
    if metrics.get("kind") == "pretraining":
        raise ValueError(f"{run_dir} contains a pre-training, which has no test figures: nothing to report again")
    analysis = read_json(run_dir / ANALYSIS) if (run_dir / ANALYSIS).is_file() else {}
    if "curves" not in analysis:  # a run of an earlier version
        test = metrics["test"]
        analysis = analyse(
            Predictions.load(run_dir / "predictions" / "test.parquet"),
            without=[key for key in ANALYSES if key != "curves"],
            intervals=Intervals(test["resamples"], test["confidence"], files.saved_arguments(run_dir).training.seed),
        )
        write_analysis(run_dir, analysis)
    report = Report.from_dict(metrics, model_id=model_id or card.model_id(run_dir / "README.md"), analysis=analysis)
    benchmark = benchmark or written_benchmark(run_dir)
    entry = benchmark and benchmark_entry(report, benchmark)  # refuses before anything is written
    drawn = report.draw(run_dir)
    for name in set(FIGURES) - set(drawn):  # of an earlier document
        (run_dir / name).unlink(missing_ok=True)
    write_text(run_dir / "report.html", report.document().to_html(run_dir))
    register()  # hf-cxr report comes here without having loaded a model
    config = AutoConfig.from_pretrained(run_dir, trust_remote_code=False)
    exported = (run_dir / EXPORT / MODEL).is_file()
    write_text(run_dir / "README.md", card.render(report, config, onnx=exported))
    if entry:
        write_benchmark(run_dir, entry)
    if measured.is_file():
        measured.replace(finished)
    return report


def finish(
    run_dir: Path,
    args: RunArguments,
    splits: Mapping[str, datasets.Dataset] | None,
    *,
    done: Sequence[str] = (),
    model_id: str | None = None,
) -> Report:
    """The stages after predict, but for those that are done; on the main process.

    Args:
        splits: with their images, for the input check and the stock pipeline; None if they are not available.
    """
    stock: dict[str, Any] = {}
    if "calibrate" not in done:
        logger.info("calibrating on validation, then measuring on test")
        calibrate(run_dir, args)
    if "measure" not in done:
        check_inputs(run_dir, args, splits)
        stock = measure(run_dir, args, splits and splits["test"])
    report = document(run_dir, model_id)
    return dataclasses.replace(report, stock_pipeline=stock or report.stock_pipeline)


def log_start(done: Sequence[str], checkpoint: Path | None) -> None:
    """Log where the run begins."""
    if done:
        logger.info("resuming from %s: %s done before", list(files.LAST_FILE)[len(done)], ", ".join(done))
    else:
        logger.info("%s", f"resuming from {checkpoint}" if checkpoint else "training from the start")
