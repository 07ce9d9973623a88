"""A repository of the Hub: made if it is not there, compared with files on this disk, and its commits given tags.

A tag is a name that keeps one commit: `from_pretrained(..., revision=TAG)` reads the same files forever, while
`main` moves on. A tag that exists is never moved.

Refused before any file is sent: offline mode, no login, a token that may not write, a private push into a public
repository, files of another program, a tag that names another commit.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    RepoCard,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils.sha import git_hash

from hf_cxr.hub.ownership import NotOursError, check_is_ours
from hf_cxr.hub.parsing import PushFile
from hf_cxr.hub.requests import HubError, check_name, check_online, explained

logger = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Pushed:
    """What a push left on the Hub.

    Args:
        url: web address of the commit.
        commit: its id.
        tag: the tag that names it; an automatic tag of the same files may name an earlier commit of them.
        deleted: paths that the commit deleted: an earlier push sent them.
    """

    url: str
    commit: str
    tag: str
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remote:
    """A repository's newest commit.

    Args:
        commit: its id.
        files: by path, the object's id as the Hub has it: SHA-256 of a large file, git's blob id of another.
        large: the paths of the former.
        branches, tags: by name, the commit's id.
    """

    commit: str
    files: Mapping[str, str]
    large: frozenset[str]
    branches: Mapping[str, str]
    tags: Mapping[str, str]

    def state_of(self, file: PushFile) -> str:
        """ "new", "changed" or "unchanged": what a push of the file does to the newest commit."""
        there = self.files.get(file.path)
        if there is None:
            return "new"
        if file.path in self.large:
            return "unchanged" if there == file.sha256 else "changed"
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        return "unchanged" if there == git_hash(content) else "changed"

    def is_changed(self, file: PushFile) -> bool:
        """Whether a push of the file changes the newest commit."""
        return self.state_of(file) != "unchanged"


def prepare_repo(
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    repo_type: str = "model",
    replace: bool = False,
) -> str:
    """Create the repository if it does not exist, and check that it can be written to.

    Args:
        repo_id: ``name`` or ``namespace/name``; a bare name goes to the token's owner.
        private: the repository has to be private; an existing public one is refused. An existing private one stays
            private in any case.
        token: access token; by default that of ``HF_TOKEN`` or of ``hf auth login``.
        repo_type: "model" or "dataset". The Hub keeps the two apart: a model and a dataset may have the same name.
        replace: a repository with files of another program is accepted.

    Returns:
        The full name, ``namespace/name``.

    Raises:
        ValueError: the name is not a repository name.
        HubError: offline mode, no login, a refused token, no write permission, a public repository, files of another
            program, no connection.
    """
    check_name(repo_id)
    check_online()
    token = token or get_token()
    if not token:
        raise HubError(f"cannot write to {repo_id}: not logged in; run `hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token)
    with explained(f"prepare the repository {repo_id}", api):
        full_id = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type).repo_id
        # With exist_ok, create_repo accepts a repository that this token may only read.
        api.auth_check(full_id, write=True, repo_type=repo_type)
        info = api.repo_info(full_id, repo_type=repo_type)
        if not replace:
            files = [entry.rfilename for entry in info.siblings or ()]
            check_is_ours(api, full_id, files, info.sha, repo_type=repo_type)
    kind = "" if repo_type == "model" else f" --repo-type {repo_type}"
    if private and not info.private:
        flag = "--public (in training --hub_private_repo false)" if repo_type == "model" else "--public"
        raise HubError(
            f"{full_id} exists and is public, and a push is private by default: to push into the public repository,"
            f" give {flag}; or make it private with"
            f" `hf repos settings {full_id}{kind} --private`; or choose another name"
        )
    if info.private and not private:
        logger.warning(
            "%s is private and stays private; to make it public: hf repos settings %s%s --public",
            *(full_id, full_id, kind),
        )
    return full_id


def read_remote(api: HfApi, full_id: str, *, repo_type: str = "model") -> Remote:
    """The newest commit of a repository; three requests, which raise as the client does."""
    commit = api.repo_info(full_id, repo_type=repo_type).sha
    entries = [
        entry
        for entry in api.list_repo_tree(full_id, recursive=True, revision=commit, repo_type=repo_type)
        if isinstance(entry, RepoFile)
    ]
    refs = api.list_repo_refs(full_id, repo_type=repo_type)
    return Remote(
        commit=commit,
        files={entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in entries},
        large=frozenset(entry.path for entry in entries if entry.lfs),
        branches={branch.name: branch.target_commit for branch in refs.branches},
        tags={tag.name: tag.target_commit for tag in refs.tags},
    )


@dataclass(frozen=True)
class Look:
    """What a dry run saw of a repository.

    Args:
        remote: its newest commit; None if it was not looked at, or does not exist.
        exists: whether there is a repository; None if it was not looked at.
        not_compared: why it was not looked at, in words; None if it was.
    """

    remote: Remote | None = None
    exists: bool | None = None
    not_compared: str | None = None


def look_at(repo_id: str, token: str | None, *, repo_type: str = "model", replace: bool = False) -> Look:
    """The repository as it is, if there is a token and a connection. Nothing is changed, and a failure is words.

    Args:
        repo_id, repo_type, replace: as in `prepare_repo`.
        token: access token.

    Raises:
        NotOursError: it has files of another program.
    """
    if constants.is_offline_mode() or not token:
        return Look(not_compared="offline mode" if constants.is_offline_mode() else "not logged in")
    api = HfApi(token=token)
    try:
        with explained(f"read {repo_id}", api):
            full_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
            remote = read_remote(api, full_id, repo_type=repo_type)
            if not replace:
                check_is_ours(api, full_id, remote.files, remote.commit, repo_type=repo_type)
            return Look(remote, exists=True)
    except NotOursError:
        raise
    except HubError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError):
            return Look(exists=False)
        return Look(not_compared=str(error))


@dataclass(frozen=True)
class Repository:
    """A repository that is ready for a push.

    Args:
        api: the client.
        full_id: ``namespace/name``.
        repo_type: "model" or "dataset".
        remote: its newest commit, on which the push builds.
    """

    api: HfApi
    full_id: str
    repo_type: str
    remote: Remote


def open_repository(
    repo_id: str,
    card: RepoCard,
    card_path: Path,
    *,
    private: bool,
    token: str | None,
    repo_type: str = "model",
    replace: bool = False,
) -> Repository:
    """Check the card, which creates nothing, then prepare the repository and read its newest commit.

    Args:
        repo_id, private, token, repo_type, replace: as in `prepare_repo`.
        card: that is pushed.
        card_path: its place, for messages.

    Raises:
        ValueError: the Hub refuses the card's metadata, or the name.
        HubError: as `prepare_repo`.
    """
    check_online()
    api = HfApi(token=token)
    with explained("check the card's metadata", api):
        _validate_card(card, card_path, repo_type)
    full_id = prepare_repo(repo_id, private=private, token=token, repo_type=repo_type, replace=replace)
    with explained(f"read {full_id}", api):
        return Repository(api, full_id, repo_type, read_remote(api, full_id, repo_type=repo_type))


def commit_files(
    repository: Repository,
    operations: Sequence[CommitOperationAdd | CommitOperationDelete],
    *,
    doing: str,
    message: str,
    tag: str | None,
    digest_tag: str,
) -> Pushed:
    """Make one commit, if there is anything to change, and tag it.

    Args:
        repository: from `open_repository`; refused if it has changed since.
        operations: what the commit adds and deletes; none: the newest commit has these files already.
        doing: for messages, after "could not".
        message: of the commit.
        tag: that was asked for; None for the automatic one.
        digest_tag: the automatic tag, from `automatic_tag`.

    Raises:
        HubError: the tag names another commit, or a request failed.
    """
    api, full_id, repo_type, remote = repository.api, repository.full_id, repository.repo_type, repository.remote
    name = tag or digest_tag
    check_tag_is_free(name, remote, changes=bool(operations), automatic=tag is None)
    if not operations:
        pushed = Pushed(_commit_url(repository), remote.commit, name)
    else:
        deleted = tuple(one.path_in_repo for one in operations if isinstance(one, CommitOperationDelete))
        # create_commit and not upload_folder: with hf_xet installed the latter splits a push into several commits, and
        # a reader between two of them would load the new config with the old weights.
        with explained(doing, api):
            commit = api.create_commit(
                full_id,
                operations,
                commit_message=message,
                repo_type=repo_type,
                parent_commit=remote.commit,
            )
        pushed = Pushed(commit.commit_url, commit.oid, name, deleted)
    _put_tag(repository, pushed)
    return pushed


def automatic_tag(start: str, files: Iterable[tuple[str, str]]) -> str:
    """A tag of these files: the same files have the same tag, and other files another.

    Args:
        start: its first word, such as "run".
        files: path and SHA-256 of each.

    >>> automatic_tag("run", [("b", "22"), ("a", "11")]) == automatic_tag("run", [("a", "11"), ("b", "22")])
    True
    """
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files))
    return f"{start}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"


def check_tag_name(tag: str | None) -> None:
    """Refuse a tag that the Hub would not take, or that would hide a branch or a commit.

    Raises:
        ValueError: with the rule.
    """
    if tag is None:
        return
    is_ref = _TAG.fullmatch(tag) and ".." not in tag and not tag.endswith((".", ".lock"))
    if not is_ref or tag == "main" or re.fullmatch(r"[0-9a-f]{40}", tag):
        raise ValueError(
            f"{tag!r} cannot be a tag; give letters, digits, '-', '_' and '.', such as v1.0, but not main, not a"
            " commit's id, and at most 80 characters"
        )


def check_tag_is_free(tag: str, remote: Remote, *, changes: bool, automatic: bool) -> None:
    """Refuse, before anything is sent, a tag that the push could not put on its commit.

    Args:
        tag: its name.
        remote: the repository.
        changes: the push makes a new commit.
        automatic: the name is a digest of the files, so a commit that has it already has these files.

    Raises:
        HubError: with the repair.
    """
    if tag in remote.branches:
        raise HubError(f"{tag} is a branch of the repository; nothing was sent; give another --tag")
    commit = remote.tags.get(tag)
    if commit is None or automatic or (commit == remote.commit and not changes):
        return
    raise HubError(
        f"the tag {tag} exists and names another commit ({commit[:12]}), and a tag never moves; nothing was sent; give"
        " another --tag, or leave it out for an automatic one"
    )


def _commit_url(repository: Repository) -> str:
    start = "" if repository.repo_type == "model" else f"{repository.repo_type}s/"
    return f"{repository.api.endpoint}/{start}{repository.full_id}/commit/{repository.remote.commit}"


def _put_tag(repository: Repository, pushed: Pushed) -> None:
    """Make the tag of a push if it does not exist. If that fails, the files are there all the same."""
    if pushed.tag in repository.remote.tags:
        return
    api, repo_type = repository.api, repository.repo_type
    doing = f"tag the commit {pushed.tag}; the files were pushed ({pushed.url}), and the same command tags them"
    with explained(doing, api):
        api.create_tag(repository.full_id, tag=pushed.tag, revision=pushed.commit, repo_type=repo_type)


def load_card(path: Path, kind: type[RepoCard] = ModelCard, text: str | None = None) -> RepoCard:
    """A README.md, with metadata that parse.

    Args:
        path: of the file.
        kind: of the repository.
        text: its content, if it is not to be read.

    Raises:
        ValueError: it has no metadata, or they do not parse.
    """
    again = "nothing was pushed; restore the file from a copy"
    try:
        # huggingface_hub logs its own warning if the block is missing.
        text = path.read_text(encoding="utf-8") if text is None else text
        card = kind(text) if REGEX_YAML_BLOCK.search(text) else None
    except Exception as error:  # PyYAML's errors and huggingface_hub's ValueError share no narrower base
        raise ValueError(f"{path}: the metadata between the '---' lines does not parse: {error}; {again}") from error
    if card is None or not card.data.to_dict():
        raise ValueError(f"{path}: no metadata; the card has to begin with YAML between two '---' lines; {again}")
    return card


def _validate_card(card: RepoCard, path: Path, repo_type: str) -> None:
    """The Hub's own check of a card's metadata: it creates nothing.

    Raises:
        ValueError: the Hub refuses them.
    """
    try:
        card.validate(repo_type=repo_type)
    except HfHubHTTPError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: the Hub refuses the card's metadata: {error}") from error
