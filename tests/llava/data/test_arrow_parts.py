"""Large annotation files are converted in parts by several processes, with the very result of one process."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from llava.data.annotations import cache as arrow_cache
from llava.data.annotations import parts as file_parts
from llava.data.annotations import shards as arrow_shards
from llava.data.annotations.parts import split_file
from llava.data.annotations.table import open_annotations
from llava.errors import InputError

BOUNDARY = 'a "}, {"id": 1, "conversations": []}, {" b'


@pytest.fixture
def entries(talk):
    """Entries with all that could mislead a search for the end of an entry."""
    rng = random.Random(0)
    made = []
    for index in range(60):
        words = rng.choice([BOUNDARY, "山羊🐐 é", "plain", "\\", "]}],[{", "\u2028\u0085\u00a0"]) * rng.randint(1, 5)
        entry = {"id": index, "image": f"{index}.png", "conversations": talk("<image>\n" + words, "a " * index + "b")}
        entry["boxes"] = [{"from": "x", "deep": [{"id": 3}, {"id": 4}]}, {"id": 5}] * (index % 3)
        made.append(dict(reversed(entry.items())) if index % 4 == 1 else entry)
    made[7] = {"id": "no turns", "conversations": []}
    made[31] = 5
    made[32] = ["x", {"conversations": 1}]
    made[45] = {"conversations": talk("q"), "id": "half a character \ud83d"}
    return made


def pretty(entries):
    return json.dumps(entries, indent=2)


LISTS = {
    "pretty": pretty,
    "one line": json.dumps,
    "minified": lambda entries: json.dumps(entries, separators=(",", ":")),
    "line ends of Windows": lambda entries: pretty(entries).replace("\n", "\r\n") + "\r\n",
    "byte order mark": lambda entries: "\ufeff\n" + pretty(entries),
    "wide spaces": lambda entries: re.sub(r"(?m)^( *}),$", r"\1\n\n ,\t\n", pretty(entries)),
    "an entry a line": lambda entries: "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n\n",
}
LINES = {
    "plain": lambda entries: "\n".join(map(json.dumps, entries)),
    "line ends of Windows": lambda entries: "".join(json.dumps(entry) + "\r\n" for entry in entries),
    "blank lines": lambda entries: "\n\n" + "".join(json.dumps(entry) + "\n\n \n" for entry in entries),
    "byte order mark": lambda entries: "\ufeff" + "".join(json.dumps(entry) + "\n" for entry in entries),
}
LAYOUTS = [("x.json", name) for name in LISTS] + [("x.jsonl", name) for name in LINES]


@pytest.fixture
def write(tmp_path):
    """Write entries in one of the layouts, in UTF-8 without escapes (but for half a character)."""

    def make(entries, name, layout):
        path = tmp_path / name
        text = (LINES if name.endswith("l") else LISTS)[layout](entries)
        plain = "".join(chr(code) for code in (0xE9, 0x5C71, 0x7F8A, 0x2028, 0x85, 0xA0))
        for character in plain:
            text = text.replace(json.dumps(character)[1:-1], character)
        path.write_bytes(text.replace("\\ud83d\\udc10", "🐐").encode())
        return path

    return make


@pytest.fixture
def cores(monkeypatch, tmp_path):
    """Call it to make the machine have a number of cores, and all of them be used for a small file."""

    def have(count):
        monkeypatch.setenv("LLAVA_CACHE", str(tmp_path / f"cache-{count}"))
        monkeypatch.setattr(arrow_cache, "BYTES_PER_PROCESS", 1)
        monkeypatch.setattr(arrow_cache, "MOST_PROCESSES", 1_000)
        monkeypatch.setattr(arrow_cache, "cores", lambda: count)

    return have


def convert_here(path, parts, work, bar):
    """In place of the workers, which take half a second each to start."""
    try:
        return [arrow_shards.convert_part(path, part, work / str(n), bar.update) for n, part in enumerate(parts)]
    except InputError as error:
        raise arrow_cache.WorkerError(str(error)) from error


def everything(annotations):
    """All that can be asked of annotations."""
    usable = sorted(set(range(len(annotations))) - {index for index, _ in annotations.problems()})
    return (
        [annotations.where(index) for index in range(-1, len(annotations))],
        [annotations[index] for index in usable],
        annotations.problems(),
        annotations.lengths.tolist(),
    )


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_parts_give_what_the_whole_gives(entries, write, cores, monkeypatch, caplog, name, layout):
    path = write(entries, name, layout)
    cores(1)
    whole = everything(open_annotations(path))
    assert len(whole[0]) == 61 and len(whole[2]) == 4
    monkeypatch.setattr(arrow_cache, "_convert_in_workers", convert_here)
    for count in (2, 3, 7, 40):
        cores(count)
        annotations = open_annotations(path)
        assert everything(annotations) == whole
        assert len(annotations._tables[0].first_rows) > min(count, 20)
    assert not caplog.records


@pytest.mark.parametrize(("name", "layout"), [("x.json", "pretty"), ("x.jsonl", "plain")])
def test_workers_give_what_the_whole_gives(entries, write, cores, caplog, name, layout):
    path = write(entries, name, layout)
    cores(1)
    whole = everything(open_annotations(path))
    cores(2)
    annotations = open_annotations(path)
    assert everything(annotations) == whole
    assert len(annotations._tables[0].first_rows) == 3
    assert not caplog.records


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_parts_are_the_file(entries, write, name, layout):
    path = write(entries, name, layout)
    parts = split_file(path, 9)
    assert len(parts) > 5
    assert parts[0][0] == 0 and parts[-1][1] is None
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    data = path.read_bytes()
    assert {data[start : start + 1] for start, _ in parts[1:]} == {b"," if name == "x.json" else b"\n"}


def test_a_comma_in_an_entry_is_noticed(talk, tmp_path):
    """Whatever comma is guessed: only those between two entries let both parts be lists."""
    entries = [
        {"id": 1, "conversations": talk("q", BOUNDARY), "more": [1, [2, 3], {"a": 4, "b": {}}]},
        [5, [6]],
        {"id": 7, "conversations": talk("q", "a")},
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(entries, indent=1))
    text = path.read_text()
    between = {text.index(",\n [\n  5"), text.index(',\n {\n  "id": 7')}
    commas = {index for index, character in enumerate(text) if character == ","}
    assert between < commas
    good = set()
    for comma in commas:
        parts = [(0, comma), (comma, None)]
        try:
            for number, part in enumerate(parts):
                arrow_shards.convert_part(path, part, tmp_path / f"{comma}-{number}", lambda _: None)
            good.add(comma)
        except InputError:
            pass
    assert good == between


def test_a_misguided_guess_is_made_good_by_one_process(talk, write_json, cores, caplog):
    nested = {"id": 1, "conversations": talk("q", "a"), "history": [{"conversations": [index]} for index in range(300)]}
    path = write_json([nested, {"id": 2, "conversations": talk("q", "b")}])
    cores(2)
    annotations = open_annotations(path)
    assert [annotations[index]["id"] for index in range(len(annotations))] == ["1", "2"]
    line = int(annotations.where(1).split("line ")[1].rstrip(")"))
    assert path.read_text().split("\n")[line - 1 : line + 1] == [" {", '  "id": 2,']
    assert "one process" in caplog.text and "InputError" in caplog.text
    assert sorted(file.name for file in annotations._tables[0].shards[0].parent.parent.iterdir()) == [
        "meta.json",
        "whole",
    ]


@pytest.mark.parametrize(("name", "layout", "broken"), [("x.json", "pretty", 55), ("x.jsonl", "plain", 10)])
def test_broken_json_gives_the_message_of_one_process(entries, write, cores, caplog, name, layout, broken):
    path = write(entries, name, layout)
    text = path.read_text()
    place = text.index(f'"{broken}.png"')
    path.write_text(text[:place] + "nul" + text[place:])
    messages = []
    for count in (1, 2):
        cores(count)
        with pytest.raises(InputError) as error:
            open_annotations(path)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and f"entry {broken}" in messages[0]
    assert "one process" in caplog.text


def test_a_killed_worker_is_made_good_by_one_process(entries, write, cores, monkeypatch, caplog):
    path = write(entries, "x.json", "pretty")
    start = arrow_cache._start_worker
    started = []

    def doomed(*arguments):
        started.append(start(*arguments))
        if len(started) == 2:
            started[1].kill()
        return started[-1]

    monkeypatch.setattr(arrow_cache, "_start_worker", doomed)
    cores(2)
    annotations = open_annotations(path)
    assert len(annotations) == 60 and len(annotations._tables[0].first_rows) == 2
    assert "status -9" in caplog.text
    assert all(worker.returncode is not None for worker in started)


def test_no_interpreter_to_start(entries, write, cores, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    cores(2)
    assert len(open_annotations(write(entries, "x.json", "pretty"))) == 60
    assert "/nowhere/python" in caplog.text


def test_a_small_file_starts_no_process(entries, write, monkeypatch):
    monkeypatch.setattr(arrow_cache, "cores", lambda: 64)
    monkeypatch.setattr(arrow_cache, "_start_worker", None)
    path = write(entries, "x.json", "pretty")
    assert len(open_annotations(path)) == 60
    counts = []
    monkeypatch.setattr(arrow_cache, "split_file", lambda path, count: counts.append(count) or [(0, None)])
    monkeypatch.setattr(arrow_cache, "convert_part", lambda *arguments: {})
    for megabytes in (0, 63, 64, 10_000):
        arrow_cache._convert_parts(path, megabytes << 20, path.parent, SimpleNamespace(update=None))
    assert counts == [0, 1, 2, 8]


def test_a_worker_ends_when_nobody_listens(entries, write, tmp_path):
    """Its parent is gone: nobody will use what it writes."""
    path = write(entries * 300, "x.json", "minified")
    assert path.stat().st_size > 3 * arrow_shards.BYTES_PER_REPORT
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe, (tmp_path / "errors").open("wb") as errors:
        for folder in ("alone", "heard"):
            if folder == "alone":
                os.close(reading)
            worker = arrow_cache._start_worker(
                path, (0, None), tmp_path / folder, pipe if folder == "alone" else subprocess.DEVNULL, errors
            )
            assert worker.wait(60) == (folder == "alone")
            assert (tmp_path / folder / "meta.json").exists() == (folder == "heard")
    assert "BrokenPipeError" in (tmp_path / "errors").read_text()


def test_a_worker_imports_little():
    code = "import sys, llava.data.annotations.shards; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pyarrow" in done.stdout.split()
    assert not {"torch", "transformers", "datasets", "PIL"} & set(done.stdout.split())


SCRIPT = """
    import logging, os, signal, sys
    from llava.data.annotations import cache as arrow_cache
    from llava.data.annotations.table import open_annotations
    logging.basicConfig(level=logging.INFO)
    arrow_cache.BYTES_PER_PROCESS = 1
    arrow_cache.cores = lambda: 2
    print("main", flush=True)
    start = arrow_cache._start_worker
    def stopped(*arguments):
        worker = start(*arguments)
        os.kill(worker.pid, signal.SIGSTOP)
        print(worker.pid, flush=True)
        return worker
    if "stop" in sys.argv:
        arrow_cache._start_worker = stopped
    print(len(open_annotations(sys.argv[1])._tables[0].first_rows), "parts")
