import json
import subprocess
import sys

import pytest

from llava.data.check.__main__ import main
from llava.errors import InputError, run_cli


@pytest.fixture
def tokenizer_folder(qwen_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    qwen_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def check(tmp_path, capsys):
    """Run the checker in this process; returns status, printed text and the JSON report."""

    def run(path, *arguments):
        report = tmp_path / "report" / "check.json"
        status = main(["--data_path", str(path), "--json", str(report), "--workers", "0", *map(str, arguments)])
        return status, capsys.readouterr().out, json.loads(report.read_text())

    return run


@pytest.fixture
def messy(write_json, talk, pictures):
    """A ``.jsonl`` file with one of everything."""
    (pictures / "cut.jpg").write_bytes((pictures / "c.jpg").read_bytes()[:-300])
    asks = "<image>\nWhat is it?"
    entries = [
        {"id": "good", "image": "a.png", "conversations": talk(asks, "Red.")},
        {"id": "text", "conversations": talk("Hi", "Hello.")},
        {"id": "gone", "image": "gone.png", "conversations": talk(asks, "Red.")},
        {"id": "gone2", "image": "gone.png", "conversations": talk(asks, "Red.")},
        {"id": "cut", "image": "cut.jpg", "conversations": talk(asks, "Red.")},
        {"id": "empty", "image": "a.png", "conversations": talk(asks, " ")},
        {"id": "mute", "image": "a.png", "conversations": talk(asks)},
        {"id": "count", "image": "a.png", "conversations": talk("What is it?", "Red.")},
        {"id": "shape", "image": "a.png"},
        {"id": "long", "image": "a.png", "conversations": talk(asks, "Red. " * 60)},
        {"id": "ask", "image": "a.png", "conversations": talk(asks + " please" * 60, "Red.")},
        {"id": "second", "image": "a.png", "conversations": talk("x " * 120, "y", asks, "Red.")},
        {
            "id": "good",
            "conversations": [{"from": "gpt", "value": "Welcome."}, *talk("Hi", "Hello.", "And?")],
        },
    ]
    path = write_json(entries, "messy.jsonl")
    with path.open("a") as file:
        file.write('{"id": "broken", \n')
        file.write(json.dumps({"id": "last", "conversations": talk("q", "a")}) + "\n")
    return path


def test_everything_is_found_and_the_check_goes_on(check, messy, pictures, tokenizer_folder):
    status, text, report = check(
        messy, "--image_folder", pictures, "--model_name_or_path", tokenizer_folder,
        "--model_max_length", 100, "--visual_tokens", 9,
    )  # fmt: skip
    assert status == 1
    assert report["errors"] == {
        "broken JSON": 1,
        "malformed entry": 1,
        "malformed conversation": 1,
        "empty text": 1,
        "<image> count": 1,
        "missing image": 1,
        "unreadable image": 1,
        "image cut away": 1,
        "answer cut away": 1,
    }
    assert report["warnings"] == {"longer than the limit": 1, "last question unanswered": 1}
    assert report["notes"] == {"assistant speaks first": 1, "duplicate id": 1}
    for kind, name in [
        ("missing image", "id 'gone', line 3"),
        ("unreadable image", "id 'cut', line 5"),
        ("empty text", "id 'empty', line 6"),
        ("malformed conversation", "id 'mute', line 7"),
        ("<image> count", "id 'count', line 8"),
        ("malformed entry", "id 'shape', line 9"),
        ("longer than the limit", "id 'long', line 10"),
        ("answer cut away", "id 'ask', line 11"),
        ("image cut away", "id 'second', line 12"),
        ("duplicate id", "id 'good', line 13"),
        ("broken JSON", "entry 13 (line 14)"),
    ]:
        assert name in report["examples"][kind][0]
        row = next(line for line in text.splitlines() if f" {kind} " in line)
        assert name in row and " 1  " in row
    assert report["entries"] == 15
    assert report["text_only"] == 3
    assert report["images_checked"] == 3
    assert "15 entries, 3 of them text only (20.0%)" in text
    assert report["positions"]["max"] > 100


def test_clean_data(check, write_json, talk, pictures, tokenizer_folder, qwen_tokenizer):
    path = write_json([{"id": 1, "image": "a.png", "conversations": talk("<image>", "Red.")}])
    status, text, report = check(path, "--image_folder", pictures, "--model_name_or_path", tokenizer_folder)
    assert status == 0
    assert text.startswith("nothing found\n")
    assert report["errors"] == report["warnings"] == report["notes"] == {}
    from llava.conversation import get_template
    from llava.mm_utils import tokenizer_image_token

    prompt = get_template("qwen").prompt([("human", "<image>"), ("gpt", "Red.")])
    assert report["positions"]["max"] == len(tokenizer_image_token(prompt, qwen_tokenizer)) + 728


def test_warnings_alone_are_no_failure(check, write_json, talk, tokenizer_folder):
    path = write_json([{"conversations": talk("q", "a " * 200)}])
    status, _, report = check(path, "--model_name_or_path", tokenizer_folder, "--model_max_length", 100)
    assert (status, report["warnings"]) == (0, {"longer than the limit": 1})


def test_the_template_counts(check, write_json, talk, tokenizer_folder):
    path = write_json([{"conversations": talk("q", "a", "q", "b")}])
    status, _, report = check(path, "--model_name_or_path", tokenizer_folder, "--version", "plain")
    assert (status, report["errors"]) == (1, {"malformed conversation": 1})


def test_no_images(check, messy, pictures):
    _, _, report = check(messy, "--image_folder", pictures, "--no_images")
    assert "missing image" not in report["errors"]
    assert report["images_checked"] == 0


def test_broken_list_ends_that_file_only(check, tmp_path, write_json, talk):
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([{"conversations": talk("q", "a")}])[:-1] + ", {]")
    (tmp_path / "empty.json").write_text("[]")
    good = write_json([{"conversations": talk("q", "a")}] * 3, "good.json")
    status, _, report = check(f"{broken},{tmp_path / 'empty.json'},{good}")
    assert (status, report["entries"]) == (1, 4)
    assert report["errors"] == {"broken JSON": 1, "no entries": 1}
    assert "broken.json, line 1" in report["examples"]["broken JSON"][0]


