"""The heap after a compiler: what is free between the living is put out of use."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from vireid_jax import heap
heap.keep_freed_memory()
libc = heap._glibc()
pieces = [libc.malloc(size) for size in range(70_000, 170_000, 1_000)]
for piece in pieces[::2]:  # every second one: none touches another
    libc.free(piece)
closed = heap.close_holes() if CLOSE else 0
anew = [libc.malloc(size) for size in range(70_000, 170_000, 2_000)]
print(closed, min(anew) > max(pieces))

# A thread keeps seven pieces of each small size to itself; a program soon has them all.
for size in range(8, 1000, 8):
    for piece in [libc.malloc(size) for _ in range(8)]:
        libc.free(piece)
# A step's large buffer, some pieces that outlive it, and the next step's.
libc.aligned_alloc.restype = ctypes.c_void_p
libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
places = []
for _ in range(4):
    places.append(libc.aligned_alloc(64, 2**30))
    held = [libc.malloc(size) for size in range(70_000, 170_000, 1_000)]
    libc.free(places[-1])
print(len(set(places)))
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it leaves other C libraries alone"
)


def run(close: bool) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("CLOSE", str(close))],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.split()


def test_what_is_freed_between_living_pieces_is_not_given_out_again():
    closed, beyond, places = run(close=True)
    assert int(closed) >= 50
    assert beyond == "True"
    assert places == "1"  # and a step takes its buffer where it was before


def test_without_it_both_happen():
    closed, beyond, places = run(close=False)
    assert (closed, beyond) == ("0", "False")
    assert int(places) > 1