"""


@pytest.fixture
def script(tmp_path):
    """Run a program without a guard around its main part, as users write them."""
    file = tmp_path / "unguarded.py"
    file.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []

    def start(*arguments):
        command = [sys.executable, str(file), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_unguarded_scripts_open_the_same_file(entries, write, script, private_cache):
    path = write(entries, "x.json", "pretty")
    processes = [script(path), script(path)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in results] == ["main\n3 parts\n"] * 2, results
    assert sum(errors.count("INFO:llava.data.annotations.cache:converted") for _, errors in results) == 1
    assert len([file for file in private_cache.iterdir() if file.is_dir()]) == 1


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_interrupted(entries, write, script, private_cache):
    """Neither a process nor a folder is left, although the workers would never end by themselves."""
    process = script(write(entries, "x.json", "pretty"), "stop")
    assert process.stdout.readline() == "main\n"
    pids = [int(process.stdout.readline()) for _ in range(2)]
    try:
        assert not any(map(has_ended, pids))
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
        assert all(map(has_ended, pids))
    finally:
        for pid in pids:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)
    assert [file for file in private_cache.iterdir() if file.is_dir()] == []


def test_no_boundary_to_be_found(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"id": index, "messages": [{"a": 1}, {"b": 2}]} for index in range(50)]))
    assert split_file(path, 5) == [file_parts.WHOLE_FILE]
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}')
    assert split_file(path, 5) == [file_parts.WHOLE_FILE]


def test_a_worker_that_says_something_else(entries, write, cores, monkeypatch, caplog):
    """A start-up file of the user's may print."""

    def chatty(path, part, folder, reports, errors):
        return subprocess.Popen([sys.executable, "-c", "print('hello')"], stdout=reports)

    monkeypatch.setattr(arrow_cache, "_start_worker", chatty)
    cores(2)
    assert len(open_annotations(write(entries, "x.json", "pretty"))) == 60
    assert "hello" in caplog.text
