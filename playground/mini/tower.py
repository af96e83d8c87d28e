"""Pictures with their labels, for pretraining a SigLIP tower with the sigmoid loss."""

from playground.mini.layout import Scene
from playground.mini.wording import a, at


def sign(word: str) -> str:
    """Name of a sign in labels."""
    return f"{a(word)} sign"


def labels(scene: Scene) -> list[str]:
    """The content of a picture as short texts: each (concept, place), the (sign, place) and the background."""
    texts = [f"{a(item.concept)} {at(item.place)}" for item in scene.objects]
    if scene.sign is not None:
        texts.append(f"{sign(scene.sign.word)} {at(scene.sign.place)}")
    return texts + [f"a {scene.background.colour} background"]
