# SPDX-License-Identifier: MIT
"""File and line for the places in a kernel's text: found by the kernel's own decode_stacktrace.sh.

The script starts binutils anew for each place, on a vmlinux of 100 MB. So each place is handed to it once, and what it
would ask of binutils is asked before, for all places together, and put where the script looks for its tools.
"""

from __future__ import annotations

import bisect
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import interrupts
from harness.arch import Arch, native
from harness.deadline import Deadline
from harness.errors import HarnessError, HostFault
from harness.kernel.build import Kernel
from harness.process import end_group, say, tail
from harness.verdict.judge import Verdict

SECONDS = 30.0  # for all texts of one case
# A place as the kernel prints it. Nothing else reaches the script, which would run parts of what a guest may have
# printed as commands.
_PLACE = re.compile(r"(?<![\w.+])[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+(?![\w/])")
# A place as it is read from outside. But for the first of a processor it is an address to return to.
_ADDRESS = re.compile(r"(\bpc )?\[<([0-9a-f]{16})>\]")
_ANCHOR = "kernel_init"  # by whose file the script knows where the sources lie


def explained(verdict: Verdict, kernel: Kernel) -> Verdict:
    """Return the verdict with file and line in the evidence of its findings, but for the title of a complaint.

    Evidence is left as it is where that cannot be told; why is said once.
    """
    heads, tails = [], []
    for finding in verdict.findings:
        head, line_end, rest = finding.evidence.partition("\n")
        kept = head + line_end if finding.kind == "splat" else ""
        heads.append(kept)
        tails.append(rest if kept else finding.evidence)
    findings = zip(verdict.findings, heads, decoded(tails, kernel), strict=True)
    return replace(verdict, findings=tuple(replace(one, evidence=head + text) for one, head, text in findings))


def decoded(texts: Sequence[str], kernel: Kernel) -> list[str]:
    """Return texts with " (file:line)" behind each place of the kernel, in at most SECONDS.

    Addresses in brackets become places first. What cannot be told is left as it is; why is said once.
    """
    if not any(_PLACE.search(text) or _ADDRESS.search(text) for text in texts):
        return list(texts)
    if not (kernel.vmlinux and kernel.system_map and kernel.decoder):
        _say_once(f"no lines of source in evidence: {kernel.source} has no vmlinux")
        return list(texts)
    try:
        table = Table(kernel.system_map)
        named = [_ADDRESS.sub(functools.partial(_named, table), text) for text in texts]
        places = dict.fromkeys(match[0] for text in named for match in _PLACE.finditer(text))
        lines = _lines(list(places), table, kernel.vmlinux, kernel.decoder, _addr2line(kernel.arch))
    except (HarnessError, OSError) as error:
        _say_once(f"no lines of source in evidence: {error}")
        return list(texts)
    return [_PLACE.sub(lambda match: f"{match[0]}{lines.get(match[0], '')}", text) for text in named]


def _named(table: Table, match: re.Match[str]) -> str:
    counter, address = match[1] or "", int(match[2], 16)
    # Behind the call of a function that never returns there may be no more of the caller (%pB of the kernel's printk).
    place = table.place(address, back=0 if counter else 1)
    return f"{counter}{place}" if place else match[0]


class Table:
    """System.map."""

    def __init__(self, path: Path) -> None:
        self._base: dict[str, int] = {}
        entries = []
        for line in path.read_text().splitlines():
            address, kind, name = line.split()
            if kind in "tTwW":
                entries.append((int(address, 16), name))
                # Of two functions with one name the script takes the first, too.
                self._base.setdefault(name, int(address, 16))
        entries.sort()
        self._starts, self._names = [start for start, _ in entries], [name for _, name in entries]

    def place(self, address: int, back: int = 0) -> str:
        """Return the place at an address as the kernel would print it; "" if there is no function.

        The function is that of the address `back` bytes before.
        """
        at = bisect.bisect_right(self._starts, address - back)
        if not 0 < at < len(self._starts):
            return ""
        start = self._starts[at - 1]
        return f"{self._names[at - 1]}+{address - start:#x}/{self._starts[at] - start:#x}"

    def base(self, name: str) -> int | None:
        """Return where a function begins."""
        return self._base.get(name)


