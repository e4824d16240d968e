# SPDX-License-Identifier: MIT
"""The kernel's own selftests through --kselftest, and a collection of programs that misbehave, built as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import session
from harness.arch import X86_64
from harness.errors import Exit
from harness.kernel import build as kernel_build
from harness.kernel.build import KernelRequest, prepare
from harness.kernel.repo import KernelRepo
from harness.kselftest.run import run
from harness.kselftest.wanted import Wanted
from harness.options import REFERENCE
from harness.report.results import CaseResult, RunResult
from tests.vm.conftest import Ran, harness

COLLECTION = Path(__file__).parent / "kselftest_collection"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    results = tmp_path_factory.mktemp("mm") / "run"
    return harness(results, "--kselftest", "mm:hugepage-mmap,map_fixed_noreplace", "--kselftest", "mm:hugetlb-madvise")


def test_programs_of_the_tree_run_as_its_script_runs_them(ran: Ran) -> None:
    found = {case["id"]: case for case in ran.results["cases"]}
    assert {name: case["status"] for name, case in found.items() if "madvise" not in name} == {
        "kselftest/mm:hugepage-mmap[x86_64]": "pass",
        "kselftest/mm:map_fixed_noreplace[x86_64]": "pass",
    }, ran.output
    # The script has mounted hugetlbfs at ./huge, and passes a file there.
    assert found["kselftest/mm:hugetlb-madvise[x86_64]"]["claim"] == "hugetlb-madvise ./huge/madvise-test"


def test_a_program_that_fails_is_red(ran: Ran) -> None:
    # In Linux 6.1 it expects of MADV_DONTNEED what the kernel has ceased to do: to round a length up (mm/madvise.c).
    (case,) = (case for case in ran.results["cases"] if "madvise" in case["id"])
    assert ran.status == Exit.TESTS_FAILED
    assert (case["status"], case["findings"][0]["message"]) == ("fail", "exited with 1")
    assert "Unexpected number of free huge pages" in ran.output


def test_only_what_was_asked_for_is_run(ran: Ran) -> None:
    assert {case["category"] for case in ran.results["cases"]} == {"kselftest/mm"}


@pytest.mark.parametrize("name", ["mm:nonesuch", "nonesuch"])
def test_what_is_not_there_is_bad_input(tmp_path: Path, name: str) -> None:
    done = harness(tmp_path / "run", "--kselftest", name)
    assert done.status == Exit.BAD_INPUT
    assert "nonesuch" in done.output and "it has " in done.output


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, CaseResult]]:
    """The results of the collection here. The kernel is that of a tree without it, which is the same kernel."""
    kernel = prepare(KernelRequest(arch=X86_64, series=(REFERENCE,)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_build, "prepare", lambda _: replace(kernel, tree=_with_collection(kernel.tree)))
        work = session.Run(
            request=KernelRequest(arch=X86_64),
            huge_pages="",
            expect_hgm=False,
            directory=tmp_path_factory.mktemp("misbehaving"),
            result=RunResult(started="", command=[]),
        )
        try:
            work.prepare(X86_64, [], [Wanted("hgm")])
            notes = work.result.kernels["x86_64"]["notes"]
            assert isinstance(notes, list) and "asks for, so some selftests may skip or fail: " in notes[-1]
            assert notes[-1].endswith(": CONFIG_NO_SUCH_OPTION=m")
            # Before this one its script waits for an hour, and does so if it is asked for.
            slow = Wanted("hgm", ("rested.sh", "an", "hour"))
            found = run(work, Wanted("hgm"), X86_64, [slow])
            yield {result.id.removeprefix("kselftest/hgm:"): result for result in found}
        finally:
            work.close()


def _with_collection(tree: str) -> str:
    """Return the tree with one more collection of selftests."""
    repo = KernelRepo.open()
    index = repo.scratch_index("kselftest")
    repo.git("read-tree", tree, index=index)
    for path in COLLECTION.iterdir():
        blob = repo.git("hash-object", "-w", path).stdout.strip()
        mode = "100755" if path.suffix == ".sh" else "100644"
        place = f"tools/testing/selftests/hgm/{path.name}"
        repo.git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{place}", index=index)
    return repo.git("write-tree", index=index).stdout.strip()


# result: status, kind of its finding, words of its message or evidence
EXPECTED = {
    "passes": ("pass", "", ""),
    "passes::one": ("pass", "", ""),
    "passes::no such thing here": ("skip", "", ""),
    "fails": ("fail", "ktap", "not ok: two"),
    "fails::one": ("pass", "", ""),
    "fails::two": ("fail", "ktap", "not ok: two"),
    "hangs": ("hang", "deadline", "now it hangs"),
    "breaks": ("error", "build", "no/such/header.h"),
    "warns": ("fail", "splat", "WARNING"),
    "leaks": ("fail", "leak", "free_hugepages"),
    "rested.sh a moment": ("pass", "", ""),
    "script.sh::passes/one": ("pass", "", ""),
    "script.sh::passes/no such thing here": ("skip", "", ""),
    "script.sh::passes": ("pass", "", ""),
    "script.sh": ("pass", "", ""),
}


def test_every_line_is_a_result(misbehaving: dict[str, CaseResult]) -> None:
    assert set(misbehaving) == {f"{name}[x86_64]" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_reported_as_what_it_is(misbehaving: dict[str, CaseResult], name: str) -> None:
    status, kind, words = EXPECTED[name]
    result = misbehaving[f"{name}[x86_64]"]
    said = "\n".join(f"{finding.kind}: {finding.message}\n{finding.evidence}" for finding in result.findings)
    assert (result.status, kind in said, words in said) == (status, True, True), result
