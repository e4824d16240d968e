# SPDX-License-Identifier: MIT
"""What the guest tests in Python stand on: the frame of hgm.h and hgm.c, for scenarios.

A case is a top-level function under `@hgm.case("claim", ...)` (needs high-granularity mapping) or
`@hgm.stock_case("claim", ...)` (holds without it too). Arguments are literals: the harness reads them, and
imports nothing.

A fault that waits for a pager holds Python's lock if Python itself touches the memory. So memory that may be missing is
read by `Reader`, in a C call that lets the lock go.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import enum
import errno
import fcntl
import itertools
import mmap
import os
import platform
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PATIENCE_S = 40  # how long a thread or a message may take: far above what an emulated machine needs

MADV_DONTNEED = 4
MADV_COLLAPSE = 25
MADV_SPLIT = 26  # PATCH v1 patch 9, v2
FEATURE_SIGBUS = 1 << 7
FEATURE_EXACT_ADDRESS = 1 << 11
FEATURE_HGM = 1 << 13  # RFC v1 patch 23, RFC v2
REGISTER_WP = 2
REGISTER_MINOR = 4
FLAG_MINOR = 4  # of a fault message: the page is in the page cache, only not mapped
PRESENT = 1 << 63  # of an entry of pagemap
PFN = (1 << 55) - 1

_NR_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_UFFD_API = 0xAA
_API = struct.Struct("=QQQ")  # api, features, ioctls
_REGISTER = struct.Struct("=QQQQ")  # start, length, mode, ioctls
_RANGE = struct.Struct("=QQ")
_WRITEPROTECT = struct.Struct("=QQQ")  # start, length, mode
_CONTINUE = struct.Struct("=QQQq")  # start, length, mode, mapped
_MESSAGE = struct.Struct("=BBHIQQQ")  # event, reserved, flags, address, features
_EVENT_PAGEFAULT = 0x12

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_MAP_NORESERVE = 0x4000  # the mmap module has no name for it before Python 3.13
_MAP_FAILED = ctypes.c_void_p(-1).value


def _ioc(number: int, size: int, direction: int = 3) -> int:
    return direction << 30 | size << 16 | _UFFD_API << 8 | number


_IOC_API = _ioc(0x3F, _API.size)
_IOC_REGISTER = _ioc(0x00, _REGISTER.size)
_IOC_UNREGISTER = _ioc(0x01, _RANGE.size, direction=2)  # a read, as the kernel's header has it
_IOC_WRITEPROTECT = _ioc(0x06, _WRITEPROTECT.size)
_IOC_CONTINUE = _ioc(0x07, _CONTINUE.size)


class Failure(Exception):
    """Something was not as expected."""


class Skip(Exception):
    """The case is not about this kernel or machine."""


class Dialect(enum.Enum):
    """How high-granularity mapping is switched on, and what the mapcount must be; see hgm.h."""

    NONE = "none"
    RFC1 = "rfc1"
    RFC2 = "rfc2"
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class Context:
    """What a case runs at."""

    huge: int  # bytes of a huge page
    base: int  # bytes of a base page
    hgm: bool  # the case needs HGM, so areas switch it on

    @property
    def pieces(self) -> int:
        """Base pages in a huge page."""
        return self.huge // self.base

    def pool(self, counter: str) -> int:
        """A counter of the pool of this size: "nr", "free", "resv", "surplus"."""
        return read_number(f"/sys/kernel/mm/hugepages/hugepages-{self.huge >> 10}kB/{counter}_hugepages")

    def need_pages(self, pages: int) -> None:
        """Fail in words if the pool has not so many free pages."""
        available = self.pool("free") - self.pool("resv")
        if available < pages:
            fail(f"huge page pool of {size_name(self.huge)} has {available} free pages, {pages} needed")

    def file(self, pages: int, name: str = "hgm") -> int:
        """A file of huge pages, as a descriptor."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_HUGETLB | (self.huge.bit_length() - 1) << os.MFD_HUGE_SHIFT)
        os.ftruncate(fd, pages * self.huge)
        return fd


# ---- cases and verdicts ----

_Body = Callable[[Context], None]


@dataclass(frozen=True)
class _Case:
    name: str
    claim: str
    needs_hgm: bool
    sizes: str
    arch: str
    body: _Body


_cases: list[_Case] = []


def case(
    claim: str, *, deadline_s: int = 60, sizes: str = "", arch: str = "", spoils: int = 0
) -> Callable[[_Body], _Body]:
    """Declare a case that needs a kernel with high-granularity mapping; see hgm.h for what the attributes mean."""
    return _declare(claim, True, sizes, arch)


