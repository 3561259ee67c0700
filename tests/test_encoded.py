"""Encoded images: whole, truncated anywhere, or no image at all."""

import cv2
import numpy as np
import pytest
from data_sets import example
from tensorflow_datasets.proto import tf_example_pb2

from vireid_jax.data.any_image import truncation_error
from vireid_jax.data.source import index_records


def encode(extension, *options):
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (8, 4, 3), np.uint8), (16, 32))
    return cv2.imencode(extension, pixels, options)[1].tobytes()


JPEG = encode(".jpg")
WITH_THUMBNAIL = (
    JPEG[:2] + b"\xff\xe1" + (len(JPEG) + 2).to_bytes(2, "big") + JPEG + JPEG[2:]
)
WHOLE = {
    "JPEG": JPEG,
    "progressive JPEG": encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "JPEG with a thumbnail": WITH_THUMBNAIL,
    "PNG": encode(".png"),
    "BMP": encode(".bmp"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_an_image_is_whole_or_truncated_wherever_it_is_cut(kind):
    whole = WHOLE[kind]
    for padding in (b"", bytes(20), b"\r\n", b"\xff\xff"):
        assert truncation_error(whole + padding) == ""
        encoded = np.frombuffer(whole + padding, np.uint8)
        assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (32, 16, 3)
    truncated = f"is a truncated {kind.split()[-1 if kind[0] == 'p' else 0]}"
    for length in range(8, len(whole)):
        assert truncation_error(whole[:length]) == truncated
    for length in range(8, len(whole) - 40, 7):  # as a full disk leaves it
        if kind != "BMP":  # no mark says where its pixels end
            assert (
                truncation_error(whole[:length].ljust(len(whole), b"\0")) == truncated
            )


def test_a_bitmap_is_measured_by_its_pixels():
    whole = WHOLE["BMP"]
    for stated in (0, 10**6):  # writers that never filled it in, or got it wrong
        odd = whole[:2] + stated.to_bytes(4, "little") + whole[6:]
        assert truncation_error(odd) == ""
        assert cv2.imdecode(np.frombuffer(odd, np.uint8), 1).shape == (32, 16, 3)
        assert truncation_error(odd[:-1]) == "is a truncated BMP"
    grey = cv2.imencode(".bmp", np.zeros((5, 3), np.uint8))[1].tobytes()
    assert truncation_error(grey) == ""  # rows are padded to four bytes
    assert truncation_error(grey[:-1]) == "is a truncated BMP"


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (JPEG[:-2], "is a truncated JPEG"),
        (JPEG[: len(JPEG) // 2], "is a truncated JPEG"),
        (WHOLE["PNG"][:-12], "is a truncated PNG"),
        (WHOLE["BMP"][:-1], "is a truncated BMP"),
        (b"", "is not a JPEG, PNG or BMP"),
        (b"GIF89a", "is not a JPEG, PNG or BMP"),
    ],
)
def test_a_truncated_image_is_refused_when_the_split_is_indexed(encoded, reason, capfd):
    stored = [example(JPEG), example(encoded, "b.jpg"), example(JPEG, "c.jpg")]
    message = rf"tiny: image 'b.jpg' \({len(encoded)} bytes\) {reason}; do this$"
    with pytest.raises(ValueError, match=message):
        index_records(stored, "tiny", "do this")
    assert capfd.readouterr() == ("", "")


def test_an_image_that_promises_too_many_pixels_is_named():
    frame = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:frame] + b"\xfd\xe8\xfd\xe8" + JPEG[frame + 4 :]  # 65000 x 65000
    records = index_records([example(huge, "x.jpg")], "tiny", "do this")
    with pytest.raises(ValueError, match=r"'x.jpg' .* cannot be decoded.*; do this$"):
        records.image(0, (32, 16))


def test_a_record_that_is_no_example_is_counted():
    for odd in (b"\xff\xff\xff", tf_example_pb2.Example().SerializeToString()):
        with pytest.raises(ValueError, match=r"tiny: record 1 is .*; do this$"):
            index_records([example(), odd], "tiny", "do this")
    with pytest.raises(
        ValueError, match=r"modality of 'b' is 2; valid values: 0, 1; do this"
    ):
        index_records([example(), example(filename="b", modality=2)], "tiny", "do this")
