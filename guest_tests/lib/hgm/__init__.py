# SPDX-License-Identifier: MIT
"""What the guest tests in Python stand on: the frame of hgm.h, for scenarios.

A case is a top-level function under `@hgm.case("claim", ...)` (needs high-granularity mapping) or
`@hgm.stock_case("claim", ...)` (holds without it too). Arguments are literals: the harness reads them, and
imports nothing.

A fault that waits for a pager holds Python's lock if Python itself touches the memory. So memory that may be missing is
read by `Reader`, in a C call that lets the lock go.

Programs import `hgm` alone, and find here all that is for them. Each module below stands only on ones before it in this
row: verdicts, proc, memory, cases, uffd, dialects, outside, area, threads, children, frame.
"""

from __future__ import annotations

from hgm.area import Area, tag, tags
from hgm.cases import Context, case, stock_case
from hgm.children import Child
from hgm.dialects import Dialect, dialect, mapcount_rule, only_without_hgm
from hgm.frame import main
from hgm.memory import MADV_COLLAPSE, MADV_DONTNEED, MADV_SPLIT, libc, madvise, map_memory, unmap, words
from hgm.outside import Outside, expect_one_leaf, frames, shape, shape_port
from hgm.proc import (
    PFN,
    expect_count,
    kpagecount,
    kpageflags,
    pagemap,
    present,
    read_number,
    smaps,
    status_kb,
    write_number,
)
from hgm.threads import Pager, Reader, Thread
from hgm.uffd import (
    FEATURE_EXACT_ADDRESS,
    FEATURE_HGM,
    FEATURE_SIGBUS,
    FLAG_MINOR,
    REGISTER_MINOR,
    REGISTER_WP,
    Message,
    open_uffd,
    read_message,
    register,
    supported_features,
    uffd_continue,
    unregister,
    wait_message,
    wake,
)
from hgm.verdicts import (
    PATIENCE_S,
    Failure,
    Skip,
    error_name,
    expect,
    expect_eq,
    expect_errno,
    fail,
    note,
    size_name,
    size_of,
    skip,
)

__all__ = [
    "FEATURE_EXACT_ADDRESS",
    "FEATURE_HGM",
    "FEATURE_SIGBUS",
    "FLAG_MINOR",
    "MADV_COLLAPSE",
    "MADV_DONTNEED",
    "MADV_SPLIT",
    "PATIENCE_S",
    "PFN",
    "REGISTER_MINOR",
    "REGISTER_WP",
    "Area",
    "Child",
    "Context",
    "Dialect",
    "Failure",
    "Message",
    "Outside",
    "Pager",
    "Reader",
    "Skip",
    "Thread",
    "case",
    "dialect",
    "error_name",
    "expect",
    "expect_count",
    "expect_eq",
    "expect_errno",
    "expect_one_leaf",
    "fail",
    "frames",
    "kpagecount",
    "kpageflags",
    "libc",
    "madvise",
    "main",
    "map_memory",
    "mapcount_rule",
    "note",
    "only_without_hgm",
    "open_uffd",
    "pagemap",
    "present",
    "read_message",
    "read_number",
    "register",
    "shape",
    "shape_port",
    "size_name",
    "size_of",
    "skip",
    "smaps",
    "status_kb",
    "stock_case",
    "supported_features",
    "tag",
    "tags",
    "uffd_continue",
    "unmap",
    "unregister",
    "wait_message",
    "wake",
    "words",
    "write_number",
]
