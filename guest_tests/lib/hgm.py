# SPDX-License-Identifier: MIT
"""What guest tests in Python stand on: cases, KTAP, and the kernel interfaces around shared huge pages."""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BASE = mmap.PAGESIZE
MAP_SHARED, PROT_RW = mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
MADV_DONTNEED, MADV_COLLAPSE, MADV_SPLIT = 4, 25, 26
UFFD_MINOR_HUGETLBFS, UFFD_SIGBUS, UFFD_EXACT_ADDRESS = 1 << 9, 1 << 7, 1 << 11
REGISTER_MODE_MINOR = 1 << 2
_MFD_HUGE_SHIFT = 26
# include/uapi/linux/userfaultfd.h: _IOWR(0xAA, number, struct)
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_CONTINUE = 0xC018AA3F, 0xC020AA00, 0xC020AA07
NO_HGM = "kernel has no HGM"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.syscall.restype = ctypes.c_long


class Failure(Exception):
    """An expectation that was not met."""


class Skip(Exception):
    """The case cannot say anything here, and why."""


@dataclass(frozen=True)
class Case:
    """A case as it was declared."""

    name: str
    claim: str
    needs_hgm: bool
    run: Callable[[int], None]


CASES: dict[str, Case] = {}
Body = Callable[[int], None]


def case(claim: str, **attributes: object) -> Callable[[Body], Body]:
    """Declare a case about HGM; skipped where the kernel has none. Attributes are the harness's."""
    return _declare(claim, True)


def stock_case(claim: str, **attributes: object) -> Callable[[Body], Body]:
    """Declare a case that holds with and without HGM."""
    return _declare(claim, False)


def _declare(claim: str, needs_hgm: bool) -> Callable[[Body], Body]:
    def keep(body: Body) -> Body:
        CASES[body.__name__] = Case(body.__name__, claim, needs_hgm, body)
        return body

    return keep


def note(text: str) -> None:
    """Print one diagnostic line."""
    print(f"# {text}", flush=True)


def expect(what: str, seen: object, expected: object) -> None:
    """Fail the case if `seen` is not `expected`."""
    if seen != expected:
        caller = sys._getframe(1)
        place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
        raise Failure(f"{place}: {what}: expected {expected}, saw {seen}")


# ---- memory ----


def checked(value: int | None) -> int:
    """Return the value of a libc call. Raises OSError where it is -1."""
    if value is None or value in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value


def memfd(size: int, pages: int) -> int:
    """Return a memfd of `pages` huge pages of `size` bytes."""
    flags = os.MFD_HUGETLB | (size.bit_length() - 1) << _MFD_HUGE_SHIFT
    fd = os.memfd_create("hgm", flags)
    os.ftruncate(fd, size * pages)
    return fd


def map_file(fd: int, length: int, flags: int = MAP_SHARED) -> int:
    """Return the address of a mapping of `fd` from its start."""
    return checked(_libc.mmap(None, length, PROT_RW, flags, fd, 0))


def unmap(address: int, length: int) -> None:
    """Unmap a range."""
    checked(_libc.munmap(address, length))


def advise(address: int, length: int, advice: int) -> int:
    """Return 0 or the errno of madvise."""
    return 0 if _libc.madvise(address, length, advice) == 0 else ctypes.get_errno()


def write(address: int, value: int) -> None:
    """Write one 64-bit word, as a fault may."""
    ctypes.c_uint64.from_address(address).value = value


def read(address: int) -> int:
    """Read one 64-bit word, as a fault may."""
    return ctypes.c_uint64.from_address(address).value


def read_waiting(address: int) -> int:
    """Read one 64-bit word in a thread whose fault somebody else in this process will resolve.

    A plain read would wait with the interpreter's lock held, and nobody else could run.
    """
    word = ctypes.c_uint64()
    _libc.memcpy(ctypes.byref(word), ctypes.c_void_p(address), 8)
    return word.value


def fill(address: int, length: int) -> None:
    """Give each base page a tag of its own."""
    for number in range(length // BASE):
        write(address + number * BASE, tag(number))


def tag(number: int) -> int:
    """Return the tag of a base page; never 0, and never that of a neighbour."""
    return 0x48474D0000000000 + number


# ---- userfaultfd ----


class Userfault:
    """A userfaultfd; what it must refuse comes back as an errno."""

    def __init__(self, features: int = UFFD_MINOR_HUGETLBFS | UFFD_SIGBUS) -> None:
        number = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
        self.fd = checked(_libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK))
        fcntl.ioctl(self.fd, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, features, 0)))

    def register(self, address: int, length: int) -> None:
        """Register a range for minor faults."""
        fcntl.ioctl(self.fd, UFFDIO_REGISTER, bytearray(struct.pack("QQQQ", address, length, REGISTER_MODE_MINOR, 0)))

    def try_continue(self, address: int, length: int) -> int:
        """Map what is in the page cache: 0 or errno."""
        try:
            fcntl.ioctl(self.fd, UFFDIO_CONTINUE, bytearray(struct.pack("QQQq", address, length, 0, 0)))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def close(self) -> None:
        """Close it; what it had registered becomes ordinary memory."""
        os.close(self.fd)


