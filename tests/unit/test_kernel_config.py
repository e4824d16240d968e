# SPDX-License-Identifier: MIT
"""Fragments, what they ask for, and what is said of an option that vanished."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.arch import ARCHES, ARM64, X86_64, Arch
from harness.errors import BadInput
from harness.kernel import kconfig
from harness.kernel.config import (
    FLAVOURS,
    HGM,
    KCONFIGS,
    Fragment,
    check,
    fragments,
    lost,
    missing_options,
    parse,
    requested,
)

TREE = {
    "Kconfig": 'source "mm/Kconfig"\nsource "arch/$(SRCARCH)/Kconfig"\n',
    "arch/x86/Kconfig": """\
config X86
        def_bool y
config X86_SUPPORTS_MEMORY_FAILURE
        def_bool y
        depends on X86_MCE
        select ARCH_SUPPORTS_MEMORY_FAILURE if X86
config X86_MCE
        bool "MCE"
        help
          if you like
          depends on nothing
""",
    "arch/arm64/Kconfig": "config ARM64_ONLY\n\tbool\n",
    "mm/Kconfig": """\
config MEMORY_FAILURE
        depends on MMU
        depends on ARCH_SUPPORTS_MEMORY_FAILURE && \\
                   SYSFS
        bool "Recover"

menu "Testing"
        depends on RUNTIME
if DEBUG_FS
config LKDTM
        tristate "Crash"
        help
          Text with words that look like keywords:

          endmenu
        depends on LATE
endif
endmenu
config HUGETLB_HIGH_GRANULARITY_MAPPING
        bool "HGM"
        depends on ARCH_WANT_HGM
config ARCH_SUPPORTS_MEMORY_FAILURE
        bool
config FREE
        def_bool (LKDTM && X86) || CMA
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("arch", ARCHES.values(), ids=lambda arch: arch.name)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("has", [False, True])
def test_every_fragment_renders_to_kconfig_lines(arch: Arch, flavour: str, has: bool) -> None:
    for piece in fragments(arch, flavour, hgm=has, hvo=has):
        assert parse(piece.text), piece.name
        for line in piece.text.splitlines():
            assert not line or re.fullmatch(r"CONFIG_\w+=(y|\d+|\".*\")|# .*", line), f"{piece.name}: {line}"
            assert "{" not in line


def test_every_option_has_a_reason() -> None:
    """An option stands under a comment, alone or together with others that serve the same end."""
    for file in KCONFIGS.glob("*.config.j2"):
        above = ""
        for line in file.read_text().splitlines():
            if parse(line):
                assert above, f"{file.name}: {line} has no reason"
            elif line.startswith("#"):
                above = line
            elif not line:
                above = ""


def test_no_option_is_asked_for_twice() -> None:
    for arch in ARCHES.values():
        seen: dict[str, str] = {}
        for piece in fragments(arch, "debug", hgm=True, hvo=True):
            for name in parse(piece.text):
                assert name not in seen, f"{name} is in {seen.get(name)} and {piece.name}"
                seen[name] = piece.name


def test_options_that_depend_on_the_architecture() -> None:
    hvo, mce = "CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP", "CONFIG_X86_MCE"
    assert {hvo, mce} <= requested(fragments(X86_64, "fast", hgm=False, hvo=True)).keys()
    assert mce not in requested(fragments(ARM64, "fast", hgm=False, hvo=True))
    assert hvo not in requested(fragments(X86_64, "fast", hgm=True, hvo=False))


def test_options_that_depend_on_flavour_and_source() -> None:
    checks = {"CONFIG_PROVE_LOCKING", "CONFIG_KASAN"}
    assert checks <= requested(fragments(X86_64, "debug", hgm=False, hvo=True)).keys()
    assert not checks & requested(fragments(X86_64, "fast", hgm=False, hvo=True)).keys()
    assert HGM in requested(fragments(X86_64, "fast", hgm=True, hvo=True))
    assert HGM not in requested(fragments(X86_64, "fast", hgm=False, hvo=True))


