"""Whether the ids that a dataset repository has are keyed hashes: in its newest commit, and in all others.

Every commit stays readable, and the same image leads from the hash of an id in one commit to the id itself in
another. So hashed ids never go where ids of the source are or were, and ids of the source never go where hashed ones
are or were.

All commits that lead to a branch, a tag or a pull request are looked at. Not looked at: commits that the Hub no longer
lists, such as those before a squash of the history, and the copy that the Hub makes itself (``refs/convert``).

The data decide and not the card, which anyone can edit: of each commit, the first rows of a file are read. A file that
cannot be read, or has no patients, counts as not hashed.
"""

import re

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.hf_api import RepoFile

from hf_cxr.data.published import HASHED_ID
from hf_cxr.hub.requests import HubError

SHARD = re.compile(r"data/[\w.]+-\d{5}-of-\d{5}\.parquet")
"""The path of a file of the data."""


def check_earlier_ids(api: HfApi, full_id: str, *, hashed: bool) -> None:
    """Refuse a push whose ids and those of an earlier one would lead from each hash to the id behind it.

    Args:
        api: the client: within `requests.explained`.
        full_id: ``namespace/name`` of a dataset.
        hashed: the push sends hashes.

    Raises:
        HubError: with the repair.
    """
    known: dict[str, set[bool]] = {}
    for commit in _commits(api, full_id):
        if (not hashed) in _kinds_of_ids(api, full_id, commit, known):
            has, sends = (
                ("ids that are not hashed", "hashed ones") if hashed else ("hashed ids", "those of the source")
            )
            repair = "" if hashed else "give --hash_patient_ids, or "
            raise HubError(
                f"{full_id} has {has}, in the commit {commit[:12]}, and this push would send {sends}; every commit "
                "stays readable, so the same image would lead from a hash to the id behind it; nothing was sent; "
                f"{repair}delete the repository (hf repos delete {full_id} --repo-type dataset), or give another name"
            )


def _commits(api: HfApi, full_id: str) -> list[str]:
    """Every commit that leads to a branch, a tag or a pull request; those of main first, the newest first."""
    refs = api.list_repo_refs(full_id, repo_type="dataset", include_pull_requests=True)
    branches = sorted(refs.branches, key=lambda branch: branch.name != "main")
    found: dict[str, None] = {}
    for ref in (*branches, *refs.tags, *(refs.pull_requests or ())):
        if ref.target_commit not in found:  # with it, all that lead to it are known
            history = api.list_repo_commits(full_id, repo_type="dataset", revision=ref.target_commit)
            found |= dict.fromkeys(commit.commit_id for commit in history)
    return list(found)


def _kinds_of_ids(api: HfApi, full_id: str, commit: str, known: dict[str, set[bool]]) -> set[bool]:
    """Whether the ids of a commit's data are hashes: both answers if some are, and none if it has no data.

    Args:
        known: the answers so far, by the file's object on the Hub: commits share most of their files.
    """
    tree = api.list_repo_tree(full_id, recursive=True, revision=commit, repo_type="dataset")
    shards = {
        entry.path: entry.blob_id for entry in tree if isinstance(entry, RepoFile) and SHARD.fullmatch(entry.path)
    }
    if not shards:
        return set()
    path, blob = min(shards.items())  # one file will do: a push hashes all ids or none
    if blob not in known:
        patients = _patients(api, full_id, path, commit)
        known[blob] = {HASHED_ID.fullmatch(patient or "") is not None for patient in patients}
    return known[blob]


def _patients(api: HfApi, full_id: str, path: str, commit: str) -> list[str | None]:
    """The patients of a Parquet file's first rows; one that is unknown if they cannot be read."""
    hub = HfFileSystem(endpoint=api.endpoint, token=api.token, skip_instance_cache=True)
    with hub.open(f"datasets/{full_id}@{commit}/{path}", "rb") as file:
        try:
            data = pq.ParquetFile(file)
            if "patient_id" not in data.schema_arrow.names or not data.num_row_groups:
                return [None]
            return [str(cell) for cell in data.read_row_group(0, ["patient_id"])["patient_id"].to_pylist()] or [None]
        except pa.ArrowInvalid:
            return [None]
