"""The four mixes from small samples in the form of their published files."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from filelock import FileLock
from PIL import Image

from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.check import __main__ as check
from llava.data.dataset import ConversationDataset
from llava.errors import InputError
from llava.prepare import cli, image_folders, sources

LAION = "llava/llava_pretrain/images"


def caption(image_id, image, question="Render a clear and concise summary of the photo.\n<image>"):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"picture of {image_id}"}]
    return {"id": image_id, "image": image, "conversations": turns}


SAMPLES = {
    "teacher-pretrain": [
        caption("004539375", "00453/004539375.jpg"),
        caption("002239345", "00223/002239345.jpg", "<image>\nWrite a terse but informative summary of the picture."),
    ],
    "teacher-finetune": [
        caption("000000033471", "coco/train2017/000000033471.jpg", "<image>\nWhat are the colors of the bus?"),
        caption("000000033471", "coco/train2017/000000033471.jpg", "<image>\nIs the bus driving?"),
        caption("2354786", "vg/VG_100K/2354786.jpg"),
        caption(2391634, "gqa/images/2391634.jpg"),
        caption("0140714096", "ocr_vqa/images/0140714096.jpg", "<image>\nWho wrote this book?"),
        {
            "id": "wgByO4Y_0",
            "model": "",
            "conversations": [
                {"from": "gpt", "value": "Hello."},
                {"from": "human", "value": "Which is it?"},
                {"from": "gpt", "value": "Both."},
            ],
        },
    ],
    "student-pretrain": [
        caption("sa_545504", "sam/images/sa_545504.jpg", "What do you see happening in this image?\n<image>"),
        caption("000000000009", "coco/train2017/000000000009.jpg"),
        caption("004539375", f"{LAION}/00453/004539375.jpg"),
    ],
    "student-finetune": [
        caption("SBU_1", "SBU/images/4385058960_b0f291553e.jpg"),
        caption("iconqa_1", "iconqa_data/iconqa/train/choose_txt/1/image.png"),
        caption("sqa_1", "ScienceQA/train/1/image.png"),
        caption("000000000030", "coco/train2017/000000000030.jpg", "Is the flower in the vase?"),
        caption("tvqa_1", "textvqa/train_images/0054c91397f2fe05.jpg"),
    ],
}


@pytest.fixture
def no_figures(monkeypatch):
    """The mixes without published checksums, as samples cannot have them."""
    for name, mix in sources.MIXES.items():
        monkeypatch.setitem(sources.MIXES, name, replace(mix, sha256=None))


def put(data, mix, rows=None, damage=None):
    """Write a mix's published file."""
    path = data / sources.MIXES[mix].places[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(SAMPLES[mix] if rows is None else rows, indent=2)
    path.write_text(text if damage is None else text[:damage])
    return path


def draw(data, *paths):
    for path in paths:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), "red").save(data / path)


def images_of(mix, prefix=""):
    return [prefix + row["image"] for row in SAMPLES[mix] if "image" in row]


@pytest.fixture
def prepare(tmp_path, capsys, no_figures):
    """Run the command; returns status, printed text and the manifest of the (last) mix."""

    def run(mix, *arguments):
        status = cli.main([mix, "--data", str(tmp_path), "--workers", "0", *map(str, arguments)])
        path = tmp_path / "mixes" / f"{mix}.manifest.json"
        return status, capsys.readouterr().out, json.loads(path.read_text()) if path.exists() else None

    return run


