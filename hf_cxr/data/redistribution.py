"""Whether a dataset may be given to others: what its source's terms say, and the question that a person must answer.

A copy of a dataset on the Hub, private or not, is given to others: the Hub's operator has it. Nothing here is legal
advice: the terms of the source decide, and who pushes answers for it.

Refuses: sources known to forbid it, unless the person has the provider's permission; and a question without a yes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_cxr.data.published import SECRET, Pseudonyms

FORBIDDEN = (
    (
        r"chexpert|chexlocalize|stanford aimi",
        "the research use agreement of Stanford AIMI forbids distributing or publishing any part of CheXpert",
    ),
    (
        r"physionet|mimic|vindr",
        "PhysioNet's credentialed health data licence forbids sharing the data with anyone else",
    ),
    (r"padchest|bimcv", "the data use agreement of PadChest (BIMCV) forbids redistributing any part of it"),
)
"""(pattern in the dataset's name, terms or address, in lower case; what the terms say)."""


def forbids(manifest: Mapping[str, Any]) -> str | None:
    """What a source's terms say against a copy; None for a source that is not on the list.

    Args:
        manifest: of a prepared folder.
    """
    hub = (manifest.get("hub") or {}).get("id") or ""
    text = " ".join((manifest["dataset"], manifest.get("licence_note") or "", hub)).lower()
    return next((words for pattern, words in FORBIDDEN if re.search(pattern, text)), None)


def check_allowed(manifest: Mapping[str, Any], *, has_permission: bool) -> None:
    """Refuse a source whose terms forbid a copy.

    Raises:
        ValueError: with what they say, and the way out.
    """
    words = forbids(manifest)
    if words and not has_permission:
        raise ValueError(
            f"{manifest['dataset']} is not pushed: {words}. Share the table's description and the split file in its "
            "place, with which others prepare their own copy; only with the provider's written permission, give "
            "--i_have_permission"
        )


def question(
    manifest: Mapping[str, Any],
    repo_id: str,
    licence: str,
    columns: Sequence[str],
    *,
    patients: int,
    pseudonyms: Pseudonyms | None,
) -> str:
    """What a person must know before the data are published, and the question, without the answer.

    Args:
        manifest: of a prepared folder.
        repo_id: where it goes.
        licence: the Hub's name of the licence that it is published under.
        columns: of the files.
        patients: how many.
        pseudonyms: what replaces the ids; None leaves them as they are.
    """
    images = sum(manifest["splits"].values())
    who = "synthetic patients" if manifest["synthetic"] else "patients"
    if pseudonyms is None:
        ids = "as in the source; --hash_patient_ids hashes them"
    elif pseudonyms.random:
        ids = "keyed hashes; the key is random and not kept, so the next push has other hashes"
    else:
        ids = f"keyed hashes; the key is your {SECRET}: whoever has it can compute the hash of an id"
    lines = [
        f"{images:,} images of {patients:,} {who} would go to https://huggingface.co/datasets/{repo_id}",
        f"  data:    {manifest['dataset']}",
        f"  terms:   {manifest.get('licence_note') or 'the source states none'}",
        f"  licence: {licence}, as you gave it",
        f"  columns: {', '.join(columns)}",
        f"  ids:     {ids}",
    ]
    words = forbids(manifest)
    if words:
        lines.append(f"  WARNING: {words}; you say that you have the provider's permission")
    return "\n".join([*lines, "Do the source's terms allow you to publish these images under this licence?"])