def test_the_users_fragment_wins(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("# CONFIG_DEBUG_VM is not set\nCONFIG_LOG_BUF_SHIFT=20  \n")
    asked = requested(fragments(X86_64, "fast", hgm=False, hvo=True, extra=[tmp_path / "mine"]))
    assert asked["CONFIG_DEBUG_VM"] == ("n", str(tmp_path / "mine"))
    assert asked["CONFIG_LOG_BUF_SHIFT"] == ("20", str(tmp_path / "mine"))


def test_bad_fragments_and_flavours(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown kernel flavour 'slow'"):
        fragments(X86_64, "slow", hgm=False, hvo=True)
    with pytest.raises(BadInput, match="not there"):
        fragments(X86_64, "fast", hgm=False, hvo=True, extra=[tmp_path / "nowhere"])
    (tmp_path / "typo").write_text("CONFIG_A=y\nDEBUG_VM=y\n")
    with pytest.raises(BadInput, match=r"typo:2: 'DEBUG_VM=y' is no kconfig line"):
        fragments(X86_64, "fast", hgm=False, hvo=True, extra=[tmp_path / "typo"])


def test_lost_options_are_found() -> None:
    pieces = (Fragment("a", 'CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E="x y"\n'),)
    final = parse('CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\nCONFIG_E="x z"\n')
    assert [(item.name, item.asked, item.got) for item in lost(pieces, final)] == [
        ("CONFIG_B", "y", "m"),
        ("CONFIG_C", "n", "y"),
        ("CONFIG_E", '"x y"', '"x z"'),
    ]


def test_a_vanished_option_is_named_with_what_it_depends_on(tree: Path) -> None:
    pieces = (Fragment("tests", "CONFIG_MEMORY_FAILURE=y\nCONFIG_LKDTM=y\nCONFIG_NOTHING=y\nCONFIG_FREE=y\n"),)
    final = parse("CONFIG_MMU=y\nCONFIG_SYSFS=y\nCONFIG_DEBUG_FS=y\nCONFIG_X86=y\n")
    with pytest.raises(BadInput) as caught:
        check(pieces, final, tree, "x86")
    failure, lkdtm, nothing, free = str(caught.value).splitlines()[1:5]
    assert "CONFIG_MEMORY_FAILURE: asked y (kconfigs fragment tests), got n" in failure
    assert "depends on MMU; depends on ARCH_SUPPORTS_MEMORY_FAILURE && SYSFS; " in failure
    assert "; ARCH_SUPPORTS_MEMORY_FAILURE is selected by X86_SUPPORTS_MEMORY_FAILURE if X86; " in failure
    assert "; X86_SUPPORTS_MEMORY_FAILURE depends on X86_MCE (" in failure
    assert "X86_MCE=n) at mm/Kconfig:1" in failure
    assert "depends on RUNTIME; depends on DEBUG_FS; depends on LATE (RUNTIME=n, DEBUG_FS=y, LATE=n)" in lkdtm
    assert "no such option" in nothing
    assert "is (LKDTM && X86) || CMA (LKDTM=n, X86=y, CMA=n)" in free


def test_what_only_makes_it_quicker_may_be_unknown_to_the_tree(tree: Path) -> None:
    gone = Fragment("tuning", "CONFIG_EMBEDDED=y\n")
    assert check((gone,), {}, tree, "x86") == ""
    with pytest.raises(BadInput, match=r"EMBEDDED: asked y .*no such option"):
        check((Fragment("observe", gone.text),), {}, tree, "x86")
    with pytest.raises(BadInput) as caught:
        check((gone, Fragment("tuning", "CONFIG_LKDTM=y\n")), {}, tree, "x86")
    assert "CONFIG_LKDTM" in str(caught.value) and "EMBEDDED" not in str(caught.value)


def test_hgm_may_be_for_one_architecture_only(tree: Path) -> None:
    pieces = (Fragment("hgm", f"{HGM}=y\n"),)
    assert "ARCH_WANT_HGM=n" in check(pieces, {}, tree, "arm64")
    assert check(pieces, {HGM: "y"}, tree, "arm64") == ""
    with pytest.raises(BadInput, match="HUGETLB_HIGH_GRANULARITY_MAPPING: asked y"):
        check(pieces, {"CONFIG_ARCH_WANT_HGM": "y"}, tree, "x86")


def test_kconfig_of_the_other_architecture_is_not_read(tree: Path) -> None:
    entries = kconfig.read_entries(tree, "x86")
    assert "ARM64_ONLY" not in entries
    assert entries["X86_MCE"].depends == []


def test_missing_options_of_a_kernel_built_elsewhere() -> None:
    text = "".join(
        piece.text for piece in fragments(X86_64, "fast", hgm=False, hvo=True) if piece.name in ("boot", "tests")
    )
    assert missing_options(text, X86_64) == []
    lacking = text.replace("CONFIG_USERFAULTFD=y", "").replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m")
    assert missing_options(lacking, X86_64) == [
        "CONFIG_VIRTIO_BLK=m, needed =y to boot",
        "CONFIG_USERFAULTFD=n, needed =y for the tests",
    ]
    without_hvo = text.replace("CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP=y", "")
    assert len(missing_options(without_hvo, X86_64)) == 1
    assert missing_options(without_hvo + f"{HGM}=y\n", X86_64) == []
