"""Push a finished run folder to the Hugging Face Hub, as one commit.

``prepare_repo`` is called before training, so that a missing login, a wrong name or a read-only token fails in the
first second and not after the last epoch; ``push_run`` is called after training. With several processes, only the main
one calls them.

Only files on a list of known names are pushed, each of them checked: see ``push_files``. A new repository is private
unless a public one is asked for.

Refused before any request: offline mode, a folder or file that ``push_files`` refuses, a card whose metadata do not
parse. Refused before any file is sent: a private push into a public repository.
"""

import logging
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments

from hf_cxr.push_files import PREDICTIONS, PUSHED, REQUIRED, PushFile, collect, list_names

logger = logging.getLogger(__name__)


class HubError(RuntimeError):
    """A request that cannot be made, or that the Hub refused; the message says what to do."""


def push_target(training: TrainingArguments) -> tuple[str, bool]:
    """The repository that a run's arguments name, and whether it has to be private."""
    return training.hub_model_id or Path(training.output_dir).resolve().name, training.hub_private_repo is not False


def push_command(run_dir: str | Path, repo_id: str, *, private: bool) -> str:
    """The command that pushes a finished run folder; after an interrupted push, it finishes it."""
    return shlex.join(["hf-cxr", "push", str(run_dir), repo_id, *([] if private else ["--public"])])


