# SPDX-License-Identifier: MIT
"""Which version a kernel speaks, and the mapcount that its rule demands of a shape: in Python and in C, the same."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from harness.paths import ROOT

LIB = ROOT / "guest_tests/lib"
BASE, PIECES = 4096, 512
HUGE = BASE * PIECES
VERSIONS = ("NONE", "RFC1", "RFC2", "V1", "V2")

# A shape as (first base page, size of each leaf, number of leaves), and what base pages 0, 3, 4 and 511 count then:
# by the rule of RFC v1 (also of kernels without pieces), of RFC v2 and PATCH v1, and of PATCH v2.
SHAPES = {
    "nothing": ([], (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    "one whole leaf": ([(0, HUGE, 1)], (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
    "one piece": ([(3, BASE, 1)], (1, 1, 1, 1), (1, 1, 1, 1), (0, 1, 0, 0)),
    "first and last": ([(0, BASE, 1), (511, BASE, 1)], (1, 1, 1, 1), (2, 2, 2, 2), (1, 0, 0, 1)),
    "all pieces": ([(0, BASE, PIECES)], (1, 1, 1, 1), (512, 512, 512, 512), (1, 1, 1, 1)),
    "leaves of 16 and of 1": ([(0, 16 * BASE, 2), (40, BASE, 3)], (1, 1, 1, 1), (5, 5, 5, 5), (1, 1, 1, 0)),
}
PLACES = (0, 3, 4, 511)


def leaves(shape: list[tuple[int, int, int]]) -> list[int]:
    leaf = [0] * PIECES
    for first, size, count in shape:
        for page in range(first, first + count * size // BASE):
            leaf[page] = size
    return leaf


def expected(name: str, version: str) -> list[int]:
    _, rfc1, entries, v2 = SHAPES[name]
    return list({"NONE": rfc1, "RFC1": rfc1, "RFC2": entries, "V1": entries, "V2": v2}[version])


@pytest.fixture(scope="module")
def library() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LIB)
        yield importlib.import_module("hgm")


def compile_c(*arguments: str | Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("this host has no C compiler")
    subprocess.run([compiler, "-std=gnu11", "-pthread", "-I", LIB, *arguments], check=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prints the counts of PLACES for a version's number and the leaves that follow it on the command line.

    Without them it prints the number of the version that the kernel speaks.
    """
    place = tmp_path_factory.mktemp("rule")
    (place / "rule.c").write_text(
        """
#include "inside.h"

size_t hgm_base = 4096, hgm_huge = 512 * 4096;
int hgm_current_number;
const struct hgm_case *hgm_current = &(struct hgm_case){ .name = "rule" };

int main(int count, char **word)
{
	static size_t leaf[512];
	const size_t places[] = { 0, 3, 4, 511 };

	if (count == 1)
		return printf("%d", hgm_dialect()) < 0;
	for (int i = 2; i < count; i++)
		leaf[i - 2] = strtoul(word[i], NULL, 10);
	for (int i = 0; i < 4; i++)
		printf("%u ", hgm_mapcount_rule(atoi(word[1]), leaf, 512, places[i]));
	return 0;
}
"""
    )
    # All of the library but the frame, which has a main() of its own.
    library = [file for file in sorted(LIB.glob("*.c")) if file.name != "frame.c"]
    compile_c("-o", place / "rule", place / "rule.c", *library)
    return place / "rule"


@pytest.fixture(scope="module")
def fake_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, which answers as the version in FAKE_KERNEL."""
    library = tmp_path_factory.mktemp("fake") / "fake_kernel.so"
    compile_c("-shared", "-fPIC", "-o", library, Path(__file__).with_name("fake_kernel.c"), "-ldl")
    return library


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_rule_in_python(name: str, version: str, library: ModuleType) -> None:
    counts = library.mapcount_rule(library.Dialect[version], leaves(SHAPES[name][0]), BASE)
    assert [counts[place] for place in PLACES] == expected(name, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_rule_in_c(name: str, version: str, program: Path) -> None:
    words = [str(VERSIONS.index(version)), *map(str, leaves(SHAPES[name][0]))]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == expected(name, version)


ASK = f"import hgm; print(hgm.dialect(hgm.Context(huge={HUGE}, base={BASE}, hgm=True)).name)"


@pytest.mark.parametrize("version", [*VERSIONS, "NEWER", "BROKEN"])
def test_the_kernel_is_asked_for_its_version(version: str, program: Path, fake_kernel: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(fake_kernel), "FAKE_KERNEL": version, "PYTHONPATH": str(LIB)}
    in_c, in_python = (
        subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        for command in ([program], [sys.executable, "-c", ASK])
    )
    if version == "BROKEN":
        # Answers of no version are no "kernel without HGM", which would be a skip.
        assert (in_c.returncode, in_python.returncode) == (1, 1)
        assert "expected EFAULT (HGM) or EINVAL (none), saw ENOENT" in in_c.stdout
        assert "expected EFAULT (HGM) or EINVAL (none), saw ENOENT" in in_python.stderr
        return
    spoken = "NONE" if version == "NEWER" else version
    assert (in_c.stdout, in_python.stdout.strip()) == (str(VERSIONS.index(spoken)), spoken), in_python.stderr
