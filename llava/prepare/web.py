"""Addresses of files on the hub, and mirrors of images there."""

import os
from dataclasses import dataclass

HUB = "https://huggingface.co"


def web_address(place: str) -> str:
    """The address of a file: ``place`` itself if it is one, else a path on the hub (or on ``$HF_ENDPOINT``)."""
    if place.startswith(("http://", "https://")):
        return place
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{place}"


@dataclass(frozen=True)
class Mirror:
    """A copy of images on the hub, not uploaded by their publisher.

    Its existence and size were read from the hub's pages; its content was not checked.

    Attributes:
        hub_path: Path on the hub.
        size: Size as stated on its page.
        note: Remark shown to the user.
    """

    hub_path: str
    size: str
    note: str = ""

    def __str__(self) -> str:
        return f"{web_address(self.hub_path)} ({self.size}{f'; {self.note}' if self.note else ''})"
