"""What can be refused of a run from its arguments alone, with the parts they ask for: before any data are read."""

import warnings

from hf_cxr.config import RunArguments
from hf_cxr.losses import MultiLabelLoss, build_loss


def check_loss(args: RunArguments) -> None:
    """Refuse a loss that does not take its options, from the arguments alone: before any data are read.

    Raises:
        ValueError: an option that the loss lacks or that is out of its range, and what the run's stages cannot do with
            it.
    """
    count = len(args.loss.given_class_weights or [1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about counts, and these are not the data's
        loss = build_loss(
            args.loss.loss,
            positives_C=[1] * count,
            known_C=[2] * count,
            class_weights=args.loss.class_weights,
            given_class_weights=args.loss.given_class_weights,
            beta=args.loss.effective_number_beta,
            **args.loss.options(),
        )
    check_reweighting(args, loss)
    loss.set_label_smoothing(args.training.label_smoothing_factor)


def check_reweighting(args: RunArguments, loss: MultiLabelLoss) -> None:
    """Refuse to defer class weights where the loss has none."""
    if args.stages.reweight_from_epoch is not None and loss.class_weights_kind == "none":
        raise ValueError(
            f"reweight_from_epoch is {args.stages.reweight_from_epoch}, but {args.loss.loss} has no class weights "
            "here: give --class_weights, such as effective_number"
        )
