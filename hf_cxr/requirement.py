"""The line with which another machine installs hf_cxr: in the requirements.txt of a Space or of an endpoint."""

from packaging.requirements import InvalidRequirement, Requirement


def check_requirement(text: str, extras: str) -> None:
    """Refuse a line that installs something else.

    Args:
        text: such as ``hf-cxr[dicom] @ git+https://...``.
        extras: that it should have, in words.

    Raises:
        ValueError: it is not a requirement as pip takes it, or one of another package.
    """
    if len(text.splitlines()) > 1:
        raise ValueError(f"{text!r} is not a requirement as pip takes it: it has several lines")
    try:
        name = Requirement(text).name
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is not a requirement as pip takes it: {error}".replace("\n", " ")) from error
    if name.lower().replace("_", "-") != "hf-cxr":
        raise ValueError(f"{text!r} installs {name}; what is needed is hf-cxr with {extras}")
