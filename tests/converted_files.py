"""Weight files of other programs, and the model of this package that one becomes."""

import json

import torch

from hf_cxr.config import ModelArguments
from hf_cxr.conversion.folder import convert_file, write_folder
from hf_cxr.models.build import build_model

ORIGIN = {"source": "a lab", "licence": "MIT", "saw_test_images": "unknown", "note": None}


def saved(path, content):
    torch.save(content, path)
    return path


def converted(tmp_path, path, **how):
    """The model that training would start from."""
    folder = tmp_path / "converted"
    folder.mkdir()
    write_folder(convert_file(path, ORIGIN, **how), folder)
    return load(folder)


def load(folder):
    size = json.loads((folder / "config.json").read_text())["image_size"]
    return build_model(ModelArguments(str(folder), image_size=size), ["Mass", "Hernia"]).eval()
