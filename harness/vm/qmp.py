# SPDX-License-Identifier: MIT
"""QMP for code that is not asynchronous: qemu.qmp's client on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

from qemu.qmp import EventListener, Message, QMPClient, QMPError

from harness.errors import HostFault

T = TypeVar("T")

# A QEMU that is killed is no news to the harness, which killed it; what matters is raised as an error here.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class Qmp:
    """One QMP connection. Bind first, start QEMU, then accept; every call has a limit in seconds."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient("hgm")
        self._path = path
        self._watched: list[int] = []
        self._do(self._client.start_server(str(path)), 5)

    def accept(self, seconds: float) -> None:
        """Wait for QEMU's greeting. Raises HostFault if none comes."""
        self._do(self._client.accept(), seconds)

    def execute(self, command: str, seconds: float = 5, **arguments: object) -> object:
        """Run one QMP command and return its answer. Raises HostFault on an error, or when no answer comes."""
        return self._do(self._client.execute(command, arguments or None), seconds)

    def monitor(self, line: str, seconds: float = 5, cpu: int = 0) -> str:
        """Run one line of the human monitor, for what QMP has no command for, and return its text.

        Where the line is about a processor, it is about `cpu`.
        """
        return str(self.execute("human-monitor-command", seconds, **{"command-line": line, "cpu-index": cpu}))

    def watch(self, event: str) -> int:
        """Return a file descriptor that can be read once QEMU has told of `event`; it is closed with the connection."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched.append(descriptor)

        def note(_: Message) -> bool:
            os.eventfd_write(descriptor, 1)
            return False  # nobody will fetch it from the listener

        async def register() -> None:
            self._client.register_listener(EventListener(event, note))

        self._do(register(), 5)
        return descriptor

    def close(self) -> None:
        """Drop the connection and end the thread. QEMU itself is left alone."""
        self._loop.call_soon_threadsafe(self._loop.create_task, self._finish())
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()
            for descriptor in self._watched:
                os.close(descriptor)
        self._path.unlink(missing_ok=True)

    async def _finish(self) -> None:
        try:
            await asyncio.wait_for(self._client.disconnect(), 2)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            # The peer was killed: how the connection broke is of no interest, that it is gone is what was asked for.
            logging.getLogger(__name__).debug("QMP closed: %r", error)
        finally:
            self._loop.stop()

    def _do(self, work: Coroutine[object, object, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except FutureTimeout as error:
            future.cancel()
            raise HostFault(f"QEMU did not answer on QMP within {seconds:.0f} s") from error
        except (QMPError, OSError, EOFError) as error:
            raise HostFault(f"QMP failed: {error}") from error
