"""The folder of an export: new, empty, or with an earlier export of the same model, to which files are added."""

from pathlib import Path
from typing import Any

from hf_cxr.exported_files import CONFIG, MODEL, PAGE, PROCESSOR, PROGRAM, RESULT
from hf_cxr.files import read_json

REPAIR = "give another --out"
EXPORTED = {Path(name).parts[0] for name in (CONFIG, PROCESSOR, MODEL, PROGRAM, PAGE)}
"""What an export puts into its folder, besides export.json, which it writes last."""


def check_place(place: Path, model_sha256: str) -> dict[str, Any]:
    """Refuse a folder that contains anything but an export of this model.

    Args:
        place: the folder; it need not exist.
        model_sha256: checksum of the model that is to be exported.

    Returns:
        What its export.json says of the files that are there; {} for a new or empty folder.

    Raises:
        ValueError: with what the folder contains.
    """
    names = sorted(file.name for file in place.iterdir() if not _is_lock(file, place)) if place.is_dir() else []
    if not names:
        return {}
    if RESULT not in names and {*names} <= EXPORTED:
        raise ValueError(
            f"{place} contains an export that was interrupted (there is no {RESULT}); remove the folder and run the "
            f"same command again, or {REPAIR}"
        )
    if RESULT not in names:
        raise ValueError(f"{place} is not empty (it contains {names[0]}) and is not an export; {REPAIR}")
    before = read_json(place / RESULT, repair=f"{REPAIR}, or remove this folder")
    model, files = before.get("model"), before.get("files")
    if not isinstance(model, dict) or model.get("model_sha256") != model_sha256:
        raise ValueError(
            f"{place} contains an export of another model, or of this one before it changed; remove it, or {REPAIR}"
        )
    return {name: entry for name, entry in (files or {}).items() if (place / name).is_file()}


def _is_lock(file: Path, place: Path) -> bool:
    return file.name.startswith(f".{place.name}.hf-cxr")
