# SPDX-License-Identifier: MIT
"""Series of patches: which are read, in which order, and what is said of one that does not apply."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.kernel import series
from harness.kernel.repo import KernelRepo

LINES = [f"line {number}\n" for number in range(1, 61)]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelRepo:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    return KernelRepo.open()


@pytest.fixture
def tree(repo: KernelRepo, tmp_path: Path) -> str:
    return tree_of(repo, tmp_path, "".join(LINES))


def tree_of(repo: KernelRepo, tmp_path: Path, text: str) -> str:
    work = tmp_path / "work"
    (work / "mm").mkdir(parents=True, exist_ok=True)
    (work / "mm/hugetlb.c").write_text(text)
    (work / "mm/rmap.c").write_text("rmap\n")
    index = repo.scratch_index("test")
    repo.git("add", "--all", index=index, work_tree=work)
    return repo.git("write-tree", index=index).stdout.strip()


def diff(*changes: tuple[int, str], base: list[str] | None = None) -> bytes:
    """A diff of mm/hugetlb.c that replaces lines; made by diff(1), as people do."""
    old = base or LINES
    new = list(old)
    for number, text in changes:
        new[number - 1] = f"{text}\n"
    before, after = "".join(old), "".join(new)
    script = 'cd "$(mktemp -d)" && mkdir -p a/mm b/mm && printf %s "$1" >a/mm/hugetlb.c && '
    script += 'printf %s "$2" >b/mm/hugetlb.c && diff -u a/mm/hugetlb.c b/mm/hugetlb.c; rm -r "$PWD"'
    out = subprocess.run(["sh", "-c", script, "sh", before, after], capture_output=True, check=True).stdout
    assert out
    return out


def mail(subject: str, body: bytes, *headers: str) -> bytes:
    head = ["From mboxrd@z Thu Jan  1 00:00:00 1970", "From: A <a@b>", f"Subject: {subject}", *headers]
    return "\n".join(head).encode() + b"\n\nWhy.\n---\n" + body + b"-- \n2.39.5\n\n"


def result(repo: KernelRepo, tree: str, path: Path) -> tuple[list[str], str]:
    applied = series.apply(repo, tree, series.read(path))
    text = repo.text(applied[-1].tree, "mm/hugetlb.c")
    assert text is not None
    return [patch.subject for patch in applied], text


def two(directory: Path) -> Path:
    """Two patches; the second builds on the first, and the names are in the wrong order for quilt."""
    directory.mkdir()
    middle = list(LINES)
    middle[4] = "five\n"
    (directory / "a.patch").write_bytes(diff((5, "five")))
    (directory / "b.patch").write_bytes(diff((5, "FIVE"), base=middle))
    return directory


def test_a_directory_by_name_with_each_tree(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    applied = series.apply(repo, tree, series.read(two(tmp_path / "s")))
    assert [patch.subject for patch in applied] == ["a.patch", "b.patch"]
    texts = [repo.text(patch.tree, "mm/hugetlb.c") or "" for patch in applied]
    assert [text.splitlines()[4] for text in texts] == ["five", "FIVE"]


def test_a_quilt_series(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    directory = two(tmp_path / "s")
    (directory / "a.patch").rename(directory / "z.patch")
    (directory / "ignored.patch").write_text("not in the series")
    (directory / "series").write_text("# comment\nz.patch -p1\n\nb.patch # why\n")
    assert result(repo, tree, directory)[1].splitlines()[4] == "FIVE"
    (directory / "series").write_text("nothing.patch\n")
    with pytest.raises(BadInput, match=r"the patch .*/nothing\.patch is not there"):
        series.read(directory)
    (directory / "series").write_bytes(b"\xff.patch\n")
    with pytest.raises(BadInput, match="series is no list of patches"):
        series.read(directory)
    (directory / "series").write_text("z.patch -R\n")
    with pytest.raises(BadInput, match="not understood"):
        series.read(directory)


def test_an_mbox_is_put_in_order(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    middle = list(LINES)
    middle[4] = "five\n"
    encoded = base64.encodebytes(b"Why.\n---\n" + diff((5, "FIVE"), base=middle))
    second = b"\n".join([
        b"From mboxrd@z Thu Jan  1 00:00:00 1970",
        b"From: A <a@b>",
        b"Subject: =?utf-8?q?=5BPATCH_v2_2/2=5D?= mm: second",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Transfer-Encoding: base64",
        b"",
        encoded,
    ])  # fmt: skip
    first = mail("[PATCH v2 1/2] mm:\n first", diff((5, "five")))
    cover = mail("[PATCH v2 0/2] mm: both", b" mm/hugetlb.c | 2 +-\n")
    reply = mail("Re: [PATCH v2 1/2] mm: first", b"> " + diff((5, "five")).replace(b"\n", b"\n> "))
    (tmp_path / "t.mbox").write_bytes(second + reply + cover + first)
    subjects, text = result(repo, tree, tmp_path / "t.mbox")
    assert subjects == ["mm: first", "mm: second"]
    assert text.splitlines()[4] == "FIVE"
    (tmp_path / "t.mbox.gz").write_bytes(gzip.compress((tmp_path / "t.mbox").read_bytes()))
    assert result(repo, tree, tmp_path / "t.mbox.gz")[0] == subjects
    whole = (tmp_path / "t.mbox.gz").read_bytes()
    for damaged in (whole[:-20], whole[:2], whole[:40] + b"damaged" + whole[47:], whole[:-8] + bytes(8)):
        (tmp_path / "t.mbox.gz").write_bytes(damaged)
        with pytest.raises(BadInput, match="is a damaged gzip file"):
            series.read(tmp_path / "t.mbox.gz")


def test_a_single_mail_in_quoted_printable_with_crlf(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    body = diff((5, "a=b")).replace(b"=", b"=3D").replace(b"\n", b"\r\n")
    head = b"From: A <a@b>\r\nSubject: [PATCH] mm: one\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    (tmp_path / "one.eml").write_bytes(head + body)
    subjects, text = result(repo, tree, tmp_path / "one.eml")
    assert subjects == ["mm: one"] and text.splitlines()[4] == "a=b"


def test_new_deleted_and_renamed_files(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(
        "diff --git a/mm/rmap.c b/mm/moved.c\nsimilarity index 100%\nrename from mm/rmap.c\nrename to mm/moved.c\n"
        "diff --git a/new b/new\nnew file mode 100755\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+new\n"
    )
    applied = series.apply(repo, tree, series.read(tmp_path / "x.patch"))
    names = repo.git("ls-tree", "-r", "--format=%(objectmode) %(path)", applied[-1].tree).stdout.splitlines()
    assert names == ["100644 mm/hugetlb.c", "100644 mm/moved.c", "100755 new"]


def test_a_patch_that_does_not_apply_is_named_with_its_hunk(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    wrong = list(LINES)
    wrong[39] = "something else\n"
    (tmp_path / "s").mkdir()
    (tmp_path / "s/0001-good.patch").write_bytes(diff((5, "five")))
    (tmp_path / "s/0002-bad.patch").write_bytes(mail("[PATCH 2/2] mm: bad", diff((20, "x"), (40, "y"), base=wrong)))
    with pytest.raises(BadInput) as caught:
        series.apply(repo, tree, series.read(tmp_path / "s"))
    told = str(caught.value)
    assert "patch 2 of 2 does not apply: 'mm: bad'" in told
    assert "0002-bad.patch" in told
    assert "mm/hugetlb.c, hunk 2: @@ -37,7 +37,7 @@" in told


def test_other_reasons_not_to_apply(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    for name, text, told in (
        ("absent", diff((5, "x")).replace(b"mm/hugetlb.c", b"mm/nothing.c"), "mm/nothing.c: does not exist"),
        ("corrupt", diff((5, "x"))[:-20], "corrupt patch"),
    ):
        (tmp_path / f"{name}.patch").write_bytes(text)
        with pytest.raises(BadInput, match=told):
            series.apply(repo, tree, series.read(tmp_path / f"{name}.patch"))


def test_applying_twice_asks_git_only_once(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    patches = series.read(two(tmp_path / "s"))
    first = series.apply(repo, tree, patches)
    memo = next((tmp_path / "cache/series").iterdir())
    stamp = memo.stat().st_mtime_ns
    assert series.apply(repo, tree, patches) == first
    assert memo.stat().st_mtime_ns == stamp
    # An object that has gone, as when the user's repository was the only one to hold it.
    blob = repo.git("rev-parse", f"{first[-1].tree}:mm/hugetlb.c").stdout.strip()
    (repo.path / "objects" / blob[:2] / blob[2:]).unlink()
    assert series.apply(repo, tree, patches) == first
    assert repo.has(blob)


def test_nothing_to_apply(repo: KernelRepo, tree: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters.mbox").write_bytes(mail("hello", b"no diff here\n"))
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="not there"):
        series.read(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no patches in the directory"):
        series.read(tmp_path / "empty")
    for name in ("letters.mbox", "binary"):
        with pytest.raises(BadInput, match="there are no patches in"):
            series.read(tmp_path / name)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInput, match="neither file nor directory"):
        series.read(tmp_path / "fifo")
    (tmp_path / "empty/x.patch").mkdir()
    with pytest.raises(BadInput, match=r"the patch .*empty/x\.patch is not a file"):
        series.read(tmp_path / "empty")
    (tmp_path / "empty/x.patch").rmdir()
    (tmp_path / "empty/x.patch").write_text("no diff\n")
    with pytest.raises(BadInput, match="there is no diff in"):
        series.read(tmp_path / "empty")


def test_an_incomplete_or_doubled_mbox(repo: KernelRepo, tmp_path: Path) -> None:
    one, three = mail("[PATCH 1/3] a", diff((5, "x"))), mail("[PATCH 3/3] c", diff((50, "x")))
    (tmp_path / "gap.mbox").write_bytes(one + three)
    with pytest.raises(BadInput, match="lacks patch 2 of 3"):
        series.read(tmp_path / "gap.mbox")
    (tmp_path / "twice.mbox").write_bytes(one + three + mail("[PATCH v2 1/3] a", diff((6, "x"))))
    with pytest.raises(BadInput, match="several patches numbered 1"):
        series.read(tmp_path / "twice.mbox")
