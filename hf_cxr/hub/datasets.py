"""Push a prepared folder to the Hub as a dataset: Parquet files, its card, and the description to train from it.

    README.md                          its card (`reporting.card.datasheet`) with the licence; your own is taken
    hf_cxr.yaml                        a table description: hf-cxr train --dataset table --table hf_cxr.yaml
    data/train-00000-of-00005.parquet  and so on: see `data.published`

The names are computed from the splits, and nothing else of the folder is sent. Files are written, sent and removed
one after another, so memory and disk hold one of them at a time; one commit at the end shows them all. The same
command after an interruption writes the files again and sends those that had not arrived. With hashed ids that
needs the same secret, so a random one starts again.

Refused: a folder whose source forbids copies, a card that is a link, states another licence or says what does not hold
for the copy, patients in two splits, and what `data.published`, `leaks`, `repository` and `earlier_ids` refuse.
"""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, get_token

from hf_cxr.data.manifest import CARD
from hf_cxr.data.published import (
    IDS,
    SECRET,
    SHARD_BYTES,
    Pseudonyms,
    Shard,
    cut_shards,
    description_of,
    published_features,
    write_shard,
)
from hf_cxr.data.redistribution import check_allowed, question
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.data.splits import check_patients_disjoint, with_canonical_ids
from hf_cxr.files import file_sha256
from hf_cxr.hub.earlier_ids import SHARD, check_earlier_ids
from hf_cxr.hub.leaks import check_no_local_path, check_no_token
from hf_cxr.hub.ownership import DESCRIPTION
from hf_cxr.hub.parsing import PushFile
from hf_cxr.hub.repository import (
    Look,
    Pushed,
    Remote,
    Repository,
    automatic_tag,
    check_tag_is_free,
    check_tag_name,
    commit_files,
    load_card,
    look_at,
    open_repository,
)
from hf_cxr.hub.requests import check_name, explained
from hf_cxr.reporting.card.datasheet import Published, published_datasheet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetPlan:
    """What a push of a prepared folder would send.

    Args:
        folder: that `hf-cxr prepare` wrote.
        repo_id: where it goes, ``namespace/name``.
        pseudonyms: keyed hashes that replace all ids; None leaves them as they are.
        manifest: of the folder.
        splits: with images, memory-mapped.
        shards: the files of the data.
        files: the card and the description.
        question: what a person must answer with yes.
        shard_bytes: by path, bytes of the pixels before they are compressed.
    """

    folder: Path
    repo_id: str
    pseudonyms: Pseudonyms | None
    manifest: Mapping[str, Any]
    splits: datasets.DatasetDict
    shards: list[Shard]
    files: list[PushFile]
    question: str
    shard_bytes: Mapping[str, int]


@dataclass(frozen=True)
class DatasetComparison:
    """What a push would do to a repository.

    Args:
        look: the repository as it is.
        states: by path, what happens to each file, in words; empty if the repository was not looked at.
        deleted: files of an earlier push that this one lacks.
    """

    look: Look
    states: Mapping[str, str]
    deleted: tuple[str, ...]


