"""What a peer of a benchmark needs to be imported here: timm and torchxrayvision ask for torchvision's operators.

torchvision's wheels hold compiled operators for one build of torch. Where they cannot be loaded, its Python part and
the peers work all the same: they name the detection operators at import, and never call them.

    pip install --no-deps torchvision timm torchxrayvision
"""

import importlib.util
import sys

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor x, Tensor rois, float scale, SymInt h, SymInt w, int ratio, bool aligned) -> Tensor",
    "qroi_align(Tensor x, Tensor rois, float scale, int h, int w, int ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float scale, SymInt h, SymInt w, SymInt n, SymInt c, "
    "SymInt height, SymInt width, int ratio, bool aligned) -> Tensor",
    "ps_roi_align(Tensor x, Tensor rois, float scale, SymInt h, SymInt w, int ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channels, float scale, SymInt h, SymInt w, int ratio, "
    "SymInt n, SymInt c, SymInt height, SymInt width) -> Tensor",
    "roi_pool(Tensor x, Tensor rois, float scale, SymInt h, SymInt w) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float scale, SymInt h, SymInt w, SymInt n, SymInt c, "
    "SymInt height, SymInt width) -> Tensor",
    "ps_roi_pool(Tensor x, Tensor rois, float scale, SymInt h, SymInt w) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channels, float scale, SymInt h, SymInt w, SymInt n, "
    "SymInt c, SymInt height, SymInt width) -> Tensor",
    "deform_conv2d(Tensor x, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt sh, SymInt sw, "
    "SymInt ph, SymInt pw, SymInt dh, SymInt dw, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor x, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt sh, SymInt sw, SymInt ph, SymInt pw, SymInt dh, SymInt dw, SymInt groups, SymInt offset_groups, "
    "bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "_cuda_version() -> int",
)
_declared: list = []  # a torch.library.Library, which has to stay alive


def allow_torchvision() -> None:
    """Make ``import torchvision``, and so timm and torchxrayvision, work; call it before the import.

    Raises:
        ImportError: torchvision is not installed.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise ImportError("no torchvision: pip install --no-deps torchvision timm torchxrayvision")
    if _declared or "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except (RuntimeError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for schema in OPERATORS:
            library.define(schema)
        _declared.append(library)
        import torchvision  # noqa: F401
