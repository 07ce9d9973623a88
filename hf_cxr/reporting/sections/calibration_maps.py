"""The section that compares calibration maps: which is best on new patients, and whether that matters."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.reporting.document import Heading, Table, Text
from hf_cxr.reporting.numbers import by_reason, change_with_interval, in_percent, p_value
from hf_cxr.reporting.sections.section import Section

TITLES = {
    "none": "none",
    "temperature": "temperature, one",
    "temperature_per_finding": "temperature, by finding",
    "affine": "affine (Platt), by finding",
    "isotonic": "isotonic, by finding",
}


def calibration_maps_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.calibration_maps.CalibrationMaps.to_dict`, with ``used``: the map in the model,
    "affine" or "none"; an analysis of an earlier version does not say.
    """
    maps = values["maps"]
    heading = Heading("Which calibration map")
    if values["best"] is None:
        return Section((heading, Text(f"No map can be compared. {_excluded(values)}")))
    rows = [
        [
            TITLES[key],
            f"{one['log_loss']:.4f}",
            "" if key == values["baseline"] else change_with_interval(one["difference"]),
            "" if key == values["baseline"] else p_value(one["p"]),
            "no" if key == "isotonic" else "yes",
        ]
        for key, one in maps.items()
    ]
    best = list(maps).index(values["best"])
    findings = list(maps["affine"]["findings"])
    others = [key for key in maps if key not in ("none", values["baseline"])]
    by_finding = [
        [
            name,
            f"{maps['none']['findings'][name]['log_loss']:.4f}",
            f"{maps['affine']['findings'][name]['log_loss']:.4f}",
            *(change_with_interval(maps[key]["findings"][name]["difference"]) for key in others),
        ]
        for name in findings
    ]
    blocks = [
        heading,
        Text(calibration_verdict(values), strong=True),
        Table.of(
            ("map", "log loss", "difference to affine", "p", "fits into the model"),
            rows,
            f"Mean log loss in nats over {len(findings)} findings, on validation patients left out of the fit "
            f"({values['folds']} folds by patient); lower is better. Difference: log loss of the map minus that of "
            f"the affine map, with {in_percent(values['confidence'])} intervals over patients (the maps are not "
            "fitted again in each draw). p is corrected for the number of comparisons (Holm).",
            bold=frozenset({(best, 0), (best, 1)}),
        ),
        Text(
            "A map that is affine in the logit can be folded into the model's last layer, so every program that loads "
            "the model gets calibrated probabilities. An isotonic map is a step function: it cannot be folded, and it "
            "gives equal probabilities to images that the model ranks. A temperature is an affine map without an "
            "intercept: it cannot correct probabilities that are too high or too low on average."
        ),
        Table.of(
            (
                "finding",
                "log loss,\nno map",
                "log loss,\naffine",
                *(f"{TITLES[key]}:\ndifference to affine" for key in others),
            ),
            by_finding,
            "Log loss of each finding on the left-out patients.",
        ),
    ]
    if values["folds_without_slope"]:
        names = ", ".join(
            f"{name} ({folds} of {values['folds']})" for name, folds in values["folds_without_slope"].items()
        )
        blocks.append(
            Text(
                f"In some folds the scores did not rank a finding, and the affine map was an intercept alone: {names}."
            )
        )
    if values["excluded"]:
        blocks.append(Text(_excluded(values)))
    return Section(tuple(blocks))


def calibration_verdict(values: Mapping[str, Any]) -> str:
    """Which map is best, by how much, and whether the draw of patients explains it: one or two sentences."""
    best, baseline = values["best"], values["baseline"]
    affine = values["maps"][baseline]["log_loss"]
    if best == baseline and values.get("used") == "none":
        return (
            "This model has no calibration map. Of the maps compared, the affine map has the lowest log loss on new "
            f"patients: {affine:.4f}; without a map it is {values['maps']['none']['log_loss']:.4f}."
        )
    if best == baseline:
        return "No other map has a lower log loss on new patients than the affine map."
    one = values["maps"][best]
    share = 100 * -one["difference"]["value"] / affine
    start = (
        f"The map of lowest log loss is {TITLES[best]}, {share:.2g} % below the affine map: "
        f"{change_with_interval(one['difference'])} nats"
    )
    if one["p"] >= 1 - values["confidence"]:
        return f"{start}. The draw of patients explains a difference of this size (p {p_value(one['p'])})."
    return f"{start}. It is larger than the draw of patients explains (p {p_value(one['p'])})."


def _excluded(values: Mapping[str, Any]) -> str:
    return f"Not compared: {' '.join(by_reason(values['excluded']))}"
