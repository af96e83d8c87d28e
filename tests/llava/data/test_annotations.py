import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from llava.data.annotations import cache as arrow_cache
from llava.data.annotations import shards as arrow_shards
from llava.data.annotations.table import open_annotations, split_paths
from llava.errors import InputError


@pytest.fixture
def entries(talk):
    return [
        {
            "id": "a",
            "image": "a.png",
            "conversations": talk("<image>\nWhat is it?", "A red goat."),
            "extra": 1,
        },
        {"id": 2, "conversations": talk("Hi 山羊", "Hello."), "extra": "text"},
        {"image": ["a.png", "b.png"], "conversations": talk("<image><image>", "Two."), "extra": {"deep": []}},
        {"id": "d", "image": None, "conversations": talk("q", "a", "q", "a"), "model": None},
    ]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_entries_come_back(write_json, entries, name):
    annotations = open_annotations(write_json(entries, name))
    assert len(annotations) == 4
    assert annotations[0] == {"id": "a", "image": ["a.png"], "conversations": entries[0]["conversations"]}
    assert annotations[1] == {"id": "2", "image": [], "conversations": entries[1]["conversations"]}
    assert annotations[2] == {
        "id": "",
        "image": ["a.png", "b.png"],
        "conversations": entries[2]["conversations"],
    }
    assert annotations[-1] == {"id": "d", "image": [], "conversations": entries[3]["conversations"]}
    assert annotations.lengths.tolist() == [7, -3, 2, -4]
    assert annotations.lengths.dtype == np.int32
    assert annotations.problems() == []
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"entry {index} of 4"):
            annotations[index]


def test_places_are_exact(write_json, entries):
    path = write_json(entries)
    annotations = open_annotations(path)
    for index, entry in enumerate(entries):
        place = annotations.where(index)
        assert place.startswith(f"{path}, entry {index} (id {str(entry.get('id', ''))!r}, line ")
        line = int(place.split("line ")[1].rstrip(")"))
        assert path.read_text().split("\n")[line - 1] == " {"


def test_several_files(write_json, entries, tmp_path):
    (tmp_path / "sub").mkdir()
    first, second = write_json(entries[:3], "one.json"), write_json(entries[3:], "sub/two.jsonl")
    annotations = open_annotations(f"{first}, {second}")
    assert len(annotations) == 4
    assert [annotations[index]["id"] for index in range(4)] == ["a", "2", "", "d"]
    assert annotations.where(3).startswith(f"{second}, entry 0 (id 'd', line 1)")
    assert [annotations.folder(index) for index in (0, 2, 3, -1)] == [
        tmp_path,
        tmp_path,
        *[tmp_path / "sub"] * 2,
    ]
    assert annotations.lengths.tolist() == [7, -3, 2, -4]


def test_paths(tmp_path):
    comma = tmp_path / "a,b.json"
    comma.write_text("[]")
    assert split_paths(str(comma)) == [comma]
    assert [str(path) for path in split_paths("a.json, b.jsonl,")] == ["a.json", "b.jsonl"]
    with pytest.raises(InputError, match="--data_path"):
        split_paths(" , ")


def test_malformed_entries_are_kept_apart(write_json, entries):
    path = write_json([entries[0], {"id": "bad", "conversations": []}, 5, entries[1]])
    annotations = open_annotations(path)
    assert annotations[3]["id"] == "2"
    with pytest.raises(InputError, match=r"data\.json, entry 1 \(id 'bad', line \d+\): the conversation has no human"):
        annotations[1]
    problems = annotations.problems()
    assert [index for index, _ in problems] == [1, 2]
    assert "entry 2 (id '', line" in problems[1][1] and "a number (5)" in problems[1][1]
    assert (annotations.lengths != 0).all()


def test_converted_once_and_again_after_a_change(write_json, entries, monkeypatch):
    path = write_json(entries)
    reads = []
    original = arrow_shards.read_rows

    def counted(*args):
        reads.append(args)
        return original(*args)

    monkeypatch.setattr(arrow_shards, "read_rows", counted)
    open_annotations(path)
    open_annotations(path)
    assert len(reads) == 1
    path.write_text(json.dumps(entries[:2]))
    assert len(open_annotations(path)) == 2
    assert len(reads) == 2
    os.utime(path, ns=(1, 1))
    open_annotations(path)
    assert len(reads) == 3


