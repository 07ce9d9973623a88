"""The page itself, in Gradio: who is shown what after which event. What the events do is in `session`.

Gradio is an extra and is imported here alone, inside functions; call `show.quiet_gradio` before.
"""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_cxr.demo import LOOPBACK, PASSWORD
from hf_cxr.demo.about import PageFacts
from hf_cxr.demo.bars import findings_html
from hf_cxr.demo.examples import draw_examples, examples_html
from hf_cxr.demo.guard import Guard
from hf_cxr.demo.limits import Limits
from hf_cxr.demo.memory import Memory
from hf_cxr.demo.session import PredictedImage, Session
from hf_cxr.demo.uploads import UploadError
from hf_cxr.demo.viewer import EMPTY, NO_FINDINGS, error_html, heat_map_html, image_html, read_html

if TYPE_CHECKING:
    import gradio

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
READERS = 64
"""Readers whose last image is kept at once."""

FORGOTTEN = "This image is no longer in memory; give it again"
UNEXPECTED = "Something went wrong with this image; the page still works: try another one"


class Events:
    """What each event of the page answers: the HTML of the viewer and of the findings.

    Args:
        session: the model, with the limits.
        memory: where the last image of each reader is kept.
    """

    def __init__(self, session: Session, memory: Memory[PredictedImage]):
        self.session, self.memory, self.examples = session, memory, draw_examples()
        self.points = session.classifier.calls.points
        check = session.classifier.input_check
        self.measured = None if check is None else check.measured

    def give(self, data: Any, reader: str) -> list[str]:
        """A reader gave an image, or chose an example."""
        predicted, problem = _attempt(lambda: self._predict(data))
        if predicted is None:
            self.memory.forget(reader)
            return [error_html(problem) + EMPTY, NO_FINDINGS]
        self.memory.put(reader, predicted)
        return self._shown(predicted)

    def choose(self, data: Any, reader: str) -> list[str]:
        """A reader chose a finding, whose heat map is shown, or went back to the image."""
        predicted = self.memory.get(reader)
        if predicted is None:
            return [error_html(FORGOTTEN) + EMPTY, NO_FINDINGS]
        chosen = getattr(data, "finding", None)
        if chosen is None:
            return self._shown(predicted)
        heat, problem = _attempt(lambda: self.session.heat_map(predicted, chosen))
        if heat is None:
            return [error_html(problem) + image_html(predicted), findings_html(predicted.result, self.points)]
        shown = read_html(predicted, self.measured) + heat_map_html(predicted, heat)
        return [shown, findings_html(predicted.result, self.points, chosen=chosen)]

    def _shown(self, predicted: PredictedImage) -> list[str]:
        """The image without a heat map, and its findings."""
        viewer = read_html(predicted, self.measured) + image_html(predicted)
        return [viewer, findings_html(predicted.result, self.points)]

    def _predict(self, data: Any) -> PredictedImage:
        example = getattr(data, "example", None)
        if example is None:
            return self.session.predict_upload(*(getattr(data, key, None) for key in ("name", "content", "size")))
        if example not in range(len(self.examples)):
            raise UploadError("there is no such example")
        return self.session.predict(self.examples[example].image)


class Parts(NamedTuple):
    """The parts of the page that events come from or go to."""

    drop: "gradio.HTML"
    viewer: "gradio.HTML"
    findings: "gradio.HTML"


def build_page(session: Session, about: PageFacts, memory: Memory[PredictedImage] | None = None) -> "gradio.Blocks":
    """The page of a model.

    Args:
        session: the model, with the limits.
        about: what a reader is told of it.
        memory: where the last image of each reader is kept; by default a new one.
    """
    import gradio as gr

    limits = session.limits
    memory = Memory(60 * limits.minutes, READERS) if memory is None else memory
    events = Events(session, memory)
    with gr.Blocks(title=f"Chest radiograph findings: {about.name}", analytics_enabled=False) as page:
        parts = _lay_out(about, limits, examples_html(events.examples))
        _connect(page, parts, events)

    def forget_page(reader: str) -> None:
        # What Gradio would send to a reader who comes back: the page with the image in it.
        page.app.state_holder.session_data.pop(reader, None)

    memory.on_forget = forget_page
    memory.sweep_regularly(min(10.0, 30 * limits.minutes))
    return page.queue(max_size=limits.waiting, default_concurrency_limit=1)


