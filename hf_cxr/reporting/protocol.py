"""Sentences that a run and a comparison of runs share: cautions and facts about the data, and published results."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_cxr.reporting.document import Block, Heading, Table
from hf_cxr.words import plural

FEW_PATIENTS = 20  # with fewer positive patients than this, an interval is too narrow to rely on
NOT_A_DEVICE = "Not a medical device. Not for diagnosis or treatment."
SYNTHETIC = (
    "The images are synthetic phantoms: the numbers show that the software works and say nothing about any patient."
)

# On ChestX-ray14, macro over its 14 findings, as published: macro AUC, mAP or None, test set and protocol.
# The reference study's other four rows, and its single findings, are not at hand.
REFERENCE_PROTOCOL = "says official; its split sizes are a random cut's"
PUBLISHED_NIH14 = (
    ("Wang et al. 2017 (ResNet-50)", 0.745, None, "official test list"),
    ("Yao et al. 2018", 0.761, None, "official test list"),
    ("Guendel et al. 2018 (DNet)", 0.807, None, "official test list"),
    ("SwinCheX 2022 (Swin-L)", 0.810, None, "official test list"),
    ("Medical-MAE 2023 (ViT-B)", 0.830, None, "official test list, pre-trained on X-rays"),
    ("EVA-X-B 2024", 0.835, None, "official test list, pre-trained on X-rays"),
    ("the reference study (Swin-B, BCE)", 0.804, 0.268, REFERENCE_PROTOCOL),
    ("the reference study (Swin-B, class-aware loss)", 0.874, 0.338, REFERENCE_PROTOCOL),
)


def data_cautions(protocol: Mapping[str, Any]) -> list[str]:
    """What is unusual about the images or labels, and makes the numbers mean something else."""
    cautions = [SYNTHETIC] if protocol["synthetic"] else []
    if protocol["labels_shuffled"]:
        cautions.append(
            "The training labels were shuffled on purpose: the numbers are the floor of chance, not a model's."
        )
    if protocol.get("similar_patient_ids"):
        cautions.append(
            "Some patients may be in two of the splits, which would inflate the numbers: "
            f"{'; '.join(protocol['similar_patient_ids'])}."
        )
    if protocol.get("split_file") and not protocol["synthetic"]:
        cautions.append(
            f"The splits are those of {protocol['split_file']['name']}, not the source's own: published numbers on "
            "its official test set are about different images."
        )
    if protocol["training_images_limited_to"]:
        cautions.append(f"Trained on {plural(protocol['training_images_limited_to'], 'image')} only.")
    if protocol["missing_images"]:
        cautions.append(
            f"Images missing from the folder were skipped ({_counts(protocol['missing_images'])}): these are not the "
            "full splits, the rest is not a random sample, prevalences are not natural, and no number here is one of "
            "the whole data set."
        )
    if protocol.get("unreadable_images"):
        cautions.append(
            f"Images that cannot be read were left out ({_counts(protocol['unreadable_images'])}): these are not the "
            "full splits."
        )
    return cautions


def few_patients(positive_patients: Mapping[str, int]) -> list[str]:
    """A caution about findings that few test patients have, if there are any; by finding, how many have it."""
    few = [f"{name} ({count})" for name, count in positive_patients.items() if 0 < count < FEW_PATIENTS]
    if not few:
        return []
    return [
        f"Fewer than {FEW_PATIENTS} test patients have these findings: {', '.join(few)}. Intervals and p values of so "
        "few are too optimistic to rely on, and each of these findings weighs as much in the means as any other."
    ]


def split_facts(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Data, splits and fingerprint; splits are called disjoint only where no two patients' ids are alike."""
    splits = ", ".join(
        f"{name} {plural(size['images'], 'image')} of {plural(size['patients'], 'patient')}"
        for name, size in protocol["splits"].items()
    )
    disjoint = "splits" if protocol.get("similar_patient_ids") else "splits, disjoint by patient"
    source = [("splits from", protocol["splits_from"])] if protocol.get("splits_from") else []
    return [
        ("data", protocol["dataset"]),
        (disjoint, splits),
        *source,
        ("split fingerprint", protocol["split_fingerprint"]),
        ("initial weights", protocol["initial_weights"]),
    ]


def component(name: str, options: Mapping[str, Any]) -> str:
    """A loss or sampler with its options in brackets."""
    words = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    return f"{name} ({words})" if words else name


def published(dataset: str) -> Sequence[Block]:
    """Published results on the same data set, with their protocols; nothing for other data."""
    if dataset != "ChestX-ray14":
        return ()
    rows = [(name, f"{auc:.3f}", f"{ap:.3f}" if ap else "–", protocol) for name, auc, ap, protocol in PUBLISHED_NIH14]
    caption = (
        "Copied, not measured here, and not comparable with the tables above: different patients, models and "
        "training data, and a part of the test list must not be compared with the whole. The reference study's "
        "remaining rows, and its single findings, are not listed."
    )
    table = Table.of(("published", "macro AUC", "mAP", "protocol"), rows, caption)
    return Heading("Published results, with their protocols"), table


def _counts(by_split: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} in {name}" for name, count in by_split.items())