@pytest.mark.parametrize("text", ["[]", '[{"conversations": []},', '{"a": 1}'])
def test_nothing_is_left_of_a_failed_conversion(tmp_path, private_cache, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(InputError, match=r"x\.json"):
            open_annotations(path)
    assert [file for file in private_cache.iterdir() if file.suffix != ".lock"] == []


def test_broken_line_is_located(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"conversations": []}\n{"conversations": [}\n')
    with pytest.raises(InputError, match=r"x\.jsonl, line 2 \(entry 1\): broken JSON"):
        open_annotations(path)


def test_cache_folder_falls_back(write_json, entries, tmp_path, monkeypatch):
    """Neither a file nor a path below one can be a cache folder."""
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    monkeypatch.setenv("LLAVA_CACHE", str(obstacle))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", obstacle / "deeper")
    annotations = open_annotations(write_json(entries))
    assert len(annotations) == 4
    assert (tmp_path / ".llava_cache").is_dir()


def test_pickle_carries_names_and_not_entries(write_json, talk):
    path = write_json([{"conversations": talk("q " * 500, "a")} for _ in range(200)])
    annotations = open_annotations(path)
    data = pickle.dumps(annotations)
    assert len(data) < 10_000
    assert pickle.loads(data)[199] == annotations[199]


def _length(path, results):
    results.put(len(open_annotations(path)))


def test_processes_that_start_together_convert_once(write_json, entries, private_cache, monkeypatch):
    path = write_json(entries * 500)
    journal = private_cache / "journal.lock"
    original = arrow_cache._convert

    def slow(*arguments):
        with journal.open("a") as file:
            file.write("converted\n")
        time.sleep(0.3)
        original(*arguments)

    monkeypatch.setattr(arrow_cache, "_convert", slow)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_length, args=(path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [2000] * 4
    for process in processes:
        process.join()
    assert journal.read_text() == "converted\n"
    assert len([file for file in private_cache.iterdir() if file.is_dir()]) == 1


def test_conversion_streams(tmp_path):
    """50,000 entries in several shards, with little memory and every entry in its place."""
    path = tmp_path / "big.json"
    with path.open("w") as file:
        for index in range(50_000):
            image = {"image": f"{index}.jpg"} if index % 3 else {}
            question = "<image>\nWhat is it?" if index % 3 else "What is it?"
            answer = f"number {index} " + "word " * (index % 400)
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            file.write(("," if index else "[") + json.dumps({"id": index, **image, "conversations": turns}) + "\n")
        file.write("]")
    size = path.stat().st_size
    assert size > 50e6
    code = f"""
        import resource, sys
        from pathlib import Path
        from llava.data.annotations import table as annotations
        from llava.data.annotations import cache as arrow_cache
        from llava.data.annotations import shards as arrow_shards
        arrow_shards.ROWS_PER_SHARD = 16_000
        small = Path({str(tmp_path / "small.json")!r})
        small.write_text('[{{"conversations": []}}]')
        annotations.open_annotations(small)
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        before = peak()
        tables = arrow_cache.convert_once(Path({str(path)!r}))
        grown = peak() - before
        data = annotations.open_annotations({str(path)!r})
        assert len(tables.shards) == 4 and len(data) == 50_000, tables
        for index in (0, 1, 15_999, 16_000, 33_333, 49_999):
            assert data[index]["conversations"][1]["value"].startswith(f"number {{index}} "), index
            assert data.where(index).endswith(f"line {{index + 1}})"), data.where(index)
        expected = [(index % 400 + 5 + (index % 3 > 0)) * (1 if index % 3 else -1) for index in range(50_000)]
        assert data.lengths.tolist() == expected
        sys.stdout.write(str(grown))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40e6, f"conversion of {size} bytes took {done.stdout} more"
