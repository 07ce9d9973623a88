"""What ten times as many rows cost: every part that touches all rows of a dataset, at two sizes.

    python benchmarks/scale.py                                       # 100,000 and 1,000,000 rows, all parts
    python benchmarks/scale.py --sizes 10000 100000 --only load_nih find_duplicates
    python benchmarks/scale.py --against ../other/checkout           # the same parts of another version, in turns

A synthetic release is written in the layout of ChestX-ray14 (four images a patient, label sets of a few findings, no
images; `check_images` gets files of its own). Each part runs in a process of its own, once for each size: CPU seconds
and wall seconds, the memory that it needs beyond what was there when it began (the peak of the resident memory, MiB),
and the growth from one size to the next. Linear is 10 for ten times the rows.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
Part = Callable[[Path, int], Callable[[], Any]]
"""(folder of the release, rows) -> what is timed."""


def write_release(root: Path, rows: int) -> None:
    """The tables of a release of so many images, the same at every call."""
    rng = np.random.default_rng(0)
    prevalence_C = np.array([103, 25, 119, 177, 52, 56, 12, 47, 42, 21, 22, 15, 30, 2]) / 1000
    label_NC = rng.random((rows, len(FINDINGS))) < prevalence_C
    ages, sexes, views = rng.integers(1, 95, rows), rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    ids = [f"{row // 4 + 1:08d}_{row % 4:03d}.png" for row in range(rows)]
    with (root / "Data_Entry_2017_v2020.csv").open("w") as file:
        file.write(HEADER)
        for row in range(rows):
            findings = "|".join(FINDINGS[column] for column in np.flatnonzero(label_NC[row])) or "No Finding"
            file.write(
                f"{ids[row]},{findings},{row % 4},{row // 4 + 1},{ages[row]},{'MF'[sexes[row]]},"
                f"{('PA', 'AP')[views[row]]},2500,2048,0.168,0.168\n"
            )
    is_test = rng.random(rows // 4 + 1) < 0.23
    for name, wanted in (("train_val_list.txt", False), ("test_list.txt", True)):
        chosen = (ids[row] for row in range(rows) if is_test[row // 4] == wanted)
        (root / name).write_text("\n".join(chosen) + "\n")


def load_nih(root: Path, rows: int) -> Callable[[], Any]:
    from hf_cxr.data import load_nih as load

    return lambda: load(root, images=False)


def _loaded(root: Path) -> Any:
    """The splits, read by the first part that asks, and mapped from the disk by the others."""
    import datasets

    from hf_cxr.data import load_nih as load

    if not (root / "loaded" / "dataset_dict.json").exists():
        load(root, images=False).save_to_disk(root / "loaded")
    return datasets.load_from_disk(root / "loaded")


def checks_and_fingerprint(root: Path, rows: int) -> Callable[[], Any]:
    """What every source is checked for after it is loaded."""
    from hf_cxr.data.splits import check_patients_disjoint, split_fingerprint, warn_of_near_shared

    splits = _loaded(root)
    return lambda: (check_patients_disjoint(splits), warn_of_near_shared(splits), split_fingerprint(splits))


def labels(root: Path, rows: int) -> Callable[[], Any]:
    from hf_cxr.data import label_matrix

    splits = _loaded(root)
    return lambda: [label_matrix(split) for split in splits.values()]


def data_state(root: Path, rows: int) -> Callable[[], Any]:
    """What a run writes about its data, and compares when it resumes."""
    from hf_cxr.data.fingerprint import changes, data_fingerprint, load_state, save_state
    from hf_cxr.data.fingerprint import data_state as state_of

    splits = _loaded(root)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            state = state_of(splits, FINDINGS)
            data_fingerprint(state)
            save_state(state, folder)
            changes(load_state(folder), state)

    return work


def _columns(root: Path) -> tuple[list[str], list[str], np.ndarray]:
    from hf_cxr.data import label_matrix

    splits = _loaded(root).values()
    ids = [[name for split in splits for name in split[column][:]] for column in ("image_id", "patient_id")]
    return *ids, np.concatenate([label_matrix(split) for split in splits])


def patient_split(root: Path, rows: int) -> Callable[[], Any]:
    from hf_cxr.data.splits import patient_split as split

    _, patients, label_NC = _columns(root)
    return lambda: split(label_NC, patients, fraction=0.2)


def patient_folds(root: Path, rows: int) -> Callable[[], Any]:
    from hf_cxr.data.splits import patient_folds as split

    _, patients, label_NC = _columns(root)
    return lambda: split(label_NC, patients, folds=5)


def split_file(root: Path, rows: int) -> Callable[[], Any]:
    """Written, read and applied."""
    from hf_cxr.data.split_files import apply_split_file, read_split_file, write_split_file

    splits = _loaded(root)
    images, patients, _ = _columns(root)
    sides = [name for name, split in splits.items() for _ in range(len(split))]

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_split_file(Path(folder) / "s.csv", images, patients, sides, column="split")
            apply_split_file(splits, read_split_file(Path(folder) / "s.csv"))

    return work


def describe(root: Path, rows: int) -> Callable[[], Any]:
    from hf_cxr.data.statistics import describe_splits

    splits = _loaded(root)
    return lambda: describe_splits(splits, FINDINGS)


def sampler(root: Path, rows: int) -> Callable[[], Any]:
    """Built, and one epoch of it."""
    from hf_cxr.sampling import EpochSampler, expected_draws

    _, _, label_NC = _columns(root)
    return lambda: sum(1 for _ in EpochSampler(expected_draws("mixed", label_NC), batch_size=32, seed=0))


def predictions(root: Path, rows: int) -> Callable[[], Any]:
    """Built, saved and loaded."""
    from hf_cxr.predictions import Predictions

    images, patients, label_NC = _columns(root)
    logits = np.random.default_rng(0).standard_normal(label_NC.shape).astype(np.float32)
    views = ["PA"] * len(images)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = Predictions(logits, label_NC, images, patients, FINDINGS, view=views)
            made.save(Path(folder) / "p.parquet")
            Predictions.load(Path(folder) / "p.parquet")

    return work


def find_duplicates(root: Path, rows: int) -> Callable[[], Any]:
    """Random hashes, of which one is a near copy."""
    from hf_cxr.data import find_duplicates as find

    bits = np.random.default_rng(0).bytes(128 * rows)
    hashes = [bits[128 * row : 128 * (row + 1)].hex() for row in range(rows)]
    hashes[-1] = hashes[0][:-1] + "f"
    ids = [f"{row:08d}" for row in range(rows)]
    columns = {"image_id": ids, "file_sha256": ids, "perceptual_hash": hashes}

    def work() -> None:
        found = len(find({"train": columns}))
        if found != 1:
            raise AssertionError(f"{found} duplicates, expected 1")

    return work


def _image_splits(root: Path, rows: int) -> dict[str, Any]:
    """A split of ``rows`` files: one PNG of 64 x 64 under so many names (links), in folders of 10,000."""
    import datasets
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    paths = []
    for row in range(rows):
        folder = root / "files" / str(row // 10_000)
        if row % 10_000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{row:08d}.png"
        if not path.exists():
            first = root / "files" / str(row // 10_000) / f"{row // 10_000 * 10_000:08d}.png"
            if path == first:
                Image.fromarray(pixels).save(path)
            else:
                os.link(first, path)
        paths.append(str(path))
    split = datasets.Dataset.from_dict({"image": paths, "image_id": [path[-12:] for path in paths]})
    return {"train": split.cast_column("image", datasets.Image())}


def _checked(root: Path, rows: int, memory: str) -> Callable[[], Any]:
    from hf_cxr.data.images import checks

    try:
        from hf_cxr.data.images.sound_files import SoundFiles
    except ImportError:  # an earlier version
        from hf_cxr.data.images.checks import SoundFiles

    splits = _image_splits(root, rows)

    def work() -> None:
        known = SoundFiles(root / memory)
        found = checks.inspect_images(splits, known)
        known.add(found.sound)
        if found.count:
            raise AssertionError(found.in_words())

    return work


def check_images(root: Path, rows: int) -> Callable[[], Any]:
    """The first start."""
    return _checked(root, rows, f"memory-{time.time_ns()}")


def check_images_again(root: Path, rows: int) -> Callable[[], Any]:
    """Any later start of an unchanged release."""
    work = _checked(root, rows, f"again-{rows}-{os.environ['SCALE_VERSION']}")
    if not (root / f"again-{rows}-{os.environ['SCALE_VERSION']}").exists():
        work()
    return work


PARTS: dict[str, Part] = {
    part.__name__: part
    for part in (
        *(load_nih, checks_and_fingerprint, labels, data_state, patient_split, patient_folds, split_file, describe),
        *(sampler, predictions, find_duplicates, check_images, check_images_again),
    )
}


def measure(part: str, root: Path, rows: int) -> dict[str, float]:
    """In this process: what the part takes."""
    work = PARTS[part](root, rows)
    before = _resident_mib()
    _forget_peak()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return {"wall": wall, "cpu": cpu, "mib": max(_peak_mib() - before, 0.0)}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def _resident_mib() -> float:
    return _status("VmRSS")


def _peak_mib() -> float:
    return _status("VmHWM")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def in_a_process(part: str, root: Path, rows: int, checkout: Path, version: str) -> dict[str, float]:
    """The same in a process of its own, of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "SCALE_VERSION": version, "OMP_NUM_THREADS": "1"}
    environment["HF_HUB_OFFLINE"] = "1"
    line = [sys.executable, __file__, "--measure", part, "--release", str(root), "--sizes", str(rows)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} at {rows:,} rows of {checkout} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], metavar="ROWS")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--against", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--rounds", type=int, default=1, help="the median of so many is printed")
    parser.add_argument("--json", type=Path, help="write every time to this file")
    parser.add_argument("--measure", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--release", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.release, args.sizes[0])))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = {"this": here} | ({"other": args.against.resolve()} if args.against else {})
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, rounds {args.rounds}\n")
    other = " other CPU s | other MiB | ratio |" if args.against else ""
    print(f"| part | rows | CPU s | wall s | MiB | growth |{other}")
    print("|---|---|---|---|---|---|" + "---|" * (3 if args.against else 0))
    every = []
    with tempfile.TemporaryDirectory() as folder:
        roots = {rows: Path(folder) / str(rows) for rows in args.sizes}
        for rows, root in roots.items():
            root.mkdir()
            write_release(root, rows)
        for part in args.only:
            before = None
            for rows, root in roots.items():
                times: dict[str, list[dict[str, float]]] = {version: [] for version in checkouts}
                for _ in range(args.rounds):
                    for version, checkout in checkouts.items():
                        times[version].append(in_a_process(part, root, rows, checkout, version))
                every.append({"part": part, "rows": rows, "times": times})
                middle = {
                    version: {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
                    for version, runs in times.items()
                }
                this = middle["this"]
                growth = "" if before is None else f"{this['cpu'] / max(before, 1e-9):.1f} x"
                line = f"| {part} | {rows:,} | {this['cpu']:.2f} | {this['wall']:.2f} | {this['mib']:.0f} | {growth} |"
                if args.against:
                    old = middle["other"]
                    ratios = [o["cpu"] / t["cpu"] for o, t in zip(times["other"], times["this"], strict=True)]
                    line += f" {old['cpu']:.2f} | {old['mib']:.0f} | {np.median(ratios):.1f} x |"
                print(line, flush=True)
                before = this["cpu"]
    if args.json:
        args.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
