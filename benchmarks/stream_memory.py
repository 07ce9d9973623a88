"""How much memory a stream takes: synthetic shards, read once through a DataLoader, and the process's RSS on the way.

    python benchmarks/stream_memory.py --rows 1000000 --every 100000

Images are 64 x 64 PNG files of noise, 5,000 a shard and 100 a row group, as `datasets` writes them. The shards are
written by another process, so that what is seen is the reader's. The figures of a run are in CHANGELOG.md.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch.utils.data import DataLoader

from hf_cxr.data import StreamedImages, load_streamed
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.labels import NIH14
from hf_cxr.processing import collate

SHARD, GROUP, SIDE = 5000, 100, 64


def write_shards(folder: Path, rows: int) -> None:
    """Rows of a PNG, an id, a patient and 14 labels; one in a hundred patients is of validation, one of test."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(500):
        content = BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(content, "PNG")
        images.append(content.getvalue())
    for first in range(0, rows, SHARD):
        index = np.arange(first, min(first + SHARD, rows))
        columns = {
            "image": pa.array([{"bytes": images[n % len(images)], "path": None} for n in index]),
            "name": [f"{n:08d}.png" for n in index],
            "patient": index // 4,
            "part": np.array(["train"] * 98 + ["validation", "test"])[index // 4 % 100],
            **{finding: rng.integers(0, 2, len(index), dtype=np.int8) for finding in NIH14},
        }
        pq.write_table(pa.table(columns), folder / f"shard-{first // SHARD:05d}.parquet", row_group_size=GROUP)


def resident_mib() -> float:
    """This process's own pages in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=100_000, help="rows between two lines")
    parser.add_argument("--buffer", type=int, default=1000, help="images held to be mixed")
    parser.add_argument("--folder", type=Path, help="where the shards go, 4 KiB a row; by default a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        writer = multiprocessing.get_context("spawn").Process(target=write_shards, args=(folder, args.rows))
        writer.start()
        writer.join()
        read(folder, args)


def read(folder: Path, args: argparse.Namespace) -> None:
    """Load the table, stream the training images for one epoch or more, print a line now and then."""
    description = TableDescription(
        name="synthetic",
        files={"all": "*.parquet"},
        split_column="part",
        image_column="image",
        image_id="name",
        findings=list(NIH14),
        patient_column="patient",
    )
    before, start = resident_mib(), time.perf_counter()
    splits, _ = load_streamed(description, folder)
    table = sum(split.data.nbytes for split in splits.values()) / args.rows
    print(
        f"table of {args.rows:,} rows read in {time.perf_counter() - start:.1f} s: {table:.0f} bytes a row; "
        f"RSS {before:.0f} MiB before, {resident_mib():.0f} after"
    )
    images = StreamedImages(
        splits["train"], SIDE, 3, batch_size=50, step_size=50, shuffle=True, buffer=args.buffer, seed=0
    )
    print("rows read, RSS in MiB, seconds")
    done, epoch, start = 0, 0, time.perf_counter()
    while done < args.rows:
        images.set_epoch(epoch)
        for batch in DataLoader(images, batch_size=50, collate_fn=collate):
            done += len(batch["row"])
            if done % args.every == 0:
                print(f"{done:,} {resident_mib():.1f} {time.perf_counter() - start:.0f}", flush=True)
            if done >= args.rows:
                break
        epoch += 1


if __name__ == "__main__":
    main()
