"""A real web server with small files in the published forms of the six benchmarks."""

import base64
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType

import pytest
from PIL import Image

from llava.eval.benchmarks.mme import COGNITION, PERCEPTION
from llava.prepare import cli
from llava.prepare.benchmarks import cli as benchmarks_cli
from llava.prepare.benchmarks import layout, sources
from llava.prepare.benchmarks import report as report_module


def picture():
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def packed(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


GQA = {
    str(number): {"imageId": "n1", "question": f"Is it {number}?", "answer": "yes", "isBalanced": True}
    for number in range(3)
}
PROBLEMS = {
    "7": {"question": "Which?", "choices": ["a", "b"], "answer": 0, "hint": "", "image": "image.png"},
    "8": {"question": "What?", "choices": ["a", "b"], "answer": 1, "hint": "Think.", "image": None},
}
TEXTVQA = [{"image_id": "aa", "question": "what does it say?", "answers": ["stop"] * 10}]
POPE = [
    {"question_id": number, "image": "COCO_1.jpg", "text": f"Is there a {thing} in the image?", "label": label}
    for number, thing, label in ((1, "cat", "yes"), (2, "dog", "no"))
]
MMBENCH = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit\n" + "".join(
    f"{index}\tHow many?\t\tone\ttwo\t\t\t{right}\tcount\t{base64.b64encode(picture()).decode()}\tmade\tx\t\tdev\n"
    for index, right in ((5, "A"), (1_000_005, "B"))
)
MME_TEXT = "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"
MME_FILES = {f"{name}/MME_Benchmark/{subtask}/1.txt": MME_TEXT for name in ("R",) for subtask in PERCEPTION + COGNITION}
MME_FILES |= {name.replace(".txt", ".jpg"): picture() for name in MME_FILES}
OFFERED = {
    "questions1.2.zip": packed(**{"val.json": "{}", "testdev_balanced_questions.json": json.dumps(GQA)}),
    "problems.json": json.dumps(PROBLEMS).encode(),
    "pid_splits.json": json.dumps({"train": ["1"], "test": ["7", "8"]}).encode(),
    "TextVQA_0.5.1_val.json": json.dumps({"data": TEXTVQA}).encode(),
    "TextVQA_Rosetta_OCR_v0.2_val.json": json.dumps({"data": [{"image_id": "aa", "ocr_tokens": ["STOP"]}]}).encode(),
    **{f"coco_pope_{name}.json": lines(*POPE).encode() for name in ("adversarial", "random", "popular")},
    "MME_Benchmark_release_version.zip": packed(**{"__MACOSX/R/MME_Benchmark/existence/._1": "", **MME_FILES}),
    "mmbench_dev_20230712.tsv": MMBENCH.encode(),
}
LLAVAS = {
    "gqa/llava_gqa_testdev_balanced.jsonl": lines({"question_id": "2", "image": "n1.jpg", "text": "LLaVA's own"}),
    "scienceqa/llava_test_CQM-A.json": "[]",
    "textvqa/llava_textvqa_val_v051_ocr.jsonl": lines({"question_id": "aa", "image": "aa.jpg", "text": "LLaVA's own"}),
    "pope/llava_pope_test.jsonl": lines(
        {"question_id": 1, "image": "COCO_1.jpg", "text": "LLaVA's own", "category": "random"}
    ),
    "MME/llava_mme.jsonl": "{}\n",
}
PICTURES = ("gqa/data/images/n1.jpg", "scienceqa/images/test/7/image.png", "textvqa/train_images/aa.jpg",
            "pope/val2014/COCO_1.jpg")  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Serves files by their last name, with ranges; may refuse some and hang up early."""

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        body = self.server.files.get(name)
        if body is None or any(part in self.path for part in self.server.refused):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        self.wfile.write(body[start : start + self.server.dies_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def web(monkeypatch):
    """The published files on a server of this machine; the sources' addresses lead there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    server.files, server.refused, server.requests, server.dies_after = dict(OFFERED), [], [], 10**9
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", f"{base}/hub")
    local = {
        name: replace(
            source,
            files=tuple(
                replace(file, urls=tuple(url.replace("https:/", base) for url in file.urls)) for file in source.files
            ),
        )
        for name, source in sources.SOURCES.items()
    }
    monkeypatch.setattr(sources, "SOURCES", MappingProxyType(local))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(monkeypatch, web):
    """Published counts of the samples instead of the benchmarks' own."""
    counts = {"gqa": 3, "sqa": 2, "textvqa": 1, "pope": 6, "mme": 28, "mmbench": 2}
    local = {
        name: replace(
            source,
            expected={source.benchmark.questions[0]: (sources.Expected("", counts[name], 1, "the sample"),)},
            question_bytes=None,
        )
        for name, source in sources.SOURCES.items()
    }
    monkeypatch.setattr(sources, "SOURCES", MappingProxyType(local))


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command; returns exit status and printed text."""

    def command(*arguments):
        status = cli.main(["benchmarks", "--root", str(tmp_path / "eval"), *map(str, arguments)])
        return status, capsys.readouterr().out

    return command


@pytest.fixture
def add_pictures(tmp_path):
    """Put the samples' pictures where the evaluation looks for them."""

    def add():
        for name in PICTURES:
            (tmp_path / "eval" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "eval" / name).write_bytes(picture())

    return add


@pytest.fixture
def pack():
    """Make the bytes of a zip archive from names and contents."""
    return packed


@pytest.fixture
def block():
    """The part of the report about one benchmark."""

    def find(text, name):
        return next(part for part in text.split("\n\n") if part.startswith(f"{name}: "))

    return find


@pytest.fixture
def llavas():
    """LLaVA's question files in its archive, told apart from made ones by their texts."""
    return LLAVAS


@pytest.fixture
def eval_zip(monkeypatch):
    """LLaVA's archive, and its checksum in place of the published one."""
    content = packed(**{f"eval/{name}": text for name, text in LLAVAS.items()})
    file = replace(sources.EVAL_ZIP, sha256=hashlib.sha256(content).hexdigest())
    for module in (sources, layout, benchmarks_cli, report_module):
        monkeypatch.setattr(module, "EVAL_ZIP", file)
    return content
