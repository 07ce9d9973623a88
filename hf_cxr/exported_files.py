"""The names of exported files, for all that write, describe or push them.

They are transformers.js's: a folder with config.json and onnx/model.onnx.
"""

from typing import NamedTuple

EXPORT = "export"
"""The folder of a run that `hf-cxr export` writes to by default, and that `hf-cxr push --onnx` reads."""

RESULT = "export.json"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
MODEL = "onnx/model.onnx"
QUANTIZED = "onnx/model_quantized.onnx"  # transformers.js opens it for dtype "q8"
WHOLE = "onnx/model_preprocessing.onnx"
PROGRAM = "program.pt2"
PAGE = "page"
ONNX = (MODEL, QUANTIZED, WHOLE)
"""The files that a push sends if it is asked to, by the same names; the last two may be missing."""


class Wanted(NamedTuple):
    """What is to be exported. Whatever is asked for in ONNX, model.onnx is written too."""

    onnx: bool = False
    preprocessing: bool = False
    int8: bool = False
    program: bool = False
    page: bool = False

    @property
    def any_onnx(self) -> bool:
        return self.onnx or self.preprocessing or self.int8 or self.page

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are compared with the model, in the order in which they are reported."""
        wanted = {
            MODEL: self.any_onnx,
            WHOLE: self.whole,
            QUANTIZED: self.int8,
            PROGRAM: self.program,
        }
        return tuple(name for name, write in wanted.items() if write)

    @property
    def whole(self) -> bool:
        """Whether the file with preprocessing is written: the page runs it."""
        return self.preprocessing or self.page
