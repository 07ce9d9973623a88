"""Where a run's images and labels come from, and how they are cut into training, validation and test."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hf_cxr.arguments import check, expanded

# Keys whose value is a path.
DATA_PATHS = ("nih_root", "prepared", "split_file", "table", "table_root")

# Keys that say where one dataset lies and how it is cut: they stay behind when another is chosen.
SOURCE_OPTIONS = {
    "prepared",
    "nih_root",
    "table",
    "table_root",
    "missing_images",
    "split_file",
    "fold",
    "streaming",
}


@dataclass
class DataArguments:
    """Which radiographs, and how they are cut into training, validation and test."""

    dataset: Literal["phantom", "nih", "table", "prepared"] = field(
        default="phantom",
        metadata={
            "help": "phantom: procedural synthetic radiographs; nih: the ChestX-ray14 release at --nih_root; table: "
            "any labelled table, described by --table; prepared: a folder that hf-cxr prepare wrote, --prepared."
        },
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
        metadata={"help": "Folder that the table's files and images are below; by default that of the YAML file."},
    )
    missing_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with images that the lists name and the folder lacks: error, or skip and count."
        },
    )
    changed_files: Literal["error", "accept"] = field(
        default="error",
        metadata={
            "help": "When a run resumes and image files have another size or time of change than at its start: error, "
            "or accept them as the same images, such as after a copy."
        },
    )
    unreadable_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with images that cannot be read, or that are gone since the run began: error, or skip "
            "and count. It may be given when a run is resumed: it then resumes from its checkpoint without them."
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
            "last, 0) the validation set, the rest the training set."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the images of a table during training, from Parquet shards on disk or the Hub; "
            "nothing is copied or held, see hf_cxr/data/sources/streamed.py."
        },
    )
    streaming_buffer: int = field(
        default=1000, metadata={"help": "Images that each reader of a stream holds to mix them, 1 or more."}
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
        metadata={"help": "Train on this many images only (an even cut over the training set), e.g. 32 to overfit."},
    )
    shuffle_labels: bool = field(
        default=False,
        metadata={
            "help": "Permute the training labels among the images: what is then reached is the floor of chance."
        },
    )

    def __post_init__(self):
        for name in DATA_PATHS:
            setattr(self, name, expanded(getattr(self, name)))
        if self.dataset == "nih" and not self.nih_root:
            raise ValueError("dataset nih needs --nih_root, the folder that holds Data_Entry_2017*.csv and images/")
        if self.nih_root and self.dataset != "nih":
            raise ValueError(
                f"--nih_root is given but the dataset is {self.dataset}; add --dataset nih or leave it out"
            )
        if (self.prepared is not None) != (self.dataset == "prepared"):
            raise ValueError(
                f"--dataset {self.dataset} and --prepared {self.prepared} do not go together: give --dataset prepared "
                "with --prepared DIR, or neither"
            )
        if self.verify_prepared and self.dataset != "prepared":
            raise ValueError(
                f"--verify_prepared is for --dataset prepared, the dataset is {self.dataset}; leave it out"
            )
        self._check_table()
        if self.split_file is not None and not Path(self.split_file).is_file():
            raise ValueError(f"--split_file {self.split_file}: there is no such file; `hf-cxr split --out` writes one")
        if self.fold is not None and self.split_file is None:
            raise ValueError(f"--fold {self.fold} needs --split_file, a CSV with folds; see `hf-cxr split --folds`")
        check(self.fold is None or self.fold >= 0, "fold", self.fold, "0 or more")
        if self.streaming and (self.dataset != "table" or self.missing_images != "error"):
            raise ValueError(
                "--streaming goes with --dataset table and --missing_images error: a stream cannot know beforehand "
                "which images it will lack"
            )
        check(self.streaming_buffer >= 1, "streaming_buffer", self.streaming_buffer, "at least 1")
        check(0 <= self.phantom_seed < 2**32, "phantom_seed", self.phantom_seed, "0 to 4294967295")
        for name in ("phantom_train", "phantom_validation", "phantom_test"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(32 <= self.phantom_size <= 2048, "phantom_size", self.phantom_size, "between 32 and 2048 pixels")
        check(
            0 <= self.phantom_prevalence_floor <= 0.3,
            "phantom_prevalence_floor",
            self.phantom_prevalence_floor,
            "between 0 and 0.3",
        )
        check(self.train_limit is None or self.train_limit >= 1, "train_limit", self.train_limit, "at least 1")

    def _check_table(self) -> None:
        if (self.table is not None) != (self.dataset == "table"):
            raise ValueError(
                f"--dataset {self.dataset} and --table {self.table} do not go together: give --dataset table with "
                "--table NAME_OR_YAML, or neither"
            )
        if self.table_root is not None and self.dataset != "table":
            raise ValueError(f"--table_root is given but the dataset is {self.dataset}; add --dataset table")
        own = (self.table or "").endswith((".yaml", ".yml"))
        if self.table and not own and not self.table_root:
            raise ValueError(f"--table {self.table} is a ready description: give --table_root, the data's folder")
        for name, path, there in (
            ("table", self.table if own else None, Path.is_file),
            ("table_root", self.table_root, Path.is_dir),
        ):
            if path is not None and not there(Path(path)):
                raise ValueError(f"--{name} {path}: there is no such {'file' if name == 'table' else 'folder'}")
