"""The project's address."""

from importlib.metadata import PackageNotFoundError, metadata

NAME = "Align-TI"
PAPER = "https://arxiv.org/abs/2602.09483"
PREFERRED = ("homepage", "repository", "source")


def project_url() -> str | None:
    """The project's address from the URLs in ``pyproject.toml``, as installed: its home page or repository first; None
    if there is only the paper's address, or if the package is not installed."""
    try:
        entries = metadata("align-ti").get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    split = [entry.partition(",") for entry in entries]
    found = {label.strip().lower(): address.strip() for label, _, address in split}
    web = {
        label: address
        for label, address in found.items()
        if address.startswith(("https://", "http://")) and address != PAPER
    }
    return next((web[label] for label in (*PREFERRED, *web) if label in web), None)
