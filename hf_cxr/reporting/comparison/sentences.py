"""What a comparison says in words: computed from the numbers, never typed.

Which methods differ from the baseline by more than the choice of test patients explains, after correction, or that
none does; and what a reader must keep in mind.
"""

from collections.abc import Sequence

from hf_cxr.evaluation.comparison import Difference, OverSeeds
from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import Metric
from hf_cxr.reporting.comparison import systems
from hf_cxr.reporting.comparison.results import LEAST_IN_TIER, TIERS, ComparisonResults
from hf_cxr.reporting.numbers import in_percent, join, p_value, signed
from hf_cxr.reporting.protocol import data_cautions, few_patients
from hf_cxr.reporting.weights_origin import origin_cautions
from hf_cxr.words import NOT_A_DEVICE, plural

FEW_SEEDS = 5


def headline(results: ComparisonResults) -> str:
    files = f" and {len(results.files)} not trained here" if results.files else ""
    return (
        f"{plural(len(results.runs), 'method')}{files}, {plural(sum(map(len, results.runs.values())), 'run')}, "
        f"{plural(results.test.n_images, 'test image')} of {plural(results.test.n_patients, 'patient')} of "
        f"{results.protocol['dataset']}"
    )


def conclusions(results: ComparisonResults) -> list[str]:
    """What the numbers support, and what not: first whether models are better than chance, then which is better."""
    several = len(results.methods) > 1
    sentences = chance_conclusions(results)
    sentences += [_conclusion(results, key) for key in headline_metrics()] if several else []
    for key, metric in headline_metrics().items():
        best = [method for method, rank in results.ranks(key).items() if rank == 1]
        sentences.append(f"{_best(metric)} {metric.macro_title} in this sample: {', '.join(best)}.")
    if several and not any(map(results.different, headline_metrics())):
        sentences.append(
            "So this comparison does not show which method is better. The order in the table is that of this sample: "
            "other patients or other seeds may give a different one. Nor does it show that the methods are equally "
            "good."
        )
    sentences += tier_conclusions(results)
    names = join([metric.macro_title for metric in headline_metrics().values()])
    if several and all(_overlap([f.overall for f in results.metric(key).values()]) for key in headline_metrics()):
        sentences.append(
            f"The intervals of all methods overlap, in {names}; the paired differences are the more sensitive test."
        )
    return sentences


def chance_conclusions(results: ComparisonResults) -> list[str]:
    """For each metric, which methods are not shown to be better than chance."""
    sentences = []
    for key, metric in headline_metrics().items():
        chance = _no_better_than_chance(results, key) if isinstance(metric.chance, float) else []
        if chance:
            side = "above" if metric.higher_is_better else "below"
            sentences.append(
                f"The {metric.macro_title} interval of {', '.join(chance)} is not {side} {metric.chance:g}: not "
                "shown to be better than chance. Models that have learned so little cannot show which method is "
                "better."
            )
    return sentences


def tier_conclusions(results: ComparisonResults) -> list[str]:
    """For each tier and metric, which methods differ from the baseline within it."""
    sentences = []
    for tier in results.tested_tiers():
        for key, metric in headline_metrics().items():
            within = f"On {tier} findings by {metric.macro_title},"
            different = results.different(key, tier)
            if not results.testable(key, tier):
                sentences.append(
                    f"{within} nothing can be tested: most draws of patients have no positive of some finding."
                )
            elif different:
                rest = " The others do not." if len(different) < len(results.compared(key, tier)) else ""
                sentences.append(f"{within} these differ from {results.baseline}: {_listing(different)}.{rest}")
            else:
                sentences.append(f"{within} no method differs from {results.baseline}, after correction.")
    untested = [tier for tier in results.tiers if tier not in results.tested_tiers()]
    if untested and len(results.methods) > 1:
        sentences.append(
            f"Not tested, because fewer than {LEAST_IN_TIER} test patients have them, all findings of the tier added "
            f"up: {', '.join(untested)} findings."
        )
    return sentences


