"""The two files with which Inference Endpoints serve a pushed model as `hf_cxr.serving.handler` does.

The service installs requirements.txt, imports handler.py from the repository, and calls its `EndpointHandler`. They
are made here and not read from the run folder, so no file of the run can stand in for them.
"""

import hf_cxr

HANDLER = ("handler.py", "requirements.txt")

_HANDLER = '''\
"""Inference Endpoints call EndpointHandler: see the documentation of hf_cxr.serving.handler.

Not a medical device. For research.
"""

from hf_cxr.serving.handler import EndpointHandler

__all__ = ["EndpointHandler"]
'''


def handler_files() -> dict[str, bytes]:
    """By name, the content of handler.py and of requirements.txt, which asks for this very version of hf_cxr."""
    return {"handler.py": _HANDLER.encode(), "requirements.txt": f"hf-cxr[dicom]=={hf_cxr.__version__}\n".encode()}
