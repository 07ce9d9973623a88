"""Push a finished run folder to the Hugging Face Hub, as one commit with a tag.

``prepare_repo`` is called before training, so that a missing login, a wrong name or a read-only token fails in the
first second and not after the last epoch; ``push_run`` is called after training. With several processes, only the main
one calls them.

Only files on a list of known names are pushed, each of them checked: see ``file_list``. A new repository is private
unless a public one is asked for.

Refused before any request: offline mode, predictions for a public repository, a folder or file that ``file_list``
refuses, a card whose metadata do not parse. Refused before any file is sent: a private push into a public repository,
a repository with files of another program, a tag of another commit. Refused at the end: a repository that changed
during the push.
"""

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard, get_token
from transformers import TrainingArguments

from hf_cxr.hub.file_list import NO_EXTRAS, PUSHED, SENT_IF_ASKED, PushExtras, collect, list_names
from hf_cxr.hub.handler import HANDLER, handler_files
from hf_cxr.hub.parsing import PushFile
from hf_cxr.hub.repository import (
    Look,
    Pushed,
    Remote,
    automatic_tag,
    check_tag_is_free,
    check_tag_name,
    commit_files,
    load_card,
    look_at,
    open_repository,
)
from hf_cxr.hub.requests import check_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushPlan:
    """What a push would do.

    Args:
        files: that it sends or finds unchanged, sorted by path.
        tag: of the commit.
        look: the repository as it is.
        stale: files of an earlier push that this one deletes; empty if the repository was not looked at.
    """

    files: list[PushFile]
    tag: str
    look: Look
    stale: tuple[str, ...] = ()


def push_target(training: TrainingArguments) -> tuple[str, bool]:
    """The repository that a run's arguments name, and whether it has to be private."""
    return training.hub_model_id or Path(training.output_dir).resolve().name, training.hub_private_repo is not False


def push_command(run_dir: str | Path, repo_id: str, *, private: bool) -> str:
    """The command that pushes a finished run folder; after an interrupted push, it finishes it."""
    return shlex.join(["hf-cxr", "push", str(run_dir), repo_id, *([] if private else ["--public"])])


def plan_push(
    run_dir: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    extras: PushExtras = NO_EXTRAS,
    tag: str | None = None,
    replace: bool = False,
) -> PushPlan:
    """What ``push_run`` would do, once the files have passed every check that needs no network. Nothing is changed.

    With a token, and unless offline, the repository is read and compared.

    Raises:
        FileNotFoundError, ValueError: as ``push_run``.
        HubError: the tag names another commit, or the repository has files of another program.
    """
    token = token or get_token()
    files, _ = _plan(Path(run_dir), repo_id, token, extras, tag)
    name = tag or run_tag(files)
    look = look_at(repo_id, token, replace=replace)
    if look.remote is None:
        return PushPlan(files, name, look)
    stale = _stale(files, look.remote)
    changes = bool(_operations(files, stale, look.remote))
    check_tag_is_free(name, look.remote, changes=changes, automatic=tag is None)
    return PushPlan(files, name, look, stale)


def run_tag(files: list[PushFile]) -> str:
    """The automatic tag of these files, such as run-1f0c2a9b7d3e."""
    return automatic_tag("run", [(file.path, file.sha256) for file in files])


def push_run(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str = "Upload model, card and report",
    extras: PushExtras = NO_EXTRAS,
    tag: str | None = None,
    replace: bool = False,
) -> Pushed:
    """Push a run folder's model, processor, card, metrics, config, report and figures as one commit, and tag it.

    Files of an earlier push that this one lacks (a figure that is no longer drawn, predictions that are no longer
    wanted) are deleted in the same commit; they stay in the repository's history. Files that ``push_run`` never sends
    are not touched. If nothing changed, there is no new commit; a tag that is missing is made all the same.

    Args:
        run_dir: a finished run folder; see ``file_list.REQUIRED``.
        extras: what else to send: predictions, a handler, exported models.
        tag: name of the tag; by default "run-" and a digest of the files. An existing tag is never moved.
        repo_id, private, token, replace: as in ``prepare_repo``, which is called first.

    Returns:
        The commit and its tag.

    Raises:
        FileNotFoundError: the folder is incomplete; the message names what is missing.
        ValueError: a file may not be sent (see ``file_list``), predictions would go into a public repository, the
            card's metadata are wrong, or the name is not a repository name or a tag.
        HubError: as in ``prepare_repo``; the tag names another commit; or an upload failed. There is no commit then,
            and the next call sends only what had not arrived.
    """
    if extras.predictions and not private:
        raise ValueError(
            "predictions contain identifiers of patients and images, and are not pushed into a public repository; "
            "leave out --include_predictions or --public"
        )
    run_dir = Path(run_dir)
    token = token or get_token()
    files, card = _plan(run_dir, repo_id, token, extras, tag)
    repository = open_repository(repo_id, card, run_dir / "README.md", private=private, token=token, replace=replace)
    pushed = commit_files(
        repository,
        _operations(files, _stale(files, repository.remote), repository.remote),
        doing=f"push {run_dir} to {repository.full_id}",
        message=commit_message,
        tag=tag,
        digest_tag=run_tag(files),
    )
    for path in pushed.deleted:
        logger.info("deleted %s, which an earlier push sent and this one does not; the history keeps it", path)
    return pushed


def _operations(
    files: list[PushFile], stale: tuple[str, ...], remote: Remote
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit of these files does; [] if it would change nothing."""
    if not stale and not any(remote.is_changed(file) for file in files):
        return []
    return [
        *(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.content) for file in files),
        *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale),
    ]


def _stale(files: list[PushFile], remote: Remote) -> tuple[str, ...]:
    """What an earlier push sent and this one does not. Another program's handler.py, with its requirements, stays."""
    ours = {*PUSHED, *SENT_IF_ASKED}
    if remote.is_changed(PushFile.of(HANDLER[0], handler_files()[HANDLER[0]])):
        ours -= {*HANDLER}
    return tuple(sorted(ours & set(remote.files) - {file.path for file in files}))


def _plan(
    run_dir: Path, repo_id: str, token: str | None, extras: PushExtras, tag: str | None
) -> tuple[list[PushFile], ModelCard]:
    check_name(repo_id)
    check_tag_name(tag)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder at {run_dir}; give the folder that training wrote (--output_dir)")
    list_names(run_dir, extras)  # before the card is read, which may be a link or a device
    card = load_card(run_dir / "README.md")
    return collect(run_dir, extras, token=token), card
