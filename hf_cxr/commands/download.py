"""`hf-cxr download nih DIR`: download a public dataset, checked and unpacked; run it again to resume."""

from collections.abc import Sequence

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.files import check_output_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(prog="hf-cxr download", description=__doc__)
    parser.add_argument("dataset", choices=("nih",), help="nih: ChestX-ray14, 112,120 images, 45 GB")
    parser.add_argument(
        "folder", type=output_path, metavar="DIR", help="the folder for it; the other commands take it as --nih_root"
    )
    parser.add_argument("--mirror", metavar="URL", help="address of a folder with the same files on another server")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="download only these files, such as images_001.tar.gz"
    )
    parser.add_argument("--keep_archives", action="store_true", help="keep the archives too: 45 GB more")
    args = parser.parse_args(argv)
    from hf_cxr.data import load_nih
    from hf_cxr.data.download import download_nih
    from hf_cxr.data.sources.nih import RELEASE

    set_up_terminal()
    check_output_folder(args.folder)
    done = download_nih(args.folder, mirror=args.mirror, only=args.only, keep_archives=args.keep_archives)
    print(f"{args.folder}: {', '.join(done)}" if done else f"{args.folder}: nothing was missing")
    if args.only is None:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in load_nih(args.folder).items())
        print(f"{args.folder}: ready for --nih_root, with {sizes} images")
    print(
        f"The images are the NIH Clinical Center's ({RELEASE}): acknowledge it, and cite Wang et al., ChestX-ray8, "
        "CVPR 2017."
    )
    return 0
