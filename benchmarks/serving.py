"""`hf-cxr serve` under load on loopback: batches against one image after the other, requests a second and latency.

    python benchmarks/serving.py MODEL [--clients 1 8 32] [--seconds 10] [--rounds 3] [--image FILE]

Each arm is a service in a process of its own, with the same model, one thread and one worker; both are up all the time
and take turns, round by round. CLIENTS threads send one request after the other (closed loop), each with the same file
as multipart/form-data. A ratio is formed within a round; the median of the rounds is printed with its range.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

ARMS = {"batches of up to 16": ("--batch_size", "16"), "one by one": ("--batch_size", "1")}
REFERENCE = "one by one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="run folder or Hub id")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10, help="of load for each arm and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", type=Path, help="by default noise of 256 x 256 pixels as PNG")
    args = parser.parse_args()
    content = noise() if args.image is None else args.image.read_bytes()
    services = {arm: start(args.model, flags) for arm, flags in ARMS.items()}
    try:
        for _, port in services.values():
            wait(port)
            load(port, content, clients=2, seconds=1)  # warm
        print("| clients | arm | requests/s | ratio | p50 ms | p99 ms | failed |\n|---|---|---|---|---|---|---|")
        for clients in args.clients:
            rounds = [
                {arm: load(port, content, clients, args.seconds) for arm, (_, port) in services.items()}
                for _ in range(args.rounds)
            ]
            for arm in ARMS:
                print(row(clients, arm, rounds), flush=True)
    finally:
        for process, _ in services.values():
            process.send_signal(signal.SIGINT)
        for process, _ in services.values():
            process.wait(60)


def row(clients: int, arm: str, rounds: list[dict[str, tuple[list[float], int, float]]]) -> str:
    """A line of the table: medians over the rounds, ratios with their range, latencies of all rounds together."""
    rates = [len(one[arm][0]) / one[arm][2] for one in rounds]
    ratios = [rate / (len(one[REFERENCE][0]) / one[REFERENCE][2]) for rate, one in zip(rates, rounds, strict=True)]
    latency = np.concatenate([one[arm][0] for one in rounds]) * 1000
    p50, p99 = np.percentile(latency, [50, 99])
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    failed = sum(one[arm][1] for one in rounds)
    return f"| {clients} | {arm} | {statistics.median(rates):.1f} | {ratio} | {p50:.0f} | {p99:.0f} | {failed} |"


def load(port: int, content: bytes, clients: int, seconds: float) -> tuple[list[float], int, float]:
    """Latencies in seconds of the answers with 200, how many had another status, and how long it took."""
    latencies, failed, lock = [], 0, threading.Lock()
    end = time.perf_counter() + seconds

    def send() -> None:
        nonlocal failed
        with httpx2.Client(timeout=120) as client:
            while (start := time.perf_counter()) < end:
                url = f"http://127.0.0.1:{port}/predict-file"
                status = client.post(url, files={"image": ("x.png", content)}).status_code
                with lock:
                    if status == 200:
                        latencies.append(time.perf_counter() - start)
                    else:
                        failed += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, failed, time.perf_counter() - began


def start(model: str, flags: tuple[str, ...]) -> tuple[subprocess.Popen, int]:
    """A service on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "import sys; from hf_cxr.commands import main; sys.exit(main())", "serve", model]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([*command, "--port", str(port), *flags], env=environment), port


def wait(port: int) -> None:
    """Until the model is ready."""
    while True:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)


def noise() -> bytes:
    """A PNG of 256 x 256 random grey pixels."""
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
