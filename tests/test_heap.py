"""The heap after a compiler: free memory between used pieces is not used again."""

import platform

import pytest
from python_process import run_python

PROGRAM = """
import ctypes
from vireid_jax.run import heap
heap.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
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
addresses = []
for _ in range(4):
    addresses.append(libc.aligned_alloc(64, 2**30))
    held = [libc.malloc(size) for size in range(70_000, 170_000, 1_000)]
    libc.free(addresses[-1])
print(len(set(addresses)))
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it leaves other C libraries alone"
)


@pytest.mark.parametrize("close", [True, False])
def test_memory_that_was_freed_between_used_pieces(close):
    done = run_python("-c", PROGRAM.replace("CLOSE", str(close)))
    closed, beyond, addresses = done.stdout.split()
    assert beyond == str(close)
    assert (int(closed) >= 50) == close
    if close:  # a step gets its buffer at the same address as before
        assert addresses == "1"
