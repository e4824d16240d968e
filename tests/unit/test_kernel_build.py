# SPDX-License-Identifier: MIT
"""The build, with a tree whose Makefile only pretends: what is done once, what is done again, what is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.arch import ARM64, X86_64
from harness.errors import BadInput, HostFault
from harness.kernel import toolchain
from harness.kernel.build import BuildFailed, Kernel, KernelRequest, output_dir, prepare
from harness.kernel.config import HGM
from harness.kernel.source import SourceSpec, resolve
from harness.process import run as real_run

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
allnoconfig:
	grep -v '#' $(KCONFIG_ALLCONFIG) | grep -vxFf $(CURDIR)/drop > $(O)/.config
image_name:
	@echo arch/x86/boot/bzImage
kernelrelease:
	@echo 6.1.7
bzImage:
	@echo made >> $(O)/made
	@sh $(CURDIR)/mm/hugetlb.c
	@mkdir -p $(O)/arch/x86/boot && echo image > $(O)/arch/x86/boot/bzImage
	@touch $(O)/vmlinux $(O)/System.map
"""
MERGE = """\
#!/bin/sh
shift 3
cat "$@" > "$KCONFIG_CONFIG"
"""
FILES = {
    "Makefile": MAKEFILE,
    "Kconfig": "config USERFAULTFD\n\tbool\n\tdepends on MMU\n",
    "mm/hugetlb.c": "true\n",
    "scripts/kconfig/merge_config.sh": MERGE,
    "scripts/decode_stacktrace.sh": "",
    "drop": "nothing\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    missing = [name for name in (*toolchain.PROGRAMS, "gcc", "ld") if not shutil.which(name)]
    if missing:
        pytest.skip(f"this host cannot build kernels: it lacks {', '.join(missing)}")
    for name in (*toolchain.PASSED, "CROSS_COMPILE", "LLVM", "CC", "HOSTCC", "O", "KBUILD_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    for name, text in FILES.items():
        (tmp_path / "linux" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "linux" / name).write_text(text)
    return tmp_path / "linux"


def request(tree: Path, **others: Any) -> KernelRequest:
    return KernelRequest(arch=X86_64, source=SourceSpec(tree=tree), **others)


def output(tree: Path) -> Path:
    return output_dir(resolve(SourceSpec(tree=tree)), X86_64, "fast")


def times_made(tree: Path) -> int:
    return len((output(tree) / "made").read_text().splitlines())


def test_a_kernel_is_built_once_and_again_for_every_other_input(tree: Path, tmp_path: Path) -> None:
    first = prepare(request(tree))
    assert first.image.read_text() == "image\n"
    assert first.release == "6.1.7"
    assert first.options()["CONFIG_USERFAULTFD"] == "y"
    os.utime(first.image.parent, (0, 0))
    assert prepare(request(tree)) == first
    assert times_made(tree) == 1
    # `./hgm cache --drop-unused` goes by it.
    assert first.image.parent.stat().st_mtime > 0
    (tmp_path / "mine").write_text("CONFIG_MINE=y\n")
    patch = "--- a/mm/hugetlb.c\n+++ b/mm/hugetlb.c\n@@ -1 +1 @@\n-true\n+true true\n"
    (tmp_path / "one.patch").write_text(patch)
    patched = prepare(request(tree, series=(tmp_path / "one.patch",)))
    assert patched.subjects == ("one.patch",)
    (tree / "mm/hugetlb.c").write_text("true true\n")
    edited = prepare(request(tree))
    # The same source in another way is the same kernel.
    assert edited.key == patched.key and edited.tree == patched.tree
    keys = {first.key, patched.key, prepare(request(tree, kconfig=(tmp_path / "mine",))).key}
    assert len(keys) == times_made(tree) == 3


def test_make_variables_are_honoured_and_part_of_the_key(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = prepare(request(tree))
    monkeypatch.setenv("KCFLAGS", "-O1")
    assert prepare(request(tree)).key != plain.key
    monkeypatch.delenv("KCFLAGS")
    # A make around the harness, and a hook of git.
    monkeypatch.setenv("MAKEFLAGS", "--jobserver-auth=98,99 -n")
    monkeypatch.setenv("O", os.fspath(tree.parent / "users"))
    (tree / "mm/hugetlb.c").write_text("echo x\n")
    prepare(request(tree))
    assert output(tree).parent == tree.parent / "users"
    assert (output(tree) / "vmlinux").exists()


def test_another_compiler_makes_another_kernel(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = prepare(request(tree))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gcc").write_text("#!/bin/sh\necho gcc 99\n")
    (tmp_path / "bin/gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    other = prepare(request(tree))
    assert other.toolchain.startswith("gcc 99")
    assert other.key != plain.key


def test_a_tree_with_hgm_is_built_with_it(tree: Path) -> None:
    assert HGM not in prepare(request(tree)).options()
    (tree / "mm/Kconfig").write_text(f"config {HGM.removeprefix('CONFIG_')}\n\tbool\n")
    assert prepare(request(tree)).options()[HGM] == "y"


def test_a_source_that_does_not_build_is_told_from_everything_else(tree: Path) -> None:
    lines = "echo 'mm/hugetlb.c:7:1: error: expected ;' >&2\necho noise\nexit 1\n"
    (tree / "mm/hugetlb.c").write_text(lines)
    with pytest.raises(BuildFailed) as caught:
        prepare(request(tree))
    assert "mm/hugetlb.c:7:1: error: expected ;" in caught.value.message
    assert "noise" not in caught.value.message
    assert Path(caught.value.hint.split()[-1]).is_file()
    assert not (output(tree).with_name(f"{output(tree).name}.busy")).exists()
    (tree / "mm/hugetlb.c").write_text("true\n")
    assert isinstance(prepare(request(tree)), Kernel)
    assert "expected ;" not in (output(tree) / "hgm-build.log").read_text()


def test_a_broken_kconfig_file_is_the_sources_fault(tree: Path) -> None:
    broken = FILES["Makefile"].replace("allnoconfig:", "allnoconfig:\n\t@echo mm/Kconfig:7: syntax error >&2; exit 1")
    (tree / "Makefile").write_text(broken)
    with pytest.raises(BuildFailed, match=r"mm/Kconfig:7: syntax error"):
        prepare(request(tree))


@pytest.mark.parametrize(
    "words",
    [
        "as: No space left on device",
        "gcc: fatal error: Killed signal terminated program cc1",
        "elf.h:1:10: fatal error: gelf.h: No such file or directory",
        "/bin/sh: 1: bc: not found",
        "make[2]: *** [scripts/Makefile.build:250: mm/gup.o] Terminated",
    ],
)
def test_what_this_machine_does_wrong_is_not_blamed_on_the_source(tree: Path, words: str) -> None:
    (tree / "mm/hugetlb.c").write_text(f"echo '{words}' >&2\nexit 1\n")
    with pytest.raises(HostFault) as caught:
        prepare(request(tree))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "quoted",
    [
        '   77 |         pr_err("HugeTLB: cannot allocate memory for it");',
        '12345 | pr_err("No space left on device");',
        '\tpr_err("Cannot allocate memory");',  # as clang has it before version 15
    ],
)
def test_a_source_line_that_the_compiler_quotes_is_no_trouble_of_this_machine(tree: Path, quoted: str) -> None:
    lines = ["cat >&2 <<'END'", "mm/hugetlb.c:77:31: error: it is undeclared", quoted, "END", "exit 1", ""]
    (tree / "mm/hugetlb.c").write_text("\n".join(lines))
    with pytest.raises(BuildFailed, match="it is undeclared"):
        prepare(request(tree))


def test_a_vanished_option_stops_the_build(tree: Path) -> None:
    (tree / "drop").write_text("CONFIG_USERFAULTFD=y\n")
    with pytest.raises(BadInput) as caught:
        prepare(request(tree))
    assert "CONFIG_USERFAULTFD: asked y (kconfigs fragment tests), got n; depends on MMU (MMU=n)" in str(caught.value)


def test_an_output_directory_left_by_a_kill_is_made_anew(tree: Path) -> None:
    prepare(request(tree))
    (output(tree) / "half.o").touch()
    output(tree).with_name(f"{output(tree).name}.busy").touch()
    (tree / "mm/hugetlb.c").write_text("true again\n")
    prepare(request(tree))
    assert not (output(tree) / "half.o").exists()


def test_an_interrupt_leaves_a_usable_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: list[str], **options: Any) -> object:
        if "bzImage" in argv:
            raise KeyboardInterrupt
        return real_run(argv, **options)

    monkeypatch.setattr(toolchain, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(request(tree))
    assert not list((tree.parent / "cache").glob("kernels/*"))
    monkeypatch.setattr(toolchain, "run", real_run)
    assert prepare(request(tree)).release == "6.1.7"


@pytest.mark.parametrize("program", ["flex", "aarch64-linux-gnu-gcc"])
def test_a_missing_program_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    real_which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else real_which(name))
    with pytest.raises(HostFault, match=f"{program} is needed to build a kernel") as caught:
        prepare(KernelRequest(arch=ARM64, source=SourceSpec(tree=tree)))
    assert "doctor" in caught.value.hint


def variables(**env: str) -> dict[str, str]:
    found = toolchain.find(X86_64, env)
    return dict(word.split("=", 1) for word in found.key_variables)


def test_compilers_as_kernel_people_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *toolchain.PROGRAMS,
        "gcc",
        "ld",
        "clang",
        "clang-15",
        "ld.lld",
        "ld.lld-15",
        "x-gcc",
        "x-ld",
        "ccache",
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} 1.0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(toolchain, "native", lambda arch: arch is X86_64)
    assert variables()["CC"] == "gcc" and "LLVM" not in variables()
    assert variables(LLVM="1") | {"CC": "clang", "HOSTCC": "clang", "LLVM": "1"} == variables(LLVM="1")
    assert variables(LLVM="-15")["CC"] == "clang-15"
    assert variables(LLVM=f"{tmp_path}/")["CC"] == f"{tmp_path}/clang"
    assert variables(CROSS_COMPILE="x-")["CC"] == "x-gcc"
    assert variables(CC="clang")["CC"] == "clang"
    assert "CC=ccache gcc" in toolchain.find(X86_64, {}).variables
    assert "CC=ccache clang -v" in toolchain.find(X86_64, {"CC": "ccache clang -v"}).variables
    assert toolchain.find(X86_64, {}).identity == "gcc 1.0; ld 1.0"
