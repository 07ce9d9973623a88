"""Golden numbers: record what the product computes, and check later that a changed version computes the same.

    python tests/process/golden.py record FILE.json [--only PART...]    # with --only: replaces these parts in the file
    python tests/process/golden.py check FILE.json [--only PART...] [--tolerance T]
    python tests/process/golden.py make_old                             # once per format: writes golden_old/

Everything runs through the public commands (``scripts/*.py``, the programs behind ``hf-cxr``) in subprocesses, in a
temporary folder, with a Hugging Face cache of its own (so phantoms are drawn again) and one thread. ``check`` prints
each difference and exits with status 1 if there is one. Numbers are compared to the bit, and files by SHA-256. On
another CPU give ``--tolerance T``: numbers may then differ by T, and hashes are not compared.

The recorded names are this script's own, such as "quickstart/test/auc/Cardiomegaly". When the product renames a key,
two files change and golden.json does not: golden_configs.py has all keys of runs, golden_readers.py all keys of the
files that commands write.

| part          | what runs                                                                                          |
|---------------|----------------------------------------------------------------------------------------------------|
| quickstart    | configs/quickstart.yaml                                                                            |
| tiny          | class-aware loss; LDAM, deferred re-weighting, repeat-factor sampling, EMA; a second stage with    |
|               | asymmetric loss, class-aware sampling and feature oversampling                                     |
| resumed       | the first tiny run, killed in the middle and resumed; it must equal the run that was not killed    |
| two_processes | focal loss on two CPU processes                                                                    |
| ensemble      | two tiny runs                                                                                      |
| comparison    | two methods, tuned on two points each, two seeds                                                   |
| describe      | phantoms with a sampler; the full NIH table, and its folds, if HF_CXR_NIH_ROOT is set              |
| evaluate      | a tiny run on different phantoms, and on a table with other findings and unknown cells             |
| prepared      | `prepare`, then the first tiny run on the folder; it must equal the run on the phantoms            |
| streamed      | hill loss on Parquet shards                                                                        |
| old           | golden_old/, written by an earlier version: a run, an unfinished run, a prepared folder, a split   |
|               | file and folds                                                                                     |

The calibration (affine, or a shift where positives are few) is in every run, with its slopes and intercepts. After the
first recording its fit became scikit-learn's, which moved slopes and intercepts by at most 2e-7, figures of
probabilities by at most 2e-9, the last bits of one model, and no AUC or AP; the numbers it moved were recorded again.
"""

import argparse
import csv
import importlib.metadata
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from golden_configs import (
    COMPARISON,
    DEFERRED,
    DESCRIBED,
    NIH,
    NIH_SAMPLER,
    OLD_PHANTOMS,
    ON_OLD_PREPARED,
    OTHER_PHANTOMS,
    SECOND_STAGE,
    SHARDS,
    STRAIGHT,
    STREAMED,
    TWO_PROCESSES,
)
from golden_readers import (
    flat,
    prefixed,
    printed_fingerprint,
    read_comparison,
    read_ensemble,
    read_evaluation,
    read_json,
    read_prepared,
    read_run,
    read_statistics,
    sha256,
    was_resumed,
)
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(__file__).resolve().with_name("golden_old")


