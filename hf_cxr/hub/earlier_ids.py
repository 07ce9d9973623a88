"""Whether the ids that a dataset repository has are keyed hashes: in its newest commit, and in those before it.

Every commit stays readable, and the same image leads from the hash of an id in one commit to the id itself in
another. So hashed ids never go where ids of the source are or were, and ids of the source never go over hashed ones.

The data decide and not the card, which anyone can edit: of each commit, the first rows of a file are read. A file that
cannot be read, or has no patients, counts as not hashed.
"""

import re

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.hf_api import RepoFile

from hf_cxr.data.published import HASHED_ID
from hf_cxr.hub.repository import Remote
from hf_cxr.hub.requests import HubError

SHARD = re.compile(r"data/[\w.]+-\d{5}-of-\d{5}\.parquet")
"""The path of a file of the data."""


def check_earlier_ids(api: HfApi, full_id: str, remote: Remote, *, hashed: bool) -> None:
    """Refuse a push whose ids and those of an earlier one would lead from each hash to the id behind it.

    Args:
        api: the client: within `requests.explained`.
        full_id: ``namespace/name`` of a dataset.
        remote: its newest commit.
        hashed: the push sends hashes.

    Raises:
        HubError: with the repair.
    """
    known: dict[str, bool] = {}
    if hashed:
        for commit in _commits(api, full_id, remote):
            if _has_hashed_ids(api, full_id, commit, known) is False:
                raise HubError(
                    f"{full_id} has ids that are not hashed, in the commit {commit[:12]}, and every commit stays "
                    "readable: the same image would lead from a hash to the id behind it; nothing was sent; delete "
                    f"the repository (hf repos delete {full_id} --repo-type dataset), or give another name"
                )
    elif _has_hashed_ids(api, full_id, remote.commit, known):
        raise HubError(
            f"{full_id} has hashed ids, and this push would send those of the source; nothing was sent; give "
            "--hash_patient_ids, or another name"
        )


def _commits(api: HfApi, full_id: str, remote: Remote) -> list[str]:
    """Every commit that a reader can name, the newest first."""
    earlier = [commit.commit_id for commit in api.list_repo_commits(full_id, repo_type="dataset")]
    return list(dict.fromkeys([remote.commit, *remote.tags.values(), *remote.branches.values(), *earlier]))


def _has_hashed_ids(api: HfApi, full_id: str, commit: str, known: dict[str, bool]) -> bool | None:
    """Whether the ids of a commit's data are hashes; None if it has no data.

    Args:
        known: the answers so far, by the file's object on the Hub: commits share most of their files.
    """
    tree = api.list_repo_tree(full_id, recursive=True, revision=commit, repo_type="dataset")
    shards = {
        entry.path: entry.blob_id for entry in tree if isinstance(entry, RepoFile) and SHARD.fullmatch(entry.path)
    }
    if not shards:
        return None
    path, blob = min(shards.items())  # one file will do: a push hashes all ids or none
    if blob not in known:
        known[blob] = all(HASHED_ID.fullmatch(value or "") for value in _patients(api, full_id, path, commit))
    return known[blob]


def _patients(api: HfApi, full_id: str, path: str, commit: str) -> list[str | None]:
    """The patients of a Parquet file's first rows; one that is unknown if they cannot be read."""
    hub = HfFileSystem(endpoint=api.endpoint, token=api.token, skip_instance_cache=True)
    with hub.open(f"datasets/{full_id}@{commit}/{path}", "rb") as file:
        try:
            data = pq.ParquetFile(file)
            if "patient_id" not in data.schema_arrow.names or not data.num_row_groups:
                return [None]
            return [str(cell) for cell in data.read_row_group(0, ["patient_id"])["patient_id"].to_pylist()]
        except pa.ArrowInvalid:
            return [None]
