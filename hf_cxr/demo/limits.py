"""What the page accepts: bytes, pixels, requests that wait, minutes. The defaults of `hf-cxr demo` are here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the page accepts.

    Args:
        megabytes: of a file, in millions of bytes.
        megapixels: of an image, in millions of pixels.
        waiting: requests that may wait for the model; the next is told to try again.
        minutes: how long an image stays in memory after its last use; closing its page ends it earlier.

    Raises:
        ValueError: one of them is not positive.
    """

    megabytes: float = 40
    megapixels: float = 60
    waiting: int = 16
    minutes: float = 15

    def __post_init__(self):
        for name in ("megabytes", "megapixels", "waiting", "minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")

    @property
    def bytes(self) -> int:
        """The most bytes of a file."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """The most pixels of an image."""
        return int(self.megapixels * 1e6)

    @property
    def body(self) -> int:
        """The most bytes of a request: a file in base64, and what the page sends next to it."""
        return self.bytes * 4 // 3 + 100_000
