"""Hub addresses, and mirrors on the hub."""

import os
from dataclasses import dataclass

HUB = "https://huggingface.co"


def web_address(place: str) -> str:
    """The address of a file: ``place`` itself, or that of a path on the hub (``$HF_ENDPOINT`` names another hub)."""
    if place.startswith(("http://", "https://")):
        return place
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{place}"


@dataclass(frozen=True)
class Mirror:
    """A copy of images on the hub, not uploaded by their publisher.

    Its existence and size were read from stored pages of the hub; its content was not checked.

    Attributes:
        hub_path: Where it lies on the hub.
        size: Size as its page shows it.
        note: What there is to know about it.
    """

    hub_path: str
    size: str
    note: str = ""

    def __str__(self) -> str:
        return f"{web_address(self.hub_path)} ({self.size}{f'; {self.note}' if self.note else ''})"