def cautions(results: ComparisonResults) -> list[str]:
    """What a reader must not overlook."""
    test, patients_C = results.test, results.counts().positive_patients_C
    sentences = data_cautions(results.protocol) + _origins(results)
    if results.missing:
        sentences.append(f"Runs that failed and are missing from the numbers: {'; '.join(results.missing)}.")
    sentences.append(f"The test set has {plural(test.n_images, 'image')} of {plural(test.n_patients, 'patient')}.")
    sentences += few_patients(dict(zip(results.label_names, patients_C.tolist(), strict=True)), test.n_patients)
    if test.undefined:
        names = ", ".join(results.label_names[column] for column in test.undefined)
        sentences.append(f"One label value only in the test set, so left out of every mean: {names}.")
    draws = [difference.draws for key in headline_metrics() for difference in results.compared(key).values()]
    if draws and min(draws) < test.resamples:
        sentences.append(
            f"Some finding had no positive in {test.resamples - min(draws):,} of {plural(test.resamples, 'draw')}: "
            "these have no mean; intervals and p values come from the other draws."
        )
    if len(results.methods) > 2:
        sentences.append(
            f"Each method was tested against {results.baseline} only: between any two others, a better number "
            "shows nothing by itself. The highest of several is partly luck and tends to be lower in new patients."
        )
    sentences += systems.caution(results)
    steps = {method: results.first(method).metrics["training"].get("steps") for method in results.runs}
    if None not in steps.values() and len(set(steps.values())) > 1:
        listing = ", ".join(f"{method} {count:,}" for method, count in steps.items())
        sentences.append(
            f"The methods took different numbers of optimizer steps ({listing}): a difference may be due to more or "
            "less training."
        )
    return [*sentences, *_files(results), _seeds(results), tuning(results), NOT_A_DEVICE]


def _origins(results: ComparisonResults) -> list[str]:
    """The caution about its initial weights of each method that starts from others than the baseline."""
    origins = {method: results.first(method).metrics["protocol"].get("weights_origin") for method in results.runs}
    others = {method: origin for method, origin in origins.items() if origin != origins[results.baseline]}
    return [f"{method}: {words}" for method, origin in others.items() for words in origin_cautions(origin)]


def tuning(results: ComparisonResults) -> str:
    """How learning rates and the like were chosen, and how far that can be trusted."""
    if not results.tuned:
        where = "Systems and Settings" if results.systems_differ else "Settings"
        return (
            "Nothing was tuned: learning rate and weight decay are what the methods were given, and may suit one "
            f"better than another. All other differences are listed under {where}."
        )
    points = next(iter(results.tuned.values()))
    grid = " and ".join(points[0].values)
    words = (
        f"Chosen for each method by validation {METRICS[results.tuned_by].macro_title}: {grid}, among "
        f"{plural(len(points), 'combination')}, one run each; no tuning run predicted a test image "
        f"({plural(len(points) * len(results.tuned), 'tuning run')})."
    )
    if any(len({str(point.values[key]) for point in points}) == 2 for key in points[0].values):
        words += " Two values of a key are a coarse grid: a finer or wider one may suit a method better."
    edge = _at_the_edge(results)
    if edge:
        words += f" The best value is at the edge of the grid, and a wider one may be better: {'; '.join(edge)}."
    return words


def tiers(results: ComparisonResults) -> str:
    """Which findings are in which tier, and why."""
    parts = [f"{tier}: {', '.join(results.tiers[tier])}" for tier in TIERS if tier in results.tiers]
    return (
        f"Tiers by positive training images (head from {results.thresholds['head']:,}, tail below "
        f"{results.thresholds['tail']:,}). {'; '.join(parts)}."
    )


