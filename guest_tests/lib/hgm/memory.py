# SPDX-License-Identifier: MIT
"""Memory by its address: what Python's own mmap has no words for, by way of the C library."""

from __future__ import annotations

import ctypes
import os

from hgm.verdicts import fail

MADV_DONTNEED = 4
MADV_COLLAPSE = 25
MADV_SPLIT = 26  # PATCH v1 patch 9, v2
MAP_NORESERVE = 0x4000  # the mmap module has no name for it before Python 3.13
_MAP_FAILED = ctypes.c_void_p(-1).value

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def map_memory(at: int, length: int, flags: int, fd: int, offset: int = 0, prot: int = 3) -> int:
    """mmap to an address; readable and writable unless said otherwise."""
    where = libc.mmap(at, length, prot, flags, fd, offset)
    if where == _MAP_FAILED:
        fail(f"mmap of 0x{length:x} bytes: {os.strerror(ctypes.get_errno())}")
    return int(where)


def unmap(at: int, length: int) -> None:
    """munmap."""
    if libc.munmap(at, length):
        fail(f"munmap of 0x{length:x} bytes: {os.strerror(ctypes.get_errno())}")


def madvise(at: int, length: int, advice: int) -> int:
    """madvise: 0 or errno."""
    return ctypes.get_errno() if libc.madvise(at, length, advice) else 0


def words(at: int, length: int) -> memoryview:
    """Memory at an address as 64-bit words. Reading a hole through it stops the whole program: see Reader."""
    return memoryview((ctypes.c_char * length).from_address(at)).cast("B").cast("Q")
