# SPDX-License-Identifier: MIT
"""What a guest that hangs can still tell: where its processors are, what its kernel says to sysrq, what an NMI brings.

None of it needs ssh. All of it is bounded in time, and what could not be had is said.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import HostFault
from harness.vm.frames import Processor, look
from harness.vm.machine import Machine
from harness.vm.ssh import End

# What is asked, in order, and the first words of each answer (drivers/tty/sysrq.c).
QUESTIONS = {
    "w": "Show Blocked State",
    "t": "Show State",
    "m": "Show Memory",
    "l": "Show backtrace of all active CPUs",
}
LAST = "h"  # asked to see the end of the answer before it
# All in seconds, on an accelerator of slowness 1.
SECONDS = 6.0  # for everything but the NMI
ANSWER_SECONDS = 0.6  # for the first words of an answer
NMI_SECONDS = 3.0  # until an NMI has ended the guest: the panic waits for processors that are in the NMI themselves
QUIET_SECONDS = 0.05  # without a word: the answer is over
SUMMARY_BLOCKED = 24  # lines of blocked tasks in a summary
SUMMARY_FRAMES = 12  # of each processor in it

_HEADER = re.compile(r"sysrq: (.*)")
# Of a system call's caller: no place in the kernel.
_USER_MODE = re.compile(r"^(?:RIP: 0033|RSP: 002b|R\w\w: [0-9a-f]{16} |x\d+ *: )")
_STAMP = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a guest told; empty where nothing was to be had, and then `remarks` say why."""

    processors: tuple[Processor, ...]
    answers: Mapping[str, str]  # to sysrq, by letter, in the order of QUESTIONS
    nmi: str  # what the kernel said to an NMI
    remarks: tuple[str, ...]  # what was not to be had, or not tried, and why
    console: str  # all that the serial console saw in the meantime

    @property
    def text(self) -> str:
        """All of it, for a file."""
        parts = [*self.remarks, *map(str, self.processors)]
        parts += [f"== sysrq {letter}: {QUESTIONS[letter]} ==\n{text}" for letter, text in self.answers.items()]
        parts += [f"== NMI ==\n{self.nmi}"] if self.nmi else []
        parts += [f"== registers of CPU {one.number} ==\n{one.registers}" for one in self.processors]
        return "\n\n".join(part.rstrip() for part in parts) + "\n"

    @property
    def summary(self) -> str:
        """What tells most, in some 50 lines: where the processors are, and the tasks that are blocked."""
        lines = list(self.remarks)
        for one in self.processors:
            lines += str(one).splitlines()[: SUMMARY_FRAMES + 1]
        blocked = [_STAMP.sub("", line) for line in self.answers.get("w", "").splitlines()[1:]]
        blocked = [line for line in blocked if not _USER_MODE.match(line)]
        if blocked:
            lines += ["blocked tasks:", *blocked[:SUMMARY_BLOCKED]]
            lines += ["  ..."] if len(blocked) > SUMMARY_BLOCKED else []
        elif "w" in self.answers:
            lines.append("no task is blocked")
        return "\n".join(lines)


def collect(machine: Machine, *, before_end: Callable[[], None] | None = None, nmi: bool = True) -> Evidence:
    """Ask a guest that hangs for all it can tell. Raises nothing: what fails is a remark.

    An NMI is sent if `nmi` is set, the architecture has it, and not every processor has answered to sysrq. It ends the
    guest, so `before_end` is called before.
    """
    slowness = machine.spec.accelerator.slowness
    deadline = Deadline(SECONDS * slowness)
    position = machine.console_size()
    remarks: list[str] = []
    processors: list[Processor] = []
    answers: dict[str, str] = {}
    told = ""
    try:
        processors = look(machine.qmp, machine.spec.arch, machine.spec.cpus)
        answers = _ask(machine, deadline, remarks)
    except (HostFault, OSError) as error:
        remarks.append(f"QEMU does not answer: {error}")
    if before_end:
        before_end()
    if machine.spec.arch.nmi and not _all_answered(answers, machine.spec.cpus):
        if nmi:
            told = _interrupt(machine, Deadline(NMI_SECONDS * slowness), remarks)
        else:
            remarks.append("no NMI was sent, for it would have ended the guest")
    return Evidence(
        processors=tuple(processors),
        answers=answers,
        nmi=told,
        remarks=tuple(remarks),
        console=machine.console_since(position),
    )


