"""A finished run folder to the Hugging Face Hub, as one commit.

``prepare_repo`` is for before training: a missing login, a wrong name or a token that may only read fails in the
first second, not after the last epoch. ``push_run`` is for after it. With several processes, the main one alone
calls them.

What goes up is a list of known names (``PUSHED``), not whatever lies in the folder: checkpoints, optimizer states and
logs stay here, and so do the predictions, because they carry patient identifiers. Pictures in ``figures/`` do go up,
so nothing that shows a patient is written there.

Refused, each before any request: offline mode, an incomplete folder, a card whose metadata does not parse, a file that
holds an access token. Refused before any file is sent: a private push into a repository that is public.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

REQUIRED = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md")
PUSHED = (*REQUIRED, "config.yaml", "metrics.json", "report.html", "figures/*.png", "figures/*.svg", "figures/*.pdf")
PREDICTIONS = ("predictions/*.parquet",)

LOCAL_SETTINGS = ("logging_dir", "nih_root", "output_dir", "resume_from_checkpoint", "table", "table_root")
"""Keys of config.yaml that are left out of what is pushed: paths of the machine that trained."""

# The Hub's user access tokens are "hf_" and 34 letters or digits.
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
_TEXT = (".json", ".yaml", ".md", ".html", ".svg")


class HubError(RuntimeError):
    """A request to the Hub that cannot be made, or that the Hub refused; the message says what to do."""


def prepare_repo(repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Create the model repository if it is not there, and check that it can be written to.

    Args:
        repo_id: ``name`` or ``namespace/name``; a bare name goes to the token's owner.
        private: the repository has to be private. One that exists and is public is refused; one that exists and is
            private stays so whatever this says.
        token: access token; by default the one of ``HF_TOKEN`` or of ``hf auth login``.

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
        raise HubError(f"not logged in, so {repo_id} cannot be written to: run `hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token)
    with _explained(f"prepare the repository {repo_id}", api):
        full_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        # With exist_ok, create_repo is content with a repository that this token may read only.
        api.auth_check(full_id, write=True)
        info = api.model_info(full_id)
    if private and not info.private:
        raise HubError(
            f"{full_id} exists and is public, but a private push was asked for: make it private with"
            f" `hf repos settings {full_id} --private`, or choose another name"
        )
    return full_id


def run_files(run_dir: str | Path, *, include_predictions: bool = False) -> list[str]:
    """Paths, relative to the run folder and sorted, that ``push_run`` would send."""
    run_dir = Path(run_dir)
    patterns = PUSHED + PREDICTIONS if include_predictions else PUSHED
    paths = (path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file())
    return sorted(path for path in paths if _matches(path, patterns))


def push_run(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload model, card and report",
    include_predictions: bool = False,
) -> str:
    """Send a run folder's model, processor, card, metrics, config, report and figures as one commit.

    Files of an earlier push that this one does not have (a figure that is no longer drawn, predictions that are no
    longer wanted) are deleted in the same commit; they stay in the repository's history. Files that ``push_run`` never
    sends are left alone. With nothing changed, no commit is made and the last one's address is returned.

    Args:
        run_dir: a complete run folder; see ``REQUIRED``.
        include_predictions: also send ``predictions/``. They carry patient and image identifiers.
        repo_id, private, token: as in ``prepare_repo``, which is called first.

    Returns:
        The commit's web address.

    Raises:
        FileNotFoundError: the folder is incomplete; the message names what is missing.
        ValueError: the card's metadata is wrong, a file holds an access token, or the name is not a repository name.
        HubError: as in ``prepare_repo``, or an upload that failed. No commit was made then, and calling again
            sends only what had not arrived.
    """
    run_dir = Path(run_dir)
    _check_name(repo_id)
    _check_complete(run_dir)
    card = _load_card(run_dir / "README.md")
    paths = run_files(run_dir, include_predictions=include_predictions)
    token = token or get_token()
    _check_no_token(run_dir, paths, token)
    _check_online()
    api = HfApi(token=token)
    with _explained("check the card's metadata", api):
        _validate_card(card, run_dir)
    full_id = prepare_repo(repo_id, private=private, token=token)
    # create_commit and not upload_folder: with hf_xet installed the latter cuts a push into several commits, and a
    # reader in between would load the new config with the old weights.
    with _explained(f"push {run_dir} to {full_id}", api):
        there = api.list_repo_files(full_id)
        stale = sorted(path for path in there if path not in paths and _matches(path, PUSHED + PREDICTIONS))
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=_content(run_dir, path)) for path in paths]
        operations += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]
        return api.create_commit(full_id, operations, commit_message=commit_message).commit_url


def _content(run_dir: Path, path: str) -> Path | bytes:
    if path != "config.yaml":
        return run_dir / path
    settings = yaml.safe_load((run_dir / path).read_text(encoding="utf-8")) or {}
    return yaml.safe_dump({key: value for key, value in settings.items() if key not in LOCAL_SETTINGS}).encode()


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{repo_id!r} is not a repository name; give `name` or `namespace/name`, of letters, digits, '-', '_' and"
            f" '.', at most 96 characters ({error})"
        ) from error


def _check_online() -> None:
    if constants.is_offline_mode():
        raise HubError(
            "cannot push to the Hub in offline mode: unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or leave the"
            " push for later; the run folder holds everything it needs"
        )


def _check_complete(run_dir: Path) -> None:
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder at {run_dir}")
    missing = [name for name in REQUIRED if not (run_dir / name).is_file()]
    empty = [name for name in REQUIRED if name not in missing and (run_dir / name).stat().st_size == 0]
    if missing or empty:
        wrong = [f"{name} is missing" for name in missing] + [f"{name} is empty" for name in empty]
        raise FileNotFoundError(
            f"{run_dir} is not a complete run folder: {', '.join(wrong)}; nothing was pushed. Give the folder that"
            " training wrote at its end, not a checkpoint inside it"
        )


def _load_card(path: Path) -> ModelCard:
    try:
        card = ModelCard.load(path)
    except Exception as error:  # PyYAML's errors and huggingface_hub's ValueError share no narrower base
        raise ValueError(f"{path}: the metadata between the '---' lines does not parse: {error}") from error
    if not card.data.to_dict():
        raise ValueError(f"{path}: no metadata; the card has to begin with YAML between two '---' lines")
    return card


def _validate_card(card: ModelCard, run_dir: Path) -> None:
    """The Hub's own check of the metadata: it creates nothing."""
    try:
        card.validate(repo_type="model")
    except HfHubHTTPError:
        raise
    except ValueError as error:
        raise ValueError(f"{run_dir / 'README.md'}: the Hub refuses the card's metadata: {error}") from error


def _check_no_token(run_dir: Path, paths: list[str], token: str | None) -> None:
    """A resolved config can hold a ``hub_token``; a pushed token is a stolen token."""
    for path in paths:
        if not path.endswith(_TEXT):
            continue
        text = (run_dir / path).read_text(encoding="utf-8", errors="replace")
        if _TOKEN.search(text) or (token and token in text):
            raise ValueError(
                f"{run_dir / path} holds an access token; remove it, and revoke it if others saw the file"
            )


@contextmanager
def _explained(doing: str, api: HfApi) -> Iterator[None]:
    """Turn what a request can fail with into one HubError that says what failed, why, and the repair."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: a failed upload
        raise HubError(f"could not {doing}: {_reason(error, api)}") from error


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
        return f"{upload}no such repository, or a private one that this token may not see"
    if status == 401:
        return (
            f"{upload}the Hub refused the token: run `hf auth login --force` for a new one (HF_TOKEN, where set,"
            " is used before the stored one)"
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


__all__ = ["PUSHED", "REQUIRED", "HubError", "prepare_repo", "push_run", "run_files"]
