"""`hf-cxr export RUN --onnx`: a trained model as files that other programs run, each compared with the model.

OUT (RUN/export by default) is laid out as transformers.js reads it: config.json, preprocessor_config.json and

    --onnx            onnx/model.onnx: pixel_values to logits, for any number of images
    --preprocessing   onnx/model_preprocessing.onnx: 8-bit grey images of any size to probabilities
    --int8            onnx/model_quantized.onnx: weights in 8-bit integers; AUC, AP, size and speed next to float32 are
                      measured on the labelled test images of the run (--split)
    --program         program.pt2, for torch.export.load
    --page            page/: a page for a browser that runs the model on the reader's own computer

The calibration is in the weights: the sigmoid of a logit is the calibrated probability. Every file is run on images of
the run's validation set (or --images, or phantoms where there are neither) and compared with the model. One that
differs by more than 1e-4 in a logit or a probability from the same pixels is not kept. What was measured is printed
and in OUT/export.json. A second export of the same model adds to OUT.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.exported_files import EXPORT, PAGE, RESULT, Wanted
from hf_cxr.words import NOTICE, printable

if TYPE_CHECKING:
    from hf_cxr.data import Source
    from hf_cxr.export.images import Images
    from hf_cxr.inference.classifier import Classifier

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr export",
        usage="hf-cxr export RUN_OR_HUB_ID [--onnx] [--preprocessing] [--int8] [--program] [--page] [--out DIR] "
        "[--key value ...]",
        description=__doc__,
        epilog="All other flags, which say what the data are, are those of `hf-cxr train --help`.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--onnx", action="store_true", help="write onnx/model.onnx; the next flags write it too")
    parser.add_argument("--preprocessing", action="store_true", help="also write it with its preprocessing")
    parser.add_argument("--int8", action="store_true", help="also write it with 8-bit weights, and measure their cost")
    parser.add_argument("--program", action="store_true", help="write program.pt2")
    parser.add_argument("--page", action="store_true", help="also write a page that runs it in a browser")
    parser.add_argument("--out", type=output_path, help="folder for the files; by default RUN/export")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--images", metavar="IMAGE_OR_FOLDER", help="images to compare the files with the model on")
    parser.add_argument(
        "--split", choices=("validation", "test"), default="test", help="labelled images for --int8 (default: test)"
    )
    parser.add_argument(
        "--onnxruntime_web",
        metavar="DIR",
        help="for --page: the npm package, by default node_modules/onnxruntime-web (npm install onnxruntime-web)",
    )
    own, rest = parser.parse_known_args(argv)
    from hf_cxr.config import split_words

    words, flags = split_words(rest)
    if len(words) != 1:
        parser.error(f"give one run folder or Hub id; got {' '.join(words) or 'none'}")
    wanted = Wanted(own.onnx, own.preprocessing, own.int8, own.program, own.page)
    if not any(wanted):
        parser.error("say what to write: --onnx, --preprocessing, --int8, --program or --page")
    if own.out is None and not Path(words[0]).is_dir():
        parser.error(f"{words[0]} is not a folder here; say where the files go: --out DIR")
    own.model = words[0]
    set_up_terminal()
    result, files = export_model(own, flags, wanted)
    run_export = Path(own.model) / EXPORT
    out = own.out or run_export
    from hf_cxr.export.summary import summary

    print(summary(result, files))
    print(f"\nwrote {printable(out)}: {', '.join(files)}, {RESULT}")
    if wanted.page:
        print(f"page: python -m http.server --directory {printable(out / PAGE)}, then open http://localhost:8000")
    if wanted.any_onnx and out == run_export and (Path(own.model) / "metrics.json").is_file():
        run = printable(own.model)
        print(f"to share it: hf-cxr report {run}, so that the card names it, then hf-cxr push {run} HUB_ID --onnx")
    print(NOTICE)
    return 0


def export_model(own: argparse.Namespace, flags: Sequence[str], wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
    """Everything between the command line and the last line that is printed.

    Returns:
        The content of export.json, and the names of the files that were written now.
    """
    from hf_cxr.export.exporter import about_model, check_wanted, export
    from hf_cxr.export.place import check_place
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.models.build import load_weights
    from hf_cxr.processing import load_processor
    from hf_cxr.run.result_folder import held, write_whole
    from hf_cxr.saved_models import model_folder

    if wanted.page:
        from hf_cxr.export.page import check_runtime, write_page

        runtime = check_runtime(own.onnxruntime_web)
    folder = model_folder(own.model, own.revision)
    out = own.out or Path(own.model) / EXPORT
    with held(out) as place:
        classifier = Classifier(own.model, revision=own.revision, device="cpu")
        about = about_model(classifier, folder)
        earlier = check_place(place, about.facts["model_sha256"])
        check_wanted(classifier.model, load_processor(folder), wanted, own.model)
        images, labelled = data_of(own, flags, classifier, wanted)
        result: dict[str, Any] = {}

        def write(beside: Path) -> None:
            made = export(
                classifier,
                load_weights(own.model, own.revision),
                about,
                wanted,
                images,
                beside,
                source=folder,
                name=own.model,
                labelled=labelled,
                earlier=earlier,
            )
            result.update(made)
            if wanted.page:
                write_page(beside, about, runtime)

        write_whole(place, write, last=RESULT)
    return result, [name for name in result["files"] if name not in earlier or name in wanted.names]


def data_of(own: argparse.Namespace, flags: Sequence[str], classifier: "Classifier", wanted: Wanted) -> Any:
    """The images to compare on, and the labelled ones for 8-bit weights or None."""
    from hf_cxr.export.images import of_files, of_phantoms
    from hf_cxr.run.export_data import images_of, labelled_of

    size, resample = classifier.pixels.resize_size, classifier.pixels.resample
    images: Images | None = None if own.images is None else of_files([own.images], size, resample)
    config = Path(own.model) / "config.yaml"
    labelled = None
    if wanted.int8 or flags or (images is None and config.is_file()):
        try:
            args, source = source_of(own, flags, config)
            labelled = labelled_of(source, classifier, own.split, Path(own.model), args) if wanted.int8 else None
            images = images or images_of(source, classifier)
        except (OSError, ValueError) as error:
            if wanted.int8 or flags:
                raise
            logger.warning("the run's own images cannot be read (%s): files are compared on phantoms", error)
    return images or of_phantoms(size, resample), labelled


def source_of(own: argparse.Namespace, flags: Sequence[str], config: Path) -> "tuple[Any, Source]":
    """The data that the run's config.yaml and the flags name.

    Raises:
        ValueError: neither names any.
    """
    from hf_cxr.config import MEASURING, parse_arguments
    from hf_cxr.run.data import load

    if not config.is_file() and not flags:
        raise ValueError(
            f"{own.model} has no config.yaml that names its data, and --int8 measures its cost on labelled images: "
            "give --dataset with its flags, or leave out --int8"
        )
    words = [str(config)] if config.is_file() else []
    args = parse_arguments([*words, *flags], prog="hf-cxr export", only=MEASURING)
    return args, load(args)
