"""`hf-cxr serve MODEL`: answer requests for predictions over HTTP, in batches. For research, not for diagnosis.

    curl -F image=@chest.png http://127.0.0.1:8000/predict-file

POST /predict takes JSON with the file in base64, {"image": "...", "name": "chest.png"}. Every format that
`hf-cxr predict` reads is taken, DICOM included. An answer has each finding's probability, threshold and call.
GET /health, /info, /metrics (Prometheus) and /openapi.json describe the service.

No image is kept, in memory or on disk. By default only this machine can reach the service: --host 0.0.0.0 opens it to
the network, without encryption; put it behind a proxy that has TLS. With a token in the environment variable
HF_CXR_SERVE_TOKEN, requests need the header "Authorization: Bearer TOKEN"; with --host it has to be set, or --no_token
given.

Ctrl-C or SIGTERM stops it.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence

from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.extras import need

TOKEN = "HF_CXR_SERVE_TOKEN"
HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # those that LitServe binds to
LOWEST_PORT, HIGHEST_PORT = 1024, 65535


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; `run_command` prints any error as one line."""
    parser = OneLineParser(
        prog="hf-cxr serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--host",
        choices=HOSTS,
        default=HOSTS[0],
        help="address to listen at; 0.0.0.0 opens the service to the network",
    )
    parser.add_argument("--no_token", action="store_true", help="answer everyone who reaches --host")
    parser.add_argument("--name", help="the model's name in answers (default: its Hub id or its folder's name)")
    parser.add_argument("--port", type=int, default=8000, help="port, from 1024 to 65535")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="device to run on")
    parser.add_argument("--workers", type=int, default=1, help="copies of the model on each device")
    parser.add_argument(
        "--batch_size", type=int, default=16, help="largest number of images that the model gets at once"
    )
    parser.add_argument(
        "--batch_wait", type=float, default=0.01, help="seconds that the first image of a batch waits for others"
    )
    parser.add_argument("--timeout", type=float, default=30, help="seconds after which a waiting request gets 504")
    parser.add_argument("--max_megabytes", type=float, default=50, help="largest image file in MB; more gets 413")
    parser.add_argument(
        "--max_pixels", type=int, default=50_000_000, help="largest image, width times height in pixels; more gets 422"
    )
    parser.add_argument(
        "--max_waiting", type=int, default=128, help="largest number of requests in progress; one more gets 503"
    )
    args = parser.parse_args(argv)
    if not LOWEST_PORT <= args.port <= HIGHEST_PORT:
        raise ValueError(f"--port is {args.port}; it must be from {LOWEST_PORT} to {HIGHEST_PORT}")
    token = os.environ.get(TOKEN)
    check_token(args.host, token, no_token=args.no_token)
    check_free(args.host, args.port)
    need("hf-cxr serve", "serve", "litserve", "prometheus_client", "python_multipart")
    from hf_cxr.serving.server import Settings, build_server

    values = {key: value for key, value in vars(args).items() if key not in ("host", "port", "no_token")}
    server = build_server(Settings(**values, token=token))
    what, address = server.model_metadata, f"http://{f'[{args.host}]' if ':' in args.host else args.host}:{args.port}"
    say(f"loading {what['name']}: {len(what['findings'])} findings, {what['dataset'] or 'trained elsewhere'}")
    say(what["notice"])
    if what["synthetic"]:
        say("This model was trained on synthetic phantoms; it knows nothing of patients.")
    if args.host != HOSTS[0]:
        who = "everyone" if token is None else "everyone with the token"
        say(f"warning: {who} who reaches this machine can use the service, without encryption")
    threading.Thread(target=say_when_ready, args=(args.port, address), daemon=True).start()
    stop_on_sigterm()
    # One HTTP process: the metrics are in its memory.
    server.run(
        host=args.host,
        port=args.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
    return 0


def say(text: str) -> None:
    """Print a line to standard error at once."""
    print(text, file=sys.stderr, flush=True)


def stop_on_sigterm() -> None:
    """A process manager's SIGTERM stops the service as Ctrl-C does: without it, LitServe's processes would live on."""
    first = os.getpid()

    def stop(number: int, _) -> None:
        if os.getpid() != first:  # the HTTP process is forked from this one
            os._exit(128 + number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def say_when_ready(port: int, address: str) -> None:
    """Wait until the service answers, and print where."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this machine itself
    while True:
        for host in ("127.0.0.1", "[::1]"):
            try:
                if direct.open(f"http://{host}:{port}/health", timeout=5).status == 200:
                    say(f"ready on {address}")
                    return
            except OSError:
                pass
        time.sleep(0.2)


def check_token(host: str, token: str | None, *, no_token: bool) -> None:
    """Refuse to serve a network without a token, unless that is asked for.

    Raises:
        ValueError: there is no token; or there is one, and none is asked for.
    """
    if token is not None and no_token:
        raise ValueError(f"--no_token was given and {TOKEN} is set; leave out one of them")
    if host != HOSTS[0] and token is None and not no_token:
        raise ValueError(
            f"everyone who reaches this machine could use the service at {host}; set {TOKEN}, or give --no_token"
        )


def check_free(host: str, port: int) -> None:
    """Refuse a port that another program has, before the model is loaded.

    Raises:
        ValueError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}; give another --port") from error
