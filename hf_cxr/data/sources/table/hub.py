"""A dataset of the Hub: at which commit, and whether its files are on this disk.

| where the data are                                                                | what reaches the network       |
|-----------------------------------------------------------------------------------|--------------------------------|
| a folder below the root that the description's ``hub`` names, or the root itself, | nothing                        |
| if it ends in that name (`hf download ID --repo-type dataset --local-dir DIR`)    |                                |
| the Hub's cache, with HF_HUB_OFFLINE=1                                            | nothing                        |
| the Hub                                                                           | the commit's name, the files   |

A branch or tag moves; so a run reads one commit, which `pin` finds at its start and its config.yaml keeps. A full
commit id needs no question to the Hub.

Refuses, in one line with the repair: a dataset or revision that does not exist or is gated, a Hub that cannot be
reached, a folder of another commit than was asked for, a download that lacks shards. `KNOWN_COPIES` has datasets whose
own splits are not by patient: it is in the refusal of these splits, and in every report of data that are split again.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_cxr.data.sources.table.description import TableDescription

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.parquet|\.pq)")
KNOWN_COPIES = {
    "bahaaeldin0/nih-chest-xray-14": (
        "BahaaEldin0/NIH-Chest-Xray-14 on the Hub is a copy of ChestX-ray14 whose train, valid and test are not the "
        "official lists but 80, 10 and 10 % of the images, cut by image: patients are in more than one of them"
    ),
}
"""Hub id, in lower case -> what is known about its own splits."""


@dataclass(frozen=True)
class HubPlace:
    """Where a Hub dataset is read.

    Attributes:
        id: of the Hub, or the folder's name in the description.
        commit: 40 hexadecimal digits; None for a folder that does not say which commit it is of.
        folder: on this disk; None if it is read from the Hub.
        cached: the folder is a snapshot in the Hub's cache, whose files are links out of it.
    """

    id: str
    commit: str | None
    folder: Path | None = None
    cached: bool = False


def locate(description: TableDescription, root: Path) -> HubPlace:
    """Where a description's Hub dataset is, and at which commit.

    Args:
        description: with ``hub``.
        root: the folder that ``hub`` may be a folder below.

    Raises:
        ValueError, OSError: see the top of this module.
    """
    name, wanted = description.hub, description.hub_revision
    folder = local_folder(name, root)
    if folder is not None:
        commit = downloaded_commit(folder)
        if wanted and commit and COMMIT.fullmatch(wanted) and commit != wanted:
            raise ValueError(
                f"{folder} was downloaded at commit {commit}, but {wanted} is asked for: download that revision, or "
                f"give --table_revision {commit}"
            )
        if wanted and not commit:
            logger.warning("%s does not say which commit it is of; whether it is %s is not checked", folder, wanted)
        elif wanted and commit != wanted:
            logger.warning(
                "%s was downloaded at commit %s and is read as it is; whether %s is that commit is not checked: "
                "the Hub is not asked for data that are on this disk",
                folder,
                commit,
                wanted,
            )
        return HubPlace(name, commit, folder)
    check_hub_id(name, root)
    commit = commit_of(name, wanted)
    if constants.HF_HUB_OFFLINE:
        return HubPlace(name, commit, _snapshot(name, commit), cached=True)
    return HubPlace(name, commit)


def pin(description: TableDescription, root: Path) -> str | None:
    """The commit that a run on this data reads; None if the data are a folder on this disk, or no Hub dataset.

    Raises:
        ValueError, OSError: as `locate`.
    """
    if not description.hub or local_folder(description.hub, root) is not None:
        return None
    check_hub_id(description.hub, root)
    return commit_of(description.hub, description.hub_revision)


def origin(description: TableDescription, root: Path) -> dict[str, str | None] | None:
    """The ``id`` and ``commit`` that a report names; None for data that are no Hub dataset.

    Args:
        description: of the table; its revision is a commit, if the data are not on this disk.
        root: as for `locate`.
    """
    if not description.hub or "/" not in description.hub:
        return None
    folder = local_folder(description.hub, root)
    return {"id": description.hub, "commit": downloaded_commit(folder) if folder else description.hub_revision}


def check_hub_id(name: str, root: Path) -> None:
    """Refuse, before the Hub is asked, a name that can only be a folder: a Hub id is owner/name.

    Raises:
        FileNotFoundError: with the place that was looked at.
    """
    if "/" not in name:
        raise FileNotFoundError(
            f"{root / name} is not a folder: give the folder that contains {name} (--table_root), or write "
            "owner/name in hub for a dataset of the Hub"
        )


def local_folder(name: str, root: Path) -> Path | None:
    """The folder of a dataset below the root; or the root itself, if it ends in the Hub id or its last part.

    The root must then have Parquet files: a description may lie in a folder of that name without the data.
    """
    if (root / name).is_dir():
        return root / name
    parts = Path(name).parts
    own = root.resolve().parts
    named = len(parts) == 2 and (own[-2:] == parts or own[-1:] == parts[1:])
    return root if named and any(next(root.glob(f"{depth}*.parquet"), None) for depth in ("", "*/")) else None


def commit_of(name: str, revision: str | None) -> str:
    """The full commit id of a branch, a tag or a commit; None stands for main.

    Raises:
        ValueError, OSError: there is no such dataset or revision, or the Hub cannot be reached.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision
    with hub_errors(name, revision):
        if constants.HF_HUB_OFFLINE:
            return _snapshot(name, revision or "main").name
        return HfApi().dataset_info(name, revision=revision).sha


