"""What to cite, as BibTeX: the data of a run where they are a published set that this package knows, and this package.

citations.yaml has the entries. A table of one's own has no entry: its description says what it is.
"""

import functools
from pathlib import Path
from typing import Any

from hf_cxr.yaml_files import read_yaml

WORKS = Path(__file__).with_name("citations.yaml")
SUBTITLE = "long-tailed multi-label chest X-ray classification"
"""Of this package: the beginning of the title in CITATION.cff, whose end names one of its networks."""


def dataset_citations(name: str) -> list[str]:
    """The BibTeX entries of a data set, by its name in reports; [] for one that is not known.

    >>> [entry.partition(",")[0] for entry in dataset_citations("ChestX-ray14")], dataset_citations("my table")
    (['@inproceedings{wang2017chestxray8'], [])
    """
    known = _known()
    return [known["works"][key].rstrip() for key in known["datasets"].get(name, ())]


def software_citation(version: str) -> str:
    r"""The BibTeX entry of this package.

    >>> print(software_citation("0.1.0"))
    @software{hf_cxr,
      author  = {{The hf\_cxr maintainers}},
      title   = {{hf\_cxr}: long-tailed multi-label chest X-ray classification},
      version = {0.1.0}
    }
    """
    lines = (
        "@software{hf_cxr,",
        "  author  = {{The hf\\_cxr maintainers}},",
        "  title   = {{hf\\_cxr}: " + SUBTITLE + "},",
        "  version = {" + version + "}",
        "}",
    )
    return "\n".join(lines)


@functools.cache
def _known() -> dict[str, Any]:
    return read_yaml(WORKS)