@pytest.mark.parametrize("mix", SAMPLES)
def test_every_mix_passes_the_checker_and_is_read_by_training(
    mix, prepare, tmp_path, capsys, qwen_tokenizer, siglip_processor
):
    put(tmp_path, mix)
    draw(tmp_path, *images_of(mix, f"{LAION}/" if mix == "teacher-pretrain" else ""))
    status, text, manifest = prepare(mix, "--check_images")
    assert status == 0
    output = tmp_path / "mixes" / f"{mix}.json"
    entries = json.loads(output.read_text())
    assert len(entries) == len(SAMPLES[mix]) == manifest["rows"]["kept"] == manifest["rows"]["read"]
    assert all(isinstance(entry["id"], str) and entry.keys() <= {"id", "image", "conversations"} for entry in entries)
    assert manifest["rows"]["dropped"] == {} and manifest["images"]["bad"] == 0
    assert hashlib.sha256(output.read_bytes()).hexdigest() == manifest["output"]["sha256"]
    assert output.stat().st_size == manifest["output"]["bytes"]
    source = tmp_path / sources.MIXES[mix].places[0]
    assert hashlib.sha256(source.read_bytes()).hexdigest() == manifest["source"]["sha256"]

    status = check.main(["--data_path", str(output), "--image_folder", str(tmp_path), "--workers", "0"])
    assert status == 0, capsys.readouterr().out
    dataset = ConversationDataset(
        open_annotations(output),
        qwen_tokenizer,
        get_template("plain" if mix.endswith("pretrain") else "qwen"),
        image_processor=siglip_processor,
        image_folder=tmp_path,
        visual_tokens=4,
    )
    assert [len(dataset[index]["images"]) for index in range(len(dataset))] == [
        int("image" in row) for row in SAMPLES[mix]
    ]
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_counted(prepare, tmp_path):
    put(tmp_path, "teacher-finetune")
    draw(tmp_path, "coco/train2017/1.jpg")
    status, text, manifest = prepare("teacher-finetune")
    assert status == 0
    assert manifest["rows"] == {
        "read": 6,
        "kept": 6,
        "dropped": {},
        "changed": {"id turned into text": 1},
        "text_only": 1,
        "repeated_ids": 1,
        "repeated_rows": 0,
    }
    found = {figure["what"]: (figure["found"], figure["agrees"]) for figure in manifest["expected"]}
    assert found["all rows"] == (6, False)
    assert found["coco/train2017"] == (2, False) and found["text only"] == (1, False)
    assert "WARNING   all rows: 6 rows, 665,298 expected (https://github.com/haotian-liu/LLaVA/issues/657)" in text
    assert manifest["image_folders"]["coco/train2017"] == {"rows": 2, "used_from": "coco/train2017", "exists": True}
    assert not manifest["image_folders"]["gqa/images"]["exists"]
    assert "MISSING   folder gqa/images of 1 rows; get it from:\n            https://downloads.cs.stanford.edu" in text
    assert f", to be unpacked in {tmp_path}/gqa\n            or a mirror: https://huggingface.co/" in text
    assert "MISSING   folder coco" not in text
    assert f"train     bash scripts/teacher/finetune.sh --data_root {tmp_path}" in text
    text = prepare("teacher-finetune", "--out", tmp_path / "elsewhere")[1]
    flags = f"--data_path {tmp_path}/elsewhere/teacher-finetune.json --image_folder {tmp_path}"
    assert f"train     bash scripts/teacher/finetune.sh {flags}" in text


def test_published_counts():
    exact, rounded = sources.Expected("", 558_128, 1, ""), sources.Expected("", 1_246_000, 1_000, "")
    assert exact.agrees(558_128) and not exact.agrees(558_127)
    assert rounded.agrees(1_246_901) and rounded.agrees(1_245_600) and not rounded.agrees(1_247_000)
    parts = [figure.rows for figure in sources.MIXES["teacher-finetune"].expected[1:]]
    assert sum(parts) + 86_417 == 665_298  # the rest is Visual Genome's two folders


@pytest.mark.parametrize(
    "path, folder",
    [
        (f"{LAION}/00453/1.jpg", LAION),
        ("vg/VG_100K_2/1.jpg", "vg/VG_100K_2"),
        ("iconqa_data/iconqa/train/fill_in_blank/1/image.png", "iconqa_data/iconqa"),
        ("some/where/else/1.jpg", "some/where"),
        ("1.jpg", "."),
    ],
)
def test_folder_of_an_image(path, folder):
    assert image_folders.folder_of(path) == folder


def test_images_in_the_other_usual_place_are_found(prepare, tmp_path):
    put(tmp_path, "teacher-pretrain")
    put(tmp_path, "student-pretrain")
    draw(tmp_path, *images_of("teacher-pretrain", "LLaVA-Pretrain/images/"), *images_of("student-pretrain")[:2])
    for mix in ("teacher-pretrain", "student-pretrain"):
        status, _, manifest = prepare(mix, "--check_images")
        assert status == 0
        assert manifest["image_folders"][LAION]["used_from"] == "LLaVA-Pretrain/images"
    entries = json.loads((tmp_path / "mixes/student-pretrain.json").read_text())
    assert entries[2]["image"] == "LLaVA-Pretrain/images/00453/004539375.jpg"