def _lay_out(about: PageFacts, limits: Limits, examples: str) -> Parts:
    """Where everything is; ``examples`` is HTML."""
    import gradio as gr

    def html(value: str = "", **options: Any) -> gr.HTML:
        classes = ["cxr", *options.pop("classes", ())]
        return gr.HTML(value, elem_classes=classes, apply_default_css=False, **options)

    html(about.header_html())
    with gr.Row(equal_height=True):
        with gr.Column(scale=5, min_width=320):
            drop = html(
                html_template=_text("drop.html"),
                js_on_load=_text("drop.js"),
                bytes=limits.bytes,
                limit=f"{limits.megabytes:g}",
                examples=examples,
            )
            viewer = html(EMPTY, js_on_load=_text("back.js"), classes=["cxr-viewer"])
        with gr.Column(scale=6, min_width=320):
            findings = html(NO_FINDINGS, js_on_load=_text("choose.js"))
    html(about.limits_html(limits))
    return Parts(drop, viewer, findings)


def _connect(page: "gradio.Blocks", parts: Parts, events: Events) -> None:
    """Which event calls what. Gradio reads the annotations of the functions."""
    import gradio as gr

    def on_give(data: gr.EventData, request: gr.Request) -> list[str]:
        return events.give(data, reader_of(request))

    def on_choose(data: gr.EventData, request: gr.Request) -> list[str]:
        return events.choose(data, reader_of(request))

    def on_leave(request: gr.Request) -> None:
        events.memory.forget(reader_of(request))

    outputs = [parts.viewer, parts.findings]
    options = {"outputs": outputs, "concurrency_id": "model", "api_visibility": "private"}
    parts.drop.give(on_give, **options, show_progress="full", show_progress_on=outputs)
    for component in (parts.findings, parts.viewer):
        component.choose(on_choose, **options, show_progress="minimal", show_progress_on=[parts.viewer])
    page.unload(on_leave)


def reader_of(request: "gradio.Request") -> str:
    """Whose request it is; whoever does not say gets a name that no other request has."""
    return request.session_hash or uuid.uuid4().hex


def _attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """What some work gives, or None and what to tell the reader. The page keeps working, whatever happens."""
    try:
        return work(), ""
    except UploadError as error:
        return None, str(error)
    except Exception as error:
        # Its message may have a file's name, and so a patient's.
        logger.error("an image failed with %s", type(error).__name__)
        return None, UNEXPECTED


def serve(
    page: "gradio.Blocks", limits: Limits, *, host: str | None = None, port: int | None = None, wait: bool = True
) -> str:
    """Start the server of a page; returns the page's address once it answers, or with ``wait`` when it ends.

    Args:
        page: from `build_page`.
        limits: its limits.
        host: address to listen at; None for GRADIO_SERVER_NAME, or else this machine alone (127.0.0.1).
        port: None for GRADIO_SERVER_PORT, or else the first free one from 7860.
        wait: until Ctrl-C.

    Raises:
        OSError: the port is taken.
        ValueError: the password in the environment is not user:password.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    bound = host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0]
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    with without_proxy(*LOOPBACK, bound):  # Gradio asks its own server, and gives up where a proxy answers
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=password(),
            share=False,  # a tunnel would send patients' images through another company's machine
            ssr_mode=False,
            run_history=False,  # it keeps what was sent in the browser
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            footer_links=[],
            quiet=True,
            state_session_capacity=READERS,
            max_file_size=1,  # in bytes; see `guard`
            app_kwargs={"middleware": [Middleware(Guard, body=limits.body)]},
            theme=gr.themes.Base(**fonts).set(layout_gap="0.8rem"),
            head=f"<style>{_text('style.css')}</style>",  # Gradio would rewrite the selectors of css=
            prevent_thread_lock=not wait,
        )
    return address


@contextmanager
def without_proxy(*hosts: str) -> Iterator[None]:
    """Reach some hosts directly, whatever proxy the environment names for the rest."""
    names = ("no_proxy", "NO_PROXY")
    before = {name: os.environ[name] for name in names if name in os.environ}
    kept = next(filter(None, before.values()), None)
    for name in names:
        os.environ[name] = kept if kept == "*" else ",".join([*filter(None, [kept]), *dict.fromkeys(hosts)])
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def password() -> tuple[str, str] | None:
    """User and password that the page asks for; None if the environment has none.

    Raises:
        ValueError: it is not user:password.
    """
    given = os.environ.get(PASSWORD)
    if not given:
        return None
    user, colon, word = given.partition(":")
    if not (user and colon and word):
        raise ValueError(f"{PASSWORD} must be user:password, both not empty")
    return user, word


def _text(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
