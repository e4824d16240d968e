# SPDX-License-Identifier: MIT
"""Threads of a case, among them those that wait in faults and one that answers faults."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import threading
from collections.abc import Callable

from hgm.area import Area
from hgm.memory import libc
from hgm.uffd import Message, read_message, wake
from hgm.verdicts import PATIENCE_S, error_name, fail


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
