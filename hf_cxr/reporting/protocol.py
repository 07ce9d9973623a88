"""Sentences that several documents share: cautions, limits and facts about the data, and published results."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_cxr.reporting.document import Block, Heading, Table, last_row
from hf_cxr.reporting.weights_origin import origin_cautions, origin_facts
from hf_cxr.words import NOT_A_DEVICE, plural

FEW_PATIENTS = 20  # with fewer positive patients than this, an interval is too narrow to rely on
OFFICIAL_TEST = 25_596  # images in the test list of ChestX-ray14
SYNTHETIC = (
    "The images are synthetic phantoms: the numbers show that the software works and say nothing about any patient."
)
SHUFFLED = "The training labels were shuffled on purpose: the numbers show what chance reaches, not a trained model."

OFFICIAL_LIST = "official test list"
# On ChestX-ray14's official test list, macro AUC over its 14 findings, as published: system, network, what its weights
# knew before, macro AUC, source. A system measured on another split is never in this table, whatever it reached.
PUBLISHED_NIH14 = (
    ("Wang et al. 2017", "ResNet-50", "ImageNet", 0.745, "https://arxiv.org/abs/1705.02315"),
    ("Yao et al. 2018", "several resolutions", "–", 0.761, "https://arxiv.org/abs/1803.07703"),
    ("Guendel et al. 2018 (DNet)", "DenseNet-121, 1024 px", "–", 0.807, "https://arxiv.org/abs/1803.04565"),
    ("Taslimi et al. 2022 (SwinCheX)", "Swin-L", "ImageNet-22k", 0.810, "https://arxiv.org/abs/2206.04246"),
    ("Marikkar et al. 2023 (LT-ViT)", "ViT with label tokens", "–", 0.820, "https://arxiv.org/abs/2311.07263"),
    ("Xiao et al. 2023 (Medical-MAE)", "ViT-B", "chest X-rays", 0.830, "https://arxiv.org/abs/2210.12843"),
    ("Goel et al. 2024", "ViT-B, low rank", "chest X-rays", 0.834, "–"),
    ("Yao et al. 2024 (EVA-X-Ti)", "ViT-Ti", "chest X-rays", 0.824, "https://arxiv.org/abs/2405.05237"),
    ("Yao et al. 2024 (EVA-X-S)", "ViT-S", "chest X-rays", 0.833, "https://arxiv.org/abs/2405.05237"),
    ("Yao et al. 2024 (EVA-X-B)", "ViT-B", "chest X-rays", 0.835, "https://arxiv.org/abs/2405.05237"),
)


def data_cautions(protocol: Mapping[str, Any]) -> list[str]:
    """What is unusual about images, labels or initial weights, and makes the numbers mean something else."""
    cautions = [SYNTHETIC] if protocol["synthetic"] else []
    cautions += protocol.get("data_notes") or []
    cautions += origin_cautions(protocol.get("weights_origin"))
    if protocol["labels_shuffled"]:
        cautions.append(SHUFFLED)
    if protocol.get("similar_patient_ids"):
        cautions.append(
            "Some patients may be in two of the splits, which would inflate the numbers: "
            f"{'; '.join(protocol['similar_patient_ids'])}."
        )
    cautions += split_file_caution(protocol)
    if protocol["training_images_limited_to"]:
        cautions.append(f"Trained on {plural(protocol['training_images_limited_to'], 'image')} only.")
    cautions += left_out_cautions(protocol.get("missing_images"), protocol.get("unreadable_images"))
    return cautions


def split_file_caution(values: Mapping[str, Any]) -> list[str]:
    """That the splits are not the source's own; nothing where they are, or where there are no patients."""
    if not values.get("split_file") or values["synthetic"]:
        return []
    return [
        f"The splits are those of {values['split_file']['name']}, not the source's own: published numbers on "
        "its official test set are about different images."
    ]


def left_out_cautions(missing: Mapping[str, int] | None, unreadable: Mapping[str, int] | None) -> list[str]:
    """What a reader must know of images that were skipped; each by split, none where there is no such image."""
    missing, unreadable = ({name: n for name, n in (counts or {}).items() if n} for counts in (missing, unreadable))
    cautions = []
    if missing:
        cautions.append(
            f"Images missing from the folder were skipped ({_counts(missing)}): these are not the full splits, "
            "what remains is not a random sample, prevalences are not natural, and no number here is one of the whole "
            "data set."
        )
    if unreadable:
        cautions.append(
            f"Images that cannot be read were left out ({_counts(unreadable)}): these are not the full splits."
        )
    return cautions


def few_patients(positive_patients: Mapping[str, int], patients: int) -> list[str]:
    """A caution about too few patients in all, or about findings that few of them have, if there are any.

    Args:
        positive_patients: by finding, how many have it.
        patients: how many there are in all.
    """
    if patients < FEW_PATIENTS:
        return [
            f"Only {plural(patients, 'test patient')}: the intervals and p values of so few are far too optimistic, "
            "and nothing here says how good the model is."
        ]
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
        *([("Hub dataset", protocol["hub_dataset"])] if protocol.get("hub_dataset") else []),
        (disjoint, splits),
        *source,
        ("split fingerprint", protocol["split_fingerprint"]),
        ("initial weights", protocol["initial_weights"]),
        *origin_facts(protocol.get("weights_origin")),
    ]


