"""Files written whole or not at all, and fingerprints by content."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llava.errors import InputError
from llava.files import file_sha256, model_fingerprint, read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    file = tmp_path / "a.txt"
    texts = [letter * 200_000 for letter in "ab"]
    write_text(file, texts[0])
    over = threading.Event()

    def keep_writing() -> None:
        for number in range(60):
            write_text(file, texts[number % 2])
        over.set()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    seen = []
    while not over.is_set():
        seen.append(file.read_text())
    writer.join()
    assert seen and set(seen) <= set(texts)
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_json(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"name": "Zoë", "list": [1, None]})
    assert read_json(file) == {"name": "Zoë", "list": [1, None]}
    assert "Zoë" in file.read_text(encoding="utf-8")
    write_json(file, [1, 2], indent=None)
    assert file.read_text() == "[1, 2]\n"
    file.write_text("{")
    with pytest.raises(InputError, match="a.json is not valid JSON"):
        read_json(file)
    with pytest.raises(InputError, match="b.json does not exist"):
        read_json(tmp_path / "b.json")


def test_sha256_of_a_file(tmp_path):
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    # FIPS 180-2, example of one block
    assert file_sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def checkpoint(folder: Path, weights: bytes, config: str = "{}") -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def test_models_are_known_by_their_content(tmp_path):
    weights = bytes(range(256)) * 1000
    one = model_fingerprint(checkpoint(tmp_path / "one", weights))
    assert model_fingerprint(checkpoint(tmp_path / "two", weights)) == one, "wherever it lies"
    assert model_fingerprint(checkpoint(tmp_path / "three", weights, '{"a": 1}')) != one
    assert model_fingerprint(checkpoint(tmp_path / "four", weights[:-1] + b"\0")) != one, "the last byte is sampled"
    assert model_fingerprint(str(tmp_path / "one"), str(tmp_path / "two")) != one, "a projector with its base"
    assert model_fingerprint("somebody/student") != model_fingerprint("somebody/teacher"), "hub names stand for them"


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "kept").mkdir()
    file, link = tmp_path / "kept" / "a.json", tmp_path / "a.json"
    file.write_text("old")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink() and file.read_text() == "new" and [*file.parent.iterdir()] == [file]


def test_a_pipe_is_written_to():
    """As with ``--json /dev/stdout``."""
    code = "from pathlib import Path; from llava.files import write_json; write_json(Path('/dev/stdout'), [1], None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr
