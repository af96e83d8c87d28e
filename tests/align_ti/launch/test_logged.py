"""Output of a command in a log file, and on the terminal if there is one."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

NOISY = """
import sys, time
from tqdm import tqdm
print("a line", flush=True)
for number in tqdm(range(3), desc="bar", disable=None, mininterval=0):
    pass
print("an error", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

STEP = """
import sys
from pathlib import Path
from align_ti.demo import Demo
Demo(Path("."), Path(sys.argv[1]), True).step("train", None, [sys.executable, *sys.argv[2:]])
"""


def step_of_the_demo(folder: Path, status: int) -> list[str]:
    (folder / "logs").mkdir()
    return [sys.executable, "-c", STEP, str(folder), "-c", NOISY, str(status)]


def test_a_clean_step_is_one_line_without_a_terminal(tmp_path):
    done = subprocess.run(step_of_the_demo(tmp_path, 0), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    assert re.fullmatch(r"== train: \d+ s\n", done.stdout)
    assert (tmp_path / "logs" / "train.log").read_text() == "a line\nan error\n"
    assert (tmp_path / "logs" / "seconds.txt").read_text().startswith("train ")


def test_a_failed_step_shows_the_end_of_its_log(tmp_path):
    done = subprocess.run(step_of_the_demo(tmp_path, 3), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert done.stdout == f"a line\nan error\nthe whole output is in {tmp_path / 'logs' / 'train.log'}\n"


def test_on_a_terminal_bars_are_shown_and_the_log_keeps_their_last_state(tmp_path):
    reading, writing = pty.openpty()
    termios.tcsetwinsize(writing, (24, 80))
    process = subprocess.Popen(step_of_the_demo(tmp_path, 0), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    shown = b""
    try:
        while part := os.read(reading, 4096):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(reading)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"== train\r\n" in shown and b"a line" in shown and b"| 0/3 [" in shown and b"| 3/3 [" in shown
    lines = (tmp_path / "logs" / "train.log").read_bytes().decode().split("\n")
    assert [line[:8] for line in lines] == ["a line", "bar: 100", "an error", ""] and "| 3/3 [" in lines[1]
