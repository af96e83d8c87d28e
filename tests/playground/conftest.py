"""The miniature's data, built small once for all of its tests."""

import sys
from pathlib import Path

import pytest

# `playground` is not an installed package: it is run from the repository root.
ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from playground.mini.build import BuildConfig, build  # noqa: E402
from playground.mini.scenes import Scene, make_scenes  # noqa: E402


@pytest.fixture(scope="session")
def mini_config() -> BuildConfig:
    """A build of seconds: 60 scenes, 40 captions, 30 scenes in words, a quarter of the benchmarks."""
    return BuildConfig(
        scenes=60, pretrain_scenes=40, text_documents=100, word_scenes=30, held_out_scenes=20, eval_scale=0.25
    )


@pytest.fixture(scope="session")
def mini_build(mini_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that build."""
    out = tmp_path_factory.mktemp("mini") / "build"
    build(out, mini_config)
    return out


@pytest.fixture(scope="session")
def train_scenes() -> list[Scene]:
    """A thousand training scenes."""
    return list(make_scenes(0, "train", 1000))


@pytest.fixture(scope="session")
def held_out_scenes() -> list[Scene]:
    """A thousand held-out scenes."""
    return list(make_scenes(0, "test", 1000))
