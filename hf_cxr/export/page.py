"""A page that runs the exported model in a browser, on the reader's own computer; a folder of static files.

    page/index.html, page.js, style.css     the page, from this package's ``web/``
    page/model.onnx                         a copy of onnx/model_preprocessing.onnx
    page/model.json                         names, thresholds, sizes and limits
    page/ort*                               onnxruntime-web, from its npm package

Everything is next to the page: nothing is fetched from elsewhere, and the page's own security policy forbids it. It
needs any server of static files (``python -m http.server``): browsers do not run a model from file://.

Refused: no npm package onnxruntime-web, with the line that installs it.
"""

import shutil
from pathlib import Path

from hf_cxr.export.onnx_model import ExportMetadata
from hf_cxr.exported_files import PAGE, WHOLE
from hf_cxr.files import write_json

WEB = Path(__file__).parent / "web"
PAGE_FILES = ("index.html", "page.js", "style.css")
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PACKAGE = Path("node_modules/onnxruntime-web")


def check_runtime(folder: str | Path | None) -> Path:
    """The folder ``dist`` of the npm package onnxruntime-web.

    Args:
        folder: of the package; None is `PACKAGE` below the working folder.

    Raises:
        FileNotFoundError: it lacks a file, with the line that installs it.
    """
    place = PACKAGE if folder is None else Path(folder)
    missing = [name for name in RUNTIME_FILES if not (place / "dist" / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"--page needs the npm package onnxruntime-web, and {place / 'dist' / missing[0]} does not exist; install "
            "it with: npm install onnxruntime-web, and give its folder if it is elsewhere: --onnxruntime_web DIR"
        )
    return place / "dist"


def write_page(folder: Path, about: ExportMetadata, runtime: Path) -> None:
    """Write the page.

    Args:
        folder: of the export, with onnx/model_preprocessing.onnx.
        about: what the page says of the model.
        runtime: from `check_runtime`.
    """
    page = folder / PAGE
    page.mkdir()
    for name in PAGE_FILES:
        shutil.copyfile(WEB / name, page / name)
    for name in RUNTIME_FILES:
        shutil.copyfile(runtime / name, page / name)
    shutil.copyfile(folder / WHOLE, page / "model.onnx")
    write_json(page / "model.json", about.to_dict())
