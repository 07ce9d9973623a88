"""A page to try a model: drop a radiograph, see its findings, look at heat maps.

- `session`: what the page does, without a page: an image in, a `PredictedImage` out, a heat map of a finding.
- `memory`: the last image of each reader, until the reader leaves.
- `limits`: what the page accepts; `uploads`: what a browser sends, decoded in memory; `guard`: what is refused.
- `bars`, `pictures`, `about`: HTML of the findings, PNG and JPEG in memory, what is known of the model.
- `examples`: phantoms, drawn when the page starts. No patient's image is part of the page.
- `viewer`: the image, alone or under a heat map, and messages.
- `app`: all of it as a Gradio page; `show`: from a model to that page; `space`: the folder of a Hugging Face Space
  that shows it.

Nothing of an image is written to a disk: it comes in the body of a request and not as a file upload, which Gradio
would keep in a temporary folder, and pictures go back inside the page. The page loads nothing from another host. What
it shows of an image is an `inference.ImageResult`, and nothing else.
"""

from hf_cxr.extras import need

PASSWORD = "HF_CXR_DEMO_AUTH"
"""Environment variable with user:password, which the page then asks for."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that this machine alone reaches."""


def check_gradio() -> None:
    """Refuse a machine without Gradio.

    Raises:
        MissingExtraError: see `extras.need`.
    """
    need("hf-cxr demo", "demo", "gradio")
