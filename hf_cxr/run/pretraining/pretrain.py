"""One pre-training, as a method section: mask, reconstruct, look at reconstructions, write the folder.

| stage    | writes                                                             | its last file        |
|----------|--------------------------------------------------------------------|----------------------|
| train    | stages/model/                                                      | stages/training.json |
| document | the model, figures/, report.html; metrics.json is written last     | metrics.json         |

The folder is opened, resumed and refused as that of a run (`run.folder`), and ``--model_name_or_path`` of one. Its
figures show patients' images, unless they are synthetic: nothing of it is pushed.

All processes train; the main process alone does the rest and writes.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import SwinForMaskedImageModeling, set_seed

from hf_cxr import processes
from hf_cxr.augmentation import Augmentation
from hf_cxr.config import PretrainArguments
from hf_cxr.data import DecodedImages, with_images
from hf_cxr.files import file_sha256, write_json, write_text
from hf_cxr.models.attention import check_attention
from hf_cxr.models.build import describe_initial_weights
from hf_cxr.models.record import MASKED_LOSS, ModelRecord
from hf_cxr.pretraining.masks import EPOCH_OF_MEASURING, PatchMasks
from hf_cxr.pretraining.model import build_masked_model, check_masked_model
from hf_cxr.pretraining.trainer import MaskedImageTrainer
from hf_cxr.processing import PixelProcessor, image_processor_for
from hf_cxr.reporting.pretraining import Reconstruction, draw_pretraining, pretraining_document
from hf_cxr.run import stage_files as files
from hf_cxr.run.data import pinned
from hf_cxr.run.folder import logged_to, on_main_process, opened_run_folder
from hf_cxr.run.preflight import image_errors_explained
from hf_cxr.run.pretraining.data import PretrainData, open_training_images
from hf_cxr.run.pretraining.origin import weights_origin
from hf_cxr.run.provenance import describe_environment, describe_training
from hf_cxr.run.training import (
    build_pixels,
    check_first_stage,
    choose_attention,
    drawn_images,
    first_record,
    log_unused_gpus,
    open_images,
    open_measured_images,
    trainer_options,
    without_hub,
)
from hf_cxr.saved_models import WEIGHTS, read_json

logger = logging.getLogger(__name__)

PICTURES = 6  # images of which the reconstruction is drawn


def pretrain(args: PretrainArguments) -> dict[str, Any] | None:
    """Pre-train one backbone, and write its folder.

    Args:
        args: from `config.parse_pretraining`.

    Returns:
        What metrics.json has, on the main process; None on the rest.

    Raises:
        ValueError: the arguments contradict each other, the data or the folder.
    """
    state = PartialState()
    run_dir = Path(args.training.output_dir)
    values = None
    args = pinned(args)
    with opened_run_folder(args, state) as checkpoint, logged_to(run_dir / "run.log", state):
        log_unused_gpus(args.training, "pretrain")
        masks = build_masks(args, check_masked_model(args.model))
        pixels = build_pixels(args.model, image_processor_for(args.model), masks.seed)
        trained = on_main_process(lambda: files.is_done(run_dir, "train"))
        before = files.trained_folder(run_dir) if trained else checkpoint
        data = open_training_images(args, run_dir, before, pixels, trained=trained)
        if trained:
            logger.info("resuming from document: train done before")
        else:
            logger.info("%s", f"resuming from {checkpoint}" if checkpoint else "pre-training from the start")
            train(run_dir, args, data, masks, checkpoint)
        if state.is_main_process:
            values = document(run_dir, data, masks, pixels)
        processes.meet()
    return values


def train(
    run_dir: Path, args: PretrainArguments, data: PretrainData, masks: PatchMasks, checkpoint: Path | None = None
) -> None:
    """Pre-train, from a checkpoint if one is given, and write the model into stages/."""
    state = PartialState()
    weights = describe_initial_weights(args.model)  # now: a local folder can be gone after training
    model = build_first_model(args, data)
    trainer = build_trainer(args, data, model, masks)
    with image_errors_explained(), processes.watched():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model(str(run_dir / files.TRAINED))
    processes.meet()
    if state.is_main_process:
        saw = ModelRecord.of(model.config).weights_origin["saw_test_images"]
        done = {
            "protocol": describe_pretraining(args, data, masks, weights) | {"saw_test_images": saw},
            "training": describe_training(trainer, checkpoint),
            "history": trainer.state.log_history,
            "environment": describe_environment(state),
        }
        write_json(run_dir / files.LAST_FILE["train"], done)
    processes.meet()


def document(run_dir: Path, data: PretrainData, masks: PatchMasks, pixels: PixelProcessor) -> dict[str, Any]:
    """Pictures of reconstructions and loss, the report, the model at the top of the folder; metrics.json last."""
    trained = read_json(run_dir / files.LAST_FILE["train"])
    model = SwinForMaskedImageModeling.from_pretrained(
        files.trained_folder(run_dir),
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    values = {"name": run_dir.absolute().name, "kind": "pretraining", **trained}
    draw_pretraining(run_dir, trained["history"], reconstructions(model, data, masks, pixels))
    files.save_model_folder(run_dir, model)
    write_text(run_dir / "report.html", pretraining_document(values).to_html(run_dir))
    values["model_sha256"] = file_sha256(run_dir / WEIGHTS)
    write_json(run_dir / files.LAST_FILE["document"], values)
    return values


def build_masks(args: PretrainArguments, patch_size: int) -> PatchMasks:
    """The mask generator of a pre-training; ``patch_size`` is the model's.

    Raises:
        ValueError: sizes that do not divide one another.
    """
    masking = args.masking
    return PatchMasks(
        args.model.image_size, patch_size, masking.mask_patch_size, masking.mask_ratio, args.training.order_seed
    )


def build_first_model(args: PretrainArguments, data: PretrainData) -> SwinForMaskedImageModeling:
    """The network before its first step: its record says which images it will see, and which it will not.

    Raises:
        ValueError: its weights are refused; see `check_first_stage` and `pretraining.model`.
    """
    set_seed(args.training.seed)  # the Trainer does it too, but only after the model has its first weights
    model = build_masked_model(args.model)
    check_first_stage(args, model, data.source)
    check_attention(model, args.model.attention)
    choose_attention(args, model)
    before = ModelRecord.of(model.config)
    first_record(
        data,
        before,
        loss={"name": MASKED_LOSS, "options": {}},
        held_out=data.source.held_out or None,
        weights_origin=weights_origin(args, data, before),
    ).write(model.config)
    return model


def build_trainer(
    args: PretrainArguments, data: PretrainData, model: SwinForMaskedImageModeling, masks: PatchMasks
) -> MaskedImageTrainer:
    """The Trainer with the images, their masks and the optimizer."""
    training, processor = without_hub(args.training), image_processor_for(args.model)
    pixels = build_pixels(args.model, processor, masks.seed)
    images = open_images(args, pixels, data.train, data.blank_rows)
    sampler, train_images = drawn_images(training, images, np.ones(len(data.train)))
    held_out = data.held_out
    return MaskedImageTrainer(
        **trainer_options(training, model, processor, pixels),
        masks=masks,
        left_out=data.blank_rows,
        sampler=sampler,
        train_dataset=train_images,
        eval_dataset=None if held_out is None else open_measured_images(training, pixels, held_out),
    )


def describe_pretraining(
    args: PretrainArguments, data: PretrainData, masks: PatchMasks, weights: dict[str, Any]
) -> dict[str, Any]:
    """What was done, on which images."""
    source = data.source
    return {
        "dataset": source.name,
        "synthetic": source.synthetic,
        "splits": {
            name: {"images": len(split), "patients": len(set(split["patient_id"][:]))}
            for name, split in source.splits.items()
        },
        "split_fingerprint": source.fingerprint,
        "held_out_fingerprint": source.held_out or None,
        "never_tested": args.masking.never_tested,
        "splits_from": source.split_origin["splits_from"],
        "missing_images": source.missing,
        "unreadable_images": data.unreadable,
        "licence_note": source.licence_note,
        **weights,
        "mask_patch_size": masks.mask_patch_size,
        "mask_ratio": args.masking.mask_ratio,
        "masked_patches": [masks.masked, masks.side**2],
        "image_size": masks.image_size,
        "augmentation": Augmentation.of(args.model).to_dict(),
        "seed": args.training.seed,
    }


def reconstructions(
    model: SwinForMaskedImageModeling, data: PretrainData, masks: PatchMasks, pixels: PixelProcessor
) -> list[Reconstruction]:
    """A few images, evenly over the held-out ones (else over the training images), masked and reconstructed."""
    split = data.train if data.held_out is None else data.held_out
    # Held-out images that cannot be read are not among the rows any more; blank training rows keep their places.
    usable = (
        np.arange(len(split)) if data.held_out is not None else np.setdiff1d(np.arange(len(split)), data.blank_rows)
    )
    row_K = usable[np.unique(np.linspace(0, len(usable) - 1, PICTURES).round().astype(int))]
    images = DecodedImages(with_images(split, row_K.tolist()), pixels.resize_size, pixels.resample)
    pixel_K1SS = torch.from_numpy(np.stack([images[number]["pixels"] for number in range(len(row_K))]))[:, None]
    mask_KN = torch.from_numpy(masks.draw(row_K, EPOCH_OF_MEASURING))
    with torch.inference_mode():
        image_K3DD = pixels(pixel_K1SS)
        made_K3DD = model.eval()(pixel_values=image_K3DD, bool_masked_pos=mask_KN).reconstruction
        # One channel back to grey levels; all three were written from the same one.
        grey_KDD, made_KDD = ((x - pixels.shift)[:, 0] / pixels.scale[0, 0] for x in (image_K3DD, made_K3DD))
    side = masks.image_size // masks.patch_size
    mask_KDD = mask_KN.view(-1, side, side).repeat_interleave(masks.patch_size, 1)
    mask_KDD = mask_KDD.repeat_interleave(masks.patch_size, 2)
    return [
        Reconstruction(grey.numpy(), mask.numpy(), made.numpy())
        for grey, mask, made in zip(grey_KDD, mask_KDD, made_KDD, strict=True)
    ]
