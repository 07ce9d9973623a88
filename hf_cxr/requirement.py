"""The line of a requirements.txt with which somebody else's machine installs hf_cxr: a Space, an Inference Endpoint."""

from packaging.requirements import InvalidRequirement, Requirement


def check_requirement(text: str, extras: str) -> None:
    """Refuse a line that installs something else.

    Args:
        text: such as ``hf-cxr[dicom] @ git+https://...``.
        extras: that it should have, in words.

    Raises:
        ValueError: it is not a requirement as pip takes it, or one of another package.
    """
    try:
        name = Requirement(text).name
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is not a requirement as pip takes it: {error}".replace("\n", " ")) from error
    if name.lower().replace("_", "-") != "hf-cxr":
        raise ValueError(f"{text!r} installs {name}; what is needed is hf-cxr with {extras}")
