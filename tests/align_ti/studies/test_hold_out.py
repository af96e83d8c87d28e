"""The split that Figs. 2 and 6 are measured on: against a count by hand, and what was trained on which part."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from align_ti.studies.hold_out import Split, choose, said_of_training, write_split
from llava.conversation import get_template
from llava.errors import InputError


def entry(number: int, words: int, **more) -> dict:
    turns = [{"from": "human", "value": "Describe it."}, {"from": "gpt", "value": " ".join(["goat"] * words)}]
    return {"id": f"e{number}", "note": {"kept": [1, None]}, "conversations": turns, **more}


@pytest.fixture
def entries() -> list:
    """Answers of 1 to 200 words; two entries that are no conversations."""
    found: list = [entry(number, 1 + number) for number in range(200)]
    found[17] = {"id": "no turns"}
    found[60] = "no entry"
    return found


@pytest.fixture
def mix(entries, tmp_path) -> Path:
    file = tmp_path / "mix.json"
    file.write_text(json.dumps(entries, indent=2))
    return file


def length_by_hand(found: dict, tokenizer) -> int:
    """Tokens of the first answer and of the end of its turn."""
    return len(tokenizer(f" {found['conversations'][1]['value']}<|endoftext|>")["input_ids"])


def long_by_hand(entries, tokenizer) -> set[int]:
    """Entries whose first answer is longer than that of ten words."""
    usable = {n: found for n, found in enumerate(entries) if isinstance(found, dict) and "conversations" in found}
    return {n for n, found in usable.items() if length_by_hand(found, tokenizer) > more_than(tokenizer)}


def more_than(tokenizer) -> int:
    """The tokens of an answer of ten words: one of as many is not taken, one of eleven words is."""
    return length_by_hand(entry(0, 10), tokenizer)


def split_of(file, tokenizer, samples=30, seed=0, out=None):
    """The two files' entries, and the numbers of the chosen ones."""
    files = [file] if isinstance(file, Path) else file
    split = Split.of(files[0], out)
    chosen = choose(files, tokenizer, get_template("qwen"), samples, more_than(tokenizer), seed)
    written = write_split(files, split, chosen)
    return json.loads(split.held_out.read_text()), json.loads(split.train.read_text()), sorted(chosen), written


def test_against_a_count_by_hand(mix, entries, qwen_tokenizer):
    long = long_by_hand(entries, qwen_tokenizer)
    assert 9 not in long and 10 in long
    held_out, train, chosen, written = split_of(mix, qwen_tokenizer)
    assert len(chosen) == 30 and set(chosen) < long
    assert held_out == [entries[number] for number in chosen], "as they were, in their order"
    assert train == [found for number, found in enumerate(entries) if number not in chosen]
    assert written["rows"] == {"mix": 200, "held_out": 30, "train": 170, "repetitions_left_out": 0}
    everything = split_of(mix, qwen_tokenizer, samples=len(long))
    assert set(everything[2]) == long
    with pytest.raises(InputError, match=rf"{len(long)} different conversations of 200 begin with an answer of more"):
        split_of(mix, qwen_tokenizer, samples=len(long) + 1)


def test_the_seed_decides(mix, qwen_tokenizer, tmp_path):
    one, same, other = (split_of(mix, qwen_tokenizer, seed=seed, out=tmp_path / name) for name, seed in
                        (("a", 3), ("b", 3), ("c", 4)))  # fmt: skip
    assert one[:3] == same[:3] and one[2] != other[2]
    for part in ("held_out", "train"):
        assert one[3][part]["sha256"] == same[3][part]["sha256"]


def test_repetitions_are_in_neither_part(entries, qwen_tokenizer, tmp_path):
    """The same turns and pictures under another id; the same turns about another picture stay."""
    long = sorted(long_by_hand(entries, qwen_tokenizer))
    copies = [{**entries[number], "id": "copy"} for number in long]
    others = [{**entries[number], "image": "other.png"} for number in long]
    for found in others:
        found["conversations"] = [{"from": "human", "value": "<image>\nDescribe it."}, found["conversations"][1]]
    file = tmp_path / "mix.json"
    file.write_text(json.dumps(entries + copies + others))
    held_out, train, chosen, written = split_of(file, qwen_tokenizer, samples=10)
    assert written["rows"]["held_out"] == 10 and written["rows"]["repetitions_left_out"] > 0
    assert (
        sum(written["rows"][name] for name in ("held_out", "train", "repetitions_left_out")) == written["rows"]["mix"]
    )
    content = [(found["conversations"], found.get("image")) for found in held_out]
    assert all(content.count(one) == 1 for one in content)
    assert not any(
        (found.get("conversations"), found.get("image")) in content for found in train if found != "no entry"
    )


