"""The tables of a comparison, one function each; columns for every headline metric."""

from collections.abc import Callable
from typing import Any

from hf_cxr.evaluation.comparison import Difference
from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.reporting.comparison.results import ComparisonResults, FinishedRun
from hf_cxr.reporting.comparison.sentences import seeds_above, tiers, tuning
from hf_cxr.reporting.comparison.systems import of_each
from hf_cxr.reporting.document import Facts, Table
from hf_cxr.reporting.numbers import in_percent, interval, join, number, p_value, signed_interval, with_sd
from hf_cxr.reporting.protocol import component, network_facts, split_facts
from hf_cxr.words import plural

NOT_TRAINED = "file"


def methods(results: ComparisonResults) -> Table:
    """Each method's macro metrics, with both spreads."""
    head = ["method", "seeds"]
    for metric in headline_metrics().values():
        title = metric.macro_title
        head += [f"{title} ± sd", f"{title}\n{in_percent(results.test.confidence)} interval", f"{title}\nrank"]
    rows = []
    for method in results.methods:
        cells = [method, str(len(results.runs[method])) if method in results.runs else NOT_TRAINED]
        for key in headline_metrics():
            overall = results.metric(key)[method].overall
            cells += [with_sd(overall.mean, overall.sd), interval(overall.low, overall.high)]
            cells.append(str(results.ranks(key)[method]))
        rows.append(cells)
    leaning = [metric.macro_title for metric in headline_metrics().values() if metric.chance == "prevalence"]
    caption = (
        "Mean over seeds ± standard deviation over seeds (n - 1); the interval is over test patients. With few "
        f"positives that of {join(leaning)} leans upwards: a patient who is drawn twice is two hits in a row."
    )
    if results.files:
        caption += f" {NOT_TRAINED}: scores that were read from a file and not trained here."
    return Table.of(head, rows, caption)


def differences(results: ComparisonResults) -> Table:
    """Each method minus the baseline, over all findings."""
    head = [f"minus {results.baseline}", *_difference_head()]
    rows = [
        [method, *(cell for key in headline_metrics() for cell in _difference_cells(results.compared(key)[method]))]
        for method in results.other_methods
    ]
    caption = (
        "Paired by patient, means over seeds. p: two-sided; p corrected: by Holm, for each metric. Seeds above: runs "
        f"with a higher number than the baseline's run of the same seed. {_bold_means(results)}"
    )
    bold = _bold(results, [(method, None) for method in results.other_methods], first=1)
    return Table.of(head, rows, caption, bold)


def by_tier(results: ComparisonResults) -> Table:
    """Each method's macro metrics over head, medium and tail findings."""
    head = ["method", "tier"]
    for metric in headline_metrics().values():
        head += [f"{metric.macro_title} ± sd", f"{metric.macro_title}\n{in_percent(results.test.confidence)} interval"]
    rows = []
    for tier in results.tiers:
        for method in results.methods:
            cells = [method, tier]
            for key in headline_metrics():
                one = results.metric(key)[method].groups[tier]
                cells += [with_sd(one.mean, one.sd), interval(one.low, one.high)]
            rows.append(cells)
    return Table.of(head, rows, f"Spreads as above. {tiers(results)}")


def differences_by_tier(results: ComparisonResults) -> Table:
    """Each method minus the baseline, within each tier that was tested."""
    head = [f"minus {results.baseline}", "tier", *_difference_head()]
    pairs = [(method, tier) for tier in results.tested_tiers() for method in results.other_methods]
    rows = [
        [
            method,
            tier,
            *(cell for key in headline_metrics() for cell in _difference_cells(results.compared(key, tier)[method])),
        ]
        for method, tier in pairs
    ]
    caption = (
        f"p corrected: by Holm for {plural(len(pairs), 'comparison')} of methods and tiers, for each metric. "
        f"{_bold_means(results)}"
    )
    return Table.of(head, rows, caption, _bold(results, pairs, first=2))


def by_finding(results: ComparisonResults, key: str) -> Table:
    """One metric of each finding for every method."""
    metric, counts = METRICS[key], results.counts()
    chance = ["chance"] if metric.chance == "prevalence" else []
    head = ["finding", "train +", "test + (patients)", *chance, *results.methods]
    rows = [
        [
            name,
            f"{results.protocol['training_positives'][column]:,}",
            f"{counts.positives_C[column]:,} ({counts.positive_patients_C[column]:,})",
            *([number(counts.prevalence_C[column])] * len(chance)),
            *(number(results.metric(key)[method].finding_C[column]) for method in results.methods),
        ]
        for column, name in enumerate(results.label_names)
    ]
    level = "the prevalence in the test set" if chance else metric.chance
    known = "" if level is None else f" Chance is {level}."
    caption = (
        f"Mean over seeds.{known} Intervals of single findings are in each run's own report; their order "
        "was not tested."
    )
    return Table.of(_unique(head), rows, caption)


