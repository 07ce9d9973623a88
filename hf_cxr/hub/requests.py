"""Requests to the Hub: whether they can be made, how long they may take, and one clear line for each that fails.

`explained` is put around every request. It turns whatever the client raises into a `HubError`: what failed, why, and
the repair. The client itself waits forever; here a request fails after `TIMEOUT` seconds without a byte.

An upload's address is signed, so that anyone who has it can write there. Its signature is taken out of messages and
log lines, and of the errors behind them, which ``--debug`` prints. No access token is in any of these.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

TIMEOUT = 300.0
"""Seconds without a byte after which a request fails. The client repeats an upload's request five times."""

AGAIN = "run the same command again: uploaded files are not sent twice"
_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


class HubError(RuntimeError):
    """A request that cannot be made, or that the Hub refused; the message says what to do."""


def check_name(repo_id: str) -> None:
    """Refuse a text that is not the name of a repository.

    Raises:
        ValueError: with the rule.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{repo_id!r} is not a repository name; give `name` or `namespace/name`, with letters, digits, '-', '_'"
            f" and '.', at most 96 characters ({error})"
        ) from error


def check_online() -> None:
    """Refuse offline mode.

    Raises:
        HubError: with the repair.
    """
    if constants.is_offline_mode():
        raise HubError(
            "cannot push to the Hub in offline mode: unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or push"
            " later; the folder contains everything for it"
        )


@contextmanager
def explained(doing: str, api: HfApi) -> Iterator[None]:
    """Requests within the block end in time, and a failure of one is a HubError: what failed, why, and the repair.

    Args:
        doing: what the requests are for, after "could not".
        api: the client, which is asked for the user's namespaces after a 403.
    """
    session = get_session()
    before, session.timeout = session.timeout, TIMEOUT
    log = logging.getLogger("huggingface_hub")
    handlers = [*log.handlers, *logging.getLogger().handlers]
    handlers = [one for one in handlers if _hide_signatures not in one.filters]  # a block around this one goes on
    for handler in handlers:
        handler.addFilter(_hide_signatures)
    try:
        yield
    except HubError:
        raise
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: a failed upload
        reason = _unsigned(_reason(error, api))
        _unsign(error)
        raise HubError(f"could not {doing}: {reason}") from error
    finally:
        session.timeout = before
        for handler in handlers:
            handler.removeFilter(_hide_signatures)


def _unsigned(text: str) -> str:
    return _SIGNED.sub(r"\1", text)


def _hide_signatures(record: logging.LogRecord) -> bool:
    record.msg, record.args = _unsigned(record.getMessage()), None
    return True


def _unsign(error: BaseException | None) -> None:
    """Take signatures out of an error and those behind it, which a traceback prints."""
    while error is not None:
        error.args = tuple(_unsigned(part) if isinstance(part, str) else part for part in error.args)
        error = error.__cause__ or error.__context__


def _reason(error: BaseException, api: HfApi) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HTTPError):
        cause = cause.__cause__
    if cause is None:
        return str(error)
    upload = f"{error} " if cause is not error else ""
    if not isinstance(cause, HfHubHTTPError):
        what = str(cause) or type(cause).__name__
        if "Timeout" in type(cause).__name__:
            return f"{upload}{api.endpoint} did not answer within {TIMEOUT:g} seconds ({what}); {AGAIN}"
        return f"{upload}no connection to {api.endpoint} ({what}); check the network and {AGAIN}"
    status = cause.response.status_code
    if isinstance(cause, RepositoryNotFoundError):
        return (
            f"{upload}no such repository, or a private one that this token may not read; if it was deleted just now, "
            "run the same command again: it makes a new one"
        )
    if status == 401:
        return (
            f"{upload}the Hub refused the token: run `hf auth login --force` for a new one (HF_TOKEN, if set,"
            " takes precedence over the stored one)"
        )
    if status == 403:
        return f"{upload}{cause.server_message or 'forbidden'}; {_may_write(api)}"
    if status == 412:
        return f"{upload}the repository has changed meanwhile, and nothing was committed; {AGAIN}"
    if status == 429:
        wait = cause.response.headers.get("Retry-After", "")
        wait = f" for {wait} seconds" if wait.isdigit() else " a few minutes"
        return f"{upload}the Hub gets too many requests from here (429); wait{wait}, then {AGAIN}"
    if status >= 500:
        return f"{upload}the Hub itself failed ({cause}); wait a few minutes, then {AGAIN}"
    return f"{upload}{cause}"


def _may_write(api: HfApi) -> str:
    repair = "use a token with write access (https://huggingface.co/settings/tokens)"
    try:
        user = api.whoami()
    except (HTTPError, OSError):  # the 403 is the error to report
        return repair
    names = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    return f"{repair}, and one of its namespaces: {', '.join(names)}"
