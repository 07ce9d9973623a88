"""How often a 95 % interval contains the true value, when patients have several images each.

    python benchmarks/interval_coverage.py [--simulations 1000] [--patients 300]

Test sets are drawn from a population whose true figures are known: the AUC by its formula, the rest from a sample of
two million images. A patient has 1 to 12 images; the label is the patient's, and so is most of what moves the score.
Four intervals are asked whether they contain the truth: percentiles over draws of patients (what every report of this
package shows), BCa over the same draws, percentiles over draws of single images (what most tools do), and for the AUC
the clustered DeLong. Printed as Markdown: the share of simulations that contain it, whose own standard error is about
sqrt(0.95 x 0.05 / simulations).

N = images, C = findings, M = patients.
"""

import argparse
import math
from collections import defaultdict

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from tqdm import tqdm

from hf_cxr.evaluation.bootstrap import draw_samples
from hf_cxr.evaluation.delong import delong
from hf_cxr.evaluation.draws import percentile_interval
from hf_cxr.evaluation.kernels import METRICS

PREVALENCE_C = np.array([0.05, 0.15, 0.4])
SHIFT, PATIENT_SD, IMAGE_SD = 1.2, 0.9, 0.6
SHOWN = ("auc", "ap", "log_loss", "brier", "brier_skill", "sensitivity", "specificity", "ppv", "f1")
THRESHOLD_C = np.array([0.1, 0.2, 0.45])


def population(patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels (N, C), and the patient of each image (N,)."""
    patient_N = np.repeat(
        np.arange(patients), 1 + rng.integers(0, 12, size=patients) * rng.integers(0, 2, size=patients)
    )
    label_NC = (rng.random((patients, len(PREVALENCE_C))) < PREVALENCE_C)[patient_N].astype(float)
    noise_NC = PATIENT_SD * rng.normal(size=(patients, len(PREVALENCE_C)))[patient_N]
    noise_NC = noise_NC + IMAGE_SD * rng.normal(size=label_NC.shape)
    variance = PATIENT_SD**2 + IMAGE_SD**2
    # The log odds of the label given the score, so the probabilities are calibrated.
    logit_NC = (noise_NC + SHIFT * label_NC - SHIFT / 2) * SHIFT / variance + np.log(PREVALENCE_C / (1 - PREVALENCE_C))
    return expit(logit_NC), label_NC, patient_N


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=400)
    args = parser.parse_args()
    metrics = {key: METRICS[key] for key in SHOWN}
    big_NC, truth_label_NC, _ = population(600_000, np.random.default_rng(1))
    truth = {key: metric.measure(big_NC, truth_label_NC, THRESHOLD_C) for key, metric in metrics.items()}
    truth["auc"] = np.full(len(PREVALENCE_C), norm.cdf(SHIFT / math.sqrt(2 * (PATIENT_SD**2 + IMAGE_SD**2))))
    truth_macro = {key: value_C.mean() for key, value_C in truth.items()}

    contained = defaultdict(list)
    images, positives = [], []
    for number in tqdm(range(args.simulations), disable=None):
        prob_NC, label_NC, patient_N = population(args.patients, np.random.default_rng([2, number]))
        images.append(len(patient_N))
        positives.append([len(np.unique(patient_N[label_N == 1])) for label_N in label_NC.T])
        options = {"metrics": metrics, "threshold_C": THRESHOLD_C}
        (by_patient,) = draw_samples(
            [(prob_NC, label_NC)],
            patient_N,
            args.patients,
            args.resamples,
            np.random.default_rng(number),
            interval="bca",
            **options,
        )
        (by_image,) = draw_samples(
            [(prob_NC, label_NC)],
            np.arange(len(patient_N)),
            len(patient_N),
            args.resamples,
            np.random.default_rng(number),
            **options,
        )
        for key in SHOWN:
            patient, image = by_patient[key], by_image[key]
            mean = patient.mean(patient.defined)
            intervals = {
                "patients, percentile": percentile_interval(patient.draw_RC, 0.95),
                "patients, BCa": patient.interval(0.95),
                "images, percentile": image.interval(0.95),
            }
            if key == "auc":
                auc_C, sd_C = delong(prob_NC, label_NC, patient_N)
                intervals["patients, DeLong"] = tuple(auc_C + norm.ppf(side) * sd_C for side in (0.025, 0.975))
            macro = {
                "patients, percentile": percentile_interval(mean.draw_RC, 0.95),
                "patients, BCa": mean.interval(0.95),
                "images, percentile": image.mean(image.defined).interval(0.95),
            }
            for method, (low_C, high_C) in intervals.items():
                contained[key, method].append((low_C <= truth[key]) & (truth[key] <= high_C))
            for method, ((low,), (high,)) in macro.items():
                contained[key, method, "macro"].append(low <= truth_macro[key] <= high)

    print(f"{args.simulations:,} test sets of {args.patients} patients, {np.mean(images):.0f} images on average,")
    error = 100 * math.sqrt(0.0475 / args.simulations)
    print(f"{args.resamples} draws each; nominal 95 %, standard error {error:.1f} %.\n")
    head = [f"{count:.0f} patients with it" for count in np.mean(positives, axis=0)] + ["macro mean"]
    print(f"| metric | interval | {' | '.join(head)} |\n|---|---|{'---:|' * len(head)}")
    for key in SHOWN:
        for method in ("patients, percentile", "patients, BCa", "patients, DeLong", "images, percentile"):
            if (key, method) not in contained:
                continue
            cells = [f"{100 * share:.1f} %" for share in np.mean(contained[key, method], axis=0)]
            macro = contained.get((key, method, "macro"))
            cells.append("" if macro is None else f"{100 * np.mean(macro):.1f} %")
            print(f"| {METRICS[key].title} | {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