@pytest.fixture
def bad_images(tmp_path):
    """SAM's picture is missing, COCO's is cut short."""
    put(tmp_path, "student-pretrain")
    draw(tmp_path, *images_of("student-pretrain")[1:])
    cut = tmp_path / "coco/train2017/000000000009.jpg"
    cut.write_bytes(cut.read_bytes()[:-100])


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_listed_and_never_replaced(prepare, tmp_path, bad_images, workers):
    status, text, manifest = prepare("student-pretrain", "--check_images", "--workers", workers)
    assert status == 1
    assert manifest["images"] == {"how": "open", "checked": 3, "bad": 2, "missing image": 1, "unreadable image": 1}
    assert manifest["rows"]["kept"] == 3
    listed = [
        line.split("\t") for line in (tmp_path / "mixes/student-pretrain.bad_images.tsv").read_text().splitlines()
    ]
    assert [line[:2] for line in listed] == [
        ["sam/images/sa_545504.jpg", "missing image"],
        ["coco/train2017/000000000009.jpg", "unreadable image"],
    ]
    assert "3 different files opened, 1 missing, 1 unreadable" in text and "--drop_bad_images" in text


@pytest.mark.parametrize(
    "look, left", [("--check_images", ["004539375"]), ("--find_images", ["000000000009", "004539375"])]
)
def test_rows_with_bad_images_are_left_out_when_asked(prepare, tmp_path, bad_images, look, left):
    status, text, manifest = prepare("student-pretrain", look, "--drop_bad_images", "--workers", 2)
    assert status == 0
    entries = json.loads((tmp_path / "mixes/student-pretrain.json").read_text())
    assert [entry["id"] for entry in entries] == left
    assert sum(manifest["rows"]["dropped"].values()) == 3 - len(left)
    assert manifest["examples"]["missing image"] == ["entry 0 (line 2): sam/images/sa_545504.jpg"]
    assert "left out  1 missing image" in text


def test_an_old_list_of_bad_images_goes(prepare, tmp_path, bad_images):
    prepare("student-pretrain", "--check_images")
    draw(tmp_path, *images_of("student-pretrain"))
    assert prepare("student-pretrain", "--check_images")[0] == 0
    assert not (tmp_path / "mixes/student-pretrain.bad_images.tsv").exists()


def test_order_does_not_depend_on_workers(prepare, tmp_path):
    rows = [caption(str(i), f"coco/train2017/{i % 300}.jpg") for i in range(3000)]
    put(tmp_path, "teacher-finetune", rows)
    made = [prepare("teacher-finetune", "--find_images", "--workers", workers)[2] for workers in (0, 3)]
    assert made[0]["output"]["sha256"] == made[1]["output"]["sha256"]
    assert [manifest["images"]["checked"] for manifest in made] == [300, 300]
    assert len((tmp_path / "mixes/teacher-finetune.bad_images.tsv").read_text().splitlines()) == 300


def test_unusable_rows_are_left_out_and_counted(prepare, tmp_path):
    rows = [
        *SAMPLES["student-finetune"],
        {"id": "no turns", "image": "coco/train2017/1.jpg"},
        caption("marker without image", None),
        caption("address", "http://static.flickr.com/1.jpg"),
        caption("address 2", "http://static.flickr.com/2.jpg"),
    ]
    put(tmp_path, "student-finetune", rows)
    _, text, manifest = prepare("student-finetune")
    assert manifest["rows"]["dropped"] == {"image is a URL": 2, "malformed entry": 1, "<image> count": 1}
    assert manifest["rows"]["changed"] == {"<image> marker added": 1}
    assert manifest["rows"]["read"] == 9 and manifest["rows"]["kept"] == 5
    assert manifest["examples"]["malformed entry"][0].startswith("entry 5 (line ")
    assert "left out  2 image is a URL, e.g. entry 7" in text


