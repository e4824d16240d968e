# SPDX-License-Identifier: MIT
"""Where a kernel comes from: git trees, plain directories, tarballs; and that the user's tree is never written."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from harness.errors import BadInput, HostFault
from harness.kernel.repo import KernelRepo
from harness.kernel.source import Source, SourceSpec, resolve
from tests.namespaces import with_mounts

FILES = {
    "Makefile": "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\nEXTRAVERSION = -rc2\n",
    "Kconfig": 'source "mm/Kconfig"\n',
    "mm/Kconfig": "config HUGETLB\n\tbool\n",
    "mm/hugetlb.c": "int hugetlb;\n",
    "scripts/run.sh": "#!/bin/sh\n",
    "scripts/kconfig/merge_config.sh": "",
    "scripts/decode_stacktrace.sh": "",
    ".gitignore": "*.o\n",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path / "nothing"))
    return tmp_path / "cache"


def write(directory: Path) -> Path:
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "scripts/run.sh").chmod(0o755)
    (directory / "scripts/link").symlink_to("run.sh")
    return directory


def git(directory: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *who, *words], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = write(tmp_path / "linux")
    git(directory, "init", "--quiet", "--initial-branch=main")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=first")
    git(directory, "tag", "v6.1-rc2")
    return directory


def listing(source: Source) -> dict[str, str]:
    """File name to mode and object of everything in the source."""
    text = KernelRepo.open().reading(source.alternate).git("ls-tree", "-r", source.tree).stdout
    return {line.split("\t")[1]: line.split("\t")[0] for line in text.splitlines()}


def text_of(source: Source, name: str) -> str | None:
    return KernelRepo.open().reading(source.alternate).text(source.tree, name)


def state(directory: Path) -> dict[str, object]:
    """Everything of a directory that a careless tool could change."""
    result: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        result[os.fspath(path)] = (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, content)
    return result


def test_a_clean_tree_is_its_commit(tree: Path) -> None:
    source = resolve(SourceSpec(tree=tree))
    assert source.tree == git(tree, "rev-parse", "HEAD^{tree}")
    assert source.commit == git(tree, "rev-parse", "HEAD")
    assert not source.dirty
    assert source.version == "6.1.7-rc2"
    assert source.label == f"{tree} at v6.1-rc2"


def test_uncommitted_changes_are_taken_and_the_tree_is_left_alone(tree: Path) -> None:
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    (tree / "mm/staged.c").write_text("int staged;\n")
    git(tree, "add", "mm/staged.c")
    (tree / "mm/new.c").write_text("int new;\n")
    (tree / "mm/hugetlb.o").write_text("object")
    (tree / "mm/private.c").write_text("mine")
    (tree / "scripts/link").unlink()
    (tree / ".git/info/exclude").write_text("private.c\n")
    before = state(tree)
    source = resolve(SourceSpec(tree=tree))
    assert state(tree) == before
    assert source.dirty and source.label.endswith("with uncommitted changes")
    assert text_of(source, "mm/hugetlb.c") == "int changed;\n"
    assert listing(source).keys() == {*FILES, "mm/staged.c", "mm/new.c"}
    (tree / "mm/hugetlb.c").write_text("int again__;\n")
    assert text_of(resolve(SourceSpec(tree=tree)), "mm/hugetlb.c") == "int again__;\n"


def test_a_change_within_the_same_instant_is_seen(tree: Path) -> None:
    """Git compares times of files with that of its index; a copied index must not hide a change of equal size."""
    stamp = (tree / ".git/index").stat().st_mtime_ns
    (tree / "mm/hugetlb.c").write_text("int hugetlC;\n")
    os.utime(tree / "mm/hugetlb.c", ns=(stamp, stamp))
    assert text_of(resolve(SourceSpec(tree=tree)), "mm/hugetlb.c") == "int hugetlC;\n"


@pytest.mark.parametrize(
    "flags", [("--assume-unchanged",), ("--skip-worktree",), ("--assume-unchanged", "--skip-worktree")]
)
def test_changes_that_git_was_told_not_to_look_at(tree: Path, flags: tuple[str, ...]) -> None:
    for flag in flags:
        git(tree, "update-index", flag, "mm/hugetlb.c", "scripts/run.sh")
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    (tree / "scripts/run.sh").unlink()
    before = state(tree)
    source = resolve(SourceSpec(tree=tree))
    assert state(tree) == before
    assert source.dirty and text_of(source, "mm/hugetlb.c") == "int changed;\n"
    # What a sparse checkout leaves out is no deletion.
    assert ("scripts/run.sh" in listing(source)) == ("--skip-worktree" in flags)


@pytest.mark.parametrize("kind", ["--no-sparse-index", "--sparse-index"])
def test_a_sparse_checkout(tree: Path, kind: str) -> None:
    git(tree, "sparse-checkout", "set", "--cone", kind, "mm")
    assert not (tree / "scripts").exists()
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    source = resolve(SourceSpec(tree=tree))
    assert listing(source).keys() == {*FILES, "scripts/link"}
    assert text_of(source, "mm/hugetlb.c") == "int changed;\n"


def test_a_commit_is_taken_without_the_changes(tree: Path) -> None:
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    before = state(tree)
    source = resolve(SourceSpec(tree=tree, commit="v6.1-rc2"))
    assert state(tree) == before
    assert not source.dirty
    assert text_of(source, "mm/hugetlb.c") == "int hugetlb;\n"


def test_a_linked_worktree(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "--quiet", "../side")
    (tmp_path / "side/mm/new.c").write_text("int new;\n")
    before = state(tree)
    source = resolve(SourceSpec(tree=tmp_path / "side"))
    assert state(tree) == before
    assert source.dirty
    assert "mm/new.c" in listing(source)


def test_a_bare_repository(tree: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", "linux", "bare.git")
    assert resolve(SourceSpec(tree=tmp_path / "bare.git")).commit == git(tree, "rev-parse", "HEAD")


@pytest.mark.parametrize("place", ["linux", "side"])
def test_a_split_index(tree: Path, tmp_path: Path, place: str) -> None:
    git(tree, "worktree", "add", "--quiet", "../side")
    there = tmp_path / place
    git(there, "update-index", "--split-index")
    git(there, "update-index", "--skip-worktree", "scripts/run.sh")
    (there / "scripts/run.sh").unlink()
    (there / "mm/hugetlb.c").write_text("int split;\n")
    before = state(tree)
    source = resolve(SourceSpec(tree=there))
    assert state(tree) == before
    assert text_of(source, "mm/hugetlb.c") == "int split;\n"
    assert "scripts/run.sh" in listing(source)
    assert not list(KernelRepo.open().path.glob("sharedindex.*"))


def test_an_index_that_git_cannot_read_is_done_without(tree: Path) -> None:
    (tree / ".git/index").write_bytes(b"DIRC of a git to come")
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    before = state(tree)
    assert text_of(resolve(SourceSpec(tree=tree)), "mm/hugetlb.c") == "int changed;\n"
    assert state(tree) == before


def test_surrounding_git_variables_are_not_followed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a hook or under git bisect run."""
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent/index")
    assert resolve(SourceSpec(tree=tree)).version == "6.1.7-rc2"


