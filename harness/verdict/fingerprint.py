# SPDX-License-Identifier: MIT
"""What is the same of a finding in every case and every kernel that has the same fault. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from harness.report.results import Finding

_FUNCTION = re.compile(r"^(?:RIP: \w+:|pc : )([\w.]+)\+0x|\bat: ([\w.]+)\+0x", re.MULTILINE)
_CLONE = re.compile(r"\.(?:isra|constprop|part|cold)\b[.\d]*")
# What differs from boot to boot or moves with every change of the source.
_VOLATILE = (
    (re.compile(r"\bCPU: \d+ PID: \d+ "), ""),
    (re.compile(r" ?\((?:Not tainted|Tainted: [^)]*)\)"), ""),
    # Whose turn it was: mm/page_alloc.c:bad_page, kernel/hung_task.c, kernel/watchdog.c, kernel/sched/core.c,
    # arch/x86/mm/fault.c:pgtable_bad.
    (re.compile(r"\bin process \S+"), "in process #"),
    (re.compile(r"\bpfn: ?[0-9a-f]+"), "pfn:#"),
    (re.compile(r"\btask \S+:\d+"), "task #"),
    (re.compile(r"\[[^]\s]+:\d+\]"), "[#]"),
    (re.compile(r"(?<=while atomic: )\S+"), "#"),
    (re.compile(r", CPU#\d+: .*"), ""),
    (re.compile(r"^.*(?=: Corrupted page table at)"), "#"),
    (re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+"), ""),
    (re.compile(r"(?:\.\./src/|/\S*/)?((?:[\w-]+/)*[\w-]+\.[chS]):\d+"), r"\1"),
    (re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\b\d+(?=s?\b)"), "#"),
)


def known(finding: Finding) -> Finding:
    """Return `finding` with its fingerprint."""
    return replace(finding, fingerprint=fingerprint(finding))


def fingerprint(finding: Finding) -> str:
    """Return what is the same of a finding in every kernel that has the same fault."""
    if finding.kind != "splat":
        # Of KTAP and of the pools only what it is; an exit status is part of the failure.
        return finding.message if finding.kind == "exit" else _stable(finding.message.split(":")[0])
    title = finding.evidence.split("\n", 1)[0].strip() or finding.message
    kind = finding.message.split(":")[0].split()[0]
    found = _FUNCTION.search(finding.evidence)
    function = _CLONE.sub("", found[1] or found[2]) if found else ""
    words = f"{kind}: {_CLONE.sub('', _stable(title))}"
    return words if not function or re.search(rf"\b{re.escape(function)}\b", words) else f"{words} in {function}"


def _stable(text: str) -> str:
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())
