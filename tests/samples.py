# SPDX-License-Identifier: MIT
"""Results as a run leaves them, for tests of what is made of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.arch import ALL, size_name
from harness.report.results import CaseResult, Finding, RunResult, Status, together

SPLAT = """\
BUG: kernel NULL pointer dereference, address: 0000000000000010
#PF: supervisor read access in kernel mode
RIP: 0010:hugetlb_collapse+0x10/0x200
Call Trace:
 <TASK>
 madvise_collapse+0x1/0x2
 </TASK>"""
_numbers = itertools.count()


@dataclass(frozen=True)
class Kept:
    """Files of which every case has the same."""

    texts: Mapping[str, str]

    def names(self, _directory: str) -> Sequence[str]:
        """Return their names."""
        return list(self.texts)

    def text(self, _directory: str, name: str) -> str:
        """Return the text of one."""
        return self.texts[name]


NO_FILES = Kept({})


def splat() -> Finding:
    """A complaint of a kernel."""
    title = SPLAT.splitlines()[0]
    return Finding(
        kind="splat",
        message=f"oops: {title}",
        evidence=SPLAT,
        fingerprint="oops: BUG: kernel NULL pointer dereference, address: # in hugetlb_collapse",
    )


def case(status: Status, *, arch: str = "x86_64", size: int = 2 << 20, **rest: Any) -> CaseResult:
    """A case of its own name."""
    number = next(_numbers)
    fields: dict[str, Any] = {"category": "fork", "claim": "a child has its own tables", **rest}
    if status in (Status.FAIL, Status.FLAKY):
        fields.setdefault("findings", (Finding(kind="ktap", message="not ok: x", evidence="x.c:1: expected 1, saw 2"),))
    return CaseResult(
        id=f"guest_tests/fork/tables_{number % 20}.c::case_{number}[{arch}-{size_name(size)}]",
        arch=arch, huge_page_size=size, status=status, **{"seconds": number % 7 / 3, **fields},
    )  # fmt: skip


def flaky() -> CaseResult:
    """A case that failed, passed and passed."""
    first = case(Status.FAIL, shapes=(("2M: 4K×1 hole×511",), ("2M: 2M×1",)), directory="cases/flaky[x86_64-2M]")
    good = replace(first, status=Status.PASS, findings=(), directory="cases/flaky[x86_64-2M]-2")
    return together([first, good, replace(good, directory="cases/flaky[x86_64-2M]-3")])


def run(cases: Sequence[CaseResult], **rest: Any) -> RunResult:
    """A run that came to its end, unless `rest` says otherwise."""
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:27:10+00:00"}
    return RunResult(command=["hgm", "run"], cases=list(cases), **times | rest)


def whole(copies: int = 2) -> RunResult:
    """A run on both architectures: `copies` cases for each size, and as many in which things go wrong."""
    cases = []
    places = [(arch, size) for arch in ALL for size in arch.huge_page_sizes]
    for number, (arch, size) in itertools.product(range(copies), places):
        name, pieces = size_name(size), size // arch.base_page
        shapes = [(f"{name}: hole×{pieces}",)]
        shapes += [(f"{name}: 4K×{n} hole×{pieces - n}",) for n in range(1, 4 + number % 9)]
        shapes.append((f"{name}: {name}×1",))
        category = ("fork", "mapcount", "splitting")[number % 3]
        cases.append(case(Status.PASS, arch=arch.name, size=size, shapes=tuple(shapes), category=category))
    torn, late = (("2M: 4K×16 hole×24 4K×1 hole×471",),), Finding(kind="deadline", message="did not end within 5 s")
    wrong = (
        case(Status.CRASH, findings=(splat(),), directory="cases/crash", shapes=torn),
        case(Status.HANG, findings=(late,), shapes=(("2M: 2M×1",),)),
        case(Status.FAIL, shapes=(("2M: 4K×512",), ("2M: 4K!×1 mark×1 4K×510",)), category="mapcount"),
        flaky(),
        case(Status.SKIP, reason="kernel has no HGM"),
    )
    cases += [case(one.status, **_fields(one)) for one in itertools.islice(itertools.cycle(wrong), max(copies, 5))]
    return run(cases, kernels={"x86_64": {"release": "6.1.192-hgm", "subjects": ["mm: a patch"]}})


def _fields(one: CaseResult) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("findings", "shapes", "reason", "directory", "attempts")}