class Product:
    """Runs commands below a temporary folder; a training run that several parts need is made once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf_home"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self.environment.pop("HF_DATASETS_CACHE", None)

    def run(self, name: str, *words: Any, launcher: tuple = (), **environment: str) -> str:
        """Run a command to its end; what it prints on standard output.

        Raises:
            RuntimeError: its status is not 0.
        """
        command = [str(word) for word in (sys.executable, *launcher, ROOT / "scripts" / f"{name}.py", *words)]
        done = subprocess.run(
            command, env=self.environment | environment, cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"[-6000:])
        return done.stdout

    def write(self, name: str, values: dict) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    def train(self, name: str, values: dict, **options: Any) -> Path:
        """The run folder of a config; trained now unless it is finished."""
        run_dir = self.folder / name
        if not (run_dir / "metrics.json").is_file():
            self.run("train", self.write(name, values), "--output_dir", run_dir, **options)
        return run_dir

    def straight(self) -> Path:
        return self.train("straight", STRAIGHT)

    def deferred(self) -> Path:
        return self.train("deferred", DEFERRED)

    def killed(self, name: str) -> Path:
        """The straight run, killed when its second checkpoint appears, so that the first one is whole."""
        run_dir = self.folder / name
        words = [self.write(name, STRAIGHT), "--output_dir", run_dir]
        log = (self.folder / f"{name}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "train.py", *words],
            env=self.environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        while process.poll() is None and len(list(run_dir.glob("checkpoint-*"))) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL or (run_dir / "metrics.json").exists():
            raise RuntimeError(f"the run {run_dir} ended before it could be killed; see {log.name}")
        return run_dir

    def shards(self) -> Path:
        """The description of a table in Parquet shards with images: 40 patients, two images each, unknown cells."""
        root = self.folder / "shards"
        if not root.exists():
            write_shards(root)
        return root / "table.yaml"


def quickstart(product: Product) -> dict[str, Any]:
    run_dir = product.folder / "quickstart"
    config = ROOT / "configs" / "quickstart.yaml"
    product.run("train", config, "--output_dir", run_dir, "--disable_tqdm", "true")
    return read_run(run_dir)


def tiny(product: Product) -> dict[str, Any]:
    second_stage = SECOND_STAGE | {"model_name_or_path": str(product.straight())}
    return {
        **prefixed("straight", read_run(product.straight())),
        **prefixed("deferred", read_run(product.deferred())),
        **prefixed("second_stage", read_run(product.train("second_stage", second_stage))),
    }


def resumed(product: Product) -> dict[str, Any]:
    return as_if_not_killed(product, product.killed("killed"))


def two_processes(product: Product) -> dict[str, Any]:
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    launcher += ("--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
    return read_run(product.train("two_processes", TWO_PROCESSES, launcher=launcher, ACCELERATE_USE_CPU="true"))


def ensemble(product: Product) -> dict[str, Any]:
    out = product.folder / "ensemble"
    product.run("ensemble", product.straight(), product.deferred(), "--out", out)
    return read_ensemble(out)


def comparison(product: Product) -> dict[str, Any]:
    out = product.folder / "comparison"
    product.run("compare", product.write("comparison", COMPARISON), "--out", out, "--jobs", "2")
    return read_comparison(out)


def describe(product: Product) -> dict[str, Any]:
    out = product.folder / "described"
    product.run("describe", product.write("described", DESCRIBED), "--out", out)
    numbers = prefixed("phantoms", read_statistics(out))
    if nih_root := os.environ.get("HF_CXR_NIH_ROOT"):
        out, folds = product.folder / "nih", product.folder / "nih_folds.csv"
        product.run("describe", *NIH, *NIH_SAMPLER, "--nih_root", nih_root, "--out", out)
        product.run("split", *NIH, "--nih_root", nih_root, "--folds", "5", "--out", folds)
        numbers |= prefixed("nih", read_statistics(out) | {"folds/sha256": sha256(folds)})
    else:
        print("skipped: describe/nih, because HF_CXR_NIH_ROOT is not set", flush=True)
    return numbers


def evaluate(product: Product) -> dict[str, Any]:
    phantoms, table = product.folder / "on_phantoms", product.folder / "on_table"
    model = ("--model", product.straight())
    resamples = ("--bootstrap_resamples", "50")
    product.run("evaluate", product.write("other", OTHER_PHANTOMS), *model, "--out", phantoms, *resamples)
    on_table = ("--dataset", "table", "--table", product.shards())
    product.run("evaluate", *model, *on_table, "--out", table, *resamples)
    return prefixed("phantoms", read_evaluation(phantoms)) | prefixed("table", read_evaluation(table))


def prepared(product: Product) -> dict[str, Any]:
    out = product.folder / "prepared"
    product.run("prepare", product.write("to_prepare", STRAIGHT), "--out", out, "--workers", "2")
    product.run("prepare", "--out", out, "--verify")
    values = {key: value for key, value in STRAIGHT.items() if not key.startswith("phantom_")}
    run_dir = product.train("on_prepared", values | {"dataset": "prepared", "prepared": str(out)})
    differing = names_of_differences(product.straight(), run_dir)
    return prefixed("folder", read_prepared(out)) | {"run/differs_from_straight_in": differing}


def streamed(product: Product) -> dict[str, Any]:
    return read_run(product.train("streamed", STREAMED | {"table": str(product.shards())}))


def old(product: Product) -> dict[str, Any]:
    """What this version makes of the folders and files of an earlier one, in copies of them."""
    folder = product.folder / "golden_old"
    shutil.copytree(OLD, folder)
    numbers = {}

    images = product.folder / "images"
    images.mkdir()
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (50, 60), dtype=np.uint8)).save(images / "8_bit.png")
    Image.fromarray(rng.integers(0, 65536, (60, 50), dtype=np.uint16)).save(images / "16_bit.png")
    table = product.folder / "predicted.csv"
    product.run("predict", images, "--model", folder / "run", "--csv", table)
    for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))):
        row.pop("image/remarks", None)  # words, which an old table does not have
        name, *cells = row.values()
        numbers[f"run/predict/{Path(name).name}"] = [float(cell) for cell in cells]

    product.run("evaluate", "--model", folder / "run", "--out", product.folder / "old_again")
    numbers |= prefixed("run/evaluate", read_evaluation(product.folder / "old_again"))
    unfinished = folder / "unfinished"
    numbers |= prefixed("unfinished", as_if_not_killed(product, unfinished))
    product.run("ensemble", folder / "run", unfinished, "--out", product.folder / "old_ensemble")
    numbers |= prefixed("run/ensemble", read_ensemble(product.folder / "old_ensemble"))

    def kept() -> dict[str, Any]:  # but for the datasheet, which the folder did not have yet
        return {name: value for name, value in contents(folder / "prepared").items() if Path(name).name != "README.md"}

    before = kept()
    product.run("prepare", "--out", folder / "prepared", "--verify")
    product.run("prepare", product.write("old_phantoms", OLD_PHANTOMS), "--out", folder / "prepared")
    numbers["prepared/nothing_to_do"] = kept() == before
    numbers |= prefixed("prepared", read_prepared(folder / "prepared"))
    run_dir = product.train("on_old_prepared", ON_OLD_PREPARED | {"prepared": str(folder / "prepared")})
    numbers |= prefixed("prepared/run", read_run(run_dir))

    for name, flags in (("split", ()), ("folds", ("--fold", "1"))):
        flags = ("--split_file", folder / f"{name}.csv", *flags)
        checked = product.run("split", "--check", product.folder / "old_phantoms.yaml", *flags)
        product.run("describe", product.folder / "old_phantoms.yaml", *flags, "--out", product.folder / f"old_{name}")
        numbers[f"{name}/fingerprint"] = printed_fingerprint(checked)
        numbers |= prefixed(name, read_statistics(product.folder / f"old_{name}"))
        again_file = product.folder / f"{name}_again.csv"
        write_split(product, name, again_file)
        numbers[f"{name}/written_again/sha256"] = sha256(again_file)
    return numbers


PARTS: dict[str, Callable[[Product], dict[str, Any]]] = {
    "tiny": tiny,
    "resumed": resumed,
    "two_processes": two_processes,
    "ensemble": ensemble,
    "comparison": comparison,
    "describe": describe,
    "evaluate": evaluate,
    "prepared": prepared,
    "streamed": streamed,
    "old": old,
    "quickstart": quickstart,
}


def as_if_not_killed(product: Product, run_dir: Path) -> dict[str, Any]:
    """Train a straight run that was killed to its end; its numbers are in the file once, as those of "tiny"."""
    product.run("train", product.write("killed", STRAIGHT), "--output_dir", run_dir)
    return {
        "resumed": was_resumed(run_dir),
        "differs_from_straight_in": names_of_differences(product.straight(), run_dir),
    }


def names_of_differences(run_dir: Path, other: Path) -> list[str]:
    return [name for name, *_ in differences(read_run(run_dir), read_run(other))]


def write_split(product: Product, name: str, path: Path) -> None:
    how = {"split": ("--fractions", "0.5", "0.25", "0.25"), "folds": ("--folds", "4")}[name]
    product.run("split", product.write("old_phantoms", OLD_PHANTOMS), *how, "--seed", "2", "--out", path)


def write_shards(root: Path) -> None:
    """120 images of 60 patients in three Parquet shards with row groups of 8, and their description."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, count, findings = np.random.default_rng(0), 120, SHARDS["findings"]
    cells = rng.integers(0, 2, (count, len(findings))).astype(object)
    cells[rng.random(cells.shape) < 0.1] = None
    frame = pd.DataFrame(cells, columns=findings, dtype="Float32")
    frame["name"] = [f"{number:04d}.png" for number in range(count)]
    frame["patient"] = np.arange(count) // 2
    frame["part"] = np.array(["train", "train", "validation", "train", "test"])[frame["patient"] % 5]
    frame["image"] = [{"bytes": png(rng), "path": None} for _ in range(count)]
    (root / "data").mkdir(parents=True)
    for number, index in enumerate(np.array_split(np.arange(count), 3)):
        table = pa.Table.from_pandas(frame.iloc[index], preserve_index=False)
        pq.write_table(table, root / "data" / f"part-{number}.parquet", row_group_size=8)
    (root / "table.yaml").write_text(yaml.safe_dump(SHARDS), encoding="utf-8")


