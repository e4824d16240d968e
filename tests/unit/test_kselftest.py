# SPDX-License-Identifier: MIT
"""The kernel's own selftests, less the kernel: what is asked for, what was printed, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.arch import X86_64
from harness.errors import BadInput
from harness.guest.ktap import Ktap
from harness.guest.state import State
from harness.kernel.build import Kernel, KernelRequest
from harness.kselftest import build, output, run, verdict, wanted
from harness.kselftest.build import Suite
from harness.kselftest.verdict import Program
from harness.kselftest.wanted import Wanted
from harness.report.results import CaseResult, Status
from harness.verdict.judge import Observation
from harness.vm.ssh import End, Outcome

SAMPLES = Path(__file__).parent / "kselftest_output"
QUIET = State(tainted=0, pools={2 << 20: {"nr": 128, "free": 128}})
PROGRAM = Program(words=("second", "-t", "hugetlb"), name="second", command="bash ./run_vmtests.sh")


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def seen(text: str, *, end: End = End.EXITED, status: int | None = 0, **rest: Any) -> Observation:
    outcome = Outcome(end=end, status=status, stdout=text.encode(), stderr=b"", seconds=1.0)
    known = Observation(outcome=outcome, ktap=Ktap(), log="", before=QUIET, after=QUIET)
    return replace(known, **rest)


def results(text: str, program: Program = PROGRAM, **rest: Any) -> dict[str, CaseResult]:
    found = verdict.results(program, "mm", X86_64, "cases/x", seen(text, **rest))
    return {result.id.removeprefix("kselftest/mm:").removesuffix("[x86_64]"): result for result in found}


def printed(*lines: str, status: int = 0, words: Sequence[str] = PROGRAM.words) -> str:
    begin = f"hgm-kselftest: begin {' '.join(words)}"
    return "\n".join((begin, *lines, f"hgm-kselftest: end {status}", ""))


def test_what_can_be_asked_for() -> None:
    found = wanted.read(["mm:hugetlb-madvise,userfaultfd hugetlb", "net/forwarding", "mm:hugetlb-madvise"])
    assert [one.name for one in found] == ["mm:hugetlb-madvise", "mm:userfaultfd hugetlb", "net/forwarding"]
    assert found[0].directories == ("mm", "vm")
    assert found[1].includes(("userfaultfd", "hugetlb", "128", "32"))
    assert not found[1].includes(("userfaultfd", "hugetlb_shared", "128", "32"))


def test_an_id_asks_for_its_program() -> None:
    ids = [wanted.result_id("mm", "userfaultfd shmem 20 16 #2", "arm64", "a/b [c]"), "kselftest/mm[x86_64]"]
    assert wanted.read(ids) == [
        Wanted("mm", ("userfaultfd", "shmem", "20", "16", "#2"), "arm64"),
        Wanted("mm", (), "x86_64"),
    ]
    assert wanted.read([*ids, "mm"]) == [wanted.read(ids)[0], Wanted("mm")]


@pytest.mark.parametrize("value", ["", ":", "mm:", "mm:a,,b", "../mm", "/mm", "a b"])
def test_what_cannot(value: str) -> None:
    with pytest.raises(BadInput, match="names no collection"):
        wanted.read([value])


def test_brackets() -> None:
    part = output.section(sample("brackets"))
    assert part and (part.words, part.status, part.said) == ("second ./huge/file", 0, "pass")
    assert part.lines[-1] == "no newline at the end"
    assert output.read(part.lines) is None


def test_tap_in_three_levels() -> None:
    part = output.section(sample("tap"))
    assert part and (part.words, part.status, part.said) == ("second -t hugetlb", 1, "fail")
    tap = output.read(part.lines)
    assert tap and not tap.problems
    found = results(sample("tap"))
    assert {name: str(result.status) for name, result in found.items()} == {
        "second::No leak from parent into child": "pass",
        "second::No leak/inner": "fail",
        "second::No leak": "fail",
        "second": "fail",
    }
    assert [finding.message for finding in found["second"].findings] == ["not ok: No leak exit=1"]


def test_a_program_that_was_cut_short_is_no_pass() -> None:
    found = results(sample("cut"), end=End.DEADLINE, status=None, after=None)
    assert found["second"].status == Status.HANG
    assert found["second::a"].status == Status.PASS
    assert results(sample("cut"))["second"].status == Status.ERROR


def test_a_script_that_does_not_come_to_the_program_is_an_error() -> None:
    found = results(sample("refused"), status=1)
    assert found["second"].status == Status.ERROR
    (finding,) = found["second"].findings
    assert "has not been started" in finding.message and "Not enough huge pages" in finding.evidence


@pytest.mark.parametrize(
    ("lines", "status", "came_to", "words"),
    [
        (["done"], 0, "pass", ""),
        (["mmap: No such device"], 1, "fail", "exited with 1"),
        (["mmap: No such device"], 139, "fail", "SIGSEGV"),
        (["no such feature"], 4, "skip", "no such feature"),
        (["TAP version 13", "1..1", "ok 1 a"], 0, "pass", ""),
        (["1..1", "ok 1 a"], 0, "pass", ""),
        (["TAP version 13", "1..1", "ok 1 a"], 1, "fail", "exited with 1"),
        (["TAP version 13", "1..1", "not ok 1 a"], 0, "fail", "its exit status 0 says pass"),
        (["TAP version 13", "1..1", "not ok 1 a"], 1, "fail", "not ok: a"),
        (["TAP version 13", "1..2", "ok 1 a"], 0, "error", "plan 2, saw 1"),
        (["TAP version 13", "1..0 # SKIP no memory"], 4, "skip", "no memory"),
        (["TAP version 13", "1..1", "ok 1 # SKIP no memory"], 0, "skip", "no memory"),
        (["TAP version 13", "1..1", "ok 1 a # XFAIL known"], 0, "pass", ""),
        (["TAP version 13", "1..1", "ok 1 a"], 4, "error", "its TAP says pass"),
        (["TAP version 13", "1..3", "ok 1 a", "Bail out! mmap failed"], 1, "fail", "Bail out! mmap failed"),
        (["Bail out! no memory"], 1, "fail", "no memory"),
        (["TAP version 13", "1..1", "ok 1 a", "Bail out! no memory"], 0, "fail", "no memory"),
        (["1..1", "# 1..2", "# ok 1 a", "# not ok 2 b", "ok 1 inner"], 0, "error", "inner is ok although"),
        (["# 1..2", "# ok 1 a", "# not ok 2 b", "ok 1 inner", "1..1"], 0, "error", "inner is ok although"),
        (["# ok 1 a", "# Bail out! no memory", "ok 1 inner", "1..1"], 0, "error", "inner is ok although"),
        (["TAP version 13", "1..1", "# ok so far", "ok 1 a"], 0, "pass", ""),
        (["# 1..1", "# ok 1 words alone, of no TAP around them"], 0, "pass", ""),
    ],
)
def test_output_and_exit_status_must_agree(lines: list[str], status: int, came_to: str, words: str) -> None:
    found = results(printed(*lines, status=status))["second"]
    said = "; ".join([found.reason, *(finding.message for finding in found.findings)])
    assert (found.status, words in said) == (came_to, True), said


def test_the_script_must_agree_too() -> None:
    text = printed("done") + "[FAIL]\n"
    assert results(text)["second"].status == Status.ERROR
    text = printed("done", words=("other",))
    assert results(text)["second"].status == Status.ERROR


def test_a_splat_and_a_lost_page_are_the_programs() -> None:
    log = "[   12.5] WARNING: CPU: 1 PID: 62 at mm/hugetlb.c:85 hugetlb_fault+0xa/0x10\n"
    assert results(printed("done"), log=log)["second"].status == Status.FAIL
    less = State(tainted=0, pools={2 << 20: {"nr": 128, "free": 127}})
    found = results(printed("done"), after=less)["second"]
    assert (found.status, found.findings[0].kind) == (Status.FAIL, "leak")


def test_names_are_unique() -> None:
    found = results(printed("TAP version 13", "1..3", "ok 1 a", "ok 2 a", "ok 3"))
    assert list(found) == ["second::a", "second::a (2)", "second::3", "second"]


def test_an_expected_failure_says_so() -> None:
    found = results(printed("TAP version 13", "1..1", "not ok 1 a # XFAIL known"))["second::a"]
    assert (found.status, found.reason, found.red) == (Status.XFAIL, "known", False)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    for name in ("run_vmtests.sh", "userfaultfd", "gup_test", "split_huge_page_test", "by_hand", "ksft_hugetlb.sh"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "settings").write_text("timeout=180\n")
    return Suite(
        collection="mm",
        directory="vm",
        files=tmp_path,
        entries=("split_huge_page_test", "gup_test", "run_vmtests.sh", "ksft_hugetlb.sh"),
        failed={"migration": "numa.h: No such file"},
        timeout_s=45,
        lacking=(),
    )


LISTED = ("gup_test", "userfaultfd hugetlb 128 32", "userfaultfd shmem 20 16", "userfaultfd shmem 20 16")


def test_programs_are_what_the_script_runs_and_what_it_does_not(suite: Suite) -> None:
    found = run.programs(suite, LISTED)
    assert [(program.name, program.turn) for program in found] == [
        ("gup_test", 1),
        ("userfaultfd hugetlb 128 32", 2),
        ("userfaultfd shmem 20 16", 3),
        ("userfaultfd shmem 20 16 #2", 4),
        ("split_huge_page_test", 1),
        ("migration", 1),
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), 6),
        (("userfaultfd",), 3),
        (("userfaultfd", "hugetlb"), 1),
        (("userfaultfd", "shmem", "20", "16"), 1),
        (("userfaultfd", "shmem", "20", "16", "#2"), 1),
        (("by_hand",), 1),
        (("by_hand", "-x"), 1),
        (("migration",), 1),
    ],
)
def test_choosing(suite: Suite, words: tuple[str, ...], names: int) -> None:
    assert len(run.chosen(run.programs(suite, LISTED), suite, Wanted("mm", words))) == names


@pytest.mark.parametrize(
    ("earlier", "names"),
    [
        (("userfaultfd", "hugetlb"), ["userfaultfd shmem 20 16", "userfaultfd shmem 20 16 #2"]),
        (("userfaultfd", "shmem", "20", "16"), ["userfaultfd hugetlb 128 32", "userfaultfd shmem 20 16 #2"]),
        ((), []),
    ],
)
def test_what_an_earlier_value_names_is_not_chosen_again(
    suite: Suite, earlier: tuple[str, ...], names: list[str]
) -> None:
    known = run.programs(suite, LISTED)
    found = run.chosen(known, suite, Wanted("mm", ("userfaultfd",)), [Wanted("mm", earlier)])
    assert [program.name for program in found] == names
    # It is for people to run, and no part of the whole.
    assert len(run.chosen(known, suite, Wanted("mm", ("by_hand",)), [Wanted("mm")])) == 1


def test_a_program_that_is_not_there_is_bad_input(suite: Suite) -> None:
    with pytest.raises(BadInput, match="mm has no program userfault") as error:
        run.chosen(run.programs(suite, LISTED), suite, Wanted("mm", ("userfault",)))
    assert "gup_test, userfaultfd, split_huge_page_test, migration" in error.value.hint


def test_an_image_alone_has_no_selftests() -> None:
    image = Path("bzImage")
    kernel = Kernel(arch=X86_64, key="", image=image, release="", config=None, source="bzImage", flavour="prebuilt")
    with pytest.raises(BadInput, match="bzImage has none"):
        build.prepare(kernel, KernelRequest(arch=X86_64), Wanted("mm"))


def test_options_that_a_collection_asks_for_and_the_kernel_lacks(suite: Suite) -> None:
    assert suite.notes == ()
    (note,) = replace(suite, lacking=("CONFIG_TEST_HMM=m",)).notes
    assert "tools/testing/selftests/vm/config" in note and note.endswith("CONFIG_TEST_HMM=m")


def test_the_limit_of_a_collection(suite: Suite, tmp_path: Path) -> None:
    assert build.timeout(suite.files / "settings") == 180
    assert build.timeout(tmp_path / "none") == 45


BUILD = """\
make[1]: Entering directory '/src/vm'
gcc -Wall -static     hugetlb-madvise.c -lrt -o /out/kselftest/vm/hugetlb-madvise
gcc -Wall -static     memfd_secret.c -lrt -lcap -o /out/kselftest/vm/memfd_secret
memfd_secret.c:16:10: fatal error: sys/capability.h: No such file or directory
compilation terminated.
make[1]: *** [../lib.mk:155: /out/kselftest/vm/memfd_secret] Error 1
gcc -Wall -static     migration.c -lnuma -o /out/kselftest/vm/migration
/usr/bin/ld: cannot find -lnuma
make[1]: *** [../lib.mk:155: /out/kselftest/vm/migration] Error 1
make[1]: Target 'all' not remade because of errors.
"""


def test_why_a_program_does_not_build() -> None:
    assert build.why(BUILD, "memfd_secret").startswith("memfd_secret.c:16:10: fatal error: sys/capability.h")
    assert build.why(BUILD, "migration") == "/usr/bin/ld: cannot find -lnuma"
    assert "make[1]" in build.why(BUILD, "never_tried")