# ---- what the kernel shows ----


def pagemap(address: int, pages: int = 1) -> list[int]:
    """Return the pagemap entries of `pages` base pages; no page is touched by it."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        return list(struct.unpack(f"{pages}Q", os.pread(file.fileno(), pages * 8, address // BASE * 8)))


def present(address: int, length: int) -> int:
    """Return how many base pages of a range are mapped."""
    return sum(entry >> 63 for entry in pagemap(address, length // BASE))


def pfn(address: int) -> int:
    """Return the frame that an address is mapped to. Fails the case if it is not mapped."""
    (entry,) = pagemap(address)
    if not entry >> 63:
        raise Failure(f"address {address:#x} is not mapped")
    return entry & (1 << 55) - 1


def mapcount(frame: int) -> int:
    """Return how often a page frame is mapped, as /proc/kpagecount has it."""
    with Path("/proc/kpagecount").open("rb", buffering=0) as file:
        return int.from_bytes(os.pread(file.fileno(), 8, frame * 8), "little")


def pageflags(frame: int) -> int:
    """Return the flags of a page frame, as /proc/kpageflags has them."""
    with Path("/proc/kpageflags").open("rb", buffering=0) as file:
        return int.from_bytes(os.pread(file.fileno(), 8, frame * 8), "little")


def status_kb(field: str) -> int:
    """Return a field of /proc/self/status in kB."""
    return _field("/proc/self/status", field)


def _field(path: str, field: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise Failure(f"{path} has no {field}")


def pool(size: int, counter: str = "free") -> int:
    """Return a counter of the pool of huge pages of `size` bytes: nr, free, resv or surplus."""
    return int(Path(f"/sys/kernel/mm/hugepages/hugepages-{size // 1024}kB/{counter}_hugepages").read_text())


def set_pool(size: int, pages: int) -> None:
    """Ask for a pool of `pages` huge pages."""
    Path(f"/sys/kernel/mm/hugepages/hugepages-{size // 1024}kB/nr_hugepages").write_text(str(pages))


# ---- processes ----


def in_child(body: Callable[[], None]) -> None:
    """Run `body` in a forked child to its end; what fails there fails the case here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except Failure as failure:
            note(f"child: {failure}")
        except BaseException as error:  # a child must never run on as a second parent
            note(f"child: {error!r}")
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    expect("status of the child", status, 0)


# ---- HGM ----


def has_hgm(size: int) -> bool:
    """Ask the kernel whether it maps a base page of a huge page. Fails the case for an answer of no known version.

    Stock 6.1 answers EINVAL (mm/userfaultfd.c:__mcopy_atomic_hugetlb); RFC v1 maps it; PATCH v1 and v2 first want
    MADV_SPLIT, which stock answers with EINVAL (mm/madvise.c:madvise_behavior_valid).
    """
    fd = memfd(size, 1)
    alias, primary = map_file(fd, size), map_file(fd, size)
    write(alias, 1)
    uffd = Userfault()
    uffd.register(primary, size)
    split = advise(primary, size, MADV_SPLIT)
    answer = uffd.try_continue(primary, BASE)
    uffd.close()
    for address in (primary, alias):
        unmap(address, size)
    os.close(fd)
    if answer == errno.EINVAL and split == errno.EINVAL:
        return False
    if answer == 0:
        return True
    raise Failure(f"UFFDIO_CONTINUE of one base page: {os.strerror(answer)}, which no posted version answers")


def only_without_hgm(size: int) -> None:
    """Skip a case about kernels without HGM where there is HGM."""
    if has_hgm(size):
        raise Skip("not applicable: kernel has HGM")


def main() -> None:
    """Run one case or all, print KTAP, and exit as a kselftest does: 0 pass, 1 fail, 4 skip."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=sorted(CASES), metavar="NAME")
    parser.add_argument("--huge-page-size", type=int, default=_field("/proc/meminfo", "Hugepagesize") * 1024)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for declared in CASES.values():
            print(f"{declared.name}: {declared.claim}")
        return
    chosen = [CASES[options.case]] if options.case else list(CASES.values())
    print(f"KTAP version 1\n1..{len(chosen)}", flush=True)
    results = [_run(number, declared, options.huge_page_size) for number, declared in enumerate(chosen, 1)]
    sys.exit(1 if 1 in results else 4 if all(result == 4 for result in results) else 0)


def _run(number: int, declared: Case, size: int) -> int:
    try:
        if declared.needs_hgm and not has_hgm(size):
            raise Skip(NO_HGM)
        declared.run(size)
    except Skip as skip:
        print(f"ok {number} {declared.name} # SKIP {skip}", flush=True)
        return 4
    except (Failure, OSError) as failure:
        note(f"{failure}")
        print(f"not ok {number} {declared.name}", flush=True)
        return 1
    print(f"ok {number} {declared.name}", flush=True)
    return 0