def plan_dataset(
    folder: str | Path,
    repo_id: str,
    *,
    licence: str,
    has_permission: bool = False,
    hash_patient_ids: bool = False,
    token: str | None = None,
    most: int = SHARD_BYTES,
    verify: bool = False,
) -> DatasetPlan:
    """What `push_dataset` would send, once everything that needs no network is checked.

    Args:
        folder: as `hf-cxr prepare` wrote it.
        repo_id: ``namespace/name``.
        licence: the Hub's name of a licence, such as cc0-1.0, or other.
        has_permission: of the provider, where the source's terms forbid copies.
        hash_patient_ids: keyed hashes in place of all ids.
        token: must not be in any file.
        most: bytes of pixels in a file.
        verify: compare the folder's files with their digests.

    Raises:
        FileNotFoundError, ValueError: see the top of this module.
    """
    folder = Path(folder)
    check_name(repo_id)
    pseudonyms = Pseudonyms.of_environment() if hash_patient_ids else None
    if "/" not in repo_id:
        raise ValueError(f"give the whole name, such as you/{repo_id}: files of the dataset name it")
    prepared, manifest = load_prepared(folder, verify=verify)
    check_allowed(manifest, has_permission=has_permission)
    splits = with_canonical_ids(datasets.DatasetDict({name: part for name, part in prepared.items() if len(part)}))
    check_patients_disjoint(splits)
    side = manifest["recipe"]["size"]
    shards = cut_shards(splits, side, most)
    studies = any("study_id" in split.column_names for split in splits.values())
    description = description_of(manifest, repo_id, licence, studies=studies)
    columns = list(published_features(manifest["label_names"], studies=studies))
    if (folder / CARD).is_symlink():
        raise ValueError(f"{folder / CARD} is a link that can lead out of the folder; replace it by a copy")
    sheet = published_datasheet(folder, manifest, prepared, Published(repo_id, columns, hash_patient_ids))
    texts = {
        CARD: str(_card(sheet, folder / CARD, licence, list(splits))),
        DESCRIPTION: yaml.safe_dump(description, sort_keys=False, allow_unicode=True),
    }
    _check_texts(folder, texts, token or get_token())
    _check_columns(folder, splits, token or get_token(), hashed=pseudonyms is not None)
    if pseudonyms:
        _check_no_id(folder, texts, splits)
    patients = sum(len(set(split["patient_id"][:])) for split in splits.values())
    return DatasetPlan(
        folder,
        repo_id,
        pseudonyms,
        manifest,
        splits,
        shards,
        [PushFile.of(name, text.encode()) for name, text in texts.items()],
        question(manifest, repo_id, licence, columns, patients=patients, pseudonyms=pseudonyms),
        {shard.path: (shard.stop - shard.start) * side**2 for shard in shards},
    )


def compare_dataset(plan: DatasetPlan, *, token: str | None = None, replace: bool = False) -> DatasetComparison:
    """What a push of this plan would find and delete in its repository, if there is a login and a connection.

    Raises:
        HubError: the repository has files of another program, or ids that would give the hashed ones away.
    """
    token = token or get_token()
    look = look_at(plan.repo_id, token, repo_type="dataset", replace=replace)
    if look.remote is None:
        return DatasetComparison(look, {}, ())
    _check_ids(plan, HfApi(token=token))
    states = {file.path: look.remote.state_of(file) for file in plan.files}
    for shard in plan.shards:
        states[shard.path] = "compared when it is written" if shard.path in look.remote.files else "new"
    return DatasetComparison(look, states, _gone(plan, look.remote))


def _check_ids(plan: DatasetPlan, api: HfApi) -> None:
    with explained(f"read the ids in {plan.repo_id}", api):
        check_earlier_ids(api, plan.repo_id, hashed=plan.pseudonyms is not None)


def push_dataset(
    plan: DatasetPlan,
    *,
    may_redistribute: bool,
    private: bool = True,
    token: str | None = None,
    tag: str | None = None,
    replace: bool = False,
) -> Pushed:
    """Push what was planned, as one commit with a tag.

    Args:
        plan: from `plan_dataset`.
        may_redistribute: the answer to `DatasetPlan.question`; nothing is sent unless it is True.
        private, replace: as in `prepare_repo`.
        token: by default that of the login.
        tag: its name; by default "data-" and a digest of the files.

    Returns:
        The commit and its tag.

    Raises:
        ValueError: the answer is not yes, or a column contains the token.
        HubError: as `prepare_repo` and `check_earlier_ids`, or an upload failed: there is no commit then.
    """
    if may_redistribute is not True:
        raise ValueError(
            "nothing was sent: the question whether you may redistribute the data was not answered by yes"
        )
    check_tag_name(tag)
    token = token or get_token()
    card = DatasetCard(next(file for file in plan.files if file.path == CARD).content.decode())
    if plan.pseudonyms and plan.pseudonyms.random:
        logger.warning(
            "ids are hashed with a random secret that is not kept: if this push is interrupted, the next one starts "
            "again, and has other ids; set %s to your own secret to avoid that",
            SECRET,
        )
    repository = open_repository(
        plan.repo_id, card, plan.folder / CARD, private=private, token=token, repo_type="dataset", replace=replace
    )
    remote, doing = repository.remote, f"push {plan.folder} to {repository.full_id}"
    _check_ids(plan, repository.api)
    if tag:
        check_tag_is_free(tag, remote, changes=False, automatic=False)
    with explained(doing, repository.api), tempfile.TemporaryDirectory(prefix="hf-cxr-push-") as scratch:
        operations, digests = _send_files(plan, repository, token, Path(scratch))
        operations += [CommitOperationDelete(path, is_folder=False) for path in _gone(plan, remote)]
        return commit_files(
            repository,
            operations,
            doing=doing,
            message=f"Upload {plan.manifest['dataset']}",
            tag=tag,
            digest_tag=automatic_tag("data", digests.items()),
        )


