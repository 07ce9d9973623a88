"""`hf-cxr explain --model RUN_OR_HUB_ID IMAGE_OR_FOLDER... --out DIR`: heat maps of findings over radiographs.

Of each image a picture, with the most probable findings or those of --findings, and the maps as arrays (npz). A file
that cannot be read is named and skipped.

With --dataset (and what goes with it, such as --nih_root DIR) in place of images, the maps are scored on the boxes of
a split: Wang's IoBB, IoU, the pointing game; next to a random map, the middle of the image, the finding's usual place
and a model of random weights. A YAML, or a run folder's own config.yaml, says which data as in `hf-cxr evaluate`.

Under `accelerate launch` the processes share the images; DIR is then in a folder that all machines see.

Everything stays on this machine. Exit status: 0; 2 if a file could not be read, or for bad input.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import config_file, parse_arguments, split_words
from hf_cxr.explain import METHOD_NAMES, check_method_name
from hf_cxr.words import plural, printable

DEFAULT_METHOD = "grad_cam"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: see the top of this module."""
    parser = OneLineParser(
        prog="hf-cxr explain",
        usage="hf-cxr explain --model RUN_OR_HUB_ID (IMAGE_OR_FOLDER... | --dataset NAME ...) --out DIR [--key value]",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        epilog="All other flags, which say what the data are, are those of `hf-cxr train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--out", required=True, type=output_path, help="folder for the results; new or empty")
    parser.add_argument(
        "--method",
        default=DEFAULT_METHOD,
        help=f"{', '.join(METHOD_NAMES)}; several, with commas between them, for scoring (default: {DEFAULT_METHOD})",
    )
    parser.add_argument(
        "--layer",
        help="layer that the CAM methods read, as a path below the backbone, such as encoder.layers.-1.blocks.-1; the "
        "default is the architecture's own",
    )
    parser.add_argument("--findings", help="findings that are explained, with commas between them, in place of --top")
    parser.add_argument("--top", type=int, default=3, help="findings of an image, most probable first (default: 3)")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="whose boxes score")
    parser.add_argument("--pictures", type=int, default=24, help="overlays with boxes when scoring (default: 24)")
    own, rest = parser.parse_known_args(argv)
    methods = [name.strip() for name in own.method.split(",") if name.strip()]
    try:
        for name in methods or [""]:
            check_method_name(name)
    except ValueError as error:
        parser.error(str(error))
    if own.top < 1 or own.pictures < 0:
        parser.error("--top must be at least 1 and --pictures at least 0")
    words, flags = split_words(rest)
    words = [str(config_file(word)) if word.endswith((".yaml", ".yml")) else word for word in words]
    configs = [word for word in words if word.endswith((".yaml", ".yml")) and Path(word).is_file()]
    paths = [word for word in words if word not in configs]
    if paths and (configs or flags):
        given = (configs or flags)[0]
        parser.error(f"{paths[0]} is an image and {given} says which data: give images, or a dataset, not both")
    if len(configs) > 1:
        parser.error(f"two configs are given, {configs[0]} and {configs[1]}; give one")
    own_data = Path(own.model) / "config.yaml"
    if not (paths or configs or flags or own_data.is_file()):
        parser.error("give images or folders, or --dataset with its flags to score the maps on boxes")
    if paths and len(methods) > 1:
        parser.error("give one --method for images; several are for scoring")
    if not paths and own.findings:
        parser.error("--findings is for images; a score is of every finding that has boxes")
    if paths:
        return _images(own, paths, methods[0])
    from hf_cxr.config import MEASURING

    given = bool(configs)
    configs = configs or [str(own_data)] * own_data.is_file()
    # use_cpu in an old run's config.yaml is of the machine that it ran on
    return _score(own, [*configs, *flags], MEASURING | {"use_cpu"} if given else MEASURING, methods)


def _images(own, paths: Sequence[str], method: str) -> int:
    if not all(paths):  # it would be the working folder
        raise ValueError("the name of an image or a folder is empty; give files or folders")
    from hf_cxr.data.images.files import search_images
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.run.explain import (
        Explainer,
        check_empty,
        check_method,
        chosen_findings,
        explain_files,
    )
    from hf_cxr.run.result_folder import held
    from hf_cxr.saved_models import public_name

    main = processes.is_main()
    set_up_terminal(main_process=main)
    processes.connect()
    check_method(method, own.layer)
    found = search_images(paths) if main else None
    with held(own.out) if main else nullcontext() as place:
        if main:
            check_empty(place)
        explainer = Explainer(Classifier(own.model, revision=own.revision), public_name(own.model), method, own.layer)
        findings = chosen_findings(explainer.predictor, own.findings.split(",")) if own.findings else ()
        phantoms = explainer.about()["trained_on_phantoms"]
        for note in (*found.notes(), *found.unreadable, *[explainer.about()["note"]] * phantoms) if main else ():
            _complain(note)
        files = found.paths if main else None
        done = explain_files(explainer, files, place, findings=findings, top=own.top, complain=_complain)
    if not main:
        return 0
    for entry in done.images:
        shown = "  ".join(f"{name} {probability:.3f}" for name, probability in entry["probabilities"].items())
        print(f"{printable(entry['image'])}  {printable(shown)}")
    pictures = plural(len(done.images), "picture with its arrays", "pictures with their arrays")
    print(f"wrote {pictures} to {printable(own.out)}")
    unreadable = len(found.unreadable) + len(done.unreadable)
    if unreadable:
        _complain(f"{unreadable:,} of {plural(unreadable + len(done.images), 'file')} could not be read")
    return 2 if unreadable else 0


def _score(own, words: Sequence[str], only: frozenset[str], methods: Sequence[str]) -> int:
    args = parse_arguments(words, prog="hf-cxr explain", only=only)
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.reporting.document import Document
    from hf_cxr.reporting.sections.localization import localization_section
    from hf_cxr.run.evaluating.localize import LOCALIZATION, PAGE, localize
    from hf_cxr.run.explain import Explainer, check_empty, check_method
    from hf_cxr.run.result_folder import held
    from hf_cxr.saved_models import public_name

    main = processes.is_main()
    set_up_terminal(main_process=main)
    processes.connect()
    for method in methods:
        check_method(method, own.layer)
    with held(own.out) if main else nullcontext() as place:
        if main:
            check_empty(place)
        classifier = Classifier(own.model, revision=own.revision)
        explainers = [Explainer(classifier, public_name(own.model), method, own.layer) for method in methods]
        values = localize(explainers, args, place, split=own.split, pictures=own.pictures)
    if not main:
        return 0
    print(Document("", localization_section(values).blocks).to_terminal())
    pictures = ", pictures/" if own.pictures else ""
    print(f"wrote {printable(own.out)}: {LOCALIZATION}, {PAGE}, figures/{pictures}")
    return 0


def _complain(error: object) -> None:
    print(f"hf-cxr explain: {printable(error)}", file=sys.stderr)
