"""Any image file or array, as a network takes it: RGB, uint8, of one size.

Prepared data sets are not read here (source.py): their images are checked when they are
prepared. The rules, all our choice:

- one channel is repeated three times; an alpha channel is laid over mid grey;
- more than 8 bits a channel, and floats, as thermal cameras write them: the darkest and
  the brightest percent of each image become 0 and 255, what lies between is linear;
- a side that grows is interpolated, else pixels are averaged (OpenCV), as in training;
- of an animated file nothing is taken, nor of one above `MOST_PIXELS`.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from vireid_jax.data.encoded import flaw
from vireid_jax.run.errors import UserError

# What cannot be read is told in one line, with its name; OpenCV tells it in four more.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

OneImage = str | Path | np.ndarray | Image.Image
Images = Sequence[OneImage] | np.ndarray

MOST_PIXELS = 50_000_000  # in memory 150 MB; a file of some kilobytes may promise more
GREY = 128  # what shines through
CLIPPED = 1.0  # percent at each end
_JPEG = b"\xff\xd8\xff"
_CHECKED = (_JPEG, b"\x89PNG\r\n\x1a\n", b"BM")  # that `flaw` knows


def read_image(
    source: OneImage, size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a file, or takes an array `[H, W]` or `[H, W, 1|3|4]`, or Pillow's image.

    `size` is (height, width). An array's colours are in the order RGB, as the result's
    are. Of Pillow's image the same becomes as of its file. Raises UserError, naming
    the file and what is wrong with it, and OSError where it cannot be opened.
    """
    if isinstance(source, np.ndarray):
        return fit(_three_channels(source, "the array"), size)
    if isinstance(source, Image.Image):
        return fit(_three_channels(_array_of(source), "the image"), size)
    path = Path(source)
    encoded = path.read_bytes()
    _check_header(encoded, path)
    if encoded.startswith(_CHECKED) and (wrong := flaw(encoded)):
        raise UserError(f"{path} {wrong}; mend or leave out the file")
    pixels = _pixels_of(encoded)
    if pixels is None:
        raise UserError(
            f"{path} is nothing that OpenCV can decode; convert it to PNG or JPEG"
        )
    return fit(_three_channels(pixels, str(path)), size)


def fit(
    pixels: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes to (height, width), if it differs; proportions are not kept."""
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=method)


def _check_header(encoded: bytes, path: Path) -> None:
    """Raises UserError for what is not to be decoded at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = image.width * image.height
                frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        pixels, frames = MOST_PIXELS + 1, 1
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # OpenCV has the last word
    if pixels > MOST_PIXELS:
        raise UserError(
            f"{path} has more than {MOST_PIXELS:,} pixels; crop the person out of it"
        )
    if frames > 1:
        raise UserError(f"{path} holds {frames} images; give one image a file")


def _pixels_of(encoded: bytes) -> np.ndarray | None:
    """Decodes into RGB, RGBA or grey of any depth; None where OpenCV cannot."""
    if not encoded.startswith(_JPEG):  # which has 8 bits and no alpha
        pixels = _decode(encoded, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            return None
        if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)):
            if pixels.ndim == 3 and pixels.shape[2] > 2:
                pixels[..., :3] = pixels[..., 2::-1].copy()  # OpenCV's order is BGR
            return pixels
    # As in training: turned as the camera was held, if the file says so.
    return _decode(encoded, cv2.IMREAD_COLOR_RGB)


def _decode(encoded: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # a header that promises what OpenCV does not take
        return None


def _array_of(image: Image.Image) -> np.ndarray:
    """Takes Pillow's image as its file is read: turned, without a palette."""
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("L", "RGB", "RGBA") and image.mode[0] not in "IF":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _three_channels(pixels: np.ndarray, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Applies the rules for channels and depth."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise UserError(
            f"{name} has the shape {pixels.shape}; legal are [height, width] and"
            " [height, width, 1, 3 or 4]"
        )
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    if pixels.dtype != np.uint8:
        colours = _eight_bits(colours, name)
    if alpha.size:
        most = 1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        share = np.clip(alpha.astype(np.float32) / most, 0, 1)
        colours = np.rint(colours * share + GREY * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def _eight_bits(values: np.ndarray, name: str) -> UInt8[np.ndarray, "H W C"]:
    """Stretches one image from its darkest to its brightest percent to 0 to 255."""
    if values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise UserError(
            f"{name} has pixels of type {values.dtype}, or some that are no numbers;"
            " legal are finite integers and floats"
        )
    low, high = np.percentile(values, [CLIPPED, 100 - CLIPPED])
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
