"""A classifier as a `torch.export` program: one .pt2 file that torch runs alone, without transformers.

    program = torch.export.load("program.pt2").module()
    logits = program(pixel_values)          # (B, 3, D, D) float32 -> (B, C), any B

A .pt2 is a zip of JSON and of the bytes of tensors. `torch.export.load` of a stranger's file is not safe all the same:
the file can contain pickled parts, and torch 2.13 unpickles those (``weights_only=False``), which executes code.
Load a .pt2 only from someone you trust. This package reads none but the one that it has just written.

B = images in a batch, C = findings, D = side in pixels.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hf_cxr.export.onnx_model import INPUT, ExportMetadata, Logits, example_input, quiet
from hf_cxr.hub.leaks import check_no_local_path, check_no_token
from hf_cxr.hub.parsing import texts_of
from hf_cxr.words import error_words

ABOUT = "hf_cxr.json"
NOTED = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""What torch notes at each operation of where it came from."""


def program_of(module: Logits, image_size: int, name: str) -> torch.export.ExportedProgram:
    """The module traced with a dynamic batch; without the lines of source code that torch notes.

    Raises:
        ValueError: torch cannot trace it.
    """
    with quiet():
        try:
            program = torch.export.export(
                module, (example_input(image_size),), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}
            )
        except MemoryError:
            raise
        except Exception as error:  # torch wraps whatever a model raises
            raise ValueError(f"{name} cannot be exported by torch.export: {error_words(error)}") from error
    program.example_inputs = None  # they would be written into the file
    for node in program.graph.nodes:
        for key in NOTED:
            node.meta.pop(key, None)
    return program


def content_of(program: torch.export.ExportedProgram, about: ExportMetadata) -> bytes:
    """The bytes of its .pt2 file; what it says of itself is the extra file `ABOUT`."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={ABOUT: json.dumps(about.to_dict())})
    return file.getvalue()


def check_clean_program(content: bytes, name: str) -> None:
    """Refuse a file with a local path or an access token in its text.

    Raises:
        ValueError: with the text.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {part: archive.read(part) for part in archive.namelist() if part.endswith(".json")}
    texts = {part: list(texts_of(json.loads(text))) for part, text in parts.items()}
    check_no_local_path(Path(name), texts)
    check_no_token(Path(name), {}, {part: [text for _, text in pairs] for part, pairs in texts.items()}, None)


def logits_of_file(content: bytes, value_B3DD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (B, C) of the file itself, read back."""
    with torch.inference_mode():
        return torch.export.load(io.BytesIO(content)).module()(torch.from_numpy(value_B3DD)).numpy()
