"""A check of the sizes in a system's config, which may come from a stranger."""

from collections.abc import Sequence


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Refuse sizes below 1, and lists of sizes without any.

    Raises:
        ValueError: names the option.

    >>> check_sizes(depths=[2, 0])
    Traceback (most recent call last):
    ValueError: depths is [2, 0]; it must be 1 or more, and so must each entry of a list
    """
    for name, size in sizes.items():
        entries = size if isinstance(size, list | tuple) else [size]
        if not entries or min(entries) < 1:
            raise ValueError(f"{name} is {size!s:.60}; it must be 1 or more, and so must each entry of a list")
