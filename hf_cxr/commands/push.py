"""`hf-cxr push RUN_FOLDER HUB_ID`: send a finished run folder to the Hub, as `--push_to_hub` does after training.

What is sent is a fixed list of files; `--dry_run` prints it. A push that was interrupted is finished by the same
command, which sends only what has not arrived.
"""

import sys
from collections.abc import Sequence

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.words import plural


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(prog="hf-cxr push", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_FOLDER", help="folder that training wrote")
    parser.add_argument("repo_id", metavar="HUB_ID", help="name or namespace/name of the model repository")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--private", action="store_true", help="the repository has to be private; the default")
    who.add_argument(
        "--public", action="store_true", help="a new repository is public, and one that is already public is accepted"
    )
    parser.add_argument(
        "--include_predictions", action="store_true", help="also send predictions/, which contain patient identifiers"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the folder, print name and size of each file, and send nothing"
    )
    args = parser.parse_args(argv)
    from hf_cxr.hub import plan_push, push_run
    from hf_cxr.push_files import exposed_tokens

    if args.dry_run:
        files = plan_push(args.run_dir, args.repo_id, include_predictions=args.include_predictions)
        print("\n".join(f"{file.size:>14,} bytes  {file.path}" for file in files))
        total = sum(file.size for file in files)
        print(f"{total:>14,} bytes in {plural(len(files), 'file')} for {args.repo_id}; dry run: nothing was sent")
    else:
        url = push_run(
            args.run_dir, args.repo_id, private=not args.public, include_predictions=args.include_predictions
        )
        print(url)
    for path in exposed_tokens(args.run_dir):
        print(
            f"hf-cxr push: {path} was not sent, but contains an access token as plain text: delete the file, and "
            "revoke the token if other people can read the folder",
            file=sys.stderr,
        )
    return 0