def stock_case(
    claim: str, *, deadline_s: int = 60, sizes: str = "", arch: str = "", spoils: int = 0
) -> Callable[[_Body], _Body]:
    """Declare a case that holds on kernels without high-granularity mapping too."""
    return _declare(claim, False, sizes, arch)


def _declare(claim: str, needs_hgm: bool, sizes: str, arch: str) -> Callable[[_Body], _Body]:
    def add(body: _Body) -> _Body:
        _cases.append(_Case(body.__name__, claim, needs_hgm, sizes, arch, body))
        return body

    return add


def fail(message: str) -> NoReturn:
    """End the case as failed."""
    raise Failure(message)


def skip(reason: str) -> NoReturn:
    """End the case as skipped."""
    raise Skip(reason)


def note(text: str) -> None:
    """Print a diagnostic line."""
    print("\n".join(f"# {line}" for line in text.splitlines()), flush=True)


def expect(condition: bool, what: str) -> None:
    """Fail unless `condition`; `what` says what should hold."""
    if not condition:
        fail(f"{what}: expected true, saw false")


def expect_eq(what: str, seen: object, expected: object) -> None:
    """Fail unless both are equal."""
    if seen != expected:
        fail(f"{what}: expected {expected!r}, saw {seen!r}")


def expect_errno(what: str, seen: int, expected: int) -> None:
    """Fail unless a call gave this errno; 0 is success."""
    if seen != expected:
        fail(f"{what}: expected {error_name(expected)}, saw {error_name(seen)}")


def error_name(number: int) -> str:
    """The name of an errno."""
    return errno.errorcode.get(number, f"errno {number}") if number else "success"


def size_name(size: int) -> str:
    """The short name of a page size, such as 2M."""
    for shift, letter in ((30, "G"), (20, "M")):
        if size >= 1 << shift:
            return f"{size >> shift}{letter}"
    return f"{size >> 10}K"


def size_of(name: str) -> int:
    """The page size that `size_name` names."""
    return int(name[:-1]) << {"G": 30, "M": 20, "K": 10}[name[-1]]


# ---- what the kernel shows ----


def read_number(path: str) -> int:
    """A number in a file of /proc or /sys."""
    return int(Path(path).read_text())


def write_number(path: str, value: int) -> None:
    """Write a number to a file of /proc or /sys."""
    Path(path).write_text(f"{value}\n")


