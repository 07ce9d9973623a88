"""`hf-cxr convert FILE --out DIR --source TEXT --licence TEXT --saw_test_images yes|no|unknown`: weights in the layout
of the official Swin Transformer, of timm, SimMIM, Ark or PEAC, made into a model folder for training.

FILE is a .pth, .pth.tar, .bin or .safetensors of a Swin or SwinV2, or of torchvision's ResNet or DenseNet (which
becomes the system dnet). Nothing in it is executed. A file with a student and a teacher needs --key. Classifiers,
decoders and mask tokens are left out by name, and the command prints them; a weight that is left over or missing is
refused by name. Then: hf-cxr train --model_name_or_path DIR.

Where the weights come from, under which licence, and whether images of ChestX-ray14's official test list were in their
training is asked for: by the flags or, in a terminal, by questions. It is written into the model and into the report
and the card of every model that is fine-tuned from it. docs/converting.md lists the published files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.files import check_output_folder
from hf_cxr.weights_origin import SAW_TEST_IMAGES

# Flag -> what a terminal asks.
QUESTIONS = {
    "source": "Where are the weights from (address, paper)? ",
    "licence": "Under which licence? ",
    "saw_test_images": "Were images of ChestX-ray14's official test list in their training (yes, no, unknown)? ",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = own_parser()
    own = parser.parse_args(argv)
    from hf_cxr.conversion.given_file import check_given

    check_given(own.file)
    origin = {name: answer(parser, own, name) for name in QUESTIONS} | {"note": own.note}
    check_output_folder(own.out, inputs=[own.file])
    from hf_cxr.conversion.folder import convert_file, differences, size_words, write_folder
    from hf_cxr.conversion.parts import Sizes
    from hf_cxr.run.result_folder import check_ensemble_place, held, write_whole
    from hf_cxr.saved_models import CONFIG

    set_up_terminal()
    sizes = Sizes(own.image_size, own.window_size, own.pretrained_window_sizes)
    with held(own.out) as place:
        check_ensemble_place(place)
        converted = convert_file(own.file, origin, key=own.key, sizes=sizes)
        write_whole(place, lambda folder: write_folder(converted, folder, mean=own.mean, std=own.std), last=CONFIG)
    print(f"{own.out}: {size_words(converted.config)}")
    for words in differences(converted):
        print(words)
    print(f"train from it with: --model_name_or_path {own.out} --image_size {converted.config.image_size}")
    return 0


def answer(parser: OneLineParser, own: argparse.Namespace, name: str) -> str:
    """What the flag says or, in a terminal, what is typed."""
    value = getattr(own, name)
    if value is None and sys.stdin is not None and sys.stdin.isatty():
        value = input(QUESTIONS[name]).strip()
    if not value:
        lacking = [f"--{flag}" for flag in QUESTIONS if not getattr(own, flag)]
        parser.error(f"give {', '.join(lacking)}: reports of models fine-tuned from these weights state it")
    if name == "saw_test_images" and value not in SAW_TEST_IMAGES:
        parser.error(f"--saw_test_images is {value!r}; answer {', '.join(SAW_TEST_IMAGES)}")
    return value


def own_parser() -> OneLineParser:
    """The flags of this command."""
    parser = OneLineParser(prog="hf-cxr convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path, metavar="FILE", help="the weights")
    parser.add_argument("--out", type=output_path, required=True, help="the model folder to write: new, or empty")
    parser.add_argument("--key", help="which weights to take where the file has several, such as teacher")
    parser.add_argument("--source", help="where the weights are from: an address, a paper")
    parser.add_argument("--licence", help="licence of the weights")
    parser.add_argument(
        "--saw_test_images",
        choices=SAW_TEST_IMAGES,
        help="whether the weights were trained on images of ChestX-ray14's official test list",
    )
    parser.add_argument("--note", help="anything else that a reader of a report should know about the weights")
    parser.add_argument("--image_size", type=int, help="input size in pixels, if the file does not state it")
    parser.add_argument("--window_size", type=int, help="window in patches, for a SwinV2 file that does not state it")
    parser.add_argument(
        "--pretrained_window_sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="for a SwinV2 file that does not state them: each stage's window in pre-training, 0 for the same",
    )
    words = "of the three channels in the training of the weights, for grey levels from 0 to 1 (ImageNet's)"
    parser.add_argument("--mean", type=float, nargs=3, metavar="X", help=f"the mean {words}")
    parser.add_argument("--std", type=float, nargs=3, metavar="X", help=f"the standard deviation {words}")
    return parser