def test_only_the_first_examples_are_kept(check, write_json, talk, pictures):
    entries = [{"image": f"{i}.png", "conversations": talk("<image>", "x")} for i in range(200)]
    status, text, report = check(write_json(entries), "--image_folder", pictures)
    assert report["errors"] == {"missing image": 200}
    assert len(report["examples"]["missing image"]) == 5
    assert text.count("entry ") == 3 and "entry 0 " in text


def test_command_line_with_workers(messy, pictures, tokenizer_folder, check):
    """The real command: same report from two processes as from one, exit status 1."""
    arguments = [
        "--image_folder", pictures, "--model_name_or_path", tokenizer_folder, "--model_max_length", 100,
        "--visual_tokens", 9,
    ]  # fmt: skip
    _, text, _ = check(messy, *arguments)
    command = [sys.executable, "-m", "llava.data.check", "--data_path", messy, "--workers", 2, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data_path", "/no/such.json"], "/no/such.json.*does not exist"),
        (["--image_folder", "/no/such"], "image folder '/no/such'"),
        (["--version", "vicuna"], "unknown prompt template 'vicuna'"),
        (["--model_max_length", "100"], "--model_name_or_path"),
        (["--model_name_or_path", "/no/model"], "no tokenizer.*'/no/model'"),
        (["--workers", "-1"], "--workers is -1"),
    ],
)
def test_wrong_usage(write_json, talk, arguments, words):
    path = write_json([{"conversations": talk("q", "a")}])
    with pytest.raises(InputError, match=words):
        main(["--data_path", str(path), *arguments])


def test_wrong_usage_exits_with_two(capsys):
    with pytest.raises(SystemExit) as status:
        run_cli(lambda: main(["--data_path", "/no/such.json"]))
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("error: annotation file '/no/such.json' does not exist")