def network_facts(protocol: Mapping[str, Any], training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The network with its parameters, and what its batch norm measured; runs of earlier versions do not say."""
    network, count = protocol.get("network") or {}, training.get("parameters")
    size = [] if not count else [f"{count / 1e6:.3g} M parameters" if count >= 1e6 else f"{count:,} parameters"]
    words = [*filter(None, [network.get("name")]), *size]
    facts = [("network", ", ".join(words))] if words else []
    norm = network.get("batch_norm")
    if norm:
        facts.append(
            (
                "batch norm",
                f"{plural(norm['layers'], 'layer')}; in training the {norm['images']} images of a step are normalised "
                "together, in evaluation by the averages that training kept",
            )
        )
    return facts


def component(name: str, options: Mapping[str, Any]) -> str:
    """A loss or sampler with its options in brackets."""
    words = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    return f"{name} ({words})" if words else name


def published(dataset: str, own: tuple[str, str, str, str] | None = None) -> Sequence[Block]:
    """Published results on the same data set's official test list; nothing for other data.

    Args:
        dataset: the name of the data.
        own: name, network, initial weights and macro AUC of what the page is about, if it was measured on the whole of
            that list.
    """
    if dataset != "ChestX-ray14":
        return ()
    rows = [(name, network, before, f"{auc:.3f}", source) for name, network, before, auc, source in PUBLISHED_NIH14]
    rows += [(*own, "this page")] if own else []
    bold = last_row(rows, 5) if own else frozenset()
    caption = (
        f"All on the {OFFICIAL_LIST} of {OFFICIAL_TEST:,} images. Copied, not measured here; their authors give no "
        "intervals, chose checkpoints differently, and trained on different parts of the remaining images. "
        + ("" if own else "Not comparable with the tables above unless these are of that whole list. ")
        + "The most that is known is about 0.82 from ImageNet's weights, and about 0.835 from weights pre-trained on "
        "chest X-rays. Results on other splits (CheXNet and AG-CNN, above 0.84; Yao et al. 2017, 0.803) concern other "
        "patients and are not listed. Nor is the reference study (macro AUC 0.874 for its class-aware loss, 0.804 for "
        "cross-entropy): its split sizes match a random cut."
    )
    head = ("published", "network", "initial weights", "macro AUC", "source")
    return Heading("Published systems, with their protocols"), Table.of(head, rows, caption, bold)


def limits(dataset: str, *, synthetic: bool, own_split: bool = False, any_program: bool = False) -> list[str]:
    """What the figures of a page cannot say, whatever they are; `data_cautions` has what is unusual about them.

    Args:
        dataset: the name of the data.
        synthetic: they are phantoms.
        own_split: training, validation and test come from the same source.
        any_program: the scores are those of a program that is not known.
    """
    sentences = label_limits(dataset, synthetic=synthetic)
    if own_split:
        sentences.append(
            "Training and test images come from the same source. At another hospital, with other devices, views and "
            "prevalences, figures are different, those of probabilities more than those of rankings."
        )
    return [
        *sentences,
        "Intervals cover which patients are in the test set, not the randomness of training: another seed gives "
        "another model, and two single runs can differ by that alone (hf-cxr compare trains several seeds).",
        "This page does not know how the scores were made."
        if any_program
        else "The model sees one image at a time: no other view, no earlier study, no history.",
        NOT_A_DEVICE,
    ]


def measurement_words(measurements: Mapping[str, Any] | None) -> str:
    """How often the test set was measured; "" for a run of an earlier version, which did not count.

    Args:
        measurements: ``times``, ``at_least`` and ``repeated_from``, see `run.stage_files.next_measurement`.
    """
    if not measurements:
        return ""
    times, stages = measurements["times"], measurements["repeated_from"]
    if times == 1:
        return "The test set was measured once, after everything was fixed."
    fitted = sum(stage != "measure" for stage in stages)
    first = "before the last" if measurements["at_least"] else "before the second"
    before = first if times == 2 else f"before {fitted} of them"
    words = f"The test set was measured {'at least ' * measurements['at_least']}{times} times"
    if fitted:
        words += f"; {before}, calibration and thresholds were fitted again (hf-cxr calibrate)"
    return f"{words}. Every choice made after looking at test figures makes the later ones optimistic."


def label_limits(dataset: str, *, synthetic: bool) -> list[str]:
    """What the labels of a dataset cannot say; see `limits`."""
    if dataset == "ChestX-ray14":
        return [
            "Labels were mined from radiology reports by a program, not read from the images. Their errors are in "
            "every figure here, and in what the model learned.",
            "An image without a label is not a normal image: 14 findings were looked for, in the text of a report. "
            "Low probabilities do not mean healthy.",
        ]
    return [] if synthetic else ["Labels are taken from the data as they are. Their errors are in every figure here."]


def _counts(by_split: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} in {name}" for name, count in by_split.items())
