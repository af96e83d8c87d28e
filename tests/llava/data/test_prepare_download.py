import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from filelock import FileLock

from llava.errors import InputError
from llava.prepare import download as module
from llava.prepare.download import download, sha256_of

BODY = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A file server with ranges, versions, redirects, refusals and broken connections."""

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if server.refuse:
            self.send_error(server.refuse.pop(0))
            return
        if self.path.startswith("/hub/"):
            self.send_response(302)
            self.send_header("X-Linked-Etag", f'"{server.linked}"')
            self.send_header("Location", self.path.replace("/hub/", "/cdn/"))
            self.end_headers()
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range", server.etag) == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        stop = min(len(server.body), start + server.dies_after)
        while start < stop:
            self.wfile.write(server.body[start : min(stop, start + 50_000)])
            start = min(stop, start + 50_000)
            time.sleep(server.delay)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.body, server.etag, server.linked = BODY, '"one"', ""
    server.ranges, server.dies_after, server.delay = True, 10**9, 0
    server.handle_error = lambda *_: None  # clients hang up on purpose
    server.requests, server.refuse = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def left(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_whole_file(server, tmp_path):
    download(f"{server.url}/x.json", tmp_path / "new" / "x.json", SHA256)
    assert (tmp_path / "new" / "x.json").read_bytes() == BODY
    assert left(tmp_path / "new") == ["x.json"]
    download(f"{server.url}/x.json", tmp_path / "new" / "x.json")
    assert server.requests == [None]


def test_goes_on_when_the_connection_breaks(server, tmp_path):
    server.dies_after = 800_000
    download(f"{server.url}/x.json", tmp_path / "x.json", SHA256, pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY
    assert server.requests == [None, "bytes=800000-", "bytes=1600000-", "bytes=2400000-"]


def test_progress_resets_the_count_of_failures(server, tmp_path):
    server.dies_after = 300_000  # ten pieces, with two tries
    download(f"{server.url}/x.json", tmp_path / "x.json", SHA256, tries=2, pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY
    assert len(server.requests) == 10


def test_killed_in_the_middle_and_resumed(server, tmp_path):
    server.delay = 0.02
    target, part = tmp_path / "x.json", tmp_path / "x.json.part"
    code = f"""
from pathlib import Path
from llava.prepare.download import download
download({server.url + "/x.json"!r}, Path({str(target)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 500_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    had = part.stat().st_size
    assert 500_000 < had < len(BODY) and not target.exists()
    assert part.read_bytes() == BODY[:had]
    server.delay = 0
    download(f"{server.url}/x.json", target, SHA256)
    assert target.read_bytes() == BODY
    assert server.requests == [None, f"bytes={had}-"]
    assert left(tmp_path) == ["x.json"]


def test_giving_up_keeps_what_came(server, tmp_path):
    server.dies_after = 1_000_000
    server.refuse = []
    target = tmp_path / "x.json"

    def stop_after_first(wait):
        server.refuse = [503] * 9

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(sleep=stop_after_first))  # not for the server's threads
        with pytest.raises(InputError, match=r"failed 3 times in a row \(503 .*1,000,000 bytes are kept.*resume"):
            download(f"{server.url}/x.json", target, tries=3)
    assert left(tmp_path) == ["x.json.part", "x.json.part.json"]
    server.refuse, server.requests = [], []
    download(f"{server.url}/x.json", target, SHA256, pause=0)
    assert server.requests == ["bytes=1000000-", "bytes=2000000-"]
    assert target.read_bytes() == BODY


def begin(server, tmp_path, size=1_000_000):
    """The state after a run that was stopped."""
    (tmp_path / "x.json.part").write_bytes(server.body[:size])
    note = {"url": f"{server.url}/x.json", "bytes": len(server.body), "etag": server.etag, "sha256": None}
    (tmp_path / "x.json.part.json").write_text(json.dumps(note))


@pytest.mark.parametrize("ranges", [True, False])
def test_another_version_starts_over(server, tmp_path, ranges):
    begin(server, tmp_path)
    server.ranges = ranges
    server.body, server.etag = BODY[::-1], '"two"'
    download(f"{server.url}/x.json", tmp_path / "x.json", pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY[::-1]


def test_another_length_without_a_version_starts_over(server, tmp_path):
    begin(server, tmp_path)
    server.body = BODY + b"more"
    download(f"{server.url}/x.json", tmp_path / "x.json", pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY + b"more"
    assert server.requests == ["bytes=1000000-", None]


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    begin(server, tmp_path, 2_000_000)
    server.body = BODY[:1_500_000]
    download(f"{server.url}/x.json", tmp_path / "x.json", pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY[:1_500_000]


def test_a_part_of_unknown_origin_is_not_used(server, tmp_path):
    (tmp_path / "x.json.part").write_bytes(b"something else")
    download(f"{server.url}/x.json", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == BODY
    assert server.requests == [None]


def test_a_complete_part_is_verified_without_a_request(server, tmp_path):
    begin(server, tmp_path, len(BODY))
    download(f"{server.url}/x.json", tmp_path / "x.json", SHA256)
    assert (tmp_path / "x.json").read_bytes() == BODY and server.requests == []


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(InputError, match=f"has SHA-256 {SHA256}, expected {'0' * 64}; the download was removed"):
        download(f"{server.url}/x.json", tmp_path / "x.json", "0" * 64)
    assert left(tmp_path) == []


def test_checksum_that_the_hub_names(server, tmp_path):
    server.linked = SHA256
    download(f"{server.url}/hub/x.json", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == BODY
    server.linked = "0" * 64
    with pytest.raises(InputError, match=f"expected {'0' * 64}"):
        download(f"{server.url}/hub/x.json", tmp_path / "y.json")
    assert left(tmp_path) == ["x.json"]


def test_hub_resumes_behind_its_redirect(server, tmp_path):
    server.linked, server.dies_after = SHA256, 2_000_000
    download(f"{server.url}/hub/x.json", tmp_path / "x.json", pause=0)
    assert (tmp_path / "x.json").read_bytes() == BODY
    assert server.requests == [None, None, "bytes=2000000-", "bytes=2000000-"]  # hub and store, twice


def test_no_web_address(tmp_path):
    with pytest.raises(InputError, match="'hub/x.json' is not a web address; check HF_ENDPOINT"):
        download("hub/x.json", tmp_path / "x.json")


@pytest.mark.parametrize("code, words", [(404, "may have moved"), (403, "need a login or accepted terms")])
def test_refusal_is_final(server, tmp_path, code, words):
    server.refuse = [code]
    with pytest.raises(InputError, match=f"answered {code} .*{words}.*browser.*{tmp_path / 'x.json'}"):
        download(f"{server.url}/x.json", tmp_path / "x.json")
    assert len(server.requests) == 1


def test_no_server(tmp_path):
    with pytest.raises(InputError, match="failed 2 times in a row .*refused"):
        download("http://127.0.0.1:9/x.json", tmp_path / "x.json", tries=2, pause=0)


def test_disk_too_small(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"x.json needs 3,000,000 more bytes, but .* has 1,000 free"):
        download(f"{server.url}/x.json", tmp_path / "x.json")


def test_one_process_at_a_time(server, tmp_path):
    with FileLock(tmp_path / ".x.json.lock"), pytest.raises(InputError, match="another process is downloading"):
        download(f"{server.url}/x.json", tmp_path / "x.json")
    assert server.requests == []


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(BODY)
    counts = []
    assert sha256_of(tmp_path / "x", counts.append) == SHA256
    assert sum(counts) == len(BODY)
