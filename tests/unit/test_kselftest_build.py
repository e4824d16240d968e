# SPDX-License-Identifier: MIT
"""The build of a collection, in a tree that has little else: what is kept, and what is tried again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.arch import X86_64, native
from harness.kernel import toolchain
from harness.kernel.build import Kernel, KernelRequest
from harness.kernel.source import SourceSpec, resolve
from harness.kselftest.build import SELFTESTS, Suite, prepare
from harness.kselftest.wanted import Wanted

COLLECTION = """\
ifneq ($(KBUILD_OUTPUT)$(O),)
OUTPUT ?= $(O)/kselftest/small
endif
TEST_GEN_PROGS := $(OUTPUT)/plain $(OUTPUT)/needs
all: $(TEST_GEN_PROGS)
$(OUTPUT)/%: %.c
	@mkdir -p $(OUTPUT)
	gcc $< -o $@
	@echo $* >> $(MADE)
"""
FILES = {
    "Makefile": "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\nheaders:\n",
    "Kconfig": "",
    "mm/hugetlb.c": "",
    "scripts/kconfig/merge_config.sh": "",
    "scripts/decode_stacktrace.sh": "",
    f"{SELFTESTS}/Makefile": "TARGETS = small\nall:\n\t$(MAKE) -k -C $(TARGETS) O=$(O)\n",
    f"{SELFTESTS}/kselftest/runner.sh": "",
    f"{SELFTESTS}/small/Makefile": COLLECTION,
    f"{SELFTESTS}/small/plain.c": "int main(void) { return 0; }\n",
    f"{SELFTESTS}/small/needs.c": "#include <hgm_library.h>\nint main(void) { return 0; }\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    missing = [name for name in (*toolchain.PROGRAMS, "gcc", "ld") if not shutil.which(name)]
    if missing or not native(X86_64):
        pytest.skip(f"this host cannot build selftests: it lacks {', '.join(missing) or 'a native compiler'}")
    for name in (*toolchain.PASSED, "CROSS_COMPILE", "LLVM", "CC", "HOSTCC", "O", "KBUILD_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setenv("MADE", os.fspath(tmp_path / "made"))
    # As good as one that a package brings.
    monkeypatch.setenv("C_INCLUDE_PATH", os.fspath(tmp_path / "include"))
    (tmp_path / "include").mkdir()
    for name, text in FILES.items():
        (tmp_path / "linux" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "linux" / name).write_text(text)
    return tmp_path / "linux"


def prepared(tree: Path) -> Suite:
    spec = SourceSpec(tree=tree)
    kernel = Kernel(
        arch=X86_64, key="", image=tree, release="", config=None, source="small", flavour="fast",
        tree=resolve(spec).tree,
    )  # fmt: skip
    return prepare(kernel, KernelRequest(arch=X86_64, source=spec), Wanted("small"))


def test_what_did_not_build_is_tried_again_and_what_did_is_kept(tree: Path) -> None:
    first, again = prepared(tree), prepared(tree)
    assert "hgm_library.h: No such file" in first.failed["needs"]
    assert first == again and first.entries == ("plain", "needs")
    (tree.parent / "include/hgm_library.h").touch()
    whole = prepared(tree)
    assert (whole.failed, prepared(tree)) == ({}, whole)
    # A run that goes on with the first may still read it.
    assert (first.files / "needs").read_text().startswith("#!/bin/sh")
    assert sorted((tree.parent / "made").read_text().split()) == ["needs", "plain", "plain", "plain"]
