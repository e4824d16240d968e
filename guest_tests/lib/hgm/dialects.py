# SPDX-License-Identifier: MIT
"""Which version of high-granularity mapping the kernel speaks, and the mapcount that its rule demands."""

from __future__ import annotations

import enum
import errno
import mmap
import os
import platform
from collections.abc import Sequence

from hgm.cases import Context
from hgm.memory import MADV_SPLIT, MAP_NORESERVE, madvise, map_memory, unmap
from hgm.uffd import (
    FEATURE_EXACT_ADDRESS,
    FEATURE_HGM,
    FEATURE_SIGBUS,
    IOC_WRITEPROTECT,
    REGISTER_MINOR,
    REGISTER_WP,
    WRITEPROTECT,
    ioctl,
    open_uffd,
    register,
    supported_features,
    uffd_continue,
)
from hgm.verdicts import error_name, expect_errno, fail, skip


class Dialect(enum.Enum):
    """How high-granularity mapping is switched on, and what the mapcount must be; see hgm.h."""

    NONE = "none"
    RFC1 = "rfc1"
    RFC2 = "rfc2"
    V1 = "v1"
    V2 = "v2"


def mapcount_rule(spoken: Dialect, leaf: Sequence[int], base: int) -> list[int]:
    """What a mapping of one huge page adds to the mapcount of each of its base pages, of `base` bytes.

    `leaf` has the size of the leaf that maps each base page, 0 for a hole.
    """
    match spoken:
        case Dialect.NONE | Dialect.RFC1:
            return [int(any(leaf))] * len(leaf)
        case Dialect.RFC2 | Dialect.V1:
            entries = at = 0
            while at < len(leaf):
                entries += bool(leaf[at])
                at += leaf[at] // base or 1
            return [entries] * len(leaf)
        case Dialect.V2:
            return [int(bool(size)) for size in leaf]


_dialects: dict[int, Dialect] = {}


def dialect(context: Context) -> Dialect:
    """Ask the kernel, once, in the way dialect.c does. Fails if its answers are those of no version."""
    if context.huge not in _dialects:
        _dialects[context.huge] = _probe(context)
    return _dialects[context.huge]


def only_without_hgm(context: Context) -> None:
    """End a case about kernels without HGM as not applicable where there is HGM."""
    if dialect(context) is not Dialect.NONE:
        skip("not applicable: kernel has HGM")


def _probe(context: Context) -> Dialect:
    if _takes_base_pages(context):
        return Dialect.RFC1
    if _takes_madv_split(context):
        if not _takes_base_pages(context, split=True):
            fail("probe for HGM: MADV_SPLIT works, yet CONTINUE of a base page is refused")
        # PATCH v1 takes a write-protect marker for a mapped page: EEXIST. PATCH v2 patch 14 mended that.
        mended = _takes_base_pages(context, split=True, protect=True)
        return Dialect.V2 if mended else Dialect.V1
    if supported_features() & FEATURE_HGM and _release() < (6, 4):  # from 6.4 on the bit is WP_UNPOPULATED
        if not _takes_base_pages(context, features=FEATURE_HGM):
            fail("probe for HGM: the kernel has feature bit 13, yet CONTINUE of a base page is refused")
        return Dialect.RFC2
    return Dialect.NONE


def _release() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(letter for letter in minor if letter.isdigit()))


def _takes_base_pages(context: Context, *, features: int = 0, split: bool = False, protect: bool = False) -> bool:
    """CONTINUE of one base page that is not in the page cache.

    A kernel that maps whole huge pages refuses the range before it looks for the page (EINVAL), one that maps base
    pages goes on to look (EFAULT). Any other answer fails the case: it could be a broken kernel.
    """
    not_now = errno.EEXIST if protect else errno.EINVAL
    fd = context.file(1, "probe")
    uffd = open_uffd(features | FEATURE_EXACT_ADDRESS | FEATURE_SIGBUS)
    at = map_memory(0, context.huge, mmap.MAP_SHARED | MAP_NORESERVE, fd)
    if split:
        expect_errno("probe for HGM: MADV_SPLIT that worked before", madvise(at, context.huge, MADV_SPLIT), 0)
    mode = REGISTER_MINOR | (REGISTER_WP if protect else 0)
    expect_errno("probe for HGM: UFFDIO_REGISTER", register(uffd, at, context.huge, mode), 0)
    if protect:
        error, _ = ioctl(uffd, IOC_WRITEPROTECT, WRITEPROTECT.pack(at, context.huge, 1))
        expect_errno("probe for HGM: UFFDIO_WRITEPROTECT", error, 0)
    error, _ = uffd_continue(uffd, at, context.base)
    unmap(at, context.huge)
    os.close(uffd)
    os.close(fd)
    if error not in (errno.EFAULT, not_now):
        fail(
            "probe for HGM: CONTINUE of a base page that is not in the page cache: "
            f"expected EFAULT (HGM) or {error_name(not_now)} (none), saw {error_name(error)}"
        )
    return error == errno.EFAULT


def _takes_madv_split(context: Context) -> bool:
    fd = context.file(1, "probe")
    at = map_memory(0, context.huge, mmap.MAP_SHARED | MAP_NORESERVE, fd)
    error = madvise(at, context.huge, MADV_SPLIT)
    unmap(at, context.huge)
    os.close(fd)
    if error not in (0, errno.EINVAL):
        fail(f"probe for HGM: MADV_SPLIT: expected success (HGM) or EINVAL (none), saw {error_name(error)}")
    return error == 0