def download(place: HubPlace, files: Sequence[str]) -> HubPlace:
    """The files of a commit in the Hub's cache; those that are there already are not fetched again.

    Args:
        place: on the Hub.
        files: their paths in the repository.

    Raises:
        ValueError, OSError: see the top of this module.
    """
    logger.info("reading %d files of %s at commit %s into the Hub's cache", len(files), place.id, place.commit[:12])
    with hub_errors(place.id, place.commit):
        folder = snapshot_download(
            place.id, repo_type="dataset", revision=place.commit, allow_patterns=["README.md", *files]
        )
    return HubPlace(place.id, place.commit, Path(folder), cached=True)


def downloaded_commit(folder: Path) -> str | None:
    """The commit of a folder that ``hf download --local-dir`` wrote; None if it does not say, or says several."""
    notes = (folder / ".cache" / "huggingface" / "download").rglob("*.metadata")
    commits = {note.read_text(encoding="utf-8").split("\n", 1)[0].strip() for note in notes}
    commit = commits.pop() if len(commits) == 1 else ""
    return commit if COMMIT.fullmatch(commit) else None


def check_shards(paths: Mapping[str, Sequence[str]], place: str) -> None:
    """Refuse a set that lacks some of its shards: train-00001-of-00032.parquet without its 31 companions.

    Args:
        paths: split -> files.
        place: for the message.

    Raises:
        ValueError: with the number that is missing, and the first.
    """
    found: dict[tuple[str, str], set[int]] = {}
    for path in [path for names in paths.values() for path in names]:
        match = SHARD.fullmatch(path)
        if match:
            found.setdefault((match[1] + "-{:05d}-of-" + match[3] + match[4], match[3]), set()).add(int(match[2]))
    missing = [
        Path(name.format(number)).name
        for (name, count), numbers in found.items()
        for number in sorted(set(range(int(count))) - numbers)
    ]
    if missing:
        raise ValueError(
            f"{place} is incomplete: {len(missing)} shards are missing, such as {missing[0]}; download it again, "
            "finished files stay"
        )


def notes_on(description: TableDescription) -> tuple[str, ...]:
    """What a reader of figures of these data must know: the description's notes, and what is known about a copy."""
    known = KNOWN_COPIES.get((description.hub or "").lower())
    if not known:
        return description.notes
    ours = "; here they are split again by patient." if description.ignore_splits else "."
    return (*description.notes, known + ours)


@contextmanager
def known_copy(description: TableDescription) -> Iterator[None]:
    """Within the block, a refusal of the splits says that this is a copy known for it, and what to do.

    Raises:
        ValueError: the block's, with the reason.
    """
    try:
        yield
    except ValueError as error:
        known = KNOWN_COPIES.get((description.hub or "").lower())
        repair = (
            "ignore_splits: true, validation_fraction: 0.1 and test_fraction: 0.2 in the description split all rows "
            "by patient"
        )
        if not known and description.hub:
            raise ValueError(f"{error} ({repair})") from error
        if not known:
            raise
        raise ValueError(f"{known}. {error} ({repair})") from error


@contextmanager
def hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Within the block, what the Hub's client raises is one line with the repair.

    Raises:
        ValueError: no such dataset or revision, or it is gated.
        OSError: the Hub cannot be reached, or the data are not on this disk.
    """
    at = revision or "main"
    try:
        yield
    except GatedRepoError as error:
        raise ValueError(f"{name} is gated: accept its terms on the Hub and log in (hf auth login)") from error
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{name} has no revision {at}: give --table_revision a branch, a tag or a commit that it has"
        ) from error
    except (RepositoryNotFoundError, DatasetNotFoundError) as error:
        if "revision" in str(error).lower():
            raise ValueError(
                f"{name} has no revision {at}: give --table_revision a branch, a tag or a commit that it has"
            ) from error
        raise ValueError(
            f"there is no dataset {name} on the Hub, or it is private and you are not logged in (hf auth login)"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise OSError(
            f"{name} at {at} is not on this disk, and the Hub is not asked or not reached (HF_HUB_OFFLINE, no "
            f"network): download it first (hf download {name} --repo-type dataset), or give --table_root the folder "
            "of a copy"
        ) from error
    except HFValidationError as error:
        raise ValueError(f"{name} is not a folder, and not a Hub id either (owner/name)") from error
    except (HfHubHTTPError, HTTPError, ConnectionError, TimeoutError) as error:
        raise OSError(
            f"reading {name} from the Hub failed ({' '.join(str(error).split())[:200] or type(error).__name__}): run "
            "the same command again; what was downloaded stays"
        ) from error


def _snapshot(name: str, revision: str) -> Path:
    """The folder of a revision in the Hub's cache, which is not asked."""
    patterns = ["README.md", "*.parquet", "*.pq"]
    with hub_errors(name, revision):
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=patterns
            )
        )
