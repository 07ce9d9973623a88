"""The folder of a Hugging Face Space that shows the page of one model. Nothing is sent: `hf upload` does that.

A model of the Hub is named by its id; of a run folder the model's own files are copied, each by name and checked as
before a push, so that no image, no prediction and no path of this machine can be among them.

Refused: a place that is not new or empty; a run that may not be pushed; a requirement that is not of this package.
"""

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import SpaceCardData

from hf_cxr import __version__
from hf_cxr.extras import need
from hf_cxr.files import check_output_folder, write_text
from hf_cxr.hub.file_list import collect
from hf_cxr.requirement import check_requirement
from hf_cxr.saved_models import WEIGHTS, public_name, refuse_missing_folder
from hf_cxr.words import NOTICE, markdown

FOLDER = "model"
COPIED = ("config.json", "input_check.safetensors", "preprocessor_config.json", WEIGHTS)
"""What is copied of a run folder, where it is there."""

REQUIREMENT = f"hf-cxr[demo,dicom]=={__version__}"
TITLE = "Findings in a chest radiograph"
# torch for CUDA takes several GB, and a free Space has no GPU.
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"

APP = '''"""The page of a Space: see README.md."""
{imports}
from hf_cxr.demo.show import show

if __name__ == "__main__":
    show({words})
'''
README = f"""
# {TITLE}

{NOTICE} **Do not give it images of patients**: a Space runs on computers of Hugging Face, not on yours.

The page of {{model}}, made by `hf-cxr demo --export_space`. Its examples are synthetic phantoms. It writes no image to
a disk. What the model cannot do is at the end of the page.
"""


def export_space(
    model: str | Path, place: Path, *, revision: str = "main", requirement: str = REQUIREMENT
) -> Sequence[str]:
    """Write the folder of a Space; returns the names of its files.

    Args:
        model: run folder, whose model is copied; or Hub id, which the Space downloads.
        place: new or empty.
        revision: branch, tag or commit of a Hub id.
        requirement: what the Space installs, such as ``hf-cxr[demo,dicom] @ git+https://...``.

    Raises:
        FileNotFoundError: no such folder, or it is not a finished run.
        OSError: the place cannot be written.
        ValueError: see the top of this module.
    """
    refuse_missing_folder(model)
    check_requirement(requirement, "the extras demo and dicom")
    check_output_folder(place)
    if place.exists() and any(place.iterdir()):
        raise ValueError(f"{place} is not empty; give a new folder, so that nothing else is sent with the Space")
    local = Path(model).is_dir()
    files = [file for file in collect(model) if file.path in COPIED] if local else []
    name = public_name(model)
    texts = {
        "README.md": _readme(str(model), None if local else [str(model)], name),
        "app.py": _app(f'Path(__file__).parent / "{FOLDER}", name={name!r}', "\nfrom pathlib import Path\n")
        if local
        else _app(f"{str(model)!r}, revision={revision!r}"),
        "requirements.txt": f"{CPU_WHEELS}\n{requirement}\n",
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    }
    (place / FOLDER if local else place).mkdir(parents=True, exist_ok=True)
    for file in files:
        if isinstance(file.content, bytes):
            (place / FOLDER / file.path).write_bytes(file.content)
        else:
            shutil.copyfile(file.content, place / FOLDER / file.path)
    for path, text in texts.items():
        write_text(place / path, text)
    return sorted([*texts, *(f"{FOLDER}/{file.path}" for file in files)])


def _app(words: str, imports: str = "") -> str:
    return APP.format(words=words, imports=imports)


def _readme(model: str, models: list[str] | None, name: str) -> str:
    card = SpaceCardData(
        title=TITLE,
        emoji="🩻",
        colorFrom="gray",
        colorTo="blue",
        sdk="gradio",
        sdk_version=_gradio_version(),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        pinned=False,
        models=models,
        short_description="Research only. Not a medical device.",
        tags=["chest-x-ray", "multi-label", "calibration"],
    )
    shown = f"[{markdown(model)}](https://huggingface.co/{model})" if models else f"the model {markdown(name)}"
    return f"---\n{card.to_yaml()}\n---\n{README.format(model=shown)}"


def _gradio_version() -> str:
    need("a Space, which names Gradio's version,", "demo", "gradio")
    return version("gradio")
