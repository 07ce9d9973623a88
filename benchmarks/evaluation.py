"""What intervals cost: this package's bootstrap of every metric against a loop of scikit-learn over the same draws.

    python benchmarks/evaluation.py [--images 25596] [--patients 2797] [--rounds 3]

The test set has the size of the official ChestX-ray14 test list by default. The peer is what most scripts do: for each
draw of patients the rows are gathered and scikit-learn measures each finding. It is timed for one draw, the package
for a block of several; rounds of both alternate, so that whatever else the machine does meets both. Printed as
Markdown: milliseconds for one draw of all findings, best and median over rounds, and their ratio.
"""

import argparse
import statistics
import time

import numpy as np
from scipy.special import expit
from sklearn import metrics as reference

from hf_cxr.evaluation.bootstrap import draw_samples
from hf_cxr.evaluation.kernels import METRICS

FINDINGS = 14
PREVALENCE_C = np.geomspace(0.002, 0.2, FINDINGS)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=25_596)
    parser.add_argument("--patients", type=int, default=2_797)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=300, help="of the package in a round; scikit-learn gets 1")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    label_NC = (rng.random((args.images, FINDINGS)) < PREVALENCE_C).astype(float)
    logit_NC = rng.normal(size=label_NC.shape) + label_NC + np.log(PREVALENCE_C / (1 - PREVALENCE_C))
    prob_NC = expit(logit_NC.astype(np.float32).astype(float))
    patient_N = np.concatenate([np.arange(args.patients), rng.integers(0, args.patients, args.images - args.patients)])
    images_of = [np.flatnonzero(patient_N == patient) for patient in range(args.patients)]

    def package(keys: tuple[str, ...]) -> float:
        """Seconds for one draw; the sorting, which is done once, is spread over 1,000."""
        metrics = {key: METRICS[key] for key in keys}
        options = {"metrics": metrics, "threshold_C": np.full(FINDINGS, 0.1)}
        seconds = {}
        for draws in (2, args.draws):
            start = time.perf_counter()
            draw_samples([(prob_NC, label_NC)], patient_N, args.patients, draws, np.random.default_rng(1), **options)
            seconds[draws] = time.perf_counter() - start
        one = (seconds[args.draws] - seconds[2]) / (args.draws - 2)
        return one + max(0.0, seconds[2] - 3 * one) / 1000

    def peer(key: str) -> float:
        start = time.perf_counter()
        rows = np.concatenate([images_of[patient] for patient in rng.integers(args.patients, size=args.patients)])
        for column in range(FINDINGS):
            PEERS[key](label_NC[rows, column], prob_NC[rows, column])
        return time.perf_counter() - start

    seconds = {name: [] for key in PEERS for name in (key, f"{key} peer")} | {"all metrics": []}
    for _ in range(args.rounds):
        for key in PEERS:
            seconds[key].append(package((key,)))
            seconds[f"{key} peer"].append(peer(key))
        seconds["all metrics"].append(package(tuple(METRICS)))
    print(f"{args.images:,} images, {args.patients:,} patients, {FINDINGS} findings; ms for one draw, best (median)\n")
    print("| metric | hf_cxr | scikit-learn | ratio of bests | ratio of medians |\n|---|---:|---:|---:|---:|")
    for key in PEERS:
        ours, theirs = seconds[key], seconds[f"{key} peer"]
        ratios = [f"{min(theirs) / min(ours):.0f}", f"{statistics.median(theirs) / statistics.median(ours):.0f}"]
        print(f"| {METRICS[key].title} | {shown(ours)} | {shown(theirs)} | {' | '.join(ratios)} |")
    theirs = [sum(seconds[f"{key} peer"][number] for key in PEERS) for number in range(args.rounds)]
    ours = seconds["all metrics"]
    ratios = [f"{min(theirs) / min(ours):.0f}", f"{statistics.median(theirs) / statistics.median(ours):.0f}"]
    title = f"all: {len(METRICS)} here, {len(PEERS)} there"
    print(f"| {title} | {shown(ours)} | {shown(theirs)} | {' | '.join(ratios)} |")


def shown(seconds: list[float]) -> str:
    return f"{1e3 * min(seconds):.2f} ({1e3 * statistics.median(seconds):.2f})"


if __name__ == "__main__":
    main()
