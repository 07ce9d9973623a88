"""`hf-cxr prepare [CONFIG.yaml] --out DIR`: decode and resize every image once, into a folder that training reads.

The source is described as in training (YAML and flags such as --dataset nih --nih_root DIR), and so is the size
(--resize_size) and, by the model, the filter. Train on the folder with --dataset prepared --prepared DIR: the pixels
are the same. If it was stopped, the same command continues; if it has finished, it does nothing; if the source
changed, it reports that. `hf-cxr prepare --out DIR --verify` alone checks every byte of a finished folder, and
`hf-cxr prepare --out DIR --datasheet` writes its README.md again, which says what is in it.

Several jobs that share the folder, on one machine or many: give each the same command and --shard 1/8 to --shard 8/8.
The last one to finish puts the parts together; --merge does so later, and lists the missing parts. The folder is the
same as that of one job. Under `accelerate launch` every process prepares a part, and the main one merges.
"""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.cores import usable_cores
from hf_cxr.files import check_output_folder
from hf_cxr.words import plural

if TYPE_CHECKING:
    from hf_cxr.config import RunArguments
    from hf_cxr.data.manifest import Recipe
    from hf_cxr.data.prepare_parts import Part
    from hf_cxr.data.sources.source import Source

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = own_parser()
    own, rest = parser.parse_known_args(argv)
    check_own(own, rest, parser)
    if own.verify and not rest:
        print(verified(own.out))
    elif own.datasheet:
        from hf_cxr.reporting.card.datasheet import write_datasheet

        print(f"wrote {write_datasheet(own.out)}")
    else:
        prepare_source(own, rest, parser)
    return 0


def check_own(own: argparse.Namespace, rest: Sequence[str], parser: OneLineParser) -> None:
    """Refuse values and combinations of this command's own flags that cannot be."""
    if own.workers < 1:
        parser.error(f"--workers is {own.workers}; it must be at least 1")
    if own.datasheet and rest:
        parser.error("--datasheet is for a finished folder: give --out alone with it")
    if processes.count() > 1 and (own.shard or own.merge):
        parser.error("accelerate launch gives each process its part: leave out --shard and --merge")
    if own.shard and own.merge:
        parser.error("give --shard to prepare a part, or --merge to put the parts together, not both")


def prepare_source(own: argparse.Namespace, rest: Sequence[str], parser: OneLineParser) -> None:
    """Decode what the run's flags describe, all of it or this process's part, and print what was done."""
    processes.connect()
    part = own_part(own.shard, parser)
    args = source_arguments(rest, parser)
    from hf_cxr.data import load_source
    from hf_cxr.data.manifest import Recipe
    from hf_cxr.data.prepare import prepare
    from hf_cxr.data.prepared_folder import BusyError
    from hf_cxr.processing import image_processor_for

    set_up_terminal(main_process=processes.is_main())
    if not os.path.isdir(own.out):  # a finished folder may be on a read-only disk
        check_output_folder(own.out)
    source = load_source(args.data, seed=args.training.seed)
    recipe = Recipe(args.model.resize_size, int(image_processor_for(args.model).resample))
    how = {"update": own.update, "verify": own.verify, "workers": own.workers}
    accepted = {"unreadable": own.unreadable, "duplicates": own.duplicates}
    if part and not part_is_last(source, own, recipe, part, how):
        return
    try:
        manifest = prepare(source, own.out, recipe, **accepted, **how, merge=bool(part) or own.merge)
    except BusyError as error:
        if not own.shard:
            raise
        print(f"the parts were not put together: {error}")
        return
    describe(own.out)
    print(summary(manifest, own.out))


def source_arguments(rest: list[str], parser: OneLineParser) -> "RunArguments":
    """The arguments of the run that will train on the folder; what only training can do is refused."""
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
    return args


def part_is_last(
    source: "Source", own: argparse.Namespace, recipe: "Recipe", part: "Part", how: Mapping[str, Any]
) -> bool:
    """Prepare a part; whether this process is to put all parts together, because none is unfinished.

    Raises:
        ValueError: images of a --shard that cannot be read.
    """
    from hf_cxr.data.manifest import MANIFEST
    from hf_cxr.data.prepare import prepare_part
    from hf_cxr.data.prepare_parts import all_finished

    done = prepare_part(source, own.out, recipe, part, **how, bar=processes.is_main())
    processes.meet()
    if not own.shard:
        return processes.is_main()
    print(f"part {part} of {own.out} is finished: {plural(done['decoded'], 'image')} decoded")
    if own.unreadable == "error":
        refuse_unreadable(done["refused"], own.shard)
    return all_finished(own.out, part.of) or os.path.isfile(own.out / MANIFEST)


def describe(out: Path) -> None:
    """Write the folder's datasheet. The folder can be used without one, so a failure is only a warning."""
    from hf_cxr.reporting.card.datasheet import write_datasheet

    try:
        write_datasheet(out)
    except (OSError, ValueError) as error:  # a disk that is full or read-only, another process
        logger.warning("%s has no new datasheet (README.md): %s", out, error)


def own_part(shard: str | None, parser: OneLineParser) -> "Part | None":
    """The part that this process prepares: that of --shard, or of this process of a launch; None for all."""
    from hf_cxr.data.prepare_parts import Part

    if processes.count() > 1:
        return Part(processes.index() + 1, processes.count())
    try:
        return Part.read(shard) if shard else None
    except ValueError as error:
        parser.error(f"--shard: {error}")


def refuse_unreadable(refused: list[dict], part: str) -> None:
    """Refuse a part with images that cannot be read. It is finished all the same.

    Raises:
        ValueError: with their number and the first five.
    """
    if refused:
        examples = "; ".join(f"{entry['split']} {entry['image_id']}: {entry['reason']}" for entry in refused[:5])
        raise ValueError(
            f"{plural(len(refused), 'image')} of part {part} cannot be read: {examples}. Fix these files and run the "
            "same command again, or leave them out and list them with --unreadable skip"
        )


def own_parser() -> OneLineParser:
    """The flags of this command alone; the rest are those of a run."""
    parser = OneLineParser(
        prog="hf-cxr prepare",
        description=__doc__,
        epilog="All other words and flags are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=output_path, required=True, help="the folder to write")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        help="number of decoding processes (default: all cores that this process may use)",
    )
    parser.add_argument(
        "--shard", metavar="i/n", help="prepare part i of n (from 1), as one of n jobs that share --out"
    )
    parser.add_argument("--merge", action="store_true", help="decode nothing: put the parts of --shard together")
    parser.add_argument(
        "--unreadable",
        choices=("error", "skip"),
        default="error",
        help="what to do with images that cannot be read: an error after all are read, or skip and list them",
    )
    parser.add_argument(
        "--duplicates",
        choices=("error", "list"),
        default="error",
        help="what to do with byte- or near-identical images in two splits: an error, or list them in the manifest",
    )
    parser.add_argument("--update", action="store_true", help="update a folder whose source or settings changed")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every shard with its SHA-256: damaged ones are decoded again, or, if no source is given, named",
    )
    parser.add_argument("--datasheet", action="store_true", help="only write README.md of a finished folder again")
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
            f"{plural(manifest['workers'], 'process', 'processes')} ({manifest['decoder']}): "
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
