"""`hf-cxr demo RUN_OR_HUB_ID`: a page in the browser to try a model.

Drop a radiograph (DICOM, PNG, JPEG, TIFF; 8 or 16 bits): the page shows a bar for each finding with its threshold,
which findings are called, the label sets in words, a heat map of any finding, and what the model cannot do. Its
examples are synthetic phantoms. Not a medical device. For research.

The page is on this machine alone (127.0.0.1) unless --host says otherwise. No part of an image is written to a disk,
and nothing is sent to another host. There is no flag for a public link: a tunnel would send patients' images through
another company's machine. If the environment variable HF_CXR_DEMO_AUTH is user:password, the page asks for it; with
--host it must be set, or --no_password given.

With --export_space DIR no page is started: DIR becomes the folder of a Hugging Face Space that shows this page.

It needs Gradio: pip install 'hf-cxr[demo]'. Ctrl-C stops it. Exit status: 0; 2 for bad input.
"""

import os
import signal
import socket
import sys
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence

from hf_cxr.arguments.command_line import OneLineParser, output_path
from hf_cxr.commands import set_up_terminal
from hf_cxr.demo import LOOPBACK, PASSWORD, check_gradio
from hf_cxr.demo.limits import Limits
from hf_cxr.late_modules import import_transformers_lightly
from hf_cxr.words import NOTICE, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: see the top of this module."""
    parser = OneLineParser(
        prog="hf-cxr demo", description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", metavar="RUN_OR_HUB_ID", help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--no_password", action="store_true", help="let everyone who reaches --host use the page")
    parser.add_argument("--port", type=_port, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--max_megabytes", type=float, default=Limits.megabytes, help="largest image file in MB (default: %(default)g)"
    )
    parser.add_argument(
        "--max_megapixels",
        type=float,
        default=Limits.megapixels,
        help="largest image in millions of pixels (default: %(default)g)",
    )
    parser.add_argument(
        "--max_waiting",
        type=int,
        default=Limits.waiting,
        help="requests that may wait for the model (default: %(default)d)",
    )
    parser.add_argument(
        "--export_space",
        metavar="DIR",
        type=output_path,
        help="write the folder of a Space instead; must be new or empty",
    )
    parser.add_argument(
        "--space_requirement",
        metavar="TEXT",
        help="what the Space installs, such as 'hf-cxr[demo,dicom] @ git+https://...'; default: this version",
    )
    own = parser.parse_args(argv)
    if own.space_requirement and own.export_space is None:
        parser.error("--space_requirement goes with --export_space DIR; give both")
    if own.export_space is not None:
        return _export(own)
    check_gradio()
    _check_password(own.host, own.no_password)
    _check_address(own.host, own.port)
    import_transformers_lightly()
    limits = Limits(megabytes=own.max_megabytes, megapixels=own.max_megapixels, waiting=own.max_waiting)
    set_up_terminal()
    return _serve(own, limits)


def _serve(own, limits) -> int:
    from hf_cxr.demo.show import page_of

    page, limits = page_of(own.model, revision=own.revision, limits=limits)
    from hf_cxr.demo.app import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container is stopped like a terminal: tidily
    try:
        address = serve(page, limits, host=own.host, port=own.port, wait=False)
        print(f"{NOTICE}\nopen {printable(address)} in a browser; Ctrl-C stops the page", flush=True)
        if own.host not in LOOPBACK:
            who = "everyone" if own.no_password else "everyone with the password"
            _note(f"{who} who reaches {own.host} can use the page, without encryption")
        page.server.thread.join()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one would leave the temporary folder
            signal.signal(number, signal.SIG_IGN)
        page.close(verbose=False)
    return 0


def _export(own) -> int:
    from hf_cxr.demo.space import REQUIREMENT, export_space

    set_up_terminal()
    requirement = own.space_requirement or REQUIREMENT
    names = export_space(own.model, own.export_space, revision=own.revision, requirement=requirement)
    place = printable(own.export_space)
    print(f"wrote {place}: {', '.join(names)}\nit installs {requirement}")
    print(f"to try it: cd {place} && python app.py")
    print(f"to send it: hf upload YOUR_NAME/YOUR_SPACE {place} --repo-type space")
    return 0


def _check_password(host: str, no_password: bool) -> None:
    """Refuse to show the page to a network without a password, unless that is asked for."""
    given = bool(os.environ.get(PASSWORD))
    if given and no_password:
        raise ValueError(f"--no_password was given and {PASSWORD} is set; leave out one of them")
    if host not in LOOPBACK and not given and not no_password:
        raise ValueError(
            f"everyone who reaches {host} could use the page; set {PASSWORD}=user:password, or give --no_password"
        )


def _check_address(host: str, port: int | None) -> None:
    """Refuse an address that cannot be listened at, before the model is loaded."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after another
            trial.bind(place)
    except OSError as error:
        where = f"port {port} of {host}" if port else host
        raise OSError(f"cannot listen at {where}: {error.strerror}; give another --host or --port") from error


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ArgumentTypeError(f"{text} is not a port; give a number from 1 to 65535")
    return int(text)


def _note(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)
