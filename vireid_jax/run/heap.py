"""How this process's C library keeps memory, on Linux: a step takes the same each time.

A training step takes and frees hundreds of megabytes, in large and small pieces. glibc
gives large ones back to the kernel, and looks for small ones among all that was freed.
Other C libraries and other systems are left as they are. Measured for this project.
"""

import ctypes
import sys

# glibc's numbers for mallopt, and what to set: never map a buffer by itself, never give
# the top of the heap back (-1; any limit would be below 2 GB, and a step's buffers are
# above), grow the heap by 64 MB, one heap for all threads.
_MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}
_MALLOPT |= {"M_TOP_PAD": (-2, 64 * 2**20), "M_ARENA_MAX": (-8, 1)}

LARGEST_HOLE, SMALLEST_HOLE = 2**26, 2**16  # bytes
YARD = 2**29  # bytes of addresses; memory only as far as they are written


class _Usage(ctypes.Structure):
    """glibc's `struct mallinfo2`; keepcost is what is free at the heap's top."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks"
    _fields_ = [(name, ctypes.c_size_t) for name in (*_names.split(), "keepcost")]


def keep_freed_memory() -> None:
    """Stops glibc from giving memory back to the kernel at every free.

    Without this a step spends a good part of its time in page faults.
    """
    libc = _glibc()
    if libc is not None:
        for option, value in _MALLOPT.values():
            libc.mallopt(option, value)


def close_holes() -> int:
    """Puts the free pieces between what lives out of use; returns how many.

    A compiler leaves thousands, of as many sizes, and each later malloc of some size
    walks through them: a fifth of a small network's step (measured). Their pages go
    back to the kernel first, so that no memory is lost, only addresses. Call it after
    compiling, before a step has taken its buffers: what is free then stays unused.

    One hole is left, a large one, for all but the largest buffers: what lies behind one
    of those, at the top, spoils its place, since glibc's memalign takes a place again
    only where there is a little more than is asked for.
    """
    libc = _glibc()
    if libc is None:
        return 0
    libc.malloc_trim(0)
    yard = libc.malloc(YARD)
    top = libc.sbrk(0) - libc.mallinfo2().keepcost
    closed, size = 0, LARGEST_HOLE
    while size >= SMALLEST_HOLE:
        piece = libc.malloc(size)
        if piece and piece < top:
            closed += 1  # and never freed
        else:
            libc.free(piece)
            size //= 2
    libc.malloc(SMALLEST_HOLE)  # a fence, or the yard would become a part of the top
    libc.free(yard)
    return closed


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library where it is a glibc that knows all of these, else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    try:
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
        libc.mallinfo2.restype = _Usage
    except AttributeError:
        return None
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    return libc
