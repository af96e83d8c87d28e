"""Messages that users can do nothing about are not shown; others are."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

CODE = """
from llava.console import quiet_libraries
quiet_libraries(bars=False)
from transformers import Qwen2Config, SiglipConfig
SiglipConfig()
Qwen2Config(vocab_size=100, bos_token_id=200)
"""

WITHOUT_A_GPU = """
from llava.console import quiet_libraries
quiet_libraries(bars=False)
from deepspeed.accelerator import get_accelerator
assert get_accelerator().device_name() == "cpu"
"""


def test_a_siglip_towers_text_half_is_not_warned_about():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "49406" not in done.stderr and "49407" not in done.stderr
    assert "got 200" in done.stderr  # a model's own wrong id is said


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_machine_without_a_gpu_is_not_warned_about():
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_GPU], capture_output=True, text=True, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "accelerator" not in done.stdout + done.stderr
