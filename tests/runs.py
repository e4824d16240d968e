# SPDX-License-Identifier: MIT
"""Results of runs that never were, for tests of what is made of results."""

from __future__ import annotations

from typing import Any

from harness.report.results import Attempt, CaseResult, Finding, RunResult, Status

KERNEL = {
    "arch": "x86_64", "key": "k1", "release": "6.1.192-hgm", "source": "linux-source-6.1 6.1.192-2", "flavour": "fast",
    "tree": "1" * 40, "commit": "", "subjects": ["mm: first", "mm: second, # and <more>"], "toolchain": "gcc 12.2.0",
    "config_sha256": "c" * 64,
}  # fmt: skip
MACHINE = {
    "accelerator": "tcg", "accelerator_reason": "no /dev/kvm", "qemu": "QEMU emulator version 7.2.0", "image": "i1",
    "boot_seconds": [1.5], "clone_seconds": [0.25, 0.75],
}  # fmt: skip
SPLAT = Finding(
    kind="splat",
    message="warning: WARNING: CPU: 1",
    evidence="WARNING: \x1b[1mhere\x00\nlist of ]]> & <",
    fingerprint="w",
)
FAILED = Finding(kind="ktap", message="not ok: x", evidence="a.c:1: expected 1, saw 2", fingerprint="not ok")


def case(name: str, status: str = "pass", arch: str = "x86_64", **more: Any) -> CaseResult:
    """A case of the program fork/a.c, with what is usual for its status."""
    usual: dict[str, dict[str, Any]] = {
        "fail": {"findings": (FAILED,)},
        "crash": {"findings": (SPLAT,), "diagnostics": ("ok 1 no result", "# Subtest: none")},
        "hang": {"findings": (Finding(kind="deadline", message="did not end within 5 s"),)},
        "error": {"findings": (Finding(kind="ktap", message="plan 3, saw 1"),)},
        "skip": {"reason": "not applicable:\nthere is # no machine"},
        "xfail": {"findings": (FAILED,), "reason": "until 2030-01-01: known"},
        "xpass": {"reason": "expected to fail until 2030-01-01: known"},
        "flaky": {
            "findings": (FAILED,),
            "attempts": (
                Attempt(status=Status.FAIL, findings=(FAILED,), seconds=1.0, directory=f"cases/{name}"),
                Attempt(status=Status.PASS, seconds=2.0, directory=f"cases/{name}-2"),
            ),
        },
    }
    fields: dict[str, Any] = {
        "id": f"guest_tests/fork/a.c::{name}[{arch}-2M]", "category": "fork", "arch": arch, "huge_page_size": 2 << 20,
        "claim": "a claim", "status": Status(status), "seconds": 1.5, "directory": f"cases/{name}",
    }  # fmt: skip
    return CaseResult(**fields | usual.get(status, {}) | more)


def run(*cases: CaseResult, **more: Any) -> RunResult:
    """A finished run of these cases."""
    archs = dict.fromkeys(case.arch for case in cases)
    fields: dict[str, Any] = {
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:10:00+00:00", "command": ["hgm", "run"],
        "harness": "0.1.0", "cases": list(cases), "selected": [case.id for case in cases],
        "kernels": {arch: KERNEL | {"arch": arch} for arch in archs},
        "machines": {arch: dict(MACHINE) for arch in archs},
    }  # fmt: skip
    return RunResult(**fields | more)


def every_status() -> RunResult:
    """A run with a case of each status on two architectures."""
    return run(*(case(status, status, arch) for arch in ("x86_64", "arm64-64k") for status in Status))
