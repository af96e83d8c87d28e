"""The project's address comes from the installed package; the example pictures come with it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align_ti.web import elements
from align_ti.web.examples import EXAMPLES, FOLDER
from align_ti.web.project import PAPER, project_url
from playground.mini.page_examples import draw

ROOT = Path(__file__).parents[3]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """``installed("Homepage, https://...")``: the package as pip leaves it, with these project URLs."""

    def install(*urls: str) -> None:
        folder = tmp_path / "align_ti-9.dist-info"
        folder.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.4", "Name: align-ti", "Version: 9", *(f"Project-URL: {url}" for url in urls)]
        (folder / "METADATA").write_text("\n".join(lines) + "\n\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ([], None),
        (["Documentation, https://a.org/docs", "Repository, https://a.org/code"], "https://a.org/code"),
        (["repository, https://a.org/code", "Homepage, https://a.org/"], "https://a.org/"),
        (["Paper, https://a.org/paper"], "https://a.org/paper"),
        ([f"Paper, {PAPER}"], None),
        (["Homepage, javascript:alert(1)"], None),
    ],
)
def test_the_projects_address(installed, urls, expected):
    installed(*urls)
    assert project_url() == expected
    links = elements.title(2).count("<a href=")
    assert PAPER in elements.title(2) and links == (1 if expected is None else 2)


def test_a_package_that_is_not_installed_has_no_address(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert project_url() is None


def test_the_wheel_holds_the_example_pictures(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "align_ti/web", source / "align_ti/web", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "align_ti/__init__.py"):
        shutil.copy(ROOT / name, source / name)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in (*(example.file for example in EXAMPLES), "README.md", "LICENSE-noto-emoji.txt"):
        assert f"align_ti/web/example_pictures/{file}" in names


def test_example_pictures_are_what_their_script_draws(tmp_path):
    drawn = draw(tmp_path)
    assert sorted(path.name for path in drawn) == sorted(example.file for example in EXAMPLES)
    for path in drawn:
        shipped, fresh = (np.asarray(Image.open(file).convert("RGB"), float) for file in (FOLDER / path.name, path))
        assert np.abs(shipped - fresh).mean() < 2  # another version of Pillow may round otherwise
        assert (FOLDER / path.name).stat().st_size < 30_000
