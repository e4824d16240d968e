# SPDX-License-Identifier: MIT
"""userfaultfd: its calls, and the messages of its faults."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import struct
from dataclasses import dataclass

from hgm.memory import libc
from hgm.verdicts import PATIENCE_S, error_name, expect_errno, fail

FEATURE_SIGBUS = 1 << 7
FEATURE_EXACT_ADDRESS = 1 << 11
FEATURE_HGM = 1 << 13  # RFC v1 patch 23, RFC v2
REGISTER_WP = 2
REGISTER_MINOR = 4
FLAG_MINOR = 4  # of a fault message: the page is in the page cache, only not mapped

_NR_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_UFFD_API = 0xAA
_API = struct.Struct("=QQQ")  # api, features, ioctls
_REGISTER = struct.Struct("=QQQQ")  # start, length, mode, ioctls
_RANGE = struct.Struct("=QQ")
WRITEPROTECT = struct.Struct("=QQQ")  # start, length, mode
_CONTINUE = struct.Struct("=QQQq")  # start, length, mode, mapped
_MESSAGE = struct.Struct("=BBHIQQQ")  # event, reserved, flags, address, features
_EVENT_PAGEFAULT = 0x12


def _ioc(number: int, size: int, direction: int = 3) -> int:
    return direction << 30 | size << 16 | _UFFD_API << 8 | number


_IOC_API = _ioc(0x3F, _API.size)
_IOC_REGISTER = _ioc(0x00, _REGISTER.size)
_IOC_UNREGISTER = _ioc(0x01, _RANGE.size, direction=2)  # a read, as the kernel's header has it
IOC_WRITEPROTECT = _ioc(0x06, WRITEPROTECT.size)
_IOC_CONTINUE = _ioc(0x07, _CONTINUE.size)


def open_uffd(features: int) -> int:
    """A userfaultfd with these features."""
    ctypes.set_errno(0)
    uffd = int(libc.syscall(_NR_USERFAULTFD[platform.machine()], os.O_CLOEXEC | os.O_NONBLOCK))
    if uffd < 0:
        fail(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    error, _ = ioctl(uffd, _IOC_API, _API.pack(_UFFD_API, features, 0))
    if error:
        os.close(uffd)
        fail(f"UFFDIO_API with features 0x{features:x}: {error_name(error)}")
    return uffd


def supported_features() -> int:
    """The features userfaultfd knows."""
    uffd = int(libc.syscall(_NR_USERFAULTFD[platform.machine()], os.O_CLOEXEC | os.O_NONBLOCK))
    error, answer = ioctl(uffd, _IOC_API, _API.pack(_UFFD_API, 0, 0))
    os.close(uffd)
    if error:
        fail(f"UFFDIO_API: {error_name(error)}")
    return int(_API.unpack(answer)[1])


def register(uffd: int, at: int, length: int, mode: int) -> int:
    """UFFDIO_REGISTER: 0 or errno."""
    return ioctl(uffd, _IOC_REGISTER, _REGISTER.pack(at, length, mode, 0))[0]


def unregister(uffd: int, at: int, length: int) -> int:
    """UFFDIO_UNREGISTER: 0 or errno."""
    return ioctl(uffd, _IOC_UNREGISTER, _RANGE.pack(at, length))[0]


def uffd_continue(uffd: int, at: int, length: int) -> tuple[int, int]:
    """UFFDIO_CONTINUE: 0 or errno, and what the kernel says it has mapped."""
    error, answer = ioctl(uffd, _IOC_CONTINUE, _CONTINUE.pack(at, length, 0, 0))
    return error, int(_CONTINUE.unpack(answer)[3])


def wake(uffd: int, at: int, length: int) -> None:
    """UFFDIO_WAKE."""
    error, _ = ioctl(uffd, _ioc(0x02, _RANGE.size, direction=2), _RANGE.pack(at, length))
    expect_errno("UFFDIO_WAKE", error, 0)


def ioctl(fd: int, request: int, argument: bytes) -> tuple[int, bytes]:
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
