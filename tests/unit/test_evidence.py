# SPDX-License-Identifier: MIT
"""What a guest tells that hangs: answers told apart, and the short form for a finding."""

from __future__ import annotations

from harness.vm.evidence import SUMMARY_BLOCKED, Evidence, sections
from harness.vm.frames import Processor

CONSOLE = """\
[    1.0] before it all
[    2.0] sysrq: Show Blocked State
[    2.0] task:hangs           state:D stack:0     pid:75    ppid:74     flags:0x00000002
[    2.0] Call Trace:
[    2.0]  schedule+0x48/0x90
[    2.0] RIP: 0033:0x44ddf0
[    2.0] RAX: ffffffffffffffda RBX: 0000000000000003 RCX: 000000000044ddf0
[    3.0] sysrq: Show State
[    3.0] task:init
[    4.0] sysrq: Show backtrace of all active CPUs
[    4.0] CPU0:
[    5.0] sysrq: HELP : loglevel(0-9) reboot(b)
[    5.0] afterwards
"""


def evidence(answers: dict[str, str]) -> Evidence:
    processors = (Processor(number=0, registers="RIP=1", frames=(0xFFFFFFFF81000000,)),)
    return Evidence(processors=processors, answers=answers, nmi="", remarks=("sysrq m: no answer",), console=CONSOLE)


def test_each_answer_ends_where_the_next_begins() -> None:
    found = sections(CONSOLE)
    assert list(found) == ["w", "t", "l"]
    assert found["t"] == "[    3.0] sysrq: Show State\n[    3.0] task:init"
    assert "HELP" not in found["l"]
    assert sections("nobody asked\n") == {}


def test_the_summary_says_where_it_hangs_and_what_is_missing() -> None:
    text = evidence(sections(CONSOLE)).summary
    for words in ("sysrq m: no answer", "[<ffffffff81000000>]", "blocked tasks:", " schedule+0x48/0x90"):
        assert words in text
    assert "RAX" not in text and "0033" not in text
    assert "no task is blocked" in evidence({"w": "sysrq: Show Blocked State"}).summary
    assert "blocked" not in evidence({}).summary


def test_the_summary_is_short() -> None:
    many = "sysrq: Show Blocked State\n" + " schedule+0x48/0x90\n" * 1000
    assert len(evidence({"w": many}).summary.splitlines()) < SUMMARY_BLOCKED + 20


def test_the_file_has_all_of_it() -> None:
    text = evidence(sections(CONSOLE)).text
    for words in ("sysrq m: no answer", "== sysrq w", "RAX", "== sysrq l", "== registers of CPU 0 ==\nRIP=1"):
        assert words in text
