"""The page of a pre-training: what was masked on which images, the loss, and reconstructions to look at.

Reconstructions of patients' images are a file next to the page and not in it, so that the page alone shows no patient.

D = side of an image in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from hf_cxr.reporting import plots
from hf_cxr.reporting.augmentation import augmentation_words
from hf_cxr.reporting.document import Block, Details, Document, Facts, Figure, Heading, Note, Text
from hf_cxr.reporting.protocol import SYNTHETIC
from hf_cxr.reporting.weights_origin import origin_cautions, origin_facts
from hf_cxr.words import NOT_A_DEVICE, plural

LOSS = Figure("figures/training.png", "Reconstruction loss", "Mean absolute error of masked pixels, over the epochs.")
PICTURES = Figure(
    "figures/reconstructions.png",
    "Original, masked and reconstructed images",
    "Left: the image. Middle: what the model sees of it. Right: what it makes of the masked squares, "
    "next to the unmasked part.",
)
WIDE = 1.6  # inches of a picture


@dataclass(frozen=True)
class Reconstruction:
    """One image in grey levels from 0 to 255, (D, D) float; which pixels are masked, bool; what the model made."""

    original_DD: np.ndarray
    masked_DD: np.ndarray
    reconstructed_DD: np.ndarray

    def pictures(self) -> list[np.ndarray]:
        """Original, masked and completed image, (D, D) uint8 each; masked pixels are mid-grey in the second."""
        masked = np.where(self.masked_DD, 128.0, self.original_DD)
        completed = np.where(self.masked_DD, self.reconstructed_DD, self.original_DD)
        return [np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in (self.original_DD, masked, completed)]


def draw_pretraining(
    folder: Path, history: Sequence[Mapping[str, Any]], reconstructions: Sequence[Reconstruction]
) -> None:
    """Write both pictures of the page below the folder."""
    plots.save(loss_curve(history), folder / LOSS.path)
    plots.save(contact_sheet(reconstructions), folder / PICTURES.path)


def loss_curve(history: Sequence[Mapping[str, Any]]) -> Drawing:
    """The loss in training, and of held-out patients if there are any, over epochs."""
    figure = Drawing(figsize=(6.5, 3.8), layout="constrained")
    axis = figure.subplots()
    lines = (("loss", "training (with augmentation)", plots.GREY, "-"), ("eval_loss", "held out", plots.BLUE, "o-"))
    for key, label, color, style in lines:
        points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
    axis.set_xlabel("epoch")
    axis.set_ylabel("L1 of masked pixels, normalised grey levels")
    axis.set_ylim(bottom=0)
    if axis.lines:
        axis.legend(frameon=False)
    plots.frame(axis)
    return figure


def contact_sheet(reconstructions: Sequence[Reconstruction]) -> Drawing:
    """A row an image: original, masked, reconstructed."""
    rows = len(reconstructions)
    figure = Drawing(figsize=(3 * WIDE + 0.2, rows * WIDE + 0.35), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, one in zip(axes, reconstructions, strict=True):
        for axis, picture in zip(row, one.pictures(), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("original", "masked", "reconstructed"), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def pretraining_document(values: Mapping[str, Any]) -> Document:
    """The page; its figures lie in figures/ next to it.

    Args:
        values: what metrics.json has, see `run.pretraining.pretrain`.
    """
    protocol = values["protocol"]
    environment = Facts(tuple((name, str(value)) for name, value in values["environment"].items()))
    blocks = (
        Text(loss_words(values["history"]), strong=True),
        Note(_cautions(protocol)),
        Heading("Protocol"),
        _facts(values),
        Heading("Loss"),
        LOSS,
        Heading("Reconstructions"),
        *_pictures(protocol),
        Heading("Appendix"),
        Details("Environment", (environment,)),
    )
    return Document(values["name"], blocks, dict(values))


def loss_words(history: Sequence[Mapping[str, Any]]) -> str:
    """The first and last losses, in a sentence.

    >>> loss_words([{"loss": 0.9, "epoch": 1}, {"loss": 0.3, "epoch": 2}])
    'Reconstruction loss (L1 of masked pixels): training first 0.9000, last 0.3000.'
    """
    parts = []
    for key, name in (("loss", "training"), ("eval_loss", "held out")):
        found = [entry[key] for entry in history if entry.get(key) is not None]
        if found:
            parts.append(f"{name} first {found[0]:.4f}, last {found[-1]:.4f}")
    return f"Reconstruction loss (L1 of masked pixels): {'; '.join(parts) or 'nothing was logged'}."


def _cautions(protocol: Mapping[str, Any]) -> tuple[str, ...]:
    cautions = [SYNTHETIC] if protocol["synthetic"] else []
    cautions += origin_cautions(protocol.get("weights_origin"))
    cautions.append(
        "A low reconstruction loss does not show that the classifier will be good: fine-tune from these weights and "
        "from alternatives on the same split, and compare."
    )
    if protocol["never_tested"]:
        cautions.append(
            "The data have no test set. The person who started this stated that no model that starts from these "
            "weights will be tested on these images."
        )
    lost = sum(protocol["missing_images"].values()) + sum(protocol["unreadable_images"].values())
    if lost:
        cautions.append(f"{plural(lost, 'image')} of training patients could not be read or found, and took no part.")
    return (*cautions, NOT_A_DEVICE)


def _facts(values: Mapping[str, Any]) -> Facts:
    protocol, training = values["protocol"], values["training"]
    masked, all_patches = protocol["masked_patches"]
    size = protocol["mask_patch_size"]
    speed = "–" if training["images_per_second"] is None else f"{training['images_per_second']:.1f}"
    memory = training["peak_memory_gib"]
    splits = ", ".join(
        f"{name.replace('_', ' ')} {plural(split['images'], 'image')} of {plural(split['patients'], 'patient')}"
        for name, split in protocol["splits"].items()
    )
    return Facts(
        (
            ("method", "SimMIM (https://arxiv.org/abs/2111.09886)"),
            ("data", protocol["dataset"]),
            ("images", f"{splits}; none of validation and test"),
            ("splits from", protocol["splits_from"] or "–"),
            ("split fingerprint", protocol["split_fingerprint"]),
            ("initial weights", protocol["initial_weights"]),
            *origin_facts(protocol.get("weights_origin")),
            (
                "official test images of ChestX-ray14 seen",
                f"{protocol.get('saw_test_images', 'unknown')} (by the initial weights or in this training)",
            ),
            ("masked", f"{masked} of {all_patches} squares of {size} x {size} pixels in each image"),
            ("image size", f"{protocol['image_size']} pixels"),
            ("augmentation", augmentation_words(protocol["augmentation"])),
            ("training", f"{training['epochs']:g} epochs, {plural(training['steps'], 'step')}"),
            ("seed", str(protocol["seed"])),
            *([("resumed from", training["resumed_from"])] if training["resumed_from"] else []),
            ("speed", f"{speed} images/s in training on {values['environment']['device']}"),
            ("peak memory", "–" if memory is None else f"{memory:.1f} GiB"),
            ("licence of the data", protocol["licence_note"] or "–"),
        )
    )


def _pictures(protocol: Mapping[str, Any]) -> tuple[Block, ...]:
    if protocol["synthetic"]:
        return (PICTURES,)
    return (Text(f"They show patients and are not in this page: see {PICTURES.path} in the folder of this run."),)
