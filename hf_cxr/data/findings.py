"""When two data sets, or a data set and a program, mean the same finding: by name, by alias, by synonym.

Case, spaces, hyphens and underscores do not matter. Parts and subtypes are not the same finding: Rib Fracture is not
Fracture.
"""

from hf_cxr.labels import LabelSpace

SYNONYMS = (
    ("Effusion", "Pleural Effusion"),
    ("Cardiomegaly", "Enlarged Heart", "Enlarged Cardiac Silhouette"),
    ("Edema", "Pulmonary Edema", "Oedema", "Pulmonary Oedema"),
    ("Fibrosis", "Pulmonary Fibrosis"),
    ("Hernia", "Hiatal Hernia", "Hiatus Hernia"),
    ("Infiltration", "Infiltrate", "Infiltrates"),
    ("Pleural Thickening",),
    ("Pneumoperitoneum", "Pneumoperitoneo"),
    ("Calcification of the Aorta", "Aortic Calcification"),
    ("Tortuous Aorta", "Aortic Tortuosity"),
    ("Bulla", "Bullae", "Bullas"),
    ("Lung Opacity", "Airspace Opacity"),
    ("Round(ed) Atelectasis", "Round Atelectasis", "Rounded Atelectasis"),
    ("No Finding", "No Findings", "Normal"),
)
"""Other names of the same finding, over data sets."""


def matching_column(name: str, source: LabelSpace, target: LabelSpace) -> int | None:
    """Column of the source that is a finding of the target: by name, else by either's alias, else by a synonym.

    Raises:
        ValueError: several columns of the source are this finding.

    >>> matching_column("Effusion", LabelSpace(("Mass", "pleural_effusion")), LabelSpace(("Effusion", "Hernia")))
    1
    """
    exact = column_of(name, LabelSpace(source))
    if exact is not None:
        return exact
    synonyms = {alias for alias, known in target.aliases.items() if known == name}
    single = LabelSpace((name,))
    for group in SYNONYMS:
        if any(column_of(word, single) is not None or word in synonyms for word in group):
            synonyms |= set(group)
    found = {column_of(word, source) for word in (name, *synonyms)} - {None}
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(source[column] for column in sorted(found))} are both {name}: merge them first"
        )
    return found.pop() if found else None


def column_of(name: str, space: LabelSpace) -> int | None:
    """Column of a finding by name or alias; None if it is not there."""
    try:
        return space.index(name)
    except ValueError:
        return None


def is_no_finding(name: str) -> bool:
    """Whether a column's name says that nothing was found, which is not a finding.

    >>> is_no_finding("no_finding"), is_no_finding("Nodule")
    (True, False)
    """
    return column_of(name, LabelSpace(SYNONYMS[-1])) is not None
