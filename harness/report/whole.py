# SPDX-License-Identifier: MIT
"""Whether a run is whole, and what it comes to: a run cut short must look like a verdict in no report."""

from __future__ import annotations

from harness.arch import ARCHES
from harness.errors import Exit
from harness.report.results import RunResult

NOT_RUN = "it was selected, and has no result"


def cut_short(result: RunResult) -> str:
    """Return what ended the run before every case had its turn; empty if nothing did."""
    if result.fault:
        return result.fault.message
    if result.interrupted:
        return "the run was interrupted"
    if not result.finished:
        return "the run has not come to its end"
    missing = len(result.not_run)
    return f"{missing} of {len(result.selected)} selected cases have no result" if missing else ""


def exit_status(result: RunResult) -> int:
    """Return the exit status of the run as its results have it, see harness.errors."""
    if result.interrupted or not (result.finished or result.fault):
        return Exit.INTERRUPTED
    if result.fault:
        return result.fault.exit_code
    if result.not_run or any(case.red for case in result.cases):
        return Exit.TESTS_FAILED
    # A shard may have no case, if others have some.
    return Exit.OK if result.cases or result.dealt else Exit.NO_TESTS


def arch_of(case_id: str) -> str:
    """Return the architecture in the id of a case, such as arm64-64k of `a.c::x[arm64-64k-2M]`; "" if it has none."""
    words = case_id.rpartition("[")[2].removesuffix("]")
    return next((name for name in (words, words.rpartition("-")[0]) if name in ARCHES), "")


def split(case_id: str) -> tuple[str, str]:
    """Return program and name of a case, from its id: what stands before and behind ::, or else the last /."""
    separator = "::" if "::" in case_id else "/"
    program, _, name = case_id.rpartition(separator)
    return program, name


def facts(result: RunResult, arch: str) -> dict[str, str]:
    """Return what a case on `arch` ran on, as every report names it; what is not known is left out."""
    kernel, machine = result.kernels.get(arch, {}), result.machines.get(arch, {})
    subjects = kernel.get("subjects")
    known = {
        "kernel_release": kernel.get("release"),
        "kernel_commit": kernel.get("commit"),
        "kernel_tree": kernel.get("tree"),
        "kernel_source": kernel.get("source"),
        "kernel_flavour": kernel.get("flavour"),
        "kernel_config_sha256": kernel.get("config_sha256"),
        "toolchain": kernel.get("toolchain"),
        "series": "; ".join(map(str, subjects)) if isinstance(subjects, list | tuple) else None,
        "architecture": arch,
        "accelerator": machine.get("accelerator"),
        "qemu": machine.get("qemu"),
        "image": machine.get("image"),
    }
    return {name: str(value) for name, value in known.items() if value}
