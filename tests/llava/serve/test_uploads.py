"""What uploads are refused, whatever a widget lets through."""

import io
import struct
import zlib

import pytest
from PIL import Image

from align_ti.web.upload_guard import fetches
from llava.errors import InputError
from llava.serve.cli import read_picture
from llava.serve.uploads import UploadLimits, local_picture, uploaded_picture

LIMITS = UploadLimits(max_bytes=20_000, max_pixels=10_000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_known_kinds_are_taken_by_content(tmp_path, kind):
    path = tmp_path / "name.txt"
    Image.new("RGB", (100, 100), (200, 10, 10)).save(path, kind)
    picture = uploaded_picture(path, tmp_path, LIMITS)
    assert picture.mode == "RGB" and picture.size == (100, 100) and picture.getpixel((50, 50))[0] > 190


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(kind: str, size=(10, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("PNG") + bytes(20_001), "MiB"),
        (encoded("PNG", (101, 100)), "megapixels"),
        (bomb(60_000, 60_000), "damaged or too large"),
        (bomb(10_000, 10_000), "megapixels"),
        (bomb(50, 50), "damaged"),
        (encoded("JPEG", (90, 90))[:300], "damaged"),
        (encoded("GIF"), "not a picture of a supported format"),
        (encoded("BMP"), "not a picture of a supported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture of a supported format"),
        (b"", "not a picture of a supported format"),
    ],
)
def test_refused(tmp_path, content, reason):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as refusal:
        uploaded_picture(path, tmp_path, LIMITS)
    assert str(tmp_path) not in str(refusal.value)  # the message goes to a browser


def test_only_uploads_are_opened(tmp_path):
    (tmp_path / "uploads").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "private.png")
    (tmp_path / "uploads/link.png").symlink_to(tmp_path / "private.png")
    for path in ("private.png", "uploads/../private.png", "uploads/link.png", "uploads", "uploads/none.png"):
        with pytest.raises(InputError, match="not among the uploads"):
            uploaded_picture(tmp_path / path, tmp_path / "uploads", LIMITS)


def test_pictures_are_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), (250, 250, 250))
    exif = picture.getexif()
    exif[274] = 6  # taken with the camera turned
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert uploaded_picture(tmp_path / "turned.jpg", tmp_path, LIMITS).size == (20, 40)
    assert local_picture(tmp_path / "turned.jpg").size == (20, 40)


@pytest.mark.parametrize("name", ["http://127.0.0.1/a.png", "https://example.org/a.png", "file:///etc/passwd"])
def test_terminal_takes_no_addresses(name):
    with pytest.raises(InputError, match="is a URL"):
        read_picture(name)


def test_requests_that_would_fetch():
    meta = b'"meta": {"_type": "gradio.FileData"}'
    assert fetches(b'{"data": [{"path": "http://10.0.0.1/x.png", ' + meta + b"}]}")
    assert fetches(b'{"data": [[{"deep": {"path": " HTTPS://example.org/x", ' + meta + b"}}]]}")
    assert fetches(b'{"data": [{"path": "x", "url": "data:image/png;base64,AAAA", ' + meta + b"}]}")
    assert not fetches(b'{"data": [{"path": "/tmp/up/x.png", "url": "http://127.0.0.1:7860/file=x", ' + meta + b"}]}")
    assert not fetches(b'{"data": ["what is http://example.org ?"]}')
    assert not fetches(b"not json")
