"""`hf-cxr pretrain CONFIG.yaml [--key value ...]`: pre-train a Swin on images without labels, write its folder."""

from collections.abc import Sequence

from hf_cxr import processes
from hf_cxr.commands import set_up_terminal
from hf_cxr.config import parse_pretraining


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    args = parse_pretraining(argv, prog="hf-cxr pretrain")
    from accelerate import PartialState

    from hf_cxr.reporting.pretraining import loss_words
    from hf_cxr.run.pretraining.pretrain import pretrain

    set_up_terminal(main_process=PartialState().is_main_process)
    processes.connect()
    values = pretrain(args)
    if values is not None:
        folder = args.training.output_dir
        print(loss_words(values["history"]))
        print(f"Report: {folder}/report.html; reconstructions: {folder}/figures/reconstructions.png")
        print(f"Fine-tune from it with: hf-cxr train CONFIG.yaml --model_name_or_path {folder}")
    return 0
