"""Images as text, small enough for a page."""

import base64

import cv2
import numpy as np
from jaxtyping import UInt8

HIGHEST = 128  # pixels; a page holds some hundred images


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of an image on the page: no higher than `HIGHEST`."""
    scale = min(1.0, HIGHEST / height)
    return max(1, round(scale * height)), max(1, round(scale * width))


def data_uri(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """Write an RGB image as a `data:` address that holds a JPEG."""
    height, width = shown_size(*image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
