"""The image on the page as HTML: as the model reads it, or under a heat map; and the messages above it."""

import time
from collections.abc import Mapping
from html import escape
from typing import Any

from hf_cxr.demo.bars import check_html, shown_name
from hf_cxr.demo.pictures import address_of, scale_colours
from hf_cxr.demo.session import HeatMap, PredictedImage, Session

EMPTY = '<p class="cxr-empty">Give an image above, or choose an example. It is shown here as the model reads it.</p>'
NO_FINDINGS = '<p class="cxr-empty">The findings of your image are listed here.</p>'


def image_html(predicted: PredictedImage) -> str:
    """The image as the model reads it."""
    width, height = predicted.size
    caption = f"{escape(predicted.name)}, {width} × {height} pixels, in grey as the model reads it"
    return (
        f'<figure class="cxr-picture"><img alt="The image in grey, as the model reads it" '
        f'src="{address_of(predicted.picture_HW)}"><figcaption>{caption}</figcaption></figure>'
    )


def heat_map_html(predicted: PredictedImage, heat: HeatMap) -> str:
    """The image under the heat map of a finding, and a way back to the image alone."""
    name = escape(shown_name(heat.finding))
    flat = " The map is flat: no place of the image speaks for this finding." if heat.flat else ""
    return (
        f'<figure class="cxr-picture" data-map="{escape(heat.finding)}"><img alt="Heat map of {name} over the image" '
        f'src="{address_of(heat.picture_HW3)}"><div class="cxr-scale" aria-hidden="true"><span>lowest</span>'
        f'<span style="background:linear-gradient(to right, {scale_colours()})"></span><span>highest</span></div>'
        f"<figcaption><b>Heat map of {name}</b> ({escape(Session.method_title)}).{flat} It shows which pixels the "
        "score came from, not that the finding is there. Colours run from this map's own lowest to its own highest "
        "value, so two maps cannot be compared by their colours. "
        f"{'The model does not see the darker edge. ' if heat.cropped else ''}"
        '<button type="button" data-back>Show the image alone</button></figcaption></figure>'
    )


def read_html(predicted: PredictedImage, measured: Mapping[str, Any] | None = None) -> str:
    """How the image was read, and whether it looks like one that the model knows; ``measured`` as for `check_html`."""
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in predicted.remarks)
    note = f'<div class="cxr-note cxr-plain" role="status">{remarks}</div>' if remarks else ""
    doubts = "".join(
        '<div class="cxr-note cxr-warning" role="alert" data-doubt><p><b>This image may not be as it should be.</b> '
        f"{escape(doubt[:1].upper() + doubt[1:])}. Its numbers may mean little.</p></div>"
        for doubt in predicted.result.remarks
    )
    return f"{note}{doubts}{check_html(predicted.result.input_check, measured)}"


def error_html(message: str) -> str:
    """One line that says what is wrong. Each is unlike the one before, so that a screen reader reads both."""
    return (
        f'<div class="cxr-note cxr-error" role="alert" data-at="{time.monotonic_ns()}"><p>{escape(message)}</p></div>'
    )
