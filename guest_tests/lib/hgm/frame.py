# SPDX-License-Identifier: MIT
"""The frame around the cases: runs them, prints their results, and decides what the program ends with."""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import signal
import sys
from pathlib import Path
from typing import NoReturn

from hgm import outside
from hgm.cases import Case, Context, cases
from hgm.dialects import Dialect, dialect
from hgm.outside import shape_port
from hgm.verdicts import Skip, explain, fail, note, size_name, skip


def _run(chosen: Case, number: int, huge: int) -> int:
    """Run one case, print its result line, and return its exit status."""
    context = Context(huge=huge, base=mmap.PAGESIZE, hgm=chosen.needs_hgm)
    try:
        outside.here = shape_port()
        if outside.here is None:
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
        explain(error)
        print(f"not ok {number} {chosen.name}", flush=True)
        return 1
    print(f"ok {number} {chosen.name}", flush=True)
    return 0


def _run_all(huge: int) -> int:
    """Run each case in a process of its own, so that one that dies leaves the others alone."""
    codes = []
    for number, chosen in enumerate(cases, 1):
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
        for one in cases:
            print(f"{one.name}\t{'hgm' if one.needs_hgm else 'stock'}\t{one.claim}")
        sys.exit(0)
    chosen = [one for one in cases if options.case in (None, one.name)]
    if not chosen:
        parser.error(f"no case is called {options.case}; --list prints them")
    huge = options.huge_page_size or _default_huge_page_size()
    print(f"KTAP version 1\n1..{len(chosen)}", flush=True)
    code = _run(chosen[0], 1, huge) if options.case else _run_all(huge)
    # Not sys.exit: a thread that is still asleep in a fault must not keep the program from ending.
    os._exit(code)
