# SPDX-License-Identifier: MIT
"""Cases are found in sources, and a declaration that cannot be read is an error with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.arch import ARM64, X86_64
from harness.errors import BadInput
from harness.guest.cases import Case, find


def program(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "mapcount" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


C = """
#include "hgm.h"
// HGM_CASE(commented, "out") {
/*
HGM_CASE(commented, "out, too") {}
 */
#define STOCK_CASE(id, what, ...) \\
	HGM_CASE(id, what, ##__VA_ARGS__)
HGM_CASE(counts_once, "one piece " // which one
         "counts once [RFC v1]", .deadline_s = 30, .sizes = "1G")
{ expect(f('"', ")", "HGM_CASE(in, a string)")); }
STOCK_CASE(shared, "two, three \\"users\\"", .spoils = 1) { }
"""


def test_c_cases(tmp_path: Path) -> None:
    path = program(tmp_path, "partial.c", C)
    assert find(path) == [
        Case(program=path, line=9, name="counts_once", claim="one piece counts once [RFC v1]", needs_hgm=True,
             deadline_s=30, sizes=("1G",)),
        Case(program=path, line=12, name="shared", claim='two, three "users"', needs_hgm=False,
             spoils=True),
    ]  # fmt: skip
    assert find(path)[0].category == "mapcount"


PYTHON = '''
import hgm
@hgm.case("one piece counts once", deadline_s=30)
def counts_once(context: hgm.Context) -> None: ...
@hgm.stock_case("shared by two", arch="x86_64", spoils=1)
def shared(context: hgm.Context) -> None: ...
def helper() -> None:
    """Not under @hgm.case("claim")."""
'''


def test_python_cases_are_not_imported(tmp_path: Path) -> None:
    path = program(tmp_path, "users.py", PYTHON)
    assert [(case.name, case.needs_hgm, case.deadline_s, case.arch, case.spoils) for case in find(path)] == [
        ("counts_once", True, 30, "", False),
        ("shared", False, 60, "x86_64", True),
    ]


def test_sizes_are_those_of_the_machine(tmp_path: Path) -> None:
    every, one = find(program(tmp_path, "a.c", 'HGM_CASE(a, "x") {}\nHGM_CASE(b, "x", .sizes = "64K 1G") {}\n'))
    assert every.sizes_on(X86_64) == [2 << 20, 1 << 30]
    assert every.sizes_on(ARM64) == [64 << 10, 2 << 20, 32 << 20, 1 << 30]
    assert one.sizes_on(X86_64) == [1 << 30]
    assert one.sizes_on(ARM64) == [64 << 10, 1 << 30]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.c", 'HGM_CASE(a, "x", .deadline_s = LIMIT) {}', "a.c:1: an attribute is"),
        ("a.c", 'HGM_CASE(a, "x", .colour = "red") {}', "unknown attribute colour"),
        ("a.c", 'HGM_CASE(a, "x", .deadline_s = "1") {}', "deadline_s is '1', which is no int"),
        ("a.c", 'HGM_CASE(a, "x", .sizes = "2M 2MB") {}', "a.c:1: a: no huge page is 2MB"),
        ("a.c", 'HGM_CASE(a, "x", .sizes = "64K", .arch = "x86_64") {}', "a: no huge page of x86_64 is 64K"),
        ("a.c", 'HGM_CASE(a, "x", .arch = "arm46") {}', "a: there is no architecture arm46"),
        ("a.c", '\n static HGM_CASE(a, "x") {}', "a.c:2: HGM_CASE is not read as a case here"),
        ("a.c", '#define BOTH(n) STOCK_CASE(n, "x")', "a.c:1: STOCK_CASE is not read"),
        ("a.py", '@case("x")\ndef a(c): ...', "a.py:1: @case is not read as a case here"),
        ("a.py", "@hgm.case\ndef a(c): ...", "a.py:1: @hgm.case is not read"),
        ("a.py", '@hgm.case("x")\nasync def a(c): ...', "a.py:1: @hgm.case is not read"),
        ("a.py", 'if x:\n    @hgm.stock_case("x")\n    def a(c): ...', "a.py:2: @hgm.stock_case is not read"),
        ("a.c", "HGM_CASE(a, CLAIM) {}", "a case is HGM_CASE(name"),
        ("a.c", 'HGM_CASE(a, "") {}', "a has no claim"),
        ("a.c", 'HGM_CASE(a, "x"', "does not end"),
        ("a.c", 'HGM_CASE(a, "x") {}\nSTOCK_CASE(a, "y") {}', "a.c:2: a second case is called a"),
        ("a.py", "@hgm.case(CLAIM)\ndef a(c): ...", "a case is @hgm.case("),
        ("a.py", "@hgm.case()\ndef a(c): ...", "a case is @hgm.case("),
        ("a.py", "def a(:", "a.py:1: "),
    ],
)
def test_bad_declarations(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        find(program(tmp_path, name, text))
    assert message in str(error.value)
