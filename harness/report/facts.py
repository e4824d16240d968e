# SPDX-License-Identifier: MIT
"""What a run knows of its kernels and machines, in words; what it does not know is left out. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping


def items(value: object) -> list[object]:
    """Return the members of a list, none of anything else."""
    return list(value) if isinstance(value, (list, tuple)) else []


def kernel(kernel: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is known of a kernel, each with its name."""
    subjects = len(items(kernel.get("subjects")))
    facts = [
        ("Release", kernel.get("release")),
        ("Source", kernel.get("source")),
        ("Commit", str(kernel.get("commit") or "")[:12]),
        ("Series", f"{subjects} {'patch' if subjects == 1 else 'patches'}" if subjects else ""),
        ("Flavour", kernel.get("flavour")),
        (".config", str(kernel.get("config_sha256") or "")[:12]),
        ("Toolchain", kernel.get("toolchain")),
        ("Note", "; ".join(map(str, items(kernel.get("notes"))))),
    ]
    return [(name, str(value)) for name, value in facts if value]


def machine(machine: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is known of the guests that a kernel ran in, each with its name."""
    pools = machine.get("pools")
    template, booted = _numbers([machine.get("template_seconds")]), _numbers([machine.get("template_boot_seconds")])
    clones, boots = _numbers(machine.get("clone_seconds")), _numbers(machine.get("boot_seconds"))
    facts = [
        ("Accelerator", f"{machine['accelerator']} ({machine.get('accelerator_reason')})" if machine else ""),
        ("QEMU", str(machine.get("qemu") or "").removeprefix("QEMU emulator version ")),
        ("Huge pages", _pools(pools) if isinstance(pools, Mapping) else ""),
        ("Guest for each", machine.get("fresh")),
        ("Template", f"{template[0]:.1f} s, {booted[0]:.1f} s of it to boot" if template and booted else ""),
        ("Clones", f"{len(clones)}, {statistics.median(clones):.2f} s each (median)" if clones else ""),
        ("Boots", f"{len(boots)}, {statistics.median(boots):.1f} s each (median)" if boots else ""),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _pools(pools: Mapping[str, object]) -> str:
    return ", ".join(f"{count} of {size}" for size, count in pools.items())


def _numbers(values: object) -> list[float]:
    return [float(value) for value in items(values) if isinstance(value, (int, float))]