def png(rng: np.random.Generator) -> bytes:
    content = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def make_old(product: Product) -> None:
    """Write golden_old/ with this version: the folders and files that later versions must read."""
    OLD.mkdir()
    left_out = shutil.ignore_patterns("checkpoint-*", "figures", "report.html", "*.lock", "*.log")
    shutil.copytree(product.straight(), OLD / "run", ignore=left_out)
    shutil.copytree(product.killed("unfinished"), OLD / "unfinished", ignore=shutil.ignore_patterns("*.lock"))
    phantoms = product.write("old_phantoms", OLD_PHANTOMS)
    product.run("prepare", phantoms, "--out", product.folder / "prepared_old", "--workers", "1")
    shutil.copytree(product.folder / "prepared_old", OLD / "prepared", ignore=shutil.ignore_patterns("*lock"))
    for name in ("split", "folds"):
        write_split(product, name, OLD / f"{name}.csv")


def contents(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of the files of a folder, without locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def differences(expected: dict[str, Any], found: dict[str, Any], tolerance: float | None = None) -> list[tuple]:
    """(name, expected, found) of what differs; the text "nothing" stands for a name that one side lacks."""
    pairs = [(name, expected.get(name, "nothing"), found.get(name, "nothing")) for name in expected | found]
    if tolerance is not None:
        pairs = [pair for pair in pairs if not pair[0].endswith("sha256")]
    return [pair for pair in pairs if not same(*pair[1:], tolerance or 0.0)]


def same(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found, [tolerance] * len(found)))
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return abs(expected - found) <= tolerance
    return expected == found


