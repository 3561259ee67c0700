"""Files and arrays of every kind, as a network takes them; what is refused and how."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from vireid_jax.data.any_image import GREY, MOST_PIXELS, read_image
from vireid_jax.run.runtime import silence_opencv

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 20, 3), np.uint8)
SIZE = (40, 20)


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_a_lossless_file_gives_its_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(RGB), f"a.{suffix}", **options)
    np.testing.assert_array_equal(read_image(path, SIZE), RGB)
    np.testing.assert_array_equal(read_image(str(path), SIZE), RGB)


def test_a_jpeg_is_decoded_as_in_training(tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB), "a.jpg")
    found = read_image(path, (20, 10))
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    pixels = cv2.resize(pixels, (10, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(found, pixels[..., ::-1])


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    path = saved(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif, quality=100)
    plain = saved(tmp_path, Image.fromarray(RGB), "b.jpg", quality=100)
    turned = np.rot90(read_image(plain, SIZE), -1)
    np.testing.assert_array_equal(read_image(path, SIZE[::-1]), turned)
    found = read_image(Image.open(path), SIZE[::-1])
    assert np.abs(found.astype(int) - turned).mean() < 2  # two decoders of JPEG


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_gives_three_channels(tmp_path, mode):
    suffix = "tiff" if mode == "CMYK" else "png"
    path = saved(tmp_path, Image.fromarray(RGB).convert(mode), f"a.{suffix}")
    found = read_image(path, SIZE)
    assert (found.shape, found.dtype) == ((*SIZE, 3), np.uint8)
    expected = Image.fromarray(RGB).convert(mode).convert("RGB")
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 12


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "RGB", "I;16", "F"])
def test_an_image_of_pillow_is_taken_as_its_file_is(tmp_path, mode):
    made = Image.fromarray(RGB).convert("L" if mode in ("I;16", "F") else mode)
    if mode in ("I;16", "F"):
        dtype = {"I;16": np.uint16, "F": np.float32}[mode]
        made = Image.fromarray(RGB[..., 0].astype(dtype) * 3)
    assert made.mode == mode
    path = saved(tmp_path, made, "a.tiff" if mode == "F" else "a.png")
    for size in (SIZE, (30, 10)):
        for given in (made, Image.open(path)):
            expected = read_image(path, size)
            np.testing.assert_array_equal(read_image(given, size), expected)


def test_what_is_transparent_is_mid_grey(tmp_path):
    alpha = np.zeros((40, 20, 1), np.uint8)
    alpha[:, 10:] = 255
    rgba = np.concatenate([RGB, alpha], 2)
    path = saved(tmp_path, Image.fromarray(rgba), "a.png")
    for found in (read_image(path, SIZE), read_image(rgba, SIZE)):
        assert (found[:, :10] == GREY).all()
        np.testing.assert_array_equal(found[:, 10:], RGB[:, 10:])


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_stretched_by_percentiles(tmp_path, suffix):
    # Kelvin hundredths, with one dead pixel that a scale by extremes would follow.
    heat = np.linspace(29_000, 31_000, 800).reshape(40, 20).astype(np.uint16)
    heat[0, 0] = 65_535
    assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), heat)
    found = read_image(tmp_path / f"a.{suffix}", SIZE)
    low, high = np.percentile(heat, [1, 99])
    expected = np.clip((heat - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(found[..., 0], expected, atol=0.51)
    np.testing.assert_array_equal(found, read_image(heat.astype(np.float32), SIZE))
    assert (found[..., :1] == found).all()


def test_an_image_of_one_value_is_black():
    assert (read_image(np.full((8, 4), 300, np.uint16), (8, 4)) == 0).all()


@pytest.mark.mistakes("images")
def test_an_animated_file_is_refused(refuses, tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    refuses(
        "a file of several images",
        lambda: read_image(path, SIZE),
        "a.gif holds 2 images; give one",
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = saved(tmp_path, Image.fromarray(RGB), f"a.{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"a\.{suffix} is a truncated"):
        read_image(path, SIZE)


def test_a_command_prints_only_our_error_for_a_truncated_tiff(tmp_path, capfd):
    silence_opencv()
    path = saved(tmp_path, Image.fromarray(RGB), "a.tiff")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"a\.tiff cannot be decoded by OpenCV"):
        read_image(path, SIZE)
    assert capfd.readouterr().err == ""


@pytest.mark.mistakes("images")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_bomb_is_not_decoded(refuses, tmp_path, side):
    chunk = lambda kind, data: (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
    )
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data)
    (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
    refuses(
        "a small file of a huge image (a decompression bomb)",
        lambda: read_image(tmp_path / "a.png", SIZE),
        f"more than {MOST_PIXELS:,} pixels",
    )


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.txt cannot be decoded by OpenCV"):
        read_image(tmp_path / "a.txt", SIZE)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "b.png", SIZE)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4, 1\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.full((4, 4), np.nan, np.float32), "not finite"),
        (np.zeros((4, 4), complex), "complex128"),
    ],
)
def test_other_arrays_are_refused(array, reason):
    with pytest.raises(ValueError, match=reason):
        read_image(array, SIZE)


def test_an_array_in_memory_is_taken_as_a_file_is(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "png")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    for size in (SIZE, (80, 10), (16, 8)):
        one, other = read_image(tmp_path / "a.png", size), read_image(RGB, size)
        np.testing.assert_array_equal(one, other)
