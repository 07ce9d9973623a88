"""`hf-cxr push RUN_FOLDER HUB_ID`: send a finished run folder to the Hub, as `--push_to_hub` does after training.

`hf-cxr push PREPARED HUB_ID --dataset --licence ID`: send a folder that `hf-cxr prepare` wrote, as a dataset. The
terms of its source are shown, and you must answer whether they allow it.

What is sent is a fixed list of files, as one commit with a tag; `--dry_run` prints it. A push that was interrupted is
finished by the same command, which sends only what has not arrived. The repository is private without --public.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.words import plural

if TYPE_CHECKING:
    from hf_cxr.hub.repository import Look, Pushed

OF_RUNS = ("include_predictions", "handler", "handler_requirement", "onnx")
OF_DATASETS = ("licence", "i_may_redistribute", "i_have_permission", "hash_patient_ids")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr push",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder that training or (with --dataset) prepare wrote")
    parser.add_argument("repo_id", metavar="HUB_ID", help="name or namespace/name of the repository")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--private", action="store_true", help="the repository must be private (the default)")
    who.add_argument(
        "--public", action="store_true", help="a new repository is public, and one that is already public is accepted"
    )
    parser.add_argument("--tag", help="name of the commit's tag; default: run- or data- and a digest of the files")
    parser.add_argument(
        "--dry_run", action="store_true", help="check the folder, print what would be sent, and send nothing"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="push into a repository with files of another program; --dry_run lists what is replaced or deleted",
    )
    runs = parser.add_argument_group("options for a run")
    runs.add_argument(
        "--include_predictions", action="store_true", help="also send predictions/, which contain patient identifiers"
    )
    runs.add_argument(
        "--handler", action="store_true", help="also send handler.py and requirements.txt for Inference Endpoints"
    )
    runs.add_argument(
        "--handler_requirement",
        metavar="TEXT",
        help="the line of requirements.txt, such as 'hf-cxr[dicom] @ git+https://...'; default: this version",
    )
    runs.add_argument("--onnx", action="store_true", help="also send the models that hf-cxr export wrote, as onnx/")
    data = parser.add_argument_group("options for a dataset")
    data.add_argument("--dataset", action="store_true", help="FOLDER is a prepared dataset")
    data.add_argument("--licence", metavar="ID", help="licence to publish under, by the Hub's name: cc0-1.0, other")
    data.add_argument(
        "--i_may_redistribute",
        action="store_true",
        help="answers yes: the source's terms allow me to publish the data",
    )
    data.add_argument(
        "--i_have_permission",
        action="store_true",
        help="the source's terms forbid it, but I have the provider's written permission",
    )
    data.add_argument(
        "--hash_patient_ids",
        action="store_true",
        help="replace the ids of patients, images and studies by keyed hashes; the secret is that of the variable "
        "HF_CXR_PATIENT_SECRET, or random",
    )
    args = parser.parse_args(argv)
    wrong = [name for name in (OF_RUNS if args.dataset else OF_DATASETS) if getattr(args, name)]
    if wrong:
        parser.error(f"--{wrong[0]} does not go {'with' if args.dataset else 'without'} --dataset")
    if args.public and args.include_predictions:
        parser.error("--include_predictions sends identifiers of patients and images, and does not go with --public")
    if args.handler_requirement and not args.handler:
        parser.error("--handler_requirement goes with --handler; give both")
    return push_prepared(args, parser) if args.dataset else push_finished(args)


def push_finished(args: argparse.Namespace) -> int:
    """A run folder."""
    from hf_cxr.hub import PushExtras, plan_push, push_run
    from hf_cxr.hub.leaks import exposed_tokens

    extras = PushExtras(args.include_predictions, args.handler, args.onnx, args.handler_requirement)
    if args.dry_run:
        plan = plan_push(args.folder, args.repo_id, extras=extras, tag=args.tag, replace=args.replace)
        remote = plan.look.remote
        for file in plan.files:
            state = f"  ({remote.state_of(file)})" if remote else ""
            print(f"{file.size:>14,} bytes  {file.path}{state}")
        for path in plan.stale:
            print(f"{'delete':>20}  {path}")
        print(f"{'tag':>20}  {plan.tag}{' (exists)' if remote and plan.tag in remote.tags else ''}")
        print_not_compared(plan.look, args)
        print_total(sum(file.size for file in plan.files), len(plan.files), args.repo_id)
    else:
        pushed = push_run(
            args.folder,
            args.repo_id,
            private=not args.public,
            extras=extras,
            tag=args.tag,
            replace=args.replace,
        )
        print_pushed(pushed)
    for path in exposed_tokens(args.folder):
        print(
            f"hf-cxr push: {path} was not sent, but contains an access token as plain text: delete the file, and "
            "revoke the token if other people can read the folder",
            file=sys.stderr,
        )
    return 0


def push_prepared(args: argparse.Namespace, parser: OneLineParser) -> int:
    """A prepared folder."""
    from hf_cxr.commands import set_up_terminal
    from hf_cxr.hub.datasets import compare_dataset, plan_dataset, push_dataset

    if not args.licence:
        parser.error(
            "a dataset needs --licence, the Hub's name of the licence to publish it under, such as cc-by-4.0, or other"
        )
    set_up_terminal()
    plan = plan_dataset(
        args.folder,
        args.repo_id,
        licence=args.licence,
        has_permission=args.i_have_permission,
        hash_patient_ids=args.hash_patient_ids,
        verify=not args.dry_run,
    )
    if args.dry_run:
        compared = compare_dataset(plan, replace=args.replace)
        states = {path: f"  ({state})" for path, state in compared.states.items()}
        for file in plan.files:
            print(f"{file.size:>22,} bytes  {file.path}{states.get(file.path, '')}")
        for shard in plan.shards:
            size = plan.shard_bytes[shard.path]
            print(f"{'about':>8}{size:>14,} bytes  {shard.path}{states.get(shard.path, '')}")
        for path in compared.deleted:
            print(f"{'delete':>28}  {path}")
        print_not_compared(compared.look, args)
        print(f"The real push will ask: {plan.question}")
        total = sum(file.size for file in plan.files) + sum(plan.shard_bytes.values())
        print_total(total, len(plan.files) + len(plan.shards), args.repo_id)
        return 0
    ask(plan.question, answered=args.i_may_redistribute)
    pushed = push_dataset(plan, may_redistribute=True, private=not args.public, tag=args.tag, replace=args.replace)
    print_pushed(pushed)
    return 0


def print_pushed(pushed: "Pushed") -> None:
    for path in pushed.deleted:
        print(f"deleted {path}: an earlier push sent it, and this one does not; the history keeps it")
    print(f"{pushed.url}\ntag {pushed.tag}: load exactly these files with revision={pushed.tag!r}")


def print_not_compared(look: "Look", args: argparse.Namespace) -> None:
    if look.not_compared:
        print(f"not compared with the repository: {look.not_compared}")
    elif not look.exists:
        print(f"{args.repo_id} does not exist: a push makes it, {'public' if args.public else 'private'}")


def print_total(size: int, count: int, repo_id: str) -> None:
    print(f"{size:>14,} bytes in {plural(count, 'file')} for {repo_id}; dry run: nothing was sent")


def ask(text: str, *, answered: bool) -> None:
    """Print the question, and go on only after a yes: from the flag, or typed on a terminal.

    Raises:
        ValueError: the answer is not yes, or there is no terminal to ask in.
    """
    print(text, file=sys.stderr)
    if answered:
        print("yes (--i_may_redistribute)", file=sys.stderr)
        return
    if not sys.stdin.isatty():
        raise ValueError(
            "cannot ask whether the source's terms allow publishing: there is no terminal; nothing was sent. If they "
            "do, give --i_may_redistribute"
        )
    print("Type yes to publish: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise ValueError("nothing was sent: the answer was not yes")