def settings(results: ComparisonResults) -> Table:
    """What each method's runs used: loss, options, tuned keys, what else is its own, validation metrics."""
    keys = results.tuned_keys()
    own = {method: results.own_settings(method) for method in results.runs}
    more = [f"different from {results.baseline}"] if any(own.values()) else []
    titles = [f"validation {metric.macro_title}" for metric in headline_metrics().values()]
    rows = []
    for method in results.runs:
        run, validation = results.first(method), results.validation(method)
        loss = run.metrics["protocol"]["loss"]
        cells = [method, component(loss["name"], loss["options"]), str(loss["class_weights_kind"])]
        cells += [*(str(run.settings.get(key)) for key in keys), *([own[method] or "–"] * len(more))]
        rows.append([*cells, *(number(validation[key]) for key in headline_metrics())])
    caption = "Validation metrics chose checkpoints and settings: they are optimistic."
    if results.tuned:
        caption += f" {tuning(results)}"
    return Table.of(["method", "loss", "class weights", *keys, *more, *titles], rows, caption)


def protocol(results: ComparisonResults) -> Facts:
    """What all runs share."""
    shared, first = results.protocol, results.first(results.baseline)
    environment = first.metrics["environment"]

    def each(value: Callable[[FinishedRun], str]) -> str:
        return of_each({method: value(results.first(method)) for method in results.runs})

    def of(run: FinishedRun) -> dict[str, Any]:
        return run.metrics["protocol"]

    facts = dict(split_facts(shared)) | {"initial weights": each(lambda run: of(run)["initial_weights"])}
    same = not results.systems_differ and not any(results.own_settings(method) for method in results.runs)
    changes = "Systems and Settings" if results.systems_differ else "Settings"
    tier_comparisons = len(results.other_methods) * len(results.tested_tiers())
    seeds = "; ".join(f"{method}: {', '.join(map(str, runs))}" for method, runs in results.runs.items())
    titles = ", ".join(metric.macro_title for metric in headline_metrics().values())
    return Facts(
        (
            ("settings", "of every run" if same else f"of {results.baseline}; what methods change: see {changes}"),
            *facts.items(),
            *_networks(results),
            ("image size", each(lambda run: f"{run.config['image_size']} pixels")),
            ("epochs", each(lambda run: f"{run.config['num_train_epochs']:g}; {of(run)['selection']}")),
            ("head bias at the start", each(lambda run: run.config["head_bias"].replace("_", " "))),
            ("calibration", each(lambda run: of(run)["calibration"] or "none")),
            ("seeds", seeds),
            (
                "intervals and p values",
                f"{plural(results.test.resamples, 'bootstrap draw')} of patients, paired over all runs; p values "
                f"two-sided, corrected by Holm for {plural(len(results.other_methods), 'comparison')}, each metric by "
                f"itself ({titles}); "
                f"within tiers for {tier_comparisons}",
            ),
            ("software", f"hf_cxr {environment['hf_cxr']}, torch {environment['torch']}, {environment['device']}"),
        )
    )


def _networks(results: ComparisonResults) -> list[tuple[str, str]]:
    """The network that all methods share, or that of each."""
    of = {method: results.first(method).metrics for method in results.runs}
    facts = {method: network_facts(metrics["protocol"], metrics["training"]) for method, metrics in of.items()}
    if len({tuple(entries) for entries in facts.values()}) == 1:
        return facts[results.baseline]
    return [(f"{name} of {method}", text) for method, entries in facts.items() for name, text in entries]


def _difference_head() -> list[str]:
    parts = ("difference (interval)", "p", "p corrected", "seeds above")
    return [f"{metric.macro_title}\n{part}" for metric in headline_metrics().values() for part in parts]


def _difference_cells(difference: Difference) -> list[str]:
    value = signed_interval(difference.value, difference.low, difference.high)
    seeds = f"{seeds_above(difference)} of {len(difference.by_seed)}" if difference.by_seed else "–"
    return [value, p_value(difference.p), p_value(difference.p_corrected), seeds]


def _bold(results: ComparisonResults, pairs: list[tuple[str, str | None]], first: int) -> frozenset[tuple[int, int]]:
    """Difference and corrected p of the methods that differ; ``first`` is the column of the first difference."""
    return frozenset(
        (row, first + 4 * place + offset)
        for row, (method, tier) in enumerate(pairs)
        for place, key in enumerate(headline_metrics())
        if method in results.different(key, tier)
        for offset in (0, 2)
    )


def _bold_means(results: ComparisonResults) -> str:
    return f"Bold: corrected p below {in_percent(1 - results.test.confidence)}."


def _unique(head: list[str]) -> list[str]:
    """Column names of which none occurs twice: a method may have the name of another column."""
    return [f"{name} (method)" if name in head[:place] else name for place, name in enumerate(head)]