def test_repeated_rows(prepare, tmp_path):
    row = caption("1", "coco/train2017/1.jpg")
    put(tmp_path, "teacher-finetune", [row, row | {"id": "2"}, caption("1", "coco/train2017/2.jpg"), row])
    manifest = prepare("teacher-finetune")[2]
    assert (manifest["rows"]["repeated_ids"], manifest["rows"]["repeated_rows"]) == (2, 2)
    assert manifest["rows"]["kept"] == 4
    manifest = prepare("teacher-finetune", "--drop_repeated")[2]
    assert manifest["rows"]["dropped"] == {"repeated row": 2} and manifest["rows"]["kept"] == 2


def test_sample_is_the_same_every_time(prepare, tmp_path):
    put(tmp_path, "teacher-finetune", [caption(str(i), f"coco/train2017/{i}.jpg") for i in range(2000)])

    def ids(*arguments):
        manifest = prepare("teacher-finetune", "--sample", 0.1, *arguments)[2]
        assert manifest["rows"]["kept"] + manifest["rows"]["dropped"]["not in the sample"] == 2000
        return [entry["id"] for entry in json.loads((tmp_path / "mixes/teacher-finetune.json").read_text())]

    first = ids()
    assert ids() == first and 150 < len(first) < 250
    assert first == sorted(first, key=int)
    assert ids("--seed", 1) != first


def test_wrong_checksum(tmp_path, capsys):
    path = put(tmp_path, "student-pretrain")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    published = sources.MIXES["student-pretrain"].sha256
    command = ["student-pretrain", "--data", str(tmp_path)]
    with pytest.raises(InputError, match=f"SHA-256 {found}, the published file {published} .*--any_checksum"):
        cli.main(command)
    assert not (tmp_path / "mixes").exists()
    assert cli.main([*command, "--any_checksum"]) == 0
    assert "WARNING   the file is not the published version" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "mixes/student-pretrain.manifest.json").read_text())
    assert manifest["source"]["sha256_matches"] is False and manifest["options"]["any_checksum"]


def test_a_truncated_file_leaves_the_earlier_mix(prepare, tmp_path):
    put(tmp_path, "teacher-finetune")
    before = prepare("teacher-finetune")[2]
    put(tmp_path, "teacher-finetune", damage=-30)
    with pytest.raises(InputError, match=r"\(entry 5\).*--download"):
        prepare("teacher-finetune")
    output = tmp_path / "mixes/teacher-finetune.json"
    assert hashlib.sha256(output.read_bytes()).hexdigest() == before["output"]["sha256"]
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_killed_run_left_is_not_used(prepare, tmp_path):
    put(tmp_path, "teacher-finetune")
    (tmp_path / "mixes").mkdir()
    (tmp_path / "mixes/teacher-finetune.json.part").write_text('[\n{"id": "half')
    assert prepare("teacher-finetune")[0] == 0
    assert len(json.loads((tmp_path / "mixes/teacher-finetune.json").read_text())) == 6
    assert not list(tmp_path.rglob("*.part"))


def test_nothing_left(prepare, tmp_path):
    put(tmp_path, "teacher-finetune", [{"id": "1"}, {"id": "2"}])
    with pytest.raises(InputError, match=r"no row of .* is left \(2 read; malformed entry 2\)"):
        prepare("teacher-finetune")
    put(tmp_path, "teacher-finetune", [])
    with pytest.raises(InputError, match="0 read; the file is empty"):
        prepare("teacher-finetune")
    assert not list((tmp_path / "mixes").glob("t*"))


