"""Tell a whole image file from a truncated one, by its head and tail."""

import struct


def flaw(encoded: bytes) -> str:
    """Say what is wrong with an image file's bytes; "" where nothing is.

    Nothing is decoded: some microseconds an image. What follows the end of a JPEG or a
    PNG does no harm, and OpenCV ignores it.
    """
    if encoded.startswith(b"\xff\xd8\xff"):
        return "" if _jpeg_ends(encoded) else "is a truncated JPEG"
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "" if _png_ends(encoded) else "is a truncated PNG"
    if encoded.startswith(b"BM"):
        return "" if len(encoded) >= _bmp_size(encoded) else "is a truncated BMP"
    return "is no JPEG, PNG or BMP"


def _jpeg_ends(encoded: bytes) -> bool:
    """Look for the end marker, and whether it lies behind the headers.

    Those may hold a thumbnail with an end marker of its own; in the scan a data byte FF
    is followed by 00.
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


def _png_ends(encoded: bytes) -> bool:
    """Walk from chunk to chunk until the last one, IEND."""
    at = 8
    while at + 12 <= len(encoded):  # length, type, data, checksum
        length, kind = struct.unpack_from(">I4s", encoded, at)
        if kind == b"IEND":
            return True
        at += 12 + length
    return False


def _bmp_size(encoded: bytes) -> int:
    """Return the bytes that the header asks for.

    Its own field for that is often wrong and read by nobody, so count the pixels, but
    where these are compressed.
    """
    if len(encoded) < 34:
        return 34  # no image is as short
    stated, offset, header = struct.unpack_from("<I4xII", encoded, 2)
    if header == 12:  # of OS/2
        width, height, bits = struct.unpack_from("<HH2xH", encoded, 18)
        compression = 0
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", encoded, 18)
    if compression in (1, 2):  # run lengths
        return stated
    return offset + (width * bits + 31) // 32 * 4 * abs(height)
