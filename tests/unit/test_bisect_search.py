# SPDX-License-Identifier: MIT
"""git's bisection in a repository of our own: it finds, skips, gives a log, and leaves the user's repository alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.bisect.failure import Word
from harness.bisect.search import History, find_commit
from harness.errors import BadInput, HostFault

COUNT = 21  # commits, one of them on a branch


def git(tree: Path, *words: str) -> str:
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", "-C", tree, *words], env=env, check=True, capture_output=True, text=True).stdout


def files(tree: Path) -> Mapping[Path, int]:
    """Every file of a tree and of its repository, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A linear history of twenty commits, from number 0 on, and a branch with one more beside its last four."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "tree")
    tree = tmp_path / "tree"
    stream = ""
    for number in range(COUNT):
        beside = number == COUNT - 1
        stream += f"commit refs/heads/{'beside' if beside else 'main'}\nmark :{number + 1}\n"
        stream += f"committer A <a@example.org> {1700000000 + number} +0000\ndata <<END\nnumber {number}\nEND\n"
        stream += f"from :{COUNT - 5}\n" if beside else ""
        stream += f"M 100644 inline file\ndata <<END\n{number}\nEND\n\n"
    subprocess.run(["git", "-C", tree, "fast-import", "--quiet"], input=stream, text=True, check=True)
    git(tree, "reset", "--quiet", "--hard")
    return tree


def walk(history: History, judge: Callable[[int], Word]) -> list[int]:
    asked = []
    while commit := history.current():
        number = int(history.subject(commit).split()[1])
        asked.append(number)
        history.tell(judge(number), commit)
    return asked


def started(tree: Path, place: Path) -> History:
    history = History.open(tree, place / "git")
    history.start(find_commit(tree, "main~19"), find_commit(tree, "main"))
    return history


def test_it_finds_the_first_bad_commit_and_writes_nothing_of_the_users(tree: Path, tmp_path: Path) -> None:
    before = files(tree)
    history = started(tree, tmp_path)
    asked = walk(history, lambda number: Word.BAD if number >= 13 else Word.GOOD)
    assert history.found() == [find_commit(tree, "main~6")]
    assert len(asked) <= 5
    assert files(tree) == before


def test_between_two_neighbours_nothing_is_asked(tree: Path, tmp_path: Path) -> None:
    history = History.open(tree, tmp_path / "git")
    history.start(find_commit(tree, "main~1"), find_commit(tree, "main"))
    assert history.current() is None
    assert history.found() == [find_commit(tree, "main")]


def test_skipped_commits_that_hide_it_are_all_named(tree: Path, tmp_path: Path) -> None:
    history = started(tree, tmp_path)
    words = {11: Word.SKIP, 12: Word.SKIP}
    walk(history, lambda number: words.get(number, Word.BAD if number >= 12 else Word.GOOD))
    subjects = {history.subject(commit) for commit in history.found()}
    assert subjects == {"number 11", "number 12", "number 13"}


def test_git_replays_the_log_in_the_users_tree(tree: Path, tmp_path: Path) -> None:
    history = started(tree, tmp_path)
    words = {9: Word.SKIP}
    walk(history, lambda number: words.get(number, Word.BAD if number >= 13 else Word.GOOD))
    (tmp_path / "bisect.log").write_text(history.log())
    assert "first bad commit" in git(tree, "bisect", "replay", os.fspath(tmp_path / "bisect.log"))
    assert f"# first bad commit: [{find_commit(tree, 'main~6')}]" in git(tree, "bisect", "log")


def test_told_again_it_asks_for_the_same(tree: Path, tmp_path: Path) -> None:
    words = {9: Word.SKIP, 8: Word.SKIP}
    rounds = [
        walk(started(tree, tmp_path), lambda number: words.get(number, Word.BAD if number >= 7 else Word.GOOD))
        for _ in range(2)
    ]
    assert rounds[0] == rounds[1]


def test_a_shallow_clone_is_bisected_as_far_as_it_goes(tree: Path, tmp_path: Path) -> None:
    # Of a merge the clone has two commits on each side: behind the older one beside, no good commit ends the walk.
    merge = git(tree, "commit-tree", "main^{tree}", "-p", "main", "-p", "beside", "-m", "number 21").strip()
    git(tree, "update-ref", "refs/heads/main", merge)
    git(tmp_path, "clone", "--quiet", "--depth=3", f"file://{tree}", "shallow")
    history = History.open(tmp_path / "shallow", tmp_path / "git")
    history.start(find_commit(tmp_path / "shallow", "main~2"), find_commit(tmp_path / "shallow", "main"))
    walk(history, lambda number: Word.BAD if number >= 20 else Word.GOOD)
    assert [history.subject(commit) for commit in history.found()] == ["number 20"]


def test_what_git_refuses_is_no_judgement(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(HostFault, match="git bisect bad nowhere failed"):
        started(tree, tmp_path).tell(Word.BAD, "nowhere")


def test_ends_that_cannot_be(tree: Path, tmp_path: Path) -> None:
    history = History.open(tree, tmp_path / "git")
    main, older, beside = (find_commit(tree, name) for name in ("main", "main~3", "beside"))
    with pytest.raises(BadInput, match="is not an ancestor of"):
        history.start(main, older)
    with pytest.raises(BadInput, match="is not an ancestor of"):
        history.start(beside, main)
    with pytest.raises(BadInput, match="the same commit"):
        history.start(main, main)
    with pytest.raises(BadInput, match="there is no commit 'nowhere'"):
        find_commit(tree, "nowhere")
    with pytest.raises(BadInput, match=r"the kernel tree .*/absent is not there"):
        find_commit(tmp_path / "absent", "main")
    with pytest.raises(BadInput, match="is not a git tree"):
        History.open(tmp_path / "absent", tmp_path / "git")
