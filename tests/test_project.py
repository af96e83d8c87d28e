"""The files around the code agree with each other and with the code: versions, licences, workflows, the wheel."""

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [ROOT / ".github/ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml", "question.yml")]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
"""What Keep a Changelog allows below a version."""
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt"""
MENTIONED = re.compile(r"(?<![\w/.])(?:\.ci|\.github|align_ti|docs|llava|playground|scripts|tests)/(?:[\w.-]+/?)*\b/?")
"""A path of the repository in running text."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def flat(name: str) -> str:
    """A file's text with its line breaks as spaces."""
    return " ".join(text(name).split())


def load(path: Path) -> Any:
    # Without YAML 1.1's booleans: GitHub reads the key `on` as a word.
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in load(workflow)["jobs"].values() for step in job["steps"]]


def test_one_version_and_one_date() -> None:
    headings = re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.M)
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings[1:]]
    citation = load(ROOT / "CITATION.cff")
    assert headings[0] == "[Unreleased]"
    assert released and all(released), headings
    dates = [match[2] for match in released if match]
    assert dates == sorted(dates, reverse=True)
    assert released[0] is not None
    assert PROJECT["version"] == released[0][1] == citation["version"]
    assert citation["date-released"] == released[0][2]


def test_the_changelog_groups_its_entries_as_keep_a_changelog_does() -> None:
    for version in re.split(r"^## ", text("CHANGELOG.md"), flags=re.M)[1:]:
        sections = re.split(r"^### ", version, flags=re.M)[1:]
        assert sections, version
        for section in sections:
            title, _, entries = section.partition("\n")
            assert title in SECTIONS
            assert entries.strip().startswith("- "), section


def test_the_paper_is_cited_as_the_readme_names_it() -> None:
    citation = load(ROOT / "CITATION.cff")
    paper = citation["preferred-citation"]
    number = PROJECT["urls"]["Paper"].removeprefix("https://arxiv.org/abs/")
    assert paper["title"] in flat("README.md")
    assert f"arXiv {number}" in flat("README.md")
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert paper["doi"] == f"10.48550/arXiv.{number}"
    assert len(paper["authors"]) == 12
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def test_the_licence_is_apaches_unmodified_text() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_the_notice_names_every_licence_in_the_repository_and_nothing_that_is_not_there() -> None:
    named = set(MENTIONED.findall(text("NOTICE")))
    licences = {
        str(path.relative_to(ROOT))
        for package in ("align_ti", "llava", "playground/mini/atlas", "scripts", "tests")
        for pattern in ("LICEN[SC]E*", "COPYING*", "NOTICE*")
        for path in (ROOT / package).rglob(pattern)
    }
    assert len(licences) >= 3
    assert licences <= named
    assert all((ROOT / path).exists() for path in named), named


@pytest.mark.parametrize(
    "file",
    ["CONTRIBUTING.md", "Dockerfile", ".pre-commit-config.yaml", ".github/PULL_REQUEST_TEMPLATE.md"]
    + [str(path.relative_to(ROOT)) for path in [*WORKFLOWS, *FORMS]],
)
def test_paths_that_are_mentioned_exist(file: str) -> None:
    missing = [path for path in MENTIONED.findall(text(file)) if not (ROOT / path).exists()]
    assert not missing


def test_contributing_says_how_to_test_and_is_a_page() -> None:
    mentioned = MENTIONED.findall(text("CONTRIBUTING.md"))
    assert "scripts/test.sh" in mentioned
    assert len(set(mentioned)) >= 10
    assert len(text("CONTRIBUTING.md").splitlines()) <= 70


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_bounded_in_time_and_rights(workflow: Path) -> None:
    loaded = load(workflow)
    assert loaded["name"] and loaded["on"]
    assert loaded["permissions"] == {"contents": "read"}
    for job in loaded["jobs"].values():
        assert job["runs-on"] and int(job["timeout-minutes"]) > 0
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step), step
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step


def test_the_tests_workflow_runs_what_ci_runs_on_every_python_that_is_claimed() -> None:
    workflow = ROOT / ".github/workflows/tests.yml"
    (command,) = re.findall(r"^exec (.+)$", text(".ci/run"), re.M)
    job = load(workflow)["jobs"]["tests"]
    assert command in [step.get("run") for step in job["steps"]]
    versions = job["strategy"]["matrix"]["python"]
    claimed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert versions == claimed
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
    assert versions[0] == PYPROJECT["tool"]["mypy"]["python_version"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_needs(form: Path) -> None:
    loaded = load(form)
    assert loaded["name"] and loaded["description"]
    fields = [field for field in loaded["body"] if field["type"] != "markdown"]
    assert fields and all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") == "true" for field in fields)


def test_the_image_has_a_torch_and_extras_that_the_package_accepts() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text("Dockerfile"), re.M))
    image = re.fullmatch(r"pytorch/pytorch:([\d.]+)-cuda[\d.]+-cudnn\d+-devel", arguments["BASE_IMAGE"])
    (torch,) = [line for line in PROJECT["dependencies"] if re.match(r"torch\b", line)]
    assert image and image[1] in SpecifierSet(torch.removeprefix("torch"))
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


def imported_packages(source: str) -> set[str]:
    """Top-level names that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_what_is_imported_is_a_dependency_or_an_extra() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    declared = {canonicalize_name(re.split(r"[<>=;]", line)[0].strip()) for line in lines}
    # lmms-eval loads our model, not the other way round; starlette is what gradio's pages are made of.
    known = {*sys.stdlib_module_names, "align_ti", "llava", "playground", "lmms_eval", "starlette"}
    # An extra that may not be installed, with another name than its package's.
    distributions = {"open_clip": ["open_clip_torch"], **packages_distributions()}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in ("align_ti", "llava", "playground")
        for path in (ROOT / package).rglob("*.py")
        for name in imported_packages(path.read_text(encoding="utf-8")) - known
        if not {canonicalize_name(found) for found in distributions.get(name, [name])} & declared
    }
    assert not missing


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is built from, so that the working tree stays clean."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("llava", "align_ti", "tests", "scripts"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    generated = shutil.ignore_patterns("__pycache__", "data", "build", "runs", "quick")
    shutil.copytree(ROOT / "playground", source / "playground", ignore=generated)
    for name in ("pyproject.toml", "README.md", *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(built)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stderr, done.stderr
    (file,) = built.glob("*.whl")
    return file


def test_the_wheel_holds_both_packages_with_types_and_licences_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"align_ti-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"llava", "align_ti", info}
    sources = [path for package in ("llava", "align_ti") for path in (ROOT / package).rglob("*.py")]
    modules = {str(path.relative_to(ROOT)) for path in sources}
    assert modules == {name for name in names if name.endswith(".py")}
    assert {"llava/py.typed", "align_ti/py.typed"} <= names
    assert {f"{info}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names


def test_the_wheels_metadata_name_licence_paper_and_dependencies(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_string(archive.read(f"align_ti-{PROJECT['version']}.dist-info/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert metadata.get_all("Project-URL") == [f"Paper, {PROJECT['urls']['Paper']}"]
    assert not [line for line in metadata.get_all("Classifier", []) if line.startswith("License")]
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == len(PROJECT["dependencies"])


def test_the_packages_import_from_the_wheel_without_any_other_package(wheel: Path) -> None:
    # -I and -S: no environment variables, no working directory, no site-packages.
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import llava, align_ti; print(llava.__file__, align_ti.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(wheel / package / "__init__.py") for package in ("llava", "align_ti")]
