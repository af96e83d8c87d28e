"""One published file of a benchmark: found, downloaded, or extracted from an archive."""

import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llava.errors import InputError
from llava.prepare.download import download
from llava.prepare.web import web_address

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A file, or a folder from an archive, that the evaluation reads.

    Attributes:
        place: Its path in the benchmark's folder.
        urls: Addresses, or paths on the hub, of the file or of the archive that contains it; the publisher's first.
        size: Size of the download as stated on its page, "" if unknown.
        member: Its name in the archive, "" if it is not in an archive.
        holds: For a folder from an archive: the name of a subfolder by which it is recognised.
        also_at: Other paths where the evaluation looks for it.
        for_questions: Whether it is needed only to make the question file.
        terms: Terms of use that must be accepted before it is downloaded, "" for none.
        sha256: Its published checksum, None if none is known.
    """

    place: str
    urls: tuple[str, ...]
    size: str = ""
    member: str = ""
    holds: str = ""
    also_at: tuple[str, ...] = ()
    for_questions: bool = False
    terms: str = ""
    sha256: str | None = None

    @property
    def archive(self) -> str:
        """Name of the archive that contains it, "" if it is not in an archive."""
        return self.urls[0].rsplit("/", 1)[-1] if self.member or self.holds else ""

    @property
    def url(self) -> str:
        """The first address."""
        return web_address(self.urls[0])

    def find(self, folder: Path) -> Path | None:
        """Its path in the benchmark's folder; None if it is missing."""
        return next((folder / place for place in (self.place, *self.also_at) if (folder / place).exists()), None)

    def find_archive(self, folder: Path) -> Path | None:
        """Its archive in the benchmark's folder or at the file's own location; None if there is none."""
        places = (folder, (folder / self.place).parent) if self.archive else ()
        return next((place / self.archive for place in places if (place / self.archive).is_file()), None)


def get(file: Published, folder: Path, may_download: bool) -> str | None:
    """Get a file, unless it exists.

    Args:
        file: The file.
        folder: The benchmark's folder.
        may_download: Whether to download it; an existing archive is unpacked in any case.

    Returns:
        Where it came from (an address, or the existing archive); None if nothing was done.

    Raises:
        InputError: It cannot be downloaded from any address, or the archive does not contain it.
    """
    if file.find(folder) is not None:
        return None
    archive = file.find_archive(folder)
    if archive is not None:
        _unpack(file, archive, folder)
        return str(archive)
    if not may_download:
        return None
    if not file.archive:
        return _download(file, folder / file.place)
    archive = folder / file.archive
    url = _download(file, archive)
    _unpack(file, archive, folder)
    archive.unlink()
    return url


def _download(file: Published, target: Path) -> str:
    """Try the addresses in order; returns the one that delivered the file."""
    problems = []
    for url in map(web_address, file.urls):
        try:
            download(url, target, file.sha256)
            return url
        except InputError as error:
            problems.append(str(error))
            logger.warning("%s", error)
    raise InputError("; ".join(problems))


def _unpack(file: Published, archive: Path, folder: Path) -> None:
    target = folder / file.place
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.member:
        with opened(archive) as packed:
            name = member(packed, file.member)
            if name is None:
                raise InputError(f"{archive} does not contain {file.member}; remove it and download {file.url} again")
            part = target.with_name(f"{target.name}.part")
            with packed.open(name) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        os.replace(part, target)
        return
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with opened(archive) as packed:
        packed.extractall(part)
    found = sorted(path for path in part.rglob(file.holds) if path.is_dir() and "__MACOSX" not in path.parts)
    if not found:
        shutil.rmtree(part)
        raise InputError(f"{archive} does not contain a folder {file.holds!r}; is it the archive from {file.url}?")
    os.replace(found[0].parent, target)
    shutil.rmtree(part, ignore_errors=True)


@contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive; errors become an InputError that names it."""
    try:
        with zipfile.ZipFile(archive) as packed:
            yield packed
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError(
            f"{archive} cannot be unpacked ({error}); if it is damaged, remove it and download it again"
        ) from None


def member(packed: zipfile.ZipFile, wanted: str) -> str | None:
    """The path in the archive of a file named ``wanted``, in any of its folders; None if there is none."""
    return next((name for name in packed.namelist() if name == wanted or name.endswith(f"/{wanted}")), None)
