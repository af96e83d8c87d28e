import warnings

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from llava.data.images import expand_to_square, load_image, preprocess_image, verify_image
from llava.errors import InputError


def save(folder, image, name, **options):
    path = folder / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 8), 200 * 256, dtype=np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((6, 8), 200 * 256, dtype=np.int32))
    else:
        image = Image.new("RGB", (8, 6), (200, 200, 200))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    extension = "jpg" if mode in ("CMYK", "YCbCr") else "tiff" if mode == "I" else "png"
    path = save(tmp_path, image, f"x.{extension}")
    loaded = load_image(path)
    assert (loaded.mode, loaded.size) == ("RGB", (8, 6))
    grey = np.asarray(loaded).astype(int)
    if mode == "1":
        assert set(grey.flatten().tolist()) <= {0, 255}
    else:
        assert abs(grey - 200).max() <= 3
    verify_image(path)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256)
    grey = np.asarray(load_image(save(tmp_path, Image.fromarray(ramp), "ramp.png")))[0, :, 0].astype(int)
    assert abs(grey - np.arange(256)).max() <= 1


def test_palette_with_transparency_loads_without_a_warning(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30] + [0] * 762)
    path = save(tmp_path, image, "p.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(path).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("extension", ["png", "jpg", "gif", "webp", "bmp"])
def test_damaged_files_are_named(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path, Image.fromarray(noise), f"whole.{extension}")
    load_image(whole)
    cut = tmp_path / f"cut.{extension}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for read in (load_image, verify_image):
        with pytest.raises(InputError, match=rf"cut\.{extension}"):
            read(cut)


def test_missing_and_foreign_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("<html>404</html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for read in (load_image, verify_image):
        with pytest.raises(InputError, match=r"no\.png' does not exist"):
            read(tmp_path / "no.png")
        with pytest.raises(InputError, match=r"text\.png' is not in a format"):
            read(tmp_path / "text.png")
        with pytest.raises(InputError, match=r"empty\.jpg' is not in a format"):
            read(tmp_path / "empty.jpg")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


def test_unknown_variants_are_named(tmp_path):
    path = save(tmp_path, Image.new("RGB", (8, 8)), "x.dds")
    data = bytearray(path.read_bytes())
    data[80:84] = bytes(4)  # the flags of the pixel format
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.dds' cannot be read: .*pixel format"):
        load_image(path)


def test_decompression_bombs_are_errors(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("RGB", (100, 100)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (load_image, verify_image):
        with pytest.raises(InputError, match=r"bomb\.png.*exceeds limit"):
            read(path)


def test_text_chunk_bombs_are_errors(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    path = save(tmp_path, Image.new("RGB", (4, 4)), "text_bomb.png", pnginfo=info)
    with pytest.raises(InputError, match=r"text_bomb\.png"):
        load_image(path)


@pytest.mark.parametrize(("size", "box"), [((6, 2), (0, 2, 6, 4)), ((2, 6), (2, 0, 4, 6)), ((5, 2), (0, 1, 5, 3))])
def test_expand_to_square(size, box):
    square = expand_to_square(Image.new("RGB", size, "red"), (1, 2, 3))
    assert square.size == (max(size),) * 2
    expected = Image.new("RGB", square.size, (1, 2, 3))
    expected.paste("red", box)
    assert square.tobytes() == expected.tobytes()


def test_a_square_stays(tmp_path):
    image = Image.new("RGB", (5, 5))
    assert expand_to_square(image, (9, 9, 9)) is image


def test_preprocess_equals_the_processor(siglip_processor):
    noise = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    stretched = siglip_processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(preprocess_image(image, siglip_processor, None), stretched)
    assert torch.equal(preprocess_image(image, siglip_processor, "square"), stretched)
    padded = preprocess_image(image, siglip_processor, "pad")
    assert padded.shape == (3, 32, 32)
    assert not torch.equal(padded, stretched)
    with pytest.raises(InputError, match="'crop' is not supported; use 'pad' or 'square'"):
        preprocess_image(image, siglip_processor, "crop")


def test_clip_processor_pads_with_its_own_mean():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = preprocess_image(Image.new("RGB", (64, 16), "white"), processor, "pad")
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0].abs().max() < 0.02
