"""What the methods of a comparison are besides their losses: architectures, sizes and initial weights, if they differ.

A comparison of losses trains one architecture. One of whole systems differs in several things at once, and its report
names them for each method, and says that a difference is not due to one of them alone.
"""

from collections.abc import Mapping

from hf_cxr.arguments.components import architecture_options
from hf_cxr.options import filled
from hf_cxr.reporting.comparison.results import ComparisonResults, FinishedRun
from hf_cxr.reporting.document import Table
from hf_cxr.words import plural

MODEL_OPTION = "model_kwargs."


def caution(results: ComparisonResults) -> list[str]:
    """What the methods differ in besides their recipes; nothing if every method has the same network."""
    if not results.systems_differ:
        return []
    runs = [results.first(method) for method in results.runs]
    values = {
        "architecture": [run.architecture for run in runs],
        "number of parameters": [run.parameters for run in runs],
        "image size": [run.config["image_size"] for run in runs],
        "initial weights": [run.metrics["protocol"]["initial_weights"] for run in runs],
    }
    different = [name for name, each in values.items() if len(set(each)) > 1]
    recipe = "and may differ in their recipe (see Systems and Settings)."
    if different == ["initial weights"]:
        return [f"These methods have one network. They differ in their initial weights, {recipe}"]
    sizes = ", ".join(f"{method} {millions(run.parameters)}" for method, run in zip(results.runs, runs, strict=True))
    named = " and ".join(part for part in (", ".join(different[:-1]), different[-1]) if part)
    alone = f"A difference is not due to {'one of these' if len(different) > 1 else 'this'} alone"
    return [
        f"Whole systems are compared: they differ in {named}, {recipe} Parameters: {sizes}. {alone}, and "
        "the ranking may change at other sizes, other image sizes or with other initial weights."
    ]


def table(results: ComparisonResults) -> Table:
    """The network of each method that was trained here."""
    rows = [
        [
            method,
            (run.metrics["protocol"].get("network") or {}).get("name") or run.architecture,
            options_in_words(run) or "–",
            f"{run.parameters:,}",
            f"{run.config['image_size']}",
            run.metrics["protocol"]["initial_weights"],
            _steps(run),
        ]
        for method in results.runs
        for run in [results.first(method)]
    ]
    head = ("method", "network", "options", "parameters", "image size", "initial weights", "training")
    caption = (
        "Options: those that are not the architecture's defaults. Training: steps of the first seed, and its speed, "
        "next to all other work of the machine."
    )
    return Table.of(head, rows, caption)


def options_in_words(run: FinishedRun) -> str:
    """A run's model_kwargs that are not the defaults of its architecture."""
    defaults = filled({}, architecture_options(run.architecture))
    own = {
        key.removeprefix(MODEL_OPTION): value for key, value in run.settings.items() if key.startswith(MODEL_OPTION)
    }
    return ", ".join(f"{key} {_short(value)}" for key, value in own.items() if value != defaults.get(key))


def millions(parameters: int) -> str:
    """A number of parameters in millions, with two digits that count.

    >>> millions(28_288_354), millions(563_000)
    ('28 M', '0.56 M')
    """
    return f"{parameters / 1e6:.2g} M" if parameters < 1e8 else f"{parameters / 1e6:.0f} M"


def of_each(values: Mapping[str, str]) -> str:
    """One value if every method has the same, or each method's."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{method}: {value}" for method, value in values.items())


def _steps(run: FinishedRun) -> str:
    training = run.metrics["training"]
    speed = training.get("images_per_second")
    steps = plural(training["steps"], "step") if training.get("steps") else "–"
    return f"{steps}, {speed:.0f} images/s" if speed else steps


def _short(value: object) -> str:
    if isinstance(value, dict):  # a backbone within a system
        return "(" + ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) + ")"
    return str(value)
