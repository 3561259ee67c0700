"""Any image file or array, as a network takes it: RGB, uint8, of one size.

The rules, all our choice (images of prepared data sets only need `fit`):

- one channel is repeated three times; an alpha channel is laid over mid grey;
- more than 8 bits a channel, and floats, as thermal cameras write them: the darkest and
  the brightest percent of each image become 0 and 255, values between them are linear;
- an animated file, or one of more than `MOST_PIXELS`, is an error.
"""

import io
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from vireid_jax.run.errors import UserError

OneImage = str | Path | np.ndarray | Image.Image
Images = Sequence[OneImage] | np.ndarray

MOST_PIXELS = 50_000_000  # in memory 150 MB; a file of some kilobytes may promise more
GREY = 128  # behind transparent pixels
CLIPPED = 1.0  # percent at each end

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"  # how a file begins
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # its last chunk, which is the same in every PNG


def read_image(
    source: OneImage, size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Read a file, an array `[H, W]` or `[H, W, 1|3|4]` in RGB, or an image of Pillow.

    `size` is (height, width). An image of Pillow gives the same as its file. Raise
    UserError, with the name of the file, if it is unusable, and OSError if it cannot be
    opened.
    """
    if isinstance(source, np.ndarray):
        name, pixels = "the array", source
    elif isinstance(source, Image.Image):
        name, pixels = "the image", _array_of(source)
    else:
        name, pixels = str(source), _read_file(Path(source))
    return fit(_three_channels(pixels, name), size)


def fit(
    pixels: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Resize to (height, width), if it differs; proportions are not kept.

    Pixels are averaged (OpenCV INTER_AREA) where no side grows, else interpolated.
    """
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=method)


def _read_file(path: Path) -> np.ndarray:
    """Decode into RGB, RGBA or grey of any depth."""
    encoded = path.read_bytes()
    _check_header(encoded, path)
    if encoded.startswith((JPEG, PNG, BMP)) and (error := truncation_error(encoded)):
        raise UserError(f"{path} {error}; replace or leave out the file")
    if not encoded.startswith(JPEG):  # which has 8 bits and no alpha
        pixels = decode(encoded, cv2.IMREAD_UNCHANGED)
        if pixels is not None and (
            pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,))
        ):
            if pixels.ndim == 3 and pixels.shape[2] > 2:
                pixels[..., :3] = pixels[..., 2::-1].copy()  # OpenCV's order is BGR
            return pixels
    # As in training: turned as the camera was held, if the file says so.
    pixels = decode(encoded)
    if pixels is None:
        raise UserError(f"{path} cannot be decoded by OpenCV; convert it to PNG")
    return pixels


def _check_header(encoded: bytes, path: Path) -> None:
    """Raise UserError for a file that must not be decoded at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = image.width * image.height
                frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        pixels, frames = MOST_PIXELS + 1, 1
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # OpenCV may still read it
    if pixels > MOST_PIXELS:
        raise UserError(f"{path} has more than {MOST_PIXELS:,} pixels; crop it")
    if frames > 1:
        raise UserError(f"{path} holds {frames} images; give one image a file")


def _array_of(image: Image.Image) -> np.ndarray:
    """Convert Pillow's image as its file is read: turned, without a palette."""
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("L", "RGB", "RGBA") and image.mode[0] not in "IF":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _three_channels(pixels: np.ndarray, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Apply the rules for channels and depth."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        valid = "valid shapes: [height, width] and [height, width, 1, 3 or 4]"
        raise UserError(f"{name} has the shape {pixels.shape}; {valid}")
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    if pixels.dtype != np.uint8:
        colours = _eight_bits(colours, name)
    if alpha.size:
        most = 1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        share = np.clip(alpha.astype(np.float32) / most, 0, 1)
        colours = np.rint(colours * share + GREY * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def _eight_bits(values: np.ndarray, name: str) -> UInt8[np.ndarray, "H W C"]:
    """Stretch one image from its darkest to its brightest percent to 0 to 255."""
    if values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise UserError(
            f"{name} has pixels of type {values.dtype}, or some that are not finite;"
            " valid values: finite integers and floats"
        )
    low, high = np.percentile(values, [CLIPPED, 100 - CLIPPED])
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def decode(encoded: bytes, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray | None:
    """Decode an image file with OpenCV's `flags`; return None where OpenCV cannot."""
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # no bytes, or a header with more pixels than OpenCV takes
        return None


def truncation_error(encoded: bytes) -> str:
    """Return "" for a complete JPEG, PNG or BMP, else what is wrong with the bytes.

    Nothing is decoded: some microseconds an image. Bytes after the end of a JPEG or a
    PNG are harmless; OpenCV ignores them.
    """
    if encoded.startswith(JPEG):
        return "" if _jpeg_ends(encoded) else "is a truncated JPEG"
    if encoded.startswith(PNG):
        return "" if _PNG_END in encoded else "is a truncated PNG"
    if encoded.startswith(BMP):
        return "" if len(encoded) >= _bmp_size(encoded) else "is a truncated BMP"
    return "is not a JPEG, PNG or BMP"


def _jpeg_ends(encoded: bytes) -> bool:
    """Return whether an end marker follows the headers.

    A header may hold a thumbnail with an end marker of its own; in the scan a data byte
    FF is followed by 00.
    """
    end = encoded.rfind(b"\xff\xd9")
    at = 2
    while 0 <= at < end:
        marker = encoded[at + 1]
        if marker == 0xDA:  # start of scan
            return True
        if marker == 0xFF:  # fill byte
            at += 1
        else:
            length = int.from_bytes(encoded[at + 2 : at + 4], "big")
            at = encoded.find(b"\xff", at + 2 + length)
    return False


def _bmp_size(encoded: bytes) -> int:
    """Count the bytes by width and height: the header's size field is often wrong."""
    if len(encoded) < 34:
        return 34  # the shortest possible image is longer
    stated, offset, header = struct.unpack_from("<I4xII", encoded, 2)
    if header == 12:  # of OS/2
        width, height, bits = struct.unpack_from("<HH2xH", encoded, 18)
        compression = 0
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", encoded, 18)
    if compression in (1, 2):  # run lengths: these cannot be counted
        return stated
    return offset + (width * bits + 31) // 32 * 4 * abs(height)