def _lines(places: Sequence[str], table: Table, vmlinux: Path, decoder: Path, addr2line: str) -> dict[str, str]:
    """Return what the script has to say of each place: " (file:line)", with more than one for inlined functions."""
    deadline = Deadline(SECONDS)
    bases = {name: table.base(name) for name in [_ANCHOR, *(place.partition("+")[0] for place in places)]}
    known = {name: base for name, base in bases.items() if base is not None}
    # What the script will ask, and what it shall be told of: behind a function's end lies the next one.
    asked = {known[_ANCHOR]: known[_ANCHOR]} if _ANCHOR in known else {}
    for place in places:
        name, offset, size = re.split(r"\+0x|/0x", place)
        if name in known:
            address = known[name] + int(offset, 16)
            asked[address] = address - (offset == size)
    with tempfile.TemporaryDirectory(prefix="hgm-symbols-") as work:
        tools = Path(work)
        words = "".join(f"{address:x}\n" for address in asked.values())
        told = _run([addr2line, "-a", "-i", "-e", vmlinux], words, os.environ, deadline)
        _pretend(tools, known, dict(zip(asked, re.split(r"^0x.*\n", told, flags=re.MULTILINE)[1:], strict=False)))
        environment = {name: value for name, value in os.environ.items() if name != "LLVM"}
        environment |= {"CROSS_COMPILE": f"{tools}/", "PATH": f"{tools}:{os.environ['PATH']}", "LC_ALL": "C"}
        output = _run(["bash", decoder, vmlinux], "".join(f"{place}\n" for place in places), environment, deadline)
    output = re.sub(r" \(discriminator \d+\)", "", output)
    # The script answers line for line, and "name (file:line file:line) " where it knows the place.
    answers = zip(places, output.splitlines(), strict=False)
    return {place: f" {match[1]}" for place, answer in answers if (match := re.search(r"(\(\S.*\))\s*$", answer))}


def _pretend(tools: Path, bases: Mapping[str, int], lines: Mapping[int, str]) -> None:
    """Put an nm and an addr2line into `tools` that answer at once what is known already."""
    (tools / "symbols").write_text("".join(f"{base:016x} t {name}\n" for name, base in sorted(bases.items())))
    for address, text in lines.items():
        (tools / f"{address:x}").write_text(text)
    for name, answer in (("nm", "symbols"), ("addr2line", "$last")):
        (tools / name).write_text(f'#!/bin/sh\nfor last; do :; done\nexec cat "${{0%/*}}/{answer}"\n')
        (tools / name).chmod(0o755)


def _run(argv: Iterable[str | os.PathLike[str]], text: str, env: Mapping[str, str], left: Deadline) -> str:
    """Return the output of a command; what there is of it if time runs out. Raises HostFault if it fails."""
    words = [os.fspath(word) for word in argv]
    with interrupts.held():
        process = subprocess.Popen(
            words, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    try:
        out, errors = process.communicate(text.encode(), timeout=left.left)
    except subprocess.TimeoutExpired:
        end_group(process, 0)
        out, _ = process.communicate()
        say(f"{Path(words[0]).name} needed more than {left.seconds:.0f} s: some evidence is without lines of source")
        return out.decode(errors="replace")
    except BaseException:
        end_group(process)
        raise
    if process.returncode:
        raise HostFault(
            f"{words[0]} ended with status {process.returncode}: {tail(errors.decode(errors='replace'), 3)}"
        )
    return out.decode(errors="replace")


def _addr2line(arch: Arch) -> str:
    """Return the addr2line that reads kernels of `arch`. Raises HostFault if there is none."""
    cross = os.environ.get("CROSS_COMPILE", "" if native(arch) else f"{arch.gnu}-")
    for name in (f"{cross}addr2line", "llvm-addr2line"):
        if found := shutil.which(name):
            return found
    raise HostFault(f"{cross}addr2line is not there")


@functools.cache
def _say_once(text: str) -> None:
    say(text)
