"""Whether the files of a repository are of this package. A push replaces files: those of another program need a yes.

A repository is ours if it is empty, or has only what the Hub's web page creates; or, for a model, if its config.json
has the record of a run; or, for a dataset, if it has the description that a push writes.
"""

import json
from collections.abc import Iterable

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from hf_cxr.hub.requests import HubError

DESCRIPTION = "hf_cxr.yaml"
CREATED_WITH_IT = {".gitattributes", "README.md"}
"""The files of a repository that was created on the web page."""


class NotOursError(HubError):
    """A repository with files of another program."""


def check_is_ours(api: HfApi, full_id: str, files: Iterable[str], commit: str, *, repo_type: str) -> None:
    """Refuse a repository with files of another program: a push would replace them.

    Args:
        api: the client; for a model, config.json is read: within `requests.explained`.
        full_id: ``namespace/name``.
        files: all paths in the commit.
        commit: the newest.
        repo_type: "model" or "dataset".

    Raises:
        NotOursError: with the repair.
    """
    files = set(files)
    theirs = sorted(files - CREATED_WITH_IT)
    if not theirs or (DESCRIPTION in files if repo_type == "dataset" else _has_record(api, full_id, files, commit)):
        return
    what, rename = (
        (f"there is no {DESCRIPTION}", "another name")
        if repo_type == "dataset"
        else ("its config.json has no record of a run", "another name (in training --hub_model_id)")
    )
    raise NotOursError(
        f"{full_id} has files of another program ({', '.join(theirs[:3])}; {what}), and a push would replace or "
        f"delete some of them; nothing was sent; give {rename}, or `hf-cxr push` with --replace (--dry_run lists them)"
    )


def _has_record(api: HfApi, full_id: str, files: set[str], commit: str) -> bool:
    """Whether config.json is one that a run wrote."""
    from hf_cxr.models.record import KEY

    if "config.json" not in files:
        return False
    url = hf_hub_url(full_id, "config.json", revision=commit, endpoint=api.endpoint)
    response = get_session().get(url, headers=build_hf_headers(token=api.token), follow_redirects=True)
    hf_raise_for_status(response)
    try:
        config = json.loads(response.content)
    except ValueError:
        return False
    return isinstance(config, dict) and bool(config.get(KEY))
