"""The two files with which Inference Endpoints serve a pushed model as `hf_cxr.serving.handler` does.

The service installs requirements.txt, imports handler.py from the repository, and calls its `EndpointHandler`. They
are made here and not read from the run folder, so no file of the run can stand in for them.

Refused: a requirement that is not of this package.
"""

import hf_cxr
from hf_cxr.requirement import check_requirement
from hf_cxr.words import NOTICE

HANDLER = ("handler.py", "requirements.txt")
REQUIREMENT = f"hf-cxr[dicom]=={hf_cxr.__version__}"

_HANDLER = f'''\
"""Inference Endpoints call EndpointHandler: see the documentation of hf_cxr.serving.handler.

{NOTICE}
"""

from hf_cxr.serving.handler import EndpointHandler

__all__ = ["EndpointHandler"]
'''


def handler_files(requirement: str | None = None) -> dict[str, bytes]:
    """By name, the content of handler.py and of requirements.txt.

    Args:
        requirement: what the service installs; by default this very version of hf_cxr.

    Raises:
        ValueError: the requirement is not one, or of another package.
    """
    requirement = REQUIREMENT if requirement is None else requirement
    check_requirement(requirement, "the extra dicom")
    return {HANDLER[0]: _HANDLER.encode(), HANDLER[1]: f"{requirement}\n".encode()}
