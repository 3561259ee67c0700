"""The heap after a compiler: what is free between the living is put out of use."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from vireid_jax import heap
heap.keep_freed_memory()
libc = heap._glibc()
pieces = [libc.malloc(size) for size in range(70_000, 170_000, 1_000)]
for piece in pieces[::2]:  # every second one: none touches another
    libc.free(piece)
closed = heap.close_holes()
top = libc.sbrk(0) - libc.mallinfo2().keepcost
anew = [libc.malloc(size) for size in range(70_000, 170_000, 2_000)]
print(closed, all(piece >= top for piece in anew), min(anew) > max(pieces))
print(heap.close_holes())
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it leaves other C libraries alone"
)


def test_what_is_freed_between_living_pieces_is_not_given_out_again():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    closed, above, beyond, again = found.stdout.split()
    assert int(closed) >= 50
    assert (above, beyond) == ("True", "True")
    assert int(again) < 5  # there is nothing left to close