def sections(text: str) -> dict[str, str]:
    """Return the answers to sysrq in a console's text by letter, in the order of QUESTIONS."""
    letters = {words: letter for letter, words in QUESTIONS.items()}
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := _HEADER.search(line):
            current = found.setdefault(letters.get(match[1].strip(), ""), [])
        current.append(line)
    return {letter: "\n".join(found[letter]) for letter in QUESTIONS if letter in found}


def _ask(machine: Machine, deadline: Deadline, remarks: list[str]) -> dict[str, str]:
    """The answers to sysrq, asked over the serial line, else over ssh."""
    slowness = machine.spec.accelerator.slowness
    patience = ANSWER_SECONDS * slowness
    with _Line(machine) as line:
        for letter in (*QUESTIONS, LAST):
            # Who has answered once is not deaf, but perhaps busy with a long answer.
            wait = Deadline(min(patience, deadline.left)) if letter == next(iter(QUESTIONS)) else deadline
            if not line.ask(letter, wait):
                break
            line.settle(QUIET_SECONDS * slowness, deadline)
    answers = sections(line.text)
    _missed(answers, "the serial line", wait.seconds, remarks)
    if not answers and not deadline.over:
        position = machine.console_size()
        words = "; ".join(f"echo {letter} > /proc/sysrq-trigger" for letter in QUESTIONS)
        wait = Deadline(min(patience, deadline.left))
        if machine.ssh.run(f"{words}; echo 'hgm: asked' > /dev/kmsg", wait).end is End.EXITED:
            machine.wait_console("hgm: asked", position, wait)
        answers = sections(machine.console_since(position))
        _missed(answers, "ssh", wait.seconds, remarks)
    return answers


def _missed(answers: Mapping[str, str], way: str, seconds: float, remarks: list[str]) -> None:
    if missing := [letter for letter in QUESTIONS if letter not in answers]:
        remarks.append(f"sysrq {', '.join(missing)} over {way}: no answer within {seconds:.1f} s")


def _all_answered(answers: Mapping[str, str], cpus: int) -> bool:
    """Whether each processor has shown its stack; where the kernel asks them by NMI, each that did says so."""
    return all(re.search(rf"NMI backtrace for cpu {cpu}\b", answers.get("l", "")) for cpu in range(cpus))


def _interrupt(machine: Machine, patience: Deadline, remarks: list[str]) -> str:
    """Send an NMI to every processor; return what the kernel says to it. It panics, which ends the guest."""
    position = machine.console_size()
    try:
        machine.qmp.execute("inject-nmi")
    except HostFault as error:
        remarks.append(f"no NMI could be sent: {error.message}")
        return ""
    if not machine.wait_end(patience.left):
        remarks.append(f"the NMI has not ended the guest within {patience.seconds:.1f} s")
    told = machine.console_since(position)
    if not told.strip():
        remarks.append("the kernel said nothing to the NMI")
    return told


class _Line:
    """The serial line of a guest, typed and read by us. While it is open all that comes must be read, or QEMU waits."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._data = b""
        self._socket = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> _Line:
        with contextlib.ExitStack() as stack:
            stack.callback(self._socket.close)
            self._socket.settimeout(5)
            self._socket.connect(str(self._machine.serial))
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def text(self) -> str:
        """All that has come."""
        return self._data.decode(errors="replace").replace("\r\n", "\n")

    def ask(self, letter: str, deadline: Deadline) -> bool:
        """Type a break and a letter; return whether the kernel has begun to answer in time."""
        before = self._data.count(b"sysrq: ")
        self._machine.qmp.execute("chardev-send-break", id="console")
        self._socket.sendall(letter.encode())
        while self._data.count(b"sysrq: ") == before:
            if not self._more(deadline.left):
                return False
        return True

    def settle(self, quiet: float, deadline: Deadline) -> None:
        """Read on until nothing has come for `quiet` seconds."""
        while self._more(min(quiet, deadline.left)):
            pass

    def _more(self, seconds: float) -> bool:
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        piece = self._socket.recv(1 << 16)
        self._data += piece
        return bool(piece)
