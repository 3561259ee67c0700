"""Decode image files, and find truncated ones by their head and tail."""

import struct

import cv2
import numpy as np

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"  # how a file begins
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # its last chunk, which is the same in every PNG


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
