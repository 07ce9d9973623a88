"""From a model to its page in one call, in a process that has not imported torch or Gradio yet.

Both read their environment when they are imported: torch how many threads it takes, Gradio whether it sends telemetry
and where its temporary folder is.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hf_cxr.cores import set_threads
from hf_cxr.demo import check_gradio

if TYPE_CHECKING:
    import gradio

    from hf_cxr.demo.limits import Limits


def show(
    model: str | Path, *, revision: str = "main", name: str | None = None, limits: "Limits | None" = None
) -> None:
    """Load a model and serve its page until the process ends: all that the app.py of a Space does.

    Args:
        model: run folder, folder of a model, or Hub id.
        revision: branch, tag or commit of a Hub id.
        name: what the page calls the model; by default its Hub id or the name of its folder.
        limits: of what a browser may send.
    """
    check_gradio()
    set_threads()
    page, limits = page_of(model, revision=revision, name=name, limits=limits)
    from hf_cxr.demo.app import serve

    serve(page, limits)


def page_of(
    model: str | Path, *, revision: str = "main", name: str | None = None, limits: "Limits | None" = None
) -> "tuple[gradio.Blocks, Limits]":
    """The page of a model, not yet served, and its limits. The arguments are those of `show`.

    Raises:
        ValueError: the password in the environment is not user:password; said before the model is loaded.
    """
    quiet_gradio()
    from hf_cxr.demo.about import PageFacts
    from hf_cxr.demo.app import build_page, password
    from hf_cxr.demo.session import Session
    from hf_cxr.demo.uploads import allow_pixels
    from hf_cxr.inference.classifier import Classifier

    password()
    session = Session(Classifier(model, revision=revision), limits)
    allow_pixels(session.limits)
    return build_page(session, PageFacts.of(session.classifier, name or model)), session.limits


def quiet_gradio() -> None:
    """Switch off what Gradio would send, and give it a temporary folder of its own that ends with this process.

    Nothing of an image is put there; Gradio makes such a folder in any case. To be called before Gradio is imported.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    folder = tempfile.mkdtemp(prefix="hf-cxr-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
