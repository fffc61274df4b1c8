"""What this process does with its memory as a whole, for work that goes on for long. Each is done once."""

import gc
from contextlib import suppress
from functools import cache


@cache
def give_memory_back() -> None:
    """Have glibc share two heaps among all threads and return large pieces when they are freed: with a heap for each
    thread a long evaluation held ten times what it used. Of no effect with another C library."""
    import ctypes

    with suppress(OSError, AttributeError):
        settings = ctypes.CDLL(None).mallopt
        settings(-8, 2), settings(-3, 1 << 20)  # M_ARENA_MAX, M_MMAP_THRESHOLD


@cache
def settled() -> None:
    """Leave what is loaded by now out of collections of garbage: one held all attempts up for a seventh of a second."""
    gc.freeze()
