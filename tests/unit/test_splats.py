# SPDX-License-Identifier: MIT
"""Each directory of splats/ is a case: a kernel log, and what must be found in it. Adding one needs no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.verdict import splats

# For each alternative of each pattern of splats.toml a line that none of its other alternatives knows.
SAMPLES = {
    "panic": "Kernel panic - not syncing: Fatal exception",
    "kasan": """\
BUG: KASAN: use-after-free in hugetlb_fault+0x11/0x80
BUG: KCSAN: data-race in hugetlb_fault / hugetlb_no_page
BUG: KMSAN: uninit-value in hugetlb_fault+0x11/0x80
BUG: KFENCE: out-of-bounds read in hugetlb_fault+0x11/0x80""",
    "lockdep": """\
WARNING: possible circular locking dependency detected
WARNING: possible irq lock inversion dependency detected
WARNING: possible recursive locking detected
WARNING: possible unsafe locking scenario
WARNING: possible deadlock
WARNING: bad unlock balance detected!
WARNING: bad contention detected!
WARNING: inconsistent lock state
WARNING: lock held when returning to user space!
WARNING: Nested lock was not taken
WARNING: nested lock was not taken
WARNING: suspicious RCU usage
WARNING: held lock freed!
WARNING: continue/99 still has locks held!
WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected
INFO: possible lock order dependency detected
BUG: MAX_LOCKDEP_ENTRIES too low!
BUG: Invalid wait context
[ BUG: bad unlock of a lock ]
DEBUG_LOCKS_WARN_ON(depth <= 0)""",
    "hang": """\
INFO: task continue:99 blocked for more than
khungtaskd: continue:99 blocked for more than 120 seconds.
watchdog: soft lockup - CPU#1 stuck for 26s! [a:12]
NMI watchdog: Watchdog detected hard LOCKUP on cpu 0
rcu: INFO: rcu_sched self-detected stall on CPU
rcu: INFO: rcu_sched detected stalls on CPUs/tasks:
rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: {""",
    "oops": """\
BUG: kernel NULL pointer dereference, address: 0000000000000008
BUG kmalloc-64 (Not tainted): Right Redzone overwritten
BUG kmalloc-64 (Tainted: G    B): Right Redzone overwritten
kernel BUG at mm/hugetlb.c:9!
a: Corrupted page table at address 7f928b707000
Bad pagetable: 000c [#1] SMP
Oops: 0002 [#1] PREEMPT SMP
Oops - Undefined instruction: 0000000002000000 [#1] SMP
Internal error: synchronous external abort: 0000000096000410 [#1] SMP
general protection fault: 0000 [#1] PREEMPT SMP
general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP
Unable to handle kernel paging request at virtual address dead000000000108
invalid opcode: 0000 [#1] PREEMPT SMP
divide error: 0000 [#1] PREEMPT SMP
stack segment: 0000 [#1] PREEMPT SMP
PANIC: double fault, error_code: 0x0""",
    "warning": """\
WARNING: CPU: 0 PID: 77 at mm/hugetlb.c:1 hugetlb_fault+0x12/0x20
DEBUG_VM_WARN
Call Trace:
Call trace:
UBSAN: shift-out-of-bounds in mm/hugetlb.c:1:2
refcount_t: underflow; use-after-free.
list_add corruption. prev is NULL.
list_del corruption. prev->next should be ffff, but was 0000.
Bad page state in process a  pfn:00001
Bad rss-counter state mm:0000000000000001 type:MM_FILEPAGES val:1
VM_BUG_ON_PAGE(PageTail(page))
mm/pgtable-generic.c:1: bad pte 00000000d5f2c1a3
mm/pgtable-generic.c:1: bad pmd 00000000d5f2c1a3
mm/pgtable-generic.c:1: bad pud 00000000d5f2c1a3
mm/pgtable-generic.c:1: bad p4d 00000000d5f2c1a3
mm/pgtable-generic.c:1: bad pgd 00000000d5f2c1a3
get_swap_device: Bad swap file entry 3ffffffffffff
get_swap_device: Bad swap offset entry 3ffffffffffff
_swap_info_get: Unused swap file entry 3ffffffffffff
_swap_info_get: Unused swap offset entry 3ffffffffffff
kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)""",
    "oom": "a invoked oom-killer: gfp_mask=0x0, order=0\nOut of memory: Killed process 62 (a)",
}
CASES = sorted(path for path in (Path(__file__).parent / "splats").iterdir())


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_splats(directory: Path) -> None:
    found = splats.find((directory / "dmesg.txt").read_text())
    lines = [f"{splat.kind}: {splat.title} ({len(splat.text.splitlines())} lines)" for splat in found]
    assert lines == (directory / "expected.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "line"), [(kind, line) for kind, lines in SAMPLES.items() for line in lines.splitlines()]
)
def test_each_thing_a_kernel_may_say_is_known(kind: str, line: str) -> None:
    assert [(splat.kind, splat.title) for splat in splats.find(f"[    1.0] {line}\n")] == [(kind, line)]
