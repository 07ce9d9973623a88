"""Which model, at which image size, and the preprocessing and augmentation that go with it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hf_cxr.arguments import check, expanded
from hf_cxr.arguments.components import ARCHITECTURES, architecture_options
from hf_cxr.options import check_options
from hf_cxr.systems import SYSTEMS

Attention = Literal["auto", "eager", "sdpa", "fast"]
INITIAL_WEIGHTS = ("model_name_or_path", "backbone_name_or_path")  # keys that name a saved model to start from
FAST_ATTENTION = ("swin", "swinchex")  # architectures that `hf_cxr.models.fast_swin` has a pass for


@dataclass
class ModelArguments:
    """Which model, at which image size; the preprocessing and augmentation that go with it."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or local folder of a model; without it a fresh one of --architecture is made."},
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a Hub model."})
    backbone_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or local folder of a model whose backbone weights initialise the backbone of "
            f"--architecture ({', '.join(SYSTEMS)}); --model_revision applies to it."
        },
    )
    architecture: str = field(default="swin", metadata={"help": f"Kind of a fresh model: {', '.join(ARCHITECTURES)}."})
    model_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Keyword arguments of the model's config, listed below, such as --model_kwargs.embed_dim 32; of a "
            "saved model they replace those of its config.json, such as --model_kwargs.drop_path_rate 0."
        },
    )
    attention: Attention = field(
        default="auto",
        metadata={
            "help": "How attention is computed; results are the same up to rounding. auto: the fastest, as measured; "
            "eager, sdpa: as transformers does; fast: this package's forward pass of a Swin."
        },
    )
    image_size: int = field(default=224, metadata={"help": "Side of the model's input in pixels (the centre crop)."})
    resize_size: int | None = field(
        default=None,
        metadata={"help": "Side in pixels to which an image is resized before the crop; by default image_size * 8/7."},
    )
    horizontal_flip: float = field(default=0.5, metadata={"help": "Probability of a left-right flip in training."})
    rotation_degrees: float = field(
        default=10.0,
        metadata={"help": "Training images are rotated by an angle drawn evenly from -this to +this, 0 to 180."},
    )
    random_resized_crop: list[float] | None = field(
        default=None,
        metadata={
            "help": "Training sees a random box of the resized image instead of its centre: least and most area as "
            "shares of the image, such as 0.6 1.0. Left out: the centre crop, as in evaluation."
        },
    )
    crop_aspect: list[float] | None = field(
        default=None,
        metadata={"help": "Least and most width / height of that box; by default 0.75 1.3333."},
    )
    brightness: float = field(
        default=0.0,
        metadata={"help": "Grey levels of a training image are multiplied by a factor from 1 - this to 1 + this."},
    )
    contrast: float = field(
        default=0.0,
        metadata={
            "help": "The distance of each grey level to the image's mean is multiplied by a factor from 1 - this to "
            "1 + this."
        },
    )
    erasing: float = field(
        default=0.0,
        metadata={"help": "Probability that a random box of a training image is filled with the image's mean grey."},
    )
    erasing_area: list[float] | None = field(
        default=None,
        metadata={"help": "Least and most area of that box as shares of the image; by default 0.02 0.33."},
    )

    def __post_init__(self):
        self.model_name_or_path = expanded(self.model_name_or_path)
        self.backbone_name_or_path = expanded(self.backbone_name_or_path)
        if self.backbone_name_or_path is not None:
            self._check_backbone()
        if self.resize_size is None:
            self.resize_size = round(self.image_size * 8 / 7)
        check(self.image_size >= 16, "image_size", self.image_size, "at least 16 pixels")
        check(self.resize_size >= self.image_size, "resize_size", self.resize_size, "at least image_size")
        check(0 <= self.horizontal_flip <= 1, "horizontal_flip", self.horizontal_flip, "between 0 and 1")
        check(0 <= self.rotation_degrees <= 180, "rotation_degrees", self.rotation_degrees, "between 0 and 180")
        for key in ("brightness", "contrast", "erasing"):
            check(0 <= getattr(self, key) <= 1, key, getattr(self, key), "between 0 (off) and 1")
        for key in ("random_resized_crop", "erasing_area"):
            _check_range(key, getattr(self, key), most=1)
        _check_range("crop_aspect", self.crop_aspect, most=10)
        if self.crop_aspect and not self.random_resized_crop:
            raise ValueError("crop_aspect goes with random_resized_crop; give both, or leave it out")
        if self.erasing_area and not self.erasing:
            raise ValueError("erasing_area goes with erasing, its probability; give both, or leave it out")
        fresh = self.model_name_or_path is None
        if self.attention == "fast" and fresh and self.architecture not in FAST_ATTENTION:
            known = " and ".join(FAST_ATTENTION)
            raise ValueError(f"attention fast is for architecture {known}, not {self.architecture}; leave it out")
        options = architecture_options(self.architecture)
        if fresh and options:  # of other models, `hf_cxr.models` knows the options
            try:
                check_options(self.architecture, self.model_kwargs, options)
            except ValueError as error:
                raise ValueError(f"model_kwargs: {error}") from error

    @property
    def initial_model(self) -> str | None:
        """The saved model that weights come from, all of them or the backbone's; None if all are random."""
        return self.model_name_or_path or self.backbone_name_or_path

    def _check_backbone(self) -> None:
        """Refuse a backbone's weights together with a whole model's, or for a backbone-only architecture."""
        if self.model_name_or_path is not None:
            raise ValueError("backbone_name_or_path goes with a fresh model, not with model_name_or_path: give one")
        if self.architecture not in SYSTEMS:
            raise ValueError(
                f"backbone_name_or_path is for the backbone within a system ({', '.join(SYSTEMS)}), and architecture "
                f"is {self.architecture}: give the weights as --model_name_or_path"
            )


def _check_range(key: str, values: list[float] | None, most: float) -> None:
    """Refuse a range of another form than "least most"."""
    if values is None:
        return
    holds = len(values) == 2 and 0 < values[0] <= values[1] <= most
    check(holds, key, " ".join(f"{value:g}" for value in values), f"two numbers above 0, least and most, up to {most}")