def status_kb(field: str) -> int:
    """A field of /proc/self/status in kB, such as "VmPTE"."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    fail(f"/proc/self/status has no {field}")


def smaps(at: int, length: int) -> dict[str, int]:
    """Fields of smaps in kB, summed over the mappings that lie in a range."""
    fields: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        start, dash, end = line.split(maxsplit=1)[0].partition("-")
        name, _, value = line.partition(":")
        if dash:
            inside = at <= int(start, 16) and int(end, 16) <= at + length
        elif inside and value.endswith("kB"):
            fields[name] = fields.get(name, 0) + int(value.split()[0])
    if not fields:
        fail(f"/proc/self/smaps has no mapping in 0x{length:x} bytes at 0x{at:x}")
    return fields


def _entries(path: str, first: int, count: int) -> array[int]:
    """64-bit entries of a file of /proc; pagemap is that of the process that opens it."""
    raw = bytearray()
    fd = os.open(path, os.O_RDONLY)
    try:
        while len(raw) < count * 8:
            got = os.pread(fd, count * 8 - len(raw), first * 8 + len(raw))
            if not got:
                fail(f"{path}: ended at entry {first + len(raw) // 8}")
            raw += got
    finally:
        os.close(fd)
    return array("Q", bytes(raw))


def pagemap(at: int, count: int = 1) -> array[int]:
    """pagemap of this process for `count` base pages from address `at`."""
    return _entries("/proc/self/pagemap", at // mmap.PAGESIZE, count)


def present(at: int, length: int) -> int:
    """How many base pages of a range are mapped."""
    return sum(entry >> 63 for entry in pagemap(at, length // mmap.PAGESIZE))


def kpagecount(pfn: int, count: int = 1) -> array[int]:
    """How often each of `count` page frames is mapped."""
    return _entries("/proc/kpagecount", pfn, count)


def kpageflags(pfn: int, count: int = 1) -> array[int]:
    """Flags of `count` page frames, as Documentation/admin-guide/mm/pagemap.rst numbers them."""
    return _entries("/proc/kpageflags", pfn, count)


# ---- memory ----


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


# ---- userfaultfd ----


def open_uffd(features: int) -> int:
    """A userfaultfd with these features."""
    ctypes.set_errno(0)
    uffd = int(libc.syscall(_NR_USERFAULTFD[platform.machine()], os.O_CLOEXEC | os.O_NONBLOCK))
    if uffd < 0:
        fail(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    error, _ = _ioctl(uffd, _IOC_API, _API.pack(_UFFD_API, features, 0))
    if error:
        os.close(uffd)
        fail(f"UFFDIO_API with features 0x{features:x}: {error_name(error)}")
    return uffd


def supported_features() -> int:
    """The features userfaultfd knows."""
    uffd = int(libc.syscall(_NR_USERFAULTFD[platform.machine()], os.O_CLOEXEC | os.O_NONBLOCK))
    error, answer = _ioctl(uffd, _IOC_API, _API.pack(_UFFD_API, 0, 0))
    os.close(uffd)
    if error:
        fail(f"UFFDIO_API: {error_name(error)}")
    return int(_API.unpack(answer)[1])


def register(uffd: int, at: int, length: int, mode: int) -> int:
    """UFFDIO_REGISTER: 0 or errno."""
    return _ioctl(uffd, _IOC_REGISTER, _REGISTER.pack(at, length, mode, 0))[0]


def unregister(uffd: int, at: int, length: int) -> int:
    """UFFDIO_UNREGISTER: 0 or errno."""
    return _ioctl(uffd, _IOC_UNREGISTER, _RANGE.pack(at, length))[0]


def uffd_continue(uffd: int, at: int, length: int) -> tuple[int, int]:
    """UFFDIO_CONTINUE: 0 or errno, and what the kernel says it has mapped."""
    error, answer = _ioctl(uffd, _IOC_CONTINUE, _CONTINUE.pack(at, length, 0, 0))
    return error, int(_CONTINUE.unpack(answer)[3])


def _ioctl(fd: int, request: int, argument: bytes) -> tuple[int, bytes]:
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        return error.errno or 0, bytes(buffer)
    return 0, bytes(buffer)


@dataclass(frozen=True)
class Message:
    """A fault message."""

    address: int
    flags: int


def read_message(uffd: int) -> Message | None:
    """The next message that is waiting, if one is."""
    try:
        raw = os.read(uffd, _MESSAGE.size)
    except BlockingIOError:
        return None
    event, _, _, _, flags, address, _ = _MESSAGE.unpack(raw)
    if event != _EVENT_PAGEFAULT:
        fail(f"userfaultfd message: expected a fault, saw event 0x{event:x}")
    return Message(address, flags)


def wait_message(uffd: int) -> Message:
    """The next message; fails if none comes."""
    if not select.select([uffd], [], [], PATIENCE_S)[0]:
        fail(f"no userfaultfd message in {PATIENCE_S} s")
    message = read_message(uffd)
    if message is None:
        fail("userfaultfd was readable and then had no message")
    return message


# ---- the kernel's dialect ----


def mapcount_rule(spoken: Dialect, leaf: Sequence[int], base: int) -> list[int]:
    """What a mapping of one huge page adds to the mapcount of each of its base pages, of `base` bytes.

    `leaf` has the size of the leaf that maps each base page, 0 for a hole.
    """
    entries = at = 0
    while at < len(leaf):
        entries += bool(leaf[at])
        at += leaf[at] // base or 1
    match spoken:
        case Dialect.NONE | Dialect.RFC1:
            return [min(entries, 1)] * len(leaf)
        case Dialect.RFC2 | Dialect.V1:
            return [entries] * len(leaf)
        case Dialect.V2:
            return [int(bool(size)) for size in leaf]


_dialects: dict[int, Dialect] = {}


def dialect(context: Context) -> Dialect:
    """Ask the kernel, once, in the way hgm.c does. Fails if its answers are those of no version."""
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
    at = map_memory(0, context.huge, mmap.MAP_SHARED | _MAP_NORESERVE, fd)
    if split:
        expect_errno("probe for HGM: MADV_SPLIT that worked before", madvise(at, context.huge, MADV_SPLIT), 0)
    mode = REGISTER_MINOR | (REGISTER_WP if protect else 0)
    expect_errno("probe for HGM: UFFDIO_REGISTER", register(uffd, at, context.huge, mode), 0)
    if protect:
        error, _ = _ioctl(uffd, _IOC_WRITEPROTECT, _WRITEPROTECT.pack(at, context.huge, 1))
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
    at = map_memory(0, context.huge, mmap.MAP_SHARED | _MAP_NORESERVE, fd)
    error = madvise(at, context.huge, MADV_SPLIT)
    unmap(at, context.huge)
    os.close(fd)
    if error not in (0, errno.EINVAL):
        fail(f"probe for HGM: MADV_SPLIT: expected success (HGM) or EINVAL (none), saw {error_name(error)}")
    return error == 0


# ---- the page tables as the hardware sees them ----

_SHAPE_PORT = "hgm.shape"  # harness/image.py
_SHAPE_QUESTIONS = 40  # per case: each one stops the machine for some milliseconds
_SHAPE_S = 120
_SPINS = 100_000
# void spin(cookie, count): stays in user mode with the cookie in a register. By that the harness knows who asks.
_SPIN = {
    "x86_64": bytes.fromhex("48ffce 75fb c3"),  # dec rsi; jnz to it; ret
    "aarch64": bytes.fromhex("210400f1 e1ffff54 c0035fd6"),  # subs x1, x1, #1; b.ne to it; ret
}


class Outside:
    """The harness's virtio-serial port."""

    def __init__(self, port: int) -> None:
        self.port, self.questions, self._lock = port, 0, threading.Lock()
        code = os.memfd_create("spin", os.MFD_CLOEXEC)
        os.write(code, _SPIN[platform.machine()])
        where = map_memory(0, mmap.PAGESIZE, mmap.MAP_PRIVATE, code, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        os.close(code)
        self._spin = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)(where)

    def ask(self, at: int, length: int, huge: int, cookie: int | None = None) -> str:
        """The harness's words, or "long". With `cookie`, another process is in user mode with that in a register."""
        number = int.from_bytes(os.urandom(8), "little") if cookie is None else cookie
        answer, end = b"", time.monotonic() + _SHAPE_S
        with self._lock:
            fcntl.lockf(self.port, fcntl.LOCK_EX)  # against children, which have the same port
            os.write(self.port, f"shape {number:x} {at:x} {length:x} {huge:x}\n".encode())
            while not answer.endswith(b"\n"):
                if cookie is None:
                    self._spin(number, _SPINS)
                else:
                    select.select([self.port], [], [], 1)
                with contextlib.suppress(BlockingIOError):
                    answer += os.read(self.port, 1 << 16)
                if time.monotonic() > end:
                    fail("the harness does not say how the memory is mapped")
            fcntl.lockf(self.port, fcntl.LOCK_UN)
        asked, _, words = answer.decode().strip().partition(" ")
        if asked != f"{number:x}" or words.startswith("error"):
            fail(f"the harness could not look at the page tables: {answer.decode().strip()}")
        return words


