# SPDX-License-Identifier: MIT
"""File and line for places of the kernel: what is asked for, what is left alone, and what never reaches a shell."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.arch import X86_64
from harness.kernel.build import Kernel
from harness.report.results import Finding, Status
from harness.verdict import symbols
from harness.verdict.fingerprint import fingerprint
from harness.verdict.judge import Verdict

SOURCE = """\
int kernel_init(void) { return 1; }

int fault(int a)
{
	return a * 3;
}
int main(void) { return fault(2); }
"""
# Speaks as the kernel's script does, and like it asks nm and addr2line of $CROSS_COMPILE.
SCRIPT = """\
while read line; do
    base=$(${CROSS_COMPILE}nm "$1" | awk '$3 == "'${line%%+*}'" {print $1; exit}')
    offset=${line#*+}
    code=$(${CROSS_COMPILE}addr2line -i -e "$1" $(printf %x $((0x$base + ${offset%/*}))))
    echo "${line%%+*} (${code##*/}) "
done
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """A program in place of a kernel."""
    place = tmp_path_factory.mktemp("kernel")
    (place / "main.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-O0", "-no-pie", "-o", "vmlinux", "main.c"], cwd=place, check=True)
    table = subprocess.run(["nm", "-n", "vmlinux"], cwd=place, check=True, capture_output=True, text=True).stdout
    (place / "System.map").write_text("\n".join(line for line in table.splitlines() if len(line.split()) == 3))
    (place / "decode.sh").write_text(SCRIPT)
    return Kernel(
        arch=X86_64, key="k", image=place / "bzImage", release="6", config=None, source="a program", flavour="fast",
        vmlinux=place / "vmlinux", system_map=place / "System.map", decoder=place / "decode.sh",
    )  # fmt: skip


def test_lines_stand_behind_places(kernel: Kernel) -> None:
    (text,) = symbols.decoded(["RIP: 0010:fault+0x0/0x10\n ? fault+0x0/0x10 and nobody+0x0/0x10"], kernel)
    assert text.startswith("RIP: 0010:fault+0x0/0x10 (main.c:4)\n ? fault+0x0/0x10 (main.c:4) and nobody+0x0/0x10")


def test_addresses_become_places(kernel: Kernel) -> None:
    assert kernel.system_map
    line = next(line for line in kernel.system_map.read_text().splitlines() if line.endswith(" fault"))
    (text,) = symbols.decoded([f"  pc [<{line.split()[0]}>]\n  [<0000000000000001>]"], kernel)
    assert text.startswith("  pc fault+0x0/0x") and "(main.c:4)\n  [<0000000000000001>]" in text


def test_what_a_guest_prints_is_no_command(kernel: Kernel, tmp_path: Path) -> None:
    there = tmp_path / "there"
    touch = f"touch {there}"
    evil = f'a"{{system("{touch}")}}+0x1/0x2 $({touch})+0x1/0x2 `{touch}`+0x1/0x2 x[$({touch})]+0x0/0x1'
    assert symbols.decoded([evil], kernel) == [evil]
    assert not there.exists()


def test_without_vmlinux_it_is_left_and_said_once(kernel: Kernel, capfd: pytest.CaptureFixture[str]) -> None:
    bare = replace(kernel, vmlinux=None, source="an image from elsewhere")
    for _ in range(2):
        assert symbols.decoded(["fault+0x0/0x10"], bare) == ["fault+0x0/0x10"]
    assert capfd.readouterr().err.count("an image from elsewhere has no vmlinux") == 1


def test_a_script_that_fails_leaves_the_text(kernel: Kernel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "decode.sh").write_text("echo it broke >&2; exit 3\n")
    assert symbols.decoded(["fault+0x0/0x10"], replace(kernel, decoder=tmp_path / "decode.sh")) == ["fault+0x0/0x10"]
    assert "it broke" in capfd.readouterr().err


def test_a_failure_is_the_same_one_with_lines_and_without(kernel: Kernel) -> None:
    text = "WARNING: CPU: 1 PID: 62 at ../src/main.c:5 fault+0x0/0x10\nRIP: 0010:fault+0x0/0x10\n main+0x0/0x10"
    raw = Finding(
        kind="splat", message="warning: WARNING: CPU: 1 PID: 62 at ../src/main.c:5 fault+0x0/0x10", evidence=text
    )
    (told,) = symbols.explained(Verdict(status=Status.FAIL, findings=(raw,)), kernel).findings
    assert "main+0x0/0x10 (main.c:7)" in told.evidence and told.message == raw.message
    assert fingerprint(told) == fingerprint(raw)
