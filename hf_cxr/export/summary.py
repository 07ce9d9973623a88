"""What a terminal shows of an export: each file, its size, and what was measured of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_cxr.evaluation import METRICS
from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.numbers import in_percent, number
from hf_cxr.words import plural


def summary(result: Mapping[str, Any], names: Sequence[str]) -> str:
    """Lines of text.

    Args:
        result: the content of export.json.
        names: of the files that are shown.
    """
    lines = []
    for name in names:
        entry = result["files"][name]
        lines.append(f"{name}  {entry['bytes'] / 1e6:.1f} MB")
        if "parity" in entry:
            lines.append(f"  {_parity(entry['parity'])}")
        if "parity_with_resize" in entry:
            lines.append(f"  where it resizes the image itself: {_parity(entry['parity_with_resize'])}")
        if "cost" in entry:
            lines += [f"  {line}" for line in cost_lines(entry["cost"])]
    return "\n".join(lines)


def cost_lines(cost: Mapping[str, Any]) -> list[str]:
    """What 8-bit weights cost, in sentences."""
    paired, size = cost["paired"], cost["bytes"]
    images, patients = plural(paired["images"], "image"), plural(paired["patients"], "patient")
    lines = [
        f"{cost['way']} quantisation; {size['int8'] / size['float32']:.0%} of the size of float32; "
        f"{cost['speed_in_times_float32']:.2f} times as fast on this CPU",
        f"measured on {images} of {patients} ({cost['split']}):",
    ]
    for key, values in paired["metrics"].items():
        macro = {part: as_number(value) for part, value in values["macro"].items()}
        low, high = _signed(macro["low"]), _signed(macro["high"])
        lines.append(
            f"  {METRICS[key].macro_title} {number(macro['first'])}, float32 {number(macro['second'])}: difference "
            f"{_signed(macro['difference'])} ({low} to {high}, {in_percent(paired['confidence'])}); "
            f"{_worst(values['findings'])}"
        )
    changed = as_number(cost["calls_changed"])
    calls = "" if changed != changed else f"; {changed:.2%} of calls at the thresholds change"
    lines.append(f"a probability differs by up to {cost['largest_probability_difference']:.3f}{calls}")
    return lines


def _signed(value: float) -> str:
    """Four decimals: what 8-bit weights cost is often below the third."""
    return "undefined" if value != value else f"{value:+.4f}".replace("-", "−")


def _worst(findings: Mapping[str, Any]) -> str:
    differences = {name: as_number(value) for name, value in findings["difference"].items()}
    defined = {name: value for name, value in differences.items() if value == value}
    if not defined:
        return "no finding has one"
    name = min(defined, key=defined.get)
    return f"lowest: {name} {_signed(defined[name])}"


def _parity(parity: Mapping[str, Any]) -> str:
    batch = parity["largest_batch"]
    sizes = f", in batches of 1 to {batch}" if batch > 1 else ", one at a time"
    return (
        f"differs from the model by at most {parity['probability']:.1e} in probability and {parity['logit']:.1e} in "
        f"the logit ({parity['on']}{sizes})"
    )