def test_a_plain_directory_even_one_that_ignores_all(tree: Path, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain")
    (plain / "mm/x.o").write_text("object")
    source = resolve(SourceSpec(tree=plain))
    assert source.kind == "directory" and source.tree == git(tree, "rev-parse", "HEAD^{tree}")
    # The .gitignore in Debian's source tarballs.
    (plain / ".gitignore").write_text("/*\n!/debian/\n")
    assert listing(resolve(SourceSpec(tree=plain))).keys() == {*FILES, "scripts/link", "mm/x.o"}
    (plain / ".config").write_text("")
    with pytest.raises(BadInput, match="was configured or built in"):
        resolve(SourceSpec(tree=plain))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_tarball_is_the_same_tree_and_remembered(
    tree: Path, tmp_path: Path, mode: Literal["w:gz", "w:bz2", "w:xz"], capfd: pytest.CaptureFixture[str]
) -> None:
    tarball = tmp_path / f"linux-6.1.7.tar.{mode.removeprefix('w:')}"
    (tree / "mm/hard.c").hardlink_to(tree / "mm/hugetlb.c")
    git(tree, "add", "mm/hard.c")
    with tarfile.open(tarball, mode) as archive:
        for path in sorted(tree.rglob("*")):
            if ".git" not in path.parts:
                archive.add(path, f"linux-6.1.7/{path.relative_to(tree)}", recursive=False)
    source = resolve(SourceSpec(tarball=tarball))
    assert source.tree == git(tree, "write-tree")
    assert source.lineage == "linux-6.1.7"
    assert "importing" in capfd.readouterr().err
    assert resolve(SourceSpec(tarball=tarball)) == source
    assert "importing" not in capfd.readouterr().err


def test_the_work_tree_follows_and_is_mended(tree: Path, tmp_path: Path) -> None:
    repo = KernelRepo.open().reading(tree / ".git/objects")
    first = resolve(SourceSpec(tree=tree)).tree
    work = tmp_path / "cache/src/x"
    repo.materialize(first, work)
    kept = (work / "mm/Kconfig").stat().st_mtime_ns
    (tree / "mm/hugetlb.c").write_text("int changed;\n")
    (tree / "scripts/run.sh").unlink()
    second = resolve(SourceSpec(tree=tree)).tree
    repo.materialize(second, work)
    assert (work / "mm/hugetlb.c").read_text() == "int changed;\n"
    assert not (work / "scripts/run.sh").exists()
    assert (work / "mm/Kconfig").stat().st_mtime_ns == kept
    # As after a checkout that was killed: locks, strangers and half a file.
    (tmp_path / "cache/src/x.busy").touch()
    (tmp_path / "cache/src/x.index.lock").touch()
    (work / "stranger.c").touch()
    (work / "mm/hugetlb.c").write_text("int ch")
    repo.materialize(second, work)
    assert (work / "mm/hugetlb.c").read_text() == "int changed;\n"
    assert not (work / "stranger.c").exists()
    assert not (tmp_path / "cache/src/x.busy").exists()


def test_a_damaged_index_of_the_cache_is_made_anew(tree: Path, tmp_path: Path) -> None:
    repo = KernelRepo.open().reading(tree / ".git/objects")
    work = tmp_path / "cache/src/x"
    repo.materialize(git(tree, "rev-parse", "HEAD^{tree}"), work)
    (tmp_path / "cache/src/x.index").write_bytes(b"garbage")
    repo.materialize(git(tree, "rev-parse", "HEAD^{tree}"), work)
    assert (work / "mm/hugetlb.c").read_text() == "int hugetlb;\n"


def test_bad_trees(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not there"):
        resolve(SourceSpec(tree=tmp_path / "nowhere"))
    with pytest.raises(BadInput, match=r"not a directory"):
        resolve(SourceSpec(tree=tree / "Makefile"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"not a kernel tree: it lacks Makefile, Kconfig, mm/hugetlb\.c"):
        resolve(SourceSpec(tree=tmp_path / "empty"))
    long = write(tmp_path / ("x" * 250))
    assert resolve(SourceSpec(tree=long)).version == "6.1.7-rc2"
    (long / "scripts/kconfig/merge_config.sh").unlink()
    with pytest.raises(BadInput, match=r"not a kernel tree: it lacks scripts/kconfig/merge_config\.sh"):
        resolve(SourceSpec(tree=long))
    git(tree, "rm", "--quiet", "--cached", "mm/hugetlb.c")
    git(tree, "commit", "--quiet", "--message=without")
    with pytest.raises(BadInput, match=r"not a kernel tree: it lacks mm/hugetlb\.c"):
        resolve(SourceSpec(tree=tree, commit="HEAD"))


def test_a_commit_that_does_not_exist(tree: Path) -> None:
    for revision in ("v9.9", "0" * 40, "--all", "HEAD:Makefile"):
        with pytest.raises(BadInput, match="there is no commit") as caught:
            resolve(SourceSpec(tree=tree, commit=revision))
        assert repr(revision) in str(caught.value)
    with pytest.raises(BadInput, match="without a tree"):
        resolve(SourceSpec(commit="HEAD"))


def test_a_commit_of_a_plain_directory(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not the top of a git tree"):
        resolve(SourceSpec(tree=write(tmp_path / "plain"), commit="HEAD"))


def test_bad_tarballs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not there"):
        resolve(SourceSpec(tarball=tmp_path / "nowhere.tar.xz"))
    for name, content in (("a.tar", b"no tar" * 999), ("b.tar.gz", b"\x1f\x8bgarbage"), ("c.tar", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name}"):
            resolve(SourceSpec(tarball=tmp_path / name))
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.add(__file__, "other-1.0/file")
    with pytest.raises(BadInput, match="not a kernel tree"):
        resolve(SourceSpec(tarball=tmp_path / "other.tar.gz"))


def test_more_than_one_source(tree: Path) -> None:
    with pytest.raises(BadInput, match="more than one"):
        resolve(SourceSpec(tree=tree, package="linux-source-6.1"))


def test_a_package_name_is_no_option() -> None:
    for name in ("--all", "Linux", "a b", "x;y"):
        with pytest.raises(BadInput, match="no name of a Debian package"):
            resolve(SourceSpec(package=name))


def fake_apt(directory: Path, monkeypatch: pytest.MonkeyPatch, *, policy: str = "", download: str = "exit 1") -> None:
    """Put an apt of our own in front: `policy` is what apt-cache says, `download` the shell code of apt-get."""
    directory.mkdir(exist_ok=True)
    (directory / "apt-cache").write_text(f"#!/bin/sh\ncat <<'E'\n{policy}\nE\n")
    (directory / "apt-get").write_text(f"#!/bin/sh\n{download}\n")
    for name in ("apt-cache", "apt-get"):
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_packages_fetched_once_then_offline(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tmp_path / "pkg/usr/src/linux-source-6.1.tar.xz"
    tar.parent.mkdir(parents=True)
    (tmp_path / "pkg/DEBIAN").mkdir()
    control = "Package: linux-source-6.1\nVersion: 6.1.992-1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    (tmp_path / "pkg/DEBIAN/control").write_text(control)
    with tarfile.open(tar, "w:xz") as archive:
        archive.add(write(tmp_path / "plain"), "linux-source-6.1")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "pkg", "p.deb"], cwd=tmp_path, check=True)
    fake_apt(tmp_path / "bin", monkeypatch, policy="  Candidate: 6.1.992-1", download=f"cp {tmp_path}/p.deb .")
    source = resolve(SourceSpec())
    assert source.tree == git(tree, "rev-parse", "HEAD^{tree}")
    assert source.label == "linux-source-6.1 6.1.992-1"
    fake_apt(tmp_path / "bin", monkeypatch, policy="  Candidate: 6.1.992-1")
    assert resolve(SourceSpec()) == source
    fake_apt(tmp_path / "bin", monkeypatch, policy="")
    assert resolve(SourceSpec()) == source


def test_lists_that_know_an_old_package_are_renewed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_dir, called = tmp_path / "bin", tmp_path / "called"
    renew = f"sed -i s/6.1.176/6.1.992/ {bin_dir}/apt-cache" if os.geteuid() == 0 else "true"
    download = f'echo "$*" >> {called}; case "$*" in *update) {renew};; *) echo E: no network >&2; exit 100;; esac'
    fake_apt(bin_dir, monkeypatch, policy="  Candidate: 6.1.176-1", download=download)
    version = "6.1.992-1" if os.geteuid() == 0 else "6.1.176-1"
    with pytest.raises(HostFault, match=f"{version}: E: no network"):
        resolve(SourceSpec())
    with pytest.raises(HostFault, match="E: no network"):
        resolve(SourceSpec(package="linux-source-6.1=6.1.100-1"))
    assert called.read_text().count("update") == (1 if os.geteuid() == 0 else 0)


def test_packages_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(tmp_path / "bin", monkeypatch, policy="")
    with pytest.raises(HostFault, match="lists are empty") as caught:
        resolve(SourceSpec())
    assert "apt-get update" in caught.value.hint
    fake_apt(tmp_path / "bin", monkeypatch, policy="Package: x\nFilename: pool/x.deb")
    with pytest.raises(BadInput, match="no Debian package linux-source-0"):
        resolve(SourceSpec(package="linux-source-0"))
    lists = "Package: x\nFilename: pool/x.deb"
    for words, told in (
        ("Version '0' for 'xx' was not found", "no xx 0"),
        ("Unable to locate package xx", "no Debian package xx"),
    ):
        fake_apt(tmp_path / "bin", monkeypatch, policy=lists, download=f'echo "E: {words}" >&2; exit 100')
        with pytest.raises(BadInput, match=f"there is {told}"):
            resolve(SourceSpec(package="xx=0"))
    fake_apt(tmp_path / "bin", monkeypatch, policy="  Candidate: 7", download="echo 'E: Failed to fetch' >&2; exit 100")
    with pytest.raises(HostFault, match="Failed to fetch") as caught:
        resolve(SourceSpec())
    assert "network" in caught.value.hint


# Run in a mount namespace of its own, where a cache of a few pages can be had.
FULL_DISK = """
import subprocess, sys
from pathlib import Path
from harness.errors import HostFault
from harness.kernel.source import SourceSpec, resolve
tree = Path(sys.argv[1])
try:
    resolve(SourceSpec(tree=tree) if tree.is_dir() else SourceSpec(tarball=tree))
except HostFault as error:
    print("HOST FAULT", error)
"""


@pytest.mark.parametrize("kind", ["tree", "tarball"])
def test_a_full_disk(tree: Path, tmp_path: Path, kind: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    prefix = with_mounts('mount -t tmpfs -o size=512k none "$0" && exec "$@"', small)
    (tree / "mm/big.c").write_bytes(os.urandom(2 << 20))
    given = tree
    if kind == "tarball":
        given = tmp_path / "big.tar"
        with tarfile.open(given, "w") as archive:
            archive.add(tree, "linux")
    root = Path(__file__).parents[2]
    env = os.environ | {"HGM_CACHE": os.fspath(small), "PYTHONPATH": os.fspath(root)}
    argv = [*prefix, sys.executable, "-c", FULL_DISK, os.fspath(given)]
    result = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    assert "HOST FAULT" in result.stdout, result.stderr
    assert "HGM_CACHE" in result.stdout or "disk is full" in result.stdout


def test_a_read_only_tree(tree: Path, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from harness.kernel.source import *; "
    code += "print(resolve(SourceSpec(tree=Path(sys.argv[1]))).tree)"
    env = os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parents[2])}
    prefix = with_mounts('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"', tree)
    argv = [*prefix, sys.executable, "-c", code, os.fspath(tree)]
    result = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == git(tree, "rev-parse", "HEAD^{tree}")
