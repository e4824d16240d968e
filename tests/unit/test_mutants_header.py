# SPDX-License-Identifier: MIT
"""The headers of seeded bugs: what they must say, and which bugs a name or a sample means."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.guest.cases import Case, known_cases
from harness.mutants.header import SEEDED, Bug, choose, read, read_all, rule, sample

CASES = [
    Case(program=Path("guest_tests") / program, line=1, name=name, claim=claim, needs_hgm=True, arch=arch)
    for program, name, claim, arch in (
        ("collapsing/a.c", "x", "a collapse makes one leaf [RFC v1 patch 18]", ""),
        ("fork/b.c", "y", "a child starts with a copy", "x86_64"),
        ("stress/c.c", "z", "all at once", ""),
    )
]
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@localhost>
Date: Mon, 23 Nov 2026 14:30:00 +0000
Subject: [PATCH] mm: hugetlb: SEEDED BUG: a leaf
 is lost

It is lost.

A user would miss it.

{lines}
---
diff --git a/mm/x.c b/mm/x.c
--- a/mm/x.c
+++ b/mm/x.c
@@ -1 +1 @@
-a
+b
"""
LINES = {"Category": "collapsing", "Arch": "x86_64 arm64", "Notices": "a collapse makes one leaf"}


def seeded(tmp_path: Path, text: str = PATCH, /, **changed: str | None) -> Path:
    lines = {**LINES, **changed}
    path = tmp_path / "a-bug.patch"
    path.write_text(text.format(lines="\n".join(f"{key}: {value}" for key, value in lines.items() if value)))
    return path


def bugs(**categories: str) -> list[Bug]:
    return [
        Bug(path=Path(f"{name}.patch"), title="", category=category, arches=(), notices=())
        for name, category in categories.items()
    ]


def test_what_a_header_says(tmp_path: Path) -> None:
    bug = read(seeded(tmp_path, Flavour="debug", Sign="possible circular locking dependency"), CASES)
    assert (bug.name, bug.title, bug.category) == ("a-bug", "a leaf is lost", "collapsing")
    assert [arch.name for arch in bug.arches] == ["x86_64", "arm64"]
    assert (bug.flavour, bug.stress_s, bug.sign) == ("debug", 0, "possible circular locking dependency")
    assert bug.names("a collapse makes one leaf [somewhere else]")
    assert not bug.names("a collapse makes one leaf and a half")


def test_a_claim_may_be_named_with_what_it_stands_on(tmp_path: Path) -> None:
    assert read(seeded(tmp_path, Notices="a collapse makes one leaf [RFC v1 patch 18]"), CASES).notices == (
        "a collapse makes one leaf",
    )
    assert rule("a[1] and [this] hold [why]") == "a[1] and [this] hold"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"Category": "folding"}, "Category: folding"),
        ({"Category": "stress"}, "Category: stress"),
        ({"Category": None}, "no line Category:"),
        ({"Arch": "vax"}, "Arch: vax"),
        ({"Flavour": "slow"}, "Flavour: slow"),
        ({"Stress": "long"}, "Stress: long"),
        ({"Stress": "60"}, "a claim of a stress case go together"),
        ({"Notices": "all at once"}, "a claim of a stress case go together"),
        ({"Notices": None}, "no line Notices:"),
        ({"Notices": "a collapse makes two leaves"}, "the nearest is: a collapse makes one leaf"),
        ({"Notices": "a child starts with a copy"}, "no case of arm64 claims"),
        ({"Notice": "x"}, "known: Notices"),
    ],
)
def test_a_header_that_does_not_do(changed: dict[str, str | None], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(seeded(tmp_path, **changed), CASES)
    assert told in str(caught.value)
    assert "a-bug.patch" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SEEDED BUG: ", "", "SEEDED BUG:"),
        ("A user would miss it.", "Nobody cares.", "what a user would suffer"),
        ("-a\n+b\n", "-a\n+b\n" + PATCH, "it has 2 patches"),
    ],
)
def test_a_mail_that_does_not_do(old: str, new: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        read(seeded(tmp_path, PATCH.replace(old, new)), CASES)


def test_a_mail_in_another_encoding(tmp_path: Path) -> None:
    path = seeded(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"It is lost", b"It is l\xf6st"))
    with pytest.raises(BadInput, match=r"a-bug\.patch: it cannot be read"):
        read(path, CASES)


def test_the_project_s_own_bugs_can_all_be_read() -> None:
    assert len(read_all(SEEDED, known_cases())) >= 4


def test_a_name_that_is_none_is_told_with_its_neighbours() -> None:
    known = bugs(leaf_lost="mapcount", leaf_twice="mapcount", other="fork")
    assert [bug.name for bug in choose(known, ["other.patch", "leaf_lost", "other"])] == ["other", "leaf_lost"]
    assert choose(known, []) == known
    with pytest.raises(BadInput, match="no seeded bug is called leaf_list") as caught:
        choose(known, ["leaf_list"])
    assert "did you mean leaf_lost" in caught.value.hint


def test_samples_take_turns_until_each_had_its_own() -> None:
    known = bugs(a="x", b="x", c="x", d="x", e="y", f="y", g="z")
    days = [[bug.name for bug in sample(known, 3, turn)] for turn in range(7)]
    names = [name for day in days for name in day]
    assert {name: names.count(name) for name in names} == dict.fromkeys("abcdefg", 3)
    assert all(len({bug.category for bug in sample(known, 3, turn)}) >= 2 for turn in range(7))
    assert len(sample(known, 20, 5)) == 7