def machine() -> dict[str, str]:
    """What the last bits of a number depend on."""
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), cpu)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy", "scipy")}
    return {"cpu": cpu, "python": platform.python_version(), **versions}


def measure(parts: list[str], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the parts; their numbers, with names that begin with the part's, and the parts that failed."""
    product, numbers, failed = Product(folder), {}, []
    for part in parts:
        start = time.monotonic()
        try:
            measured = PARTS[part](product)
        except Exception as error:  # the parts after it are still worth knowing
            traceback.print_exc()
            print(f"{part}: failed with {type(error).__name__}", flush=True)
            failed.append(part)
            continue
        numbers |= flat(json.loads(json.dumps(measured, allow_nan=False)), part)  # as they are read from a file
        print(f"{part}: {len(measured)} numbers, {time.monotonic() - start:.0f} s", flush=True)
    return numbers, failed


def part_of(name: str) -> str:
    return name.split("/")[0]


def recorded(path: Path) -> dict[str, Any]:
    """The content of golden.json, with whole names."""
    golden = read_json(path)
    return golden | {"numbers": flat(golden["numbers"])}


def record(path: Path, numbers: dict[str, Any], parts: list[str]) -> None:
    """Write the numbers; those of other parts stay in the file."""
    kept = recorded(path)["numbers"] if path.is_file() else {}
    kept = {name: value for name, value in kept.items() if part_of(name) not in parts}
    groups: dict[str, dict] = {}
    for name, value in sorted((kept | numbers).items()):
        group, _, key = name.rpartition("/")
        groups.setdefault(group, {})[key] = value
    lines = ",\n".join(f"{json.dumps(group)}: {json.dumps(values)}" for group, values in groups.items())
    text = f'{{"machine": {json.dumps(machine())},\n"numbers": {{\n{lines}\n}}}}\n'  # "test/auc" has a line
    path.write_text(text, encoding="utf-8")
    print(f"recorded {len(numbers)} numbers in {path}")


def check(golden: dict[str, Any], numbers: dict[str, Any], parts: list[str], tolerance: float | None) -> int:
    """Print what differs; how many names."""
    for name, value in machine().items():
        if value != golden["machine"].get(name):
            print(f"note: {name} is {value}; the numbers were recorded with {golden['machine'].get(name)}")
    expected = {name: value for name, value in golden["numbers"].items() if part_of(name) in parts}
    if "HF_CXR_NIH_ROOT" not in os.environ:
        expected = {name: value for name, value in expected.items() if not name.startswith("describe/nih/")}
    differing = differences(expected, numbers, tolerance)
    for name, wanted, found in differing:
        print(f"{name}: {wanted!r} was recorded, now {found!r}")
    print(f"{len(expected)} numbers compared, {len(differing)} differ")
    return len(differing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "check", "make_old"))
    parser.add_argument("file", type=Path, nargs="?", help="JSON file with the golden numbers")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--tolerance", type=float, help="check: numbers may differ by this; hashes are not compared")
    parser.add_argument("--folder", type=Path, help="empty folder to work in, kept; by default a temporary one")
    options = parser.parse_args()
    if (options.file is None) != (options.action == "make_old"):
        parser.error("record and check need FILE.json, make_old takes none")
    golden = recorded(options.file) if options.action == "check" else None  # before minutes are spent
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if options.action == "make_old":
            make_old(Product(folder))
            return 0
        numbers, failed = measure([part for part in PARTS if part in options.only], folder)
    parts = [part for part in options.only if part not in failed]
    if options.action == "record":
        record(options.file, numbers, parts)
        return 1 if failed else 0
    differing = check(golden, numbers, parts, options.tolerance)
    return 1 if failed or differing else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
