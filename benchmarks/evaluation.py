"""What intervals cost: this package's bootstrap, by numba and by NumPy, against loops of other libraries.

    python benchmarks/evaluation.py [--images 25596 --patients 2797 --findings 14] [--metrics headline|all]
    python benchmarks/evaluation.py --images 100000 --patients 30805 --findings 45
    python benchmarks/evaluation.py --each-metric

The test set has the size of the official ChestX-ray14 test list by default. The peers are what most scripts do: for
each draw of patients the rows are gathered and the library measures each finding. They are timed for a few draws, this
package for ``--draws``, with everything: checks, numbering the patients, sorting, draws, kernels and intervals. The
headline metrics are AUC and AP. ``--each-metric`` prints a table of single metrics instead, in milliseconds a draw.

torchmetrics is compared where it can be imported:
pip install --no-deps --target FOLDER torchmetrics lightning-utilities, and FOLDER at the end of PYTHONPATH.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from arms import Work, parser_of_arms, run_arms
from scipy.special import expit
from sklearn import metrics as reference

from hf_cxr.evaluation import bootstrap_metrics, engine
from hf_cxr.evaluation.bootstrap import draw_samples
from hf_cxr.evaluation.draws import number_patients
from hf_cxr.evaluation.kernels import METRICS, headline_metrics

PEERS = {
    "auc": reference.roc_auc_score,
    "ap": reference.average_precision_score,
    "partial_auc": lambda y, p: reference.roc_auc_score(y, p, max_fpr=0.1),
    "log_loss": lambda y, p: reference.log_loss(y, p, labels=[0, 1]),
    "brier": reference.brier_score_loss,
    "sensitivity": lambda y, p: reference.recall_score(y, p >= 0.1, zero_division=0),
    "specificity": lambda y, p: reference.recall_score(1 - y, p < 0.1, zero_division=0),
    "ppv": lambda y, p: reference.precision_score(y, p >= 0.1, zero_division=0),
    "npv": lambda y, p: reference.precision_score(1 - y, p < 0.1, zero_division=0),
    "f1": lambda y, p: reference.f1_score(y, p >= 0.1, zero_division=0),
    "accuracy": lambda y, p: reference.accuracy_score(y, p >= 0.1),
}


def arguments() -> argparse.Namespace:
    parser = parser_of_arms(__doc__)
    parser.add_argument("--images", type=int, default=25_596)
    parser.add_argument("--patients", type=int, default=2_797)
    parser.add_argument("--findings", type=int, default=14)
    parser.add_argument("--draws", type=int, default=1000, help="of numba in a round")
    parser.add_argument("--numpy-draws", type=int, default=200, help="of NumPy in a round")
    parser.add_argument("--metrics", choices=["headline", "all"], default="headline")
    parser.add_argument("--each-metric", action="store_true", help="a table of single metrics")
    return parser.parse_args()


ARGS = arguments()


class Data:
    """Simulated labels and probabilities with the prevalences of a long tail, and the patients."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        prevalence_C = np.geomspace(0.002, 0.2, ARGS.findings)
        self.label_NC = (rng.random((ARGS.images, ARGS.findings)) < prevalence_C).astype(np.float64)
        logit_NC = rng.normal(size=self.label_NC.shape) + self.label_NC + np.log(prevalence_C / (1 - prevalence_C))
        self.prob_NC = expit(logit_NC.astype(np.float32).astype(np.float64))
        further = rng.integers(0, ARGS.patients, ARGS.images - ARGS.patients)
        self.patient_N = np.concatenate([np.arange(ARGS.patients), further])
        place_N = np.argsort(self.patient_N, kind="stable")
        self.images_of = np.split(place_N, np.cumsum(np.bincount(self.patient_N))[:-1])

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of one draw of patients."""
        return np.concatenate([self.images_of[patient] for patient in rng.integers(ARGS.patients, size=ARGS.patients)])


def package(draws: int, *, compiled: bool) -> Work:
    data = Data()
    patients = data.patient_N.tolist()
    engine.COMPILED_FROM = 0 if compiled else float("inf")
    if compiled and not engine.numba_works():
        raise ImportError("numba is not installed")

    def headline() -> int:
        rng = np.random.default_rng(1)
        bootstrap_metrics(data.prob_NC, data.label_NC, patients, resamples=draws, rng=rng)
        return draws

    def every() -> int:
        patient_N, n_patients = number_patients(patients, ARGS.images)
        pair, options = (data.prob_NC, data.label_NC), {"threshold_C": np.full(ARGS.findings, 0.1), "metrics": METRICS}
        (samples,) = draw_samples([pair], patient_N, n_patients, draws, np.random.default_rng(1), **options)
        for sample in samples.values():
            sample.measured(0.95)
        return draws

    return headline if ARGS.metrics == "headline" else every


def scikit_learn() -> Work:
    data, rng = Data(), np.random.default_rng(1)
    keys = headline_metrics() if ARGS.metrics == "headline" else PEERS

    def work() -> int:
        rows = data.drawn(rng)
        for column in range(ARGS.findings):
            for key in keys:
                PEERS[key](data.label_NC[rows, column], data.prob_NC[rows, column])
        return 1

    return work


def torchmetrics() -> Work:
    import torch
    from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

    if ARGS.metrics != "headline":
        raise ImportError("compared by AUC and AP alone")
    data, rng = Data(), np.random.default_rng(1)
    prob_NC, label_NC = torch.from_numpy(data.prob_NC).float(), torch.from_numpy(data.label_NC).long()

    def work() -> int:
        rows = torch.from_numpy(data.drawn(rng))
        for measure in (multilabel_auroc, multilabel_average_precision):
            measure(prob_NC[rows], label_NC[rows], ARGS.findings, average=None, thresholds=None)
        return 1

    return work


ARMS: dict[str, Callable[[], Work]] = {
    "scikit-learn loop": scikit_learn,
    "torchmetrics loop": torchmetrics,
    "hf_cxr, NumPy": lambda: package(ARGS.numpy_draws, compiled=False),
    "hf_cxr, numba": lambda: package(ARGS.draws, compiled=True),
}


def main() -> None:
    if ARGS.each_metric:
        each_metric()
        return
    title = f"Draws of patients, {ARGS.metrics} metrics, {ARGS.images:,} images x {ARGS.findings} findings"
    rounds = run_arms(ARMS, reference="scikit-learn loop", title=title, unit="draws", args=ARGS)
    print("\n| arm | seconds for 1,000 draws, CPU | wall | peak memory of the process, MiB |\n|---|---:|---:|---:|")
    for name, entries in rounds.items():
        cpu, wall = (
            statistics.median(1000 * entry[key] / entry["units"] for entry in entries) for key in ("cpu", "wall")
        )
        print(f"| {name} | {cpu:.3g} | {wall:.3g} | {max(entry['peak_mib'] for entry in entries):.0f} |")


def each_metric() -> None:
    data = Data()

    def milliseconds(keys: tuple[str, ...], *, compiled: bool) -> float:
        """CPU time of one draw, with its share of the sorting, which is done once."""
        engine.COMPILED_FROM = 0 if compiled else float("inf")
        options = {"metrics": {key: METRICS[key] for key in keys}, "threshold_C": np.full(ARGS.findings, 0.1)}
        draws, pairs = ARGS.draws if compiled else ARGS.numpy_draws, [(data.prob_NC, data.label_NC)]
        start = time.process_time()
        draw_samples(pairs, data.patient_N, ARGS.patients, draws, np.random.default_rng(1), **options)
        return 1e3 * (time.process_time() - start) / draws

    def peer(key: str, rng: np.random.Generator) -> float:
        start = time.process_time()
        rows = data.drawn(rng)
        for column in range(ARGS.findings):
            PEERS[key](data.label_NC[rows, column], data.prob_NC[rows, column])
        return 1e3 * (time.process_time() - start)

    rng, every = np.random.default_rng(1), tuple(METRICS)
    milliseconds(every, compiled=True)  # compiles
    taken = {key: ([], [], []) for key in (*every, "all")}
    for _ in range(ARGS.rounds):
        for key, (ours, plain, theirs) in taken.items():
            keys = every if key == "all" else (key,)
            ours.append(milliseconds(keys, compiled=True))
            plain.append(milliseconds(keys, compiled=False))
            theirs.append(sum(peer(one, rng) for one in (PEERS if key == "all" else keys) if one in PEERS))
    print(f"{ARGS.images:,} images x {ARGS.findings} findings, {ARGS.rounds} rounds; CPU ms for one draw, medians\n")
    print("| metric | numba | NumPy | scikit-learn | NumPy / numba | scikit-learn / numba |")
    print("|---|---:|---:|---:|---:|---:|")
    for key, columns in taken.items():
        ours, plain, theirs = (statistics.median(column) for column in columns)
        title = f"all: {len(METRICS)} here, {len(PEERS)} there" if key == "all" else METRICS[key].title
        others = (
            f"{theirs:.2f} | {plain / ours:.0f} | {theirs / ours:.0f}" if theirs else f"- | {plain / ours:.0f} | -"
        )
        print(f"| {title} | {ours:.3f} | {plain:.2f} | {others} |")


if __name__ == "__main__":
    main()