def _conclusion(results: ComparisonResults, key: str) -> str:
    """Which methods differ from the baseline by one metric."""
    baseline, count = results.baseline, len(results.other_methods)
    by, level = f"By {METRICS[key].macro_title},", f"{in_percent(1 - results.test.confidence)}"
    comparisons = plural(count, "comparison")
    different, testable = results.different(key), results.testable(key)
    if different:
        rest = [method for method in results.compared(key) if method not in different]
        tail = f" The others do not: {', '.join(rest)}." if rest else ""
        unsteady = [method for method, difference in different.items() if not _one_sign(difference)]
        if unsteady:
            tail += (
                f" The sign differs between seeds: training noise alone could explain it for {', '.join(unsteady)}."
            )
        return (
            f"{by} these methods differ from {baseline} by more than the choice of test patients explains (p below "
            f"{level} after correction for {comparisons}): {_listing(different)}.{tail}"
        )
    if not testable:
        return (
            f"{by} nothing can be tested: most draws of patients have no positive of some finding. The test set is "
            "too small."
        )
    nearest = min(testable, key=lambda method: testable[method].p)
    return (
        f"{by} no method differs from {baseline} by more than the choice of test patients explains, at the {level} "
        f"level after correction for {comparisons}. The closest to a difference is "
        f"{_listing({nearest: testable[nearest]})}."
    )


def _files(results: ComparisonResults) -> list[str]:
    """What is not known of rows that were not trained here."""
    return [
        f"{name} was not trained here: its scores were read from {path.name}. Its training data, its tuning and its "
        "seeds are not known to this comparison, nor whether it has seen these test patients."
        for name, path in results.files.items()
    ]


def _seeds(results: ComparisonResults) -> str:
    most = max(map(len, results.runs.values()))
    if most == 1:
        return (
            "One seed: how much the numbers move when training is repeated is not known. Intervals and p values are "
            "about different test patients and do not include it."
        )
    words = (
        f"The standard deviation over {most} seeds is not the interval: it says how much a number moves when training "
        "is repeated on the same data; the interval and the p value say how much it moves with different test "
        "patients. Neither includes the other"
    )
    if most >= FEW_SEEDS:
        return f"{words}."
    return (
        f"{words}, and {most} seeds give a rough standard deviation: of two equal methods one is higher in all of "
        f"them by luck alone in 1 of {2 ** (most - 1)} comparisons."
    )


def _at_the_edge(results: ComparisonResults) -> list[str]:
    """Methods whose chosen value is the first or the last of three or more."""
    edge = []
    for method, points in results.tuned.items():
        if method not in results.runs:  # its tuning may not be complete
            continue
        best = (max if METRICS[results.tuned_by].higher_is_better else min)(points, key=lambda p: p.figure).values
        for key, value in best.items():
            values = sorted({str(point.values[key]) for point in points}, key=_as_number)
            if len(values) > 2 and str(value) in (values[0], values[-1]):
                edge.append(f"{method} ({key} {value})")
    return edge


def _listing(differences: dict[str, Difference]) -> str:
    return "; ".join(
        f"{method} ({signed(one.value)}, interval {signed(one.low)} to {signed(one.high)}, corrected p "
        f"{p_value(one.p_corrected)}{_in_seeds(one)})"
        for method, one in differences.items()
    )


def _in_seeds(difference: Difference) -> str:
    if not difference.by_seed:
        return ""
    return f", higher in {seeds_above(difference)} of {plural(len(difference.by_seed), 'seed')}"


def seeds_above(difference: Difference) -> int:
    """In how many seeds the method's number is above the baseline's."""
    return sum(value > 0 for value in difference.by_seed.values())


def _one_sign(difference: Difference) -> bool:
    return all(value * difference.value > 0 for value in difference.by_seed.values())


def _no_better_than_chance(results: ComparisonResults, key: str) -> list[str]:
    """Methods whose interval reaches a constant chance level."""
    chance, higher = METRICS[key].chance, METRICS[key].higher_is_better
    estimates = {method: figures.overall for method, figures in results.metric(key).items()}
    return [method for method, one in estimates.items() if (one.low <= chance if higher else one.high >= chance)]


def _best(metric: Metric) -> str:
    return "Highest" if metric.higher_is_better else "Lowest"


def _overlap(estimates: Sequence[OverSeeds]) -> bool:
    return max(estimate.low for estimate in estimates) <= min(estimate.high for estimate in estimates)


def _as_number(value: str) -> tuple[int, float | str]:
    # YAML 1.1 reads 1e-4 as a word.
    try:
        return 0, float(value)
    except ValueError:
        return 1, value