def prepare_repo(repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Create the model repository if it does not exist, and check that it can be written to.

    Args:
        repo_id: ``name`` or ``namespace/name``; a bare name goes to the token's owner.
        private: the repository has to be private; an existing public one is refused. An existing private one stays
            private in any case.
        token: access token; by default that of ``HF_TOKEN`` or of ``hf auth login``.

    Returns:
        The full name, ``namespace/name``.

    Raises:
        ValueError: the name is not a repository name.
        HubError: offline mode, no login, a refused token, no write permission, a public repository, no connection.
    """
    _check_name(repo_id)
    _check_online()
    token = token or get_token()
    if not token:
        raise HubError(f"cannot write to {repo_id}: not logged in; run `hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token)
    with _explained(f"prepare the repository {repo_id}", api):
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        # With exist_ok, create_repo accepts a repository that this token may only read.
        api.auth_check(full_id, write=True)
        info = api.model_info(full_id)
    if private and not info.private:
        raise HubError(
            f"{full_id} exists and is public, and a push is private by default: to push into the public repository,"
            " give --public (in training --hub_private_repo false); or make it private with"
            f" `hf repos settings {full_id} --private`; or choose another name"
        )
    if info.private and not private:
        logger.warning(
            "%s is private and stays private; to make it public: hf repos settings %s --public", full_id, full_id
        )
    return full_id


def run_files(run_dir: str | Path, *, include_predictions: bool = False) -> list[str]:
    """Paths, relative to the run folder and sorted, that ``push_run`` would send.

    Raises:
        FileNotFoundError, ValueError: as ``push_run``, for a file that is missing or not a regular one.
    """
    return list_names(Path(run_dir), include_predictions=include_predictions)


def plan_push(
    run_dir: str | Path, repo_id: str, *, token: str | None = None, include_predictions: bool = False
) -> list[PushFile]:
    """The files that ``push_run`` would send, once they have passed every check that needs no network."""
    return _plan(Path(run_dir), repo_id, token or get_token(), include_predictions)[0]


def push_run(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str = "Upload model, card and report",
    include_predictions: bool = False,
) -> str:
    """Push a run folder's model, processor, card, metrics, config, report and figures as one commit.

    Files of an earlier push that this one lacks (a figure that is no longer drawn, predictions that are no longer
    wanted) are deleted in the same commit; they stay in the repository's history. Files that ``push_run`` never sends
    are not touched. If nothing changed, there is no new commit and the address of the last one is returned.

    Args:
        run_dir: a finished run folder; see ``push_files.REQUIRED``.
        include_predictions: also send ``predictions/``, which contain patient and image identifiers.
        repo_id, private, token: as in ``prepare_repo``, which is called first.

    Returns:
        The commit's web address.

    Raises:
        FileNotFoundError: the folder is incomplete; the message names what is missing.
        ValueError: a file may not be sent (see ``push_files``), the card's metadata are wrong, or the name is not a
            repository name.
        HubError: as in ``prepare_repo``, or an upload that failed. There is no commit then, and the next call sends
            only what had not arrived.
    """
    run_dir = Path(run_dir)
    token = token or get_token()
    files, card = _plan(run_dir, repo_id, token, include_predictions)
    _check_online()
    api = HfApi(token=token)
    with _explained("check the card's metadata", api):
        _validate_card(card, run_dir)
    full_id = prepare_repo(repo_id, private=private, token=token)
    # create_commit and not upload_folder: with hf_xet installed the latter splits a push into several commits, and a
    # reader between two of them would load the new config with the old weights.
    with _explained(f"push {run_dir} to {full_id}", api):
        sent = {file.path for file in files}
        stale = sorted({*PUSHED, *PREDICTIONS} & set(api.list_repo_files(full_id)) - sent)
        operations = [CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.content) for file in files]
        operations += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]
        return api.create_commit(full_id, operations, commit_message=commit_message).commit_url


def _plan(
    run_dir: Path, repo_id: str, token: str | None, include_predictions: bool
) -> tuple[list[PushFile], ModelCard]:
    _check_name(repo_id)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder at {run_dir}; give the folder that training wrote (--output_dir)")
    list_names(run_dir)  # before the card is read, which may be a link or a device
    card = _load_card(run_dir / "README.md")
    return collect(run_dir, include_predictions=include_predictions, token=token), card


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{repo_id!r} is not a repository name; give `name` or `namespace/name`, with letters, digits, '-', '_'"
            f" and '.', at most 96 characters ({error})"
        ) from error


def _check_online() -> None:
    if constants.is_offline_mode():
        raise HubError(
            "cannot push to the Hub in offline mode: unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or push"
            " later; the run folder contains everything for it"
        )


def _load_card(path: Path) -> ModelCard:
    again = "nothing was pushed; restore the file from a copy"
    try:
        # huggingface_hub logs its own warning if the block is missing.
        text = path.read_text(encoding="utf-8")
        card = ModelCard(text) if REGEX_YAML_BLOCK.search(text) else None
    except Exception as error:  # PyYAML's errors and huggingface_hub's ValueError share no narrower base
        raise ValueError(f"{path}: the metadata between the '---' lines does not parse: {error}; {again}") from error
    if card is None or not card.data.to_dict():
        raise ValueError(f"{path}: no metadata; the card has to begin with YAML between two '---' lines; {again}")
    return card


def _validate_card(card: ModelCard, run_dir: Path) -> None:
    """The Hub's own check of the metadata: it creates nothing."""
    try:
        card.validate(repo_type="model")
    except HfHubHTTPError:
        raise
    except ValueError as error:
        raise ValueError(f"{run_dir / 'README.md'}: the Hub refuses the card's metadata: {error}") from error


@contextmanager
def _explained(doing: str, api: HfApi) -> Iterator[None]:
    """Turn any failure of a request into one HubError that says what failed, why, and the repair."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: a failed upload
        # An upload's address is signed: anyone who has it can write there.
        reason = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", _reason(error, api))
        raise HubError(f"could not {doing}: {reason}") from error


def _reason(error: BaseException, api: HfApi) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HTTPError):
        cause = cause.__cause__
    if cause is None:
        return str(error)
    upload = f"{error} " if cause is not error else ""
    if not isinstance(cause, HfHubHTTPError):
        what = str(cause) or type(cause).__name__
        return f"{upload}no connection to {api.endpoint} ({what}); check the network and try again"
    status = cause.response.status_code
    if isinstance(cause, RepositoryNotFoundError):
        return f"{upload}no such repository, or a private one that this token may not read"
    if status == 401:
        return (
            f"{upload}the Hub refused the token: run `hf auth login --force` for a new one (HF_TOKEN, if set,"
            " takes precedence over the stored one)"
        )
    if status == 403:
        return f"{upload}{cause.server_message or 'forbidden'}; {_may_write(api)}"
    return f"{upload}{cause}"


def _may_write(api: HfApi) -> str:
    repair = "use a token with write access (https://huggingface.co/settings/tokens)"
    try:
        user = api.whoami()
    except (HTTPError, OSError):  # the 403 is the error to report
        return repair
    names = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    return f"{repair}, and one of its namespaces: {', '.join(names)}"


__all__ = [
    "PUSHED",
    "REQUIRED",
    "HubError",
    "plan_push",
    "prepare_repo",
    "push_command",
    "push_run",
    "push_target",
    "run_files",
]