def _send_files(
    plan: DatasetPlan, repository: Repository, token: str | None, scratch: Path
) -> tuple[list[CommitOperationAdd | CommitOperationDelete], dict[str, str]]:
    """Write, check and send each file of the data, one after another; what the commit still needs is in ``scratch``.

    Returns:
        What the commit adds, and the SHA-256 of every file of the dataset by its path.
    """
    api, remote, pseudonyms = repository.api, repository.remote, plan.pseudonyms
    operations = [CommitOperationAdd(file.path, file.content) for file in plan.files if remote.is_changed(file)]
    digests = {file.path: file.sha256 for file in plan.files}
    splits = {
        name: split if pseudonyms is None else split.select(pseudonyms.order(name, len(split)))
        for name, split in plan.splits.items()
    }
    for number, shard in enumerate(plan.shards, 1):
        path = scratch / Path(shard.path).name
        for texts in write_shard(path, splits[shard.split], shard, plan.manifest["label_names"], pseudonyms):
            _check_texts(
                plan.folder, {shard.path: "\n".join(text for column in texts.values() for text in column)}, token
            )
        digests[shard.path] = file_sha256(path)
        if remote.files.get(shard.path) != digests[shard.path]:
            operation = CommitOperationAdd(shard.path, path)
            api.preupload_lfs_files(plan.repo_id, [operation], repo_type="dataset")
            operations.append(operation)
            if operation.path_or_fileobj == b"":  # sent, and the client needs it no more
                path.unlink()
        logger.info("file %d of %d: %s", number, len(plan.shards), shard.path)
    return operations, digests


def _gone(plan: DatasetPlan, remote: Remote) -> tuple[str, ...]:
    """Files of an earlier push's data that this one does not have."""
    kept = {shard.path for shard in plan.shards}
    return tuple(sorted(path for path in remote.files if SHARD.fullmatch(path) and path not in kept))


def _card(text: str, path: Path, licence: str, splits: list[str]) -> DatasetCard:
    card = load_card(path, DatasetCard, text)
    own = card.data.license
    if own not in (None, licence):
        raise ValueError(f"{path} states the licence {own}, but --licence is {licence}; make them the same")
    card.data.license = licence
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    card.data.configs = [{"config_name": "default", "data_files": files}]
    return card


def _check_no_id(folder: Path, texts: Mapping[str, str], splits: datasets.DatasetDict) -> None:
    """Refuse a text that names an image, a patient or a study whose id is to be hashed.

    An id of fewer than six characters, or without a digit, could be a word or a number of the text: it is not found.
    """
    for name, text in texts.items():
        words = {word.strip("./-") for kind in (r"[\w.-]+", r"[\w./-]+") for word in re.findall(kind, text)}
        words = {word for word in words if len(word) > 5 and re.search(r"\d", word)}
        for split in splits.values():
            for column in [column for column in IDS if column in split.column_names]:
                named = sorted(words.intersection(split[column][:]))
                if named:
                    raise ValueError(
                        f"{folder / name} names {named[0]!r}, of the source's column {column}, and ids are to be "
                        "hashed; delete it from the text"
                    )


def _check_columns(folder: Path, splits: datasets.DatasetDict, token: str | None, *, hashed: bool) -> None:
    """Refuse a local path or an access token in a column of text that is published as it is."""
    for name, split in splits.items():
        columns = {key: split[key][:] for key in (*IDS, "view", "sex") if key in split.column_names}
        columns["boxes"] = [box["finding"] for boxes in split["boxes"][:] for box in boxes or ()]
        for column in [key for key in columns if not (hashed and key in IDS)]:
            text = "\n".join(dict.fromkeys(cell for cell in columns[column] if cell is not None))
            place, repair = f"column {column}", "change them in the source and prepare it again"
            check_no_local_path(folder, {name: [(place, text)]}, repair=repair)
            check_no_token(folder, {}, {f"{name}, {place},": [text]}, token)


def _check_texts(folder: Path, texts: Mapping[str, str], token: str | None) -> None:
    check_no_local_path(folder, {name: list(_lines(text)) for name, text in texts.items()})
    check_no_token(folder, {}, {name: [text] for name, text in texts.items()}, token)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    return ((f"line {number}", line) for number, line in enumerate(text.splitlines(), 1))