def test_several_files_of_both_kinds(entries, qwen_tokenizer, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.jsonl"]
    files[0].write_text(json.dumps(entries[:90]))
    files[1].write_text("".join(json.dumps(found) + "\n\n" for found in entries[90:]))
    held_out, train, chosen, written = split_of(files, qwen_tokenizer)
    assert held_out == [entries[number] for number in chosen] and len(train) == 170
    assert [Path(part["file"]).name for part in written["mix"]] == ["a.json", "b.jsonl"]


def test_a_mix_that_changes_meanwhile(mix, entries, qwen_tokenizer, tmp_path):
    chosen = choose([mix], qwen_tokenizer, get_template("qwen"), 30, 8, 0)
    for changed in (entries[1:], entries[: max(chosen)]):
        mix.write_text(json.dumps(changed))
        with pytest.raises(InputError, match="has changed while it was read"):
            write_split([mix], Split.of(mix), chosen)
        assert {path.suffix for path in tmp_path.iterdir() if path != mix} <= {".lock"}, "nothing half-made is left"


def test_the_command(mix, world, tmp_path):
    command = [sys.executable, "-m", "align_ti.studies.hold_out", "--data_path", str(mix), "--model_name_or_path",
               str(world.student_lm), "--samples", "12", "--more_than", "8"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    held_out, train = tmp_path / "mix-held-out.json", tmp_path / "mix-train.json"
    manifest = json.loads((tmp_path / "mix-held-out.manifest.json").read_text())
    assert f"--data_path {train}" in done.stdout and "12 of 200 entries held out" in done.stdout
    for part, file in (("held_out", held_out), ("train", train)):
        assert manifest[part]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert manifest[part]["bytes"] == file.stat().st_size
    assert manifest["mix"][0]["sha256"] == hashlib.sha256(mix.read_bytes()).hexdigest()
    assert len(manifest["entries"]) == 12 and manifest["options"]["seed"] == 0
    done = subprocess.run([*command, "--samples", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--samples is 0" in done.stderr


def test_what_students_were_trained_on(tmp_path):
    """By the manifest beside the samples and by the run folders."""

    def student(name: str, data: object) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run_config.json").write_text(json.dumps({"data": {"data_path": str(data)}}))
        return str(tmp_path / name)

    held_out, train, mix = (tmp_path / f"mix{part}.json" for part in ("-held-out", "-train", ""))
    content = {"mix": [{"file": str(mix)}], "train": {"file": str(train)}}
    held_out.with_suffix(".manifest.json").write_text(json.dumps(content))
    on_train, on_mix = student("a", train), student("b", mix)
    on_all, on_other = student("c", f"{train},{held_out}"), student("d", "/other.json")
    (tmp_path / "no run").mkdir()
    assert said_of_training(held_out, {"SFT": [on_train], "KD": [on_train] * 2}).startswith("no, held out of the mix")
    said = said_of_training(held_out, {"SFT": [on_train], "KD": [on_train, on_mix]})
    assert said == "yes, KD was trained on a mix that contains them"
    assert said_of_training(held_out, {"SFT": [on_all], "KD": [on_mix]}).startswith("yes, SFT, KD were trained on")
    for unknown in (on_other, str(tmp_path / "no run")):
        assert said_of_training(held_out, {"SFT": [on_train], "KD": [unknown]}).startswith(
            "not known for KD: no manifest"
        )
    assert said_of_training(tmp_path / "held_out.json", {"SFT": [on_train]}).startswith("not known for SFT")
    assert said_of_training(train, {"SFT": [on_train]}).startswith("yes, SFT was"), "measured on its own samples"
