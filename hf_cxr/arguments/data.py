"""Where a run's images and labels come from, and how they are cut into training, validation and test.

Which options a dataset takes, and how they go together, is the dataset's own matter: see `hf_cxr.data.sources`.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hf_cxr.arguments import check, expanded
from hf_cxr.data.sources import SOURCES, check_options, source_options

# Keys whose value is a path.
DATA_PATHS = ("data_root", "nih_root", "prepared", "split_file", "table", "table_root")

# Keys that say where one dataset is and how it is split: they are dropped when another is chosen.
SOURCE_OPTIONS = source_options()


@dataclass
class DataArguments:
    """Which radiographs, and how they are split into training, validation and test."""

    dataset: Literal[tuple(SOURCES)] = field(
        default="phantom", metadata={"help": "; ".join(f"{name}: {kind.help}" for name, kind in SOURCES.items()) + "."}
    )
    data_root: str | None = field(
        default=None, metadata={"help": "Dataset folder, for sources without their own option."}
    )
    prepared: str | None = field(
        default=None, metadata={"help": "Folder that hf-cxr prepare wrote: images decoded and resized once."}
    )
    verify_prepared: bool = field(
        default=False,
        metadata={
            "help": "Read all of --prepared first and compare each shard with its SHA-256: seconds for each GB."
        },
    )
    nih_root: str | None = field(
        default=None,
        metadata={"help": "Folder of the ChestX-ray14 release: Data_Entry_2017*.csv, the two lists and images*/."},
    )
    table: str | None = field(
        default=None,
        metadata={"help": "Description of a table: a YAML file, or a ready one's name, such as chexpert or padchest."},
    )
    table_root: str | None = field(
        default=None,
        metadata={"help": "Folder that contains the table's files and images; by default that of the YAML file."},
    )
    table_revision: str | None = field(
        default=None,
        metadata={
            "help": "Branch, tag or commit of a table that is a Hub dataset, in place of its description's. A run "
            "keeps the commit that it found in its config.yaml."
        },
    )
    missing_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with images that are in the lists but not in the folder: error, or skip and count."
        },
    )
    changed_files: Literal["error", "accept"] = field(
        default="error",
        metadata={
            "help": "When a run resumes and image files have a different size or time of change than at its start: "
            "error, or accept them as the same images, such as after a copy."
        },
    )
    unreadable_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with images that cannot be read, or that are gone since the run began: error, or skip "
            "and count. It may be given when a run is resumed: it then resumes from its checkpoint without them."
        },
    )
    check_images: Literal["header", "full"] = field(
        default="header",
        metadata={
            "help": "How image files are checked before the first step: by header, that is from their first and last "
            "bytes (missing, empty, truncated and foreign files are found); or full, where every file is decoded once "
            "and damaged pixels are found too. Files that were checked are not checked again until they change."
        },
    )
    split_file: str | None = field(
        default=None,
        metadata={
            "help": "CSV with image_id, patient_id and split or fold, as `hf-cxr split --out` writes it: it splits "
            "all images, in place of the source's own splits."
        },
    )
    fold: int | None = field(
        default=None,
        metadata={
            "help": "With a --split_file of n folds: this one, 0 to n - 1, is the test set, the next one (after the "
            "last, 0) the validation set, all others the training set."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the images of a table during training, from Parquet shards on disk or the Hub; "
            "nothing is copied or kept, see hf_cxr/data/sources/streamed.py."
        },
    )
    streaming_buffer: int = field(
        default=1000, metadata={"help": "Images that each reader of a stream keeps in memory to mix them, 1 or more."}
    )
    phantom_train: int = field(default=2000, metadata={"help": "Number of phantom training images."})
    phantom_validation: int = field(default=500, metadata={"help": "Number of phantom validation images."})
    phantom_test: int = field(default=500, metadata={"help": "Number of phantom test images."})
    phantom_size: int = field(default=256, metadata={"help": "Side of a phantom image in pixels."})
    phantom_seed: int = field(default=0, metadata={"help": "Seed of the phantoms' anatomy, findings and noise."})
    phantom_prevalence_floor: float = field(
        default=0.0,
        metadata={
            "help": "Re-weight the phantoms' label sets until each finding has at least this prevalence, 0 to 0.3."
        },
    )
    train_limit: int | None = field(
        default=None,
        metadata={"help": "Train on this many images only (spread evenly over the training set), e.g. 32 to overfit."},
    )
    shuffle_labels: bool = field(
        default=False,
        metadata={"help": "Permute the training labels among the images: the result shows what chance alone reaches."},
    )

    def __post_init__(self):
        for name in DATA_PATHS:
            setattr(self, name, expanded(getattr(self, name)))
        if self.dataset not in SOURCES:
            nearest = difflib.get_close_matches(str(self.dataset), SOURCES, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(SOURCES)}"
            raise ValueError(f"dataset is {self.dataset}, which does not exist; {hint}")
        check_options(self)
        if self.split_file is not None and not Path(self.split_file).is_file():
            raise ValueError(f"--split_file {self.split_file} does not exist; `hf-cxr split --out` writes one")
        if self.fold is not None and self.split_file is None:
            raise ValueError(f"--fold {self.fold} needs --split_file, a CSV with folds; see `hf-cxr split --folds`")
        check(self.fold is None or self.fold >= 0, "fold", self.fold, "0 or more")
        check(self.streaming_buffer >= 1, "streaming_buffer", self.streaming_buffer, "at least 1")
        check(self.train_limit is None or self.train_limit >= 1, "train_limit", self.train_limit, "at least 1")

    def folders(self) -> tuple[list[Path], list[Path]]:
        """Where the data are read from, for `hf_cxr.files.check_output_folder`.

        Returns:
            Folders that results may not be written to, and folders (images, prepared data) that they may not be
            inside of either: a figure among the images would be taken for one of them.
        """
        roots = [Path(root) for root in (self.data_root, self.nih_root, self.table_root) if root]
        images = [folder for root in roots for folder in sorted(root.glob("images*")) if folder.is_dir()]
        return roots, [*images, *([Path(self.prepared)] if self.prepared else [])]
