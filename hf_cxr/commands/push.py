"""`hf-cxr push RUN_FOLDER HUB_ID`: send a finished run folder to the Hub, as `--push_to_hub` does after training."""

import argparse
from collections.abc import Sequence

from hf_cxr.commands import report_error


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on standard error for bad input or a refusal by the Hub."""
    parser = argparse.ArgumentParser(prog="hf-cxr push", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_FOLDER", help="folder that training wrote")
    parser.add_argument("repo_id", metavar="HUB_ID", help="name or namespace/name of the model repository")
    parser.add_argument("--private", action="store_true", help="the repository has to be private")
    parser.add_argument(
        "--include_predictions", action="store_true", help="also send predictions/, which carry patient identifiers"
    )
    args = parser.parse_args(argv)
    from hf_cxr.hub import HubError, push_run

    try:
        url = push_run(args.run_dir, args.repo_id, private=args.private, include_predictions=args.include_predictions)
    except (ValueError, OSError, HubError) as error:
        return report_error("hf-cxr push", error)
    print(url)
    return 0