def test_one_writer_at_a_time(prepare, tmp_path):
    put(tmp_path, "teacher-finetune")
    (tmp_path / "mixes").mkdir()
    with FileLock(tmp_path / "mixes/.teacher-finetune.json.lock"):
        with pytest.raises(InputError, match="another process is writing"):
            prepare("teacher-finetune")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mix"], "unknown mix 'mix'; expected teacher-pretrain, .* or all"),
        ([], "no mix given"),
        (["all"], "pass --data"),
        (["all", "--data", "nowhere"], "'nowhere' does not exist"),
        (["all", "--data", ".", "--source", "x.json"], "one mix"),
        (["all", "--data", ".", "--sample", "0"], "--sample is 0.0, expected a fraction"),
        (["all", "--data", ".", "--workers", "-1"], "--workers is -1"),
        (["all", "--data", ".", "--drop_bad_images"], "add --check_images or --find_images"),
        (["teacher-finetune", "--data", "."], "no llava_v1_5_mix665k.json in . .*https://.*--download.*--source"),
        (["teacher-finetune", "--data", ".", "--source", "x.json"], "x.json does not exist"),
    ],
)
def test_wrong_usage(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        cli.main(arguments)


def test_source_elsewhere(prepare, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SAMPLES["student-pretrain"]))
    assert prepare("student-pretrain", "--source", path)[2]["rows"]["kept"] == 3


def test_the_source_is_not_overwritten(no_figures, tmp_path):
    path = tmp_path / "teacher-finetune.json"
    path.write_text(json.dumps(SAMPLES["teacher-finetune"]))
    with pytest.raises(InputError, match="overwrite its source"):
        cli.main(["teacher-finetune", "--data", str(tmp_path), "--out", str(tmp_path), "--source", str(path)])


def test_dry_run_says_what_is_missing(prepare, tmp_path):
    status, text, manifest = prepare("student-pretrain", "--dry_run")
    assert status == 1 and manifest is None and not (tmp_path / "mixes").exists()
    assert "file    missing" in text and "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V" in text
    assert "ai.meta.com/datasets/segment-anything-downloads" in text
    (tmp_path / f"{sources.MIXES['student-pretrain'].places[0]}.part").write_bytes(b"123")
    assert "  3 bytes are downloaded; --download continues from there" in prepare("student-pretrain", "--dry_run")[1]
    put(tmp_path, "student-pretrain")
    draw(tmp_path, *images_of("student-pretrain"))
    status, text, _ = prepare("student-pretrain", "--dry_run")
    assert status == 0 and "missing" not in text


def test_list(capsys):
    assert cli.main(["--list"]) == 0
    text = capsys.readouterr().out
    for mix in sources.MIXES.values():
        assert mix.name in text and mix.url in text
    for path, folder in image_folders.IMAGE_FOLDERS.items():
        assert path in text and folder.get in text and all(str(mirror) in text for mirror in folder.mirrors)


def test_an_empty_place_that_is_not_there(tmp_path, capsys):
    assert cli.main(["all", "--data", str(tmp_path / "none"), "--dry-run"]) == 1
    text = capsys.readouterr().out
    assert not (tmp_path / "none").exists() and "found" not in text
    _, where = text.split("Where to get what is missing")
    for mix in sources.MIXES.values():
        assert where.count(mix.url) == 1
    for path, folder in image_folders.IMAGE_FOLDERS.items():
        assert where.count(f"\n  {path}\n      {folder.get}") == 1, "each once, whatever mixes need it"
    assert "mirror: https://huggingface.co/datasets/weizhiwang/llava_v15_instruction_images/" in where


def test_mirrors_are_on_the_hub_that_the_environment_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    cli.main(["teacher-finetune", "--data", str(tmp_path), "--dry_run"])
    text = capsys.readouterr().out
    assert "or a mirror: https://hub.example/leonardPKU/llava1.5_data/resolve/main/coco.zip (19.3 GB)" in text


def test_download_then_prepare(tmp_path, monkeypatch, capsys, no_figures):
    hub, data = tmp_path / "hub", tmp_path / "data"
    mix = sources.MIXES["teacher-pretrain"]
    (hub / mix.hub_path).parent.mkdir(parents=True)
    (hub / mix.hub_path).write_text(json.dumps(SAMPLES["teacher-pretrain"]))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(hub)))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
    try:
        assert cli.main(["teacher-pretrain", "--data", str(data), "--download"]) == 0
    finally:
        server.shutdown()
        server.server_close()
    assert (data / mix.places[0]).read_bytes() == (hub / mix.hub_path).read_bytes()
    assert len(json.loads((data / "mixes/teacher-pretrain.json").read_text())) == 2


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "llava.prepare", "teacher-finetune", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: teacher-finetune: no llava_v1_5_mix665k.json") and "Trace" not in done.stderr
