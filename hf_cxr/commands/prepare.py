"""`hf-cxr prepare [CONFIG.yaml] --out DIR`: decode and resize every image once, into a folder that training reads.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR), and so is the size
(--resize_size) and, by the model, the filter. Train on the folder with --dataset prepared --prepared DIR: the pixels
are the same. If it was stopped, the same command continues; if it has finished, it does nothing; if the source
changed, it reports that. `hf-cxr prepare --out DIR --verify` alone checks every byte of a finished folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.files import check_output_folder
from hf_cxr.words import plural


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = own_parser()
    own, rest = parser.parse_known_args(argv)
    if own.workers < 1:
        parser.error(f"--workers is {own.workers}; it must be at least 1")
    if own.verify and not rest:
        print(verified(own.out))
        return 0
    from hf_cxr.config import DataArguments, parse_arguments, take_config  # with torch, not for decoding processes

    config, flags = take_config(rest)
    if config is None and not any(word.replace("-", "_").startswith("__resize_size") for word in flags):
        parser.error("give the size: the CONFIG.yaml that will train on the folder, or --resize_size 256")
    args = parse_arguments(rest, prog="hf-cxr prepare")
    for name in ("train_limit", "shuffle_labels"):
        if getattr(args.data, name) != getattr(DataArguments, name):
            parser.error(f"--{name} is for training; a prepared folder contains the whole dataset")
    if args.data.prepared:
        parser.error("--dataset prepared is what this command writes; give the dataset that it is made from")
    if args.data.streaming:
        parser.error("--streaming reads images during training; leave it out to decode them once")
    from hf_cxr.data import load_source
    from hf_cxr.data.manifest import Recipe
    from hf_cxr.data.prepare import prepare
    from hf_cxr.processing import image_processor_for

    set_up_terminal()
    if not os.path.isdir(own.out):  # a finished folder may be on a read-only disk
        check_output_folder(own.out)
    manifest = prepare(
        load_source(args.data, seed=args.training.seed),
        own.out,
        Recipe(args.model.resize_size, int(image_processor_for(args.model).resample)),
        unreadable=own.unreadable,
        duplicates=own.duplicates,
        update=own.update,
        verify=own.verify,
        workers=own.workers,
    )
    print(summary(manifest, own.out))
    return 0


def own_parser() -> OneLineParser:
    """The flags of this command alone; the rest are those of a run."""
    parser = OneLineParser(
        prog="hf-cxr prepare",
        description=__doc__,
        epilog="All other words and flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, required=True, help="the folder to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="decoding processes (all cores)")
    parser.add_argument(
        "--unreadable",
        choices=("error", "skip"),
        default="error",
        help="images that cannot be read: an error after all were read, or leave them out and list them",
    )
    parser.add_argument(
        "--duplicates",
        choices=("error", "list"),
        default="error",
        help="byte- or near-identical images in two splits: an error, or list them in the manifest",
    )
    parser.add_argument(
        "--update", action="store_true", help="bring a folder up to date whose source or settings changed"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every shard with its SHA-256: damaged ones are decoded again, or, if no source is given, named",
    )
    return parser


def verified(out: Path) -> str:
    """Check every byte of a prepared folder; what was checked, in a line.

    Raises:
        FileNotFoundError, ValueError: see `hf_cxr.data.sources.prepared.load_prepared`.
    """
    from hf_cxr.data.sources.prepared import load_prepared

    splits, manifest = load_prepared(out, verify=True)
    shards = sum(len(split.cache_files) for split in splits.values())
    images = sum(manifest["splits"].values())
    size = f"{manifest['bytes'] / 1e9:.2f} GB"
    return f"{out}: {plural(shards, 'shard')} ({plural(images, 'image')}, {size}), all unchanged"


def summary(manifest: dict, out: Path) -> str:
    """What was done, in a few lines."""
    images = sum(manifest["splits"].values())
    parts = ", ".join(f"{name} {count:,}" for name, count in manifest["splits"].items())
    size = manifest["recipe"]["size"]
    lines = [f"{out}: {plural(images, 'image')} ({parts}) of {size} x {size} pixels, {manifest['bytes'] / 1e9:.2f} GB"]
    if manifest["decoded"]:
        rate = manifest["decoded"] / manifest["seconds"]
        lines.append(
            f"decoded {manifest['decoded']:,} in {manifest['seconds']:.0f} s with "
            f"{plural(manifest['workers'], 'process', 'processes')}: "
            f"{rate:.0f} images/s"
        )
    else:
        lines.append("nothing to do: source and settings are those it was prepared from")
    if manifest["refused"]:
        lines.append(f"left out {len(manifest['refused'])} that cannot be read; manifest.json lists them")
    if manifest["duplicates"]:
        lines.append(f"images that repeat another: {len(manifest['duplicates'])}; manifest.json lists them")
    lines.append(f"train on it with: --dataset prepared --prepared {out}")
    return "\n".join(lines)