_outside: Outside | None = None


def shape_port() -> Outside | None:
    """Find the harness's port. By hand, on a machine of one's own, there is none."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == _SHAPE_PORT:
            return Outside(os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    return None


def shape(at: int, length: int, huge: int) -> str | None:
    """How the hardware's page tables map a range of huge pages of `huge` bytes, as hgm_shape in hgm.h has it.

    None where nobody can tell, and after so many questions that a case would take too long.
    """
    if _outside is None:
        return None
    _outside.questions += 1
    if _outside.questions > _SHAPE_QUESTIONS:
        if _outside.questions == _SHAPE_QUESTIONS + 1:
            note(f"not checked: page tables from outside, after the first {_SHAPE_QUESTIONS} questions")
        return None
    answer = _outside.ask(at, length, huge)
    if answer == "long":
        note("not checked: page tables from outside, since there are too many pieces to be told")
        return None
    return answer


def expect_one_leaf(at: int, huge: int, physical: int) -> None:
    """Expect the hardware to map the huge page at `at` by one leaf, to the memory at a physical address."""
    told = shape(at, huge, huge)
    if told is not None:
        name = size_name(huge)
        expect_eq("page tables of a huge page", told, f"tables 0; {name}: {name}×1@{physical:x}")


def frames(answer: str, base: int) -> list[int | None]:
    """The page frame of each base page as an answer of `shape` has it: 0 for a hole, None where it does not tell."""
    found: list[int | None] = []
    for page in answer.partition(" !! ")[0].split("; ")[1:]:
        runs, _, head = page.partition("@")
        huge, *words = runs.split()
        frame, total = int(head, 16) // base, size_of(huge.rstrip(":")) // base
        pieces: list[int | None] = []
        for word in words:
            what, _, count = word.partition("×")
            if what in ("hole", "mark"):
                pieces += [0] * int(count)
                continue
            first, length = frame + len(pieces), int(count) * min(size_of(what.rstrip("!")) // base, total)
            pieces += [None] * length if what.endswith("!") else range(first, first + length)
        found += pieces
    return found


# ---- the area ----


_TAG_STEP = 0x100003


def tag(base_page: int) -> int:
    """The tag of a base page of an area, by its number; never 0 and never that of a neighbour. As in hgm.c."""
    return 0x48474D0000000000 + (base_page + 1) * _TAG_STEP


def tags(first: int, behind: int) -> tuple[range, range]:
    """The first and the last words of base pages: their tags, and the same with all bits turned."""
    turned = (1 << 64) - 1
    return (
        range(tag(first), tag(behind), _TAG_STEP),
        range(turned - tag(first), turned - tag(behind), -_TAG_STEP),
    )


def _all_sizes(context: Context) -> list[int]:
    names = [path.name for path in Path("/sys/kernel/mm/hugepages").iterdir()]
    sizes = [int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names]
    return [*sorted(sizes, reverse=True), context.base]


class Area:
    """A file of huge pages, mapped twice; what hgm.h says of struct hgm_area holds here too.

    `plain`: no userfaultfd, faults are filled from the page cache. `rounded`: without UFFD_FEATURE_EXACT_ADDRESS.
    """

    def __init__(self, context: Context, pages: int, *, plain: bool = False, rounded: bool = False) -> None:
        self.context, self.pages, self.length = context, pages, pages * context.huge
        self.base, self.huge, self.pieces = context.base, context.huge, context.pieces
        self.leaf = [0] * (pages * self.pieces)
        self._sizes = [size for size in _all_sizes(context) if size <= context.huge]
        context.need_pages(pages)
        self.fd = context.file(pages)
        self.alias = map_memory(0, self.length, mmap.MAP_SHARED, self.fd)
        self.primary = map_memory(0, self.length, mmap.MAP_SHARED, self.fd)
        self._write_tags()
        self.head = [pagemap(self.alias + page * self.huge)[0] & PFN for page in range(pages)]
        if not all(self.head):
            fail("pagemap hides page frame numbers: CAP_SYS_ADMIN is needed")
        self.uffd = -1 if plain else self._open(rounded)

    @classmethod
    def attach(cls, other: Area) -> Area:
        """Another area on the file and the alias of one: only the primary mapping and its userfaultfd are its own."""
        area = copy.copy(other)
        area.leaf = [0] * len(other.leaf)
        area.primary = map_memory(0, area.length, mmap.MAP_SHARED, area.fd)
        area.uffd = area._open(rounded=False)
        return area

    def _open(self, rounded: bool) -> int:
        spoken = dialect(self.context) if self.context.hgm else Dialect.NONE
        if spoken in (Dialect.V1, Dialect.V2):
            expect_errno("MADV_SPLIT", madvise(self.primary, self.length, MADV_SPLIT), 0)
        features = (0 if rounded else FEATURE_EXACT_ADDRESS) | (FEATURE_HGM if spoken is Dialect.RFC2 else 0)
        uffd = open_uffd(features)
        error = register(uffd, self.primary, self.length, REGISTER_MINOR)
        expect_errno("UFFDIO_REGISTER for minor faults", error, 0)
        return uffd

    def _write_tags(self) -> None:
        view, stride = words(self.alias, self.length), self.base // 8
        first_words, last_words = tags(0, len(self.leaf))
        view[::stride] = memoryview(array("Q", first_words))
        view[stride - 1 :: stride] = memoryview(array("Q", last_words))

    def close(self) -> None:
        """Unmap everything and close the file."""
        if self.primary:
            self.unmap_primary()
        unmap(self.alias, self.length)
        if self.uffd >= 0:
            os.close(self.uffd)
        os.close(self.fd)

    def unmap_primary(self) -> None:
        """Unmap the primary mapping."""
        unmap(self.primary, self.length)
        self.primary = 0
        self.now_empty(0, self.length)

    def step(self, offset: int, length: int) -> int:
        """The largest size that the kernel may use for a leaf at `offset` with `length` left to map."""
        return next(size for size in self._sizes if offset % size == 0 and size <= length)

    def _steps(self, offset: int, length: int) -> Iterator[tuple[slice, int]]:
        end = offset + length
        while offset < end:
            size = self.step(offset, end - offset)
            yield self._slice(offset, size), size
            offset += size

    def _slice(self, offset: int, length: int) -> slice:
        return slice(offset // self.base, (offset + length) // self.base)

    def try_continue(self, offset: int, length: int) -> tuple[int, int]:
        """UFFDIO_CONTINUE of a part of the primary: 0 or errno, and what the kernel says it has mapped."""
        return uffd_continue(self.uffd, self.primary + offset, length)

    def continue_(self, offset: int, length: int) -> None:
        """The same where it must work; the largest size that is aligned and fits is used at each step."""
        error, mapped = self.try_continue(offset, length)
        if error or mapped != length:
            fail(f"CONTINUE of 0x{length:x} bytes at 0x{offset:x}: expected success, saw {error_name(error)}, {mapped}")
        for part, size in self._steps(offset, length):
            self.leaf[part] = [size] * (size // self.base)

    def collapse(self, offset: int, length: int) -> None:
        """MADV_COLLAPSE that must work: entries with pieces below become leaves, holes and all; empty ones stay so."""
        error = madvise(self.primary + offset, length, MADV_COLLAPSE)
        expect_errno(f"MADV_COLLAPSE of 0x{length:x} bytes at 0x{offset:x}", error, 0)
        for part, size in self._steps(offset, length):
            if 0 < max(self.leaf[part]) < size:
                self.leaf[part] = [size] * (size // self.base)

    def now_empty(self, offset: int, length: int) -> None:
        """Note that a part of the primary is mapped no more."""
        self.leaf[self._slice(offset, length)] = [0] * (length // self.base)

    def now_whole(self, page: int) -> None:
        """Note that a fault without a pager, or a collapse, has mapped a whole huge page."""
        self.leaf[self._slice(page * self.huge, self.huge)] = [self.huge] * self.pieces

    def expect_pieces(self) -> None:
        """Exactly the mapped pieces are present in pagemap, with the right page frames, and read right twice."""
        told = shape(self.primary, self.length, self.huge)
        entries = pagemap(self.primary, len(self.leaf))
        seen = [entry & PFN if entry >> 63 else 0 for entry in entries]
        if told is not None:
            self._expect_same_story(told, seen)
        frames = [head + piece for head in self.head for piece in range(self.pieces)]
        expected = [frame if size else 0 for frame, size in zip(frames, self.leaf, strict=True)]
        if seen != expected:
            number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
            fail(
                f"page frame of base page {number}: expected 0x{expected[number]:x}, saw 0x{seen[number]:x} (0: a hole)"
            )
        for start, end in self.mapped_runs():
            self._expect_tags(self.alias, start, end)
            self._expect_tags(self.primary, start, end)
        if told is not None and told != (wanted := self._expected_shape()):
            fail(f"page tables of the primary mapping: expected {wanted}, the hardware has {told}")

    def _expect_same_story(self, told: str, seen: list[int]) -> None:
        """Expect of pagemap, in frames, and of smaps what the hardware's tables have."""
        outside = frames(told, self.base)
        if seen != outside:
            for number, (story, frame) in enumerate(zip(seen, outside, strict=True)):
                if frame not in (None, story):
                    fail(
                        f"the kernel's story differs: pagemap has base page {number} at frame 0x{story:x}, "
                        f"the hardware's tables at 0x{frame:x} (0: a hole)"
                    )
        fields = smaps(self.primary, self.length)
        said = fields["Shared_Hugetlb"] + fields["Private_Hugetlb"]
        mapped = (len(outside) - outside.count(0)) * self.base >> 10
        if said != mapped:
            fail(f"the kernel's story differs: smaps has {said} kB mapped, the hardware's tables {mapped} kB")

    def _expected_shape(self) -> str:
        """What the harness must see of the primary, in its words (harness/pagetable/shape.py)."""
        entries = self.base // 8
        tables = 0
        for span in (self.base * entries, self.base * entries**2):
            if span <= self.huge:
                for start in range(0, len(self.leaf), span // self.base):
                    tables += 0 < max(self.leaf[start : start + span // self.base]) < span
        words = [f"tables {tables}"]
        for page in range(self.pages):
            leaf = self.leaf[page * self.pieces : (page + 1) * self.pieces]
            runs = [(size, len(list(run))) for size, run in itertools.groupby(leaf)]
            shown = (f"{size_name(s)}×{n * self.base // s}" if s else f"hole×{n}" for s, n in runs)
            head = self.head[page] * self.base if any(leaf) else 0
            words.append(f"{size_name(self.huge)}: {' '.join(shown)}@{head:x}")
        return "; ".join(words)

    def mapped_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of mapped base pages, as first and behind the last."""
        mapped = bytes(map(bool, self.leaf)) + b"\0"
        start = mapped.find(1)
        while start >= 0:
            end = mapped.find(0, start)
            yield start, end
            start = mapped.find(1, end)

    def _expect_tags(self, at: int, start: int, end: int) -> None:
        stride = self.base // 8
        view = words(at + start * self.base, (end - start) * self.base)
        first_words, last_words = tags(start, end)
        for words_seen, expected in ((view[::stride], first_words), (view[stride - 1 :: stride], last_words)):
            seen = words_seen.tolist()
            if seen != list(expected):
                number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
                fail(
                    f"content of base page {start + number} at 0x{at + (start + number) * self.base:x}: "
                    f"expected 0x{expected[number]:x}, saw 0x{seen[number]:x}"
                )

    def shares(self, page: int) -> list[int]:
        """What a mapping that looks like the primary adds to the mapcount of each base page of a huge page."""
        leaf = self.leaf[page * self.pieces : (page + 1) * self.pieces]
        return mapcount_rule(dialect(self.context), leaf, self.base)

    def expect_mapcount(self, others: int) -> None:
        """kpagecount of every base page: `others` for whole pages mapped elsewhere, plus the primary's share."""
        for page, head in enumerate(self.head):
            expect_count(f"huge page {page}", head, [others + share for share in self.shares(page)])


def expect_count(what: str, head: int, expected: list[int]) -> None:
    """Expect these counts of the base pages of a huge page."""
    seen = kpagecount(head, len(expected)).tolist()
    if seen != expected:
        number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
        fail(f"kpagecount of base page {number} of {what}: expected {expected[number]}, saw {seen[number]}")


# ---- threads ----


class Thread(threading.Thread):
    """A thread whose failure is that of whoever joins it."""

    def __init__(self, body: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._body = body
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run the body and keep what it raises."""
        try:
            self._body()
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the end; fails if it does not come, or came with an error."""
        self.join(PATIENCE_S)
        if self.is_alive():
            fail(f"a thread is still asleep or busy after {PATIENCE_S} s")
        if self._error:
            raise self._error


class Reader(Thread):
    """Reads one word at each of some addresses, waiting in faults without Python's lock."""

    def __init__(self, addresses: list[int]) -> None:
        self.addresses = addresses
        self.values: list[int] = []
        super().__init__(self._read)
        self.start()

    def _read(self) -> None:
        word = ctypes.c_uint64()
        for address in self.addresses:
            libc.memcpy(ctypes.addressof(word), address, 8)
            self.values.append(word.value)


class Pager(Thread):
    """Answers each fault of an area with a CONTINUE of `unit` bytes, and keeps the messages."""

    def __init__(self, area: Area, unit: int) -> None:
        self.area, self.unit = area, unit
        self.messages: list[Message] = []
        self._stop_read, self._stop_write = os.pipe()
        super().__init__(self._serve)
        self.start()

    def _serve(self) -> None:
        while True:
            ready = select.select([self.area.uffd, self._stop_read], [], [])[0]
            if self.area.uffd not in ready:
                return
            message = read_message(self.area.uffd)
            if message is None:
                continue  # a message is taken back when another CONTINUE has woken its reader
            self.messages.append(message)
            offset = (message.address - self.area.primary) // self.unit * self.unit
            error, _ = self.area.try_continue(offset, self.unit)
            # Somebody else was quicker: its CONTINUE has woken the reader, or this wake does.
            if error not in (0, errno.EEXIST):
                fail(f"pager: CONTINUE at 0x{offset:x}: {error_name(error)}")
            if error == errno.EEXIST:
                wake(self.area.uffd, self.area.primary + offset, self.unit)

    def stop(self) -> list[Message]:
        """End the pager and return the messages it saw."""
        os.close(self._stop_write)
        self.finish()
        os.close(self._stop_read)
        return self.messages


def wake(uffd: int, at: int, length: int) -> None:
    """UFFDIO_WAKE."""
    error, _ = _ioctl(uffd, _ioc(0x02, _RANGE.size, direction=2), _RANGE.pack(at, length))
    expect_errno("UFFDIO_WAKE", error, 0)


# ---- children ----

_in_child = False


class Child:
    """A forked process that runs `body` and dies with its parent. What it expects in vain fails the case at join."""

    def __init__(self, body: Callable[[Child], None]) -> None:
        sys.stdout.flush()
        mine, theirs = socket.socketpair()
        self.pid = os.fork()
        self._channel = mine if self.pid else theirs
        (theirs if self.pid else mine).close()
        if not self.pid:
            _run_child(lambda: body(self))

    def tell(self) -> None:
        """Let the other side go on from its wait."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the wait or join that follows says why
            self._channel.send(b".")

    def wait(self) -> None:
        """Wait for the other side's tell."""
        with contextlib.suppress(ConnectionResetError):
            if self._channel.recv(1):
                return
        if self.pid:
            self.join()
        fail("the other process ended before its time")

    def join(self) -> None:
        """Wait for the end of the child, which must be a good one."""
        _, status = os.waitpid(self.pid, 0)
        self._channel.close()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            fail(f"a child was killed by signal {number} ({signal.strsignal(number)})")
        if os.WEXITSTATUS(status):
            fail(f"a child failed (exit status {os.WEXITSTATUS(status)})")


def _run_child(body: Callable[[], None]) -> NoReturn:
    global _in_child
    _in_child = True
    code = 1
    try:
        if libc.prctl(1, signal.SIGKILL, 0, 0, 0):  # PR_SET_PDEATHSIG
            fail("prctl")
        body()
        code = 0
    except Skip as error:
        note(f"a child cannot skip the case: {error}")
    except BaseException as error:
        _explain(error)
    finally:
        sys.stdout.flush()
        os._exit(code)


# ---- the frame ----


def _explain(error: BaseException) -> None:
    """Print where in the case's program it failed, and why; for what is no Failure, all of it."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if Path(frame.filename).resolve() != Path(__file__).resolve()]
    place = f"{Path(outside[-1].filename).name}:{outside[-1].lineno}: " if outside else ""
    if isinstance(error, Failure):
        note(f"{place}{error}")
    else:
        note(f"{place}{''.join(traceback.format_exception(error)).rstrip()}")


def _run(chosen: _Case, number: int, huge: int) -> int:
    """Run one case, print its result line, and return its exit status."""
    context = Context(huge=huge, base=mmap.PAGESIZE, hgm=chosen.needs_hgm)
    try:
        global _outside
        _outside = shape_port()
        if _outside is None:
            note("not checked: page tables from outside, since no harness is there to look")
        if chosen.sizes and size_name(huge) not in chosen.sizes.split():
            skip(f"not applicable: only about huge pages of {chosen.sizes}")
        machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
        if chosen.arch and chosen.arch != machine:
            skip(f"not applicable: only about {chosen.arch}")
        if not Path(f"/sys/kernel/mm/hugepages/hugepages-{huge >> 10}kB").exists():
            fail(f"the kernel has no huge pages of {size_name(huge)}")
        if chosen.needs_hgm and dialect(context) is Dialect.NONE:
            skip("kernel has no HGM")
        chosen.body(context)
    except Skip as error:
        print(f"ok {number} {chosen.name} # SKIP {error}", flush=True)
        return 4
    except BaseException as error:
        _explain(error)
        print(f"not ok {number} {chosen.name}", flush=True)
        return 1
    print(f"ok {number} {chosen.name}", flush=True)
    return 0


def _run_all(huge: int) -> int:
    """Run each case in a process of its own, so that one that dies leaves the others alone."""
    codes = []
    for number, chosen in enumerate(_cases, 1):
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os._exit(_run(chosen, number, huge))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            print(f"# killed by signal {-code} ({signal.strsignal(-code)})\nnot ok {number} {chosen.name}", flush=True)
        codes.append(code)
    return 1 if any(code not in (0, 4) for code in codes) else 0 if 0 in codes else 4


def _default_huge_page_size() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Hugepagesize:"):
            return int(line.split()[1]) << 10
    sys.exit("/proc/meminfo has no huge page size; give --huge-page-size")


def main() -> NoReturn:
    """Run the program: `--list`, `--case NAME`, or all of its cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true", help="print the cases with their claims")
    parser.add_argument("--case", metavar="NAME", help="run one case (default: all)")
    parser.add_argument("--huge-page-size", type=int, metavar="BYTES", help="default: the system's default size")
    options = parser.parse_args()
    if options.list:
        for one in _cases:
            print(f"{one.name}\t{'hgm' if one.needs_hgm else 'stock'}\t{one.claim}")
        sys.exit(0)
    chosen = [one for one in _cases if options.case in (None, one.name)]
    if not chosen:
        parser.error(f"no case is called {options.case}; --list prints them")
    huge = options.huge_page_size or _default_huge_page_size()
    print(f"KTAP version 1\n1..{len(chosen)}", flush=True)
    code = _run(chosen[0], 1, huge) if options.case else _run_all(huge)
    # Not sys.exit: a thread that is still asleep in a fault must not keep the program from ending.
    os._exit(code)
