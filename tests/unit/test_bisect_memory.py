# SPDX-License-Identifier: MIT
"""What is kept of a bisection, so that a killed one goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.bisect.failure import Failure, Judgement, Word
from harness.bisect.memory import Ends, Memory, Trial
from harness.errors import BadInput

GOOD = Judgement(word=Word.GOOD, why="the case passes")
SKIP = Judgement(word=Word.SKIP, why="does not build")


def test_everything_comes_back(tmp_path: Path) -> None:
    memory = Memory.load(tmp_path / "deep/bisect.json")
    failure = Failure(case="a.c::x[x86_64-2M]", kind="ktap", fingerprint="not ok")
    memory.ends = Ends(failure=failure, failed_runs=2, runs=3, others=("b", "c"))
    memory.add(Trial(commit="c1", judgement=GOOD, image="i1", built=True, seconds=1.5, directory="d"))
    memory.add(Trial(commit="c2", judgement=SKIP))
    again = Memory.load(tmp_path / "deep/bisect.json")
    assert again == memory
    assert again.trials["c2"].judgement.word is Word.SKIP
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bisect.json"]


def test_each_trial_is_on_disk_at_once(tmp_path: Path) -> None:
    memory = Memory.load(tmp_path / "bisect.json")
    memory.add(Trial(commit="c1", judgement=GOOD))
    assert set(Memory.load(tmp_path / "bisect.json").trials) == {"c1"}


def test_a_write_that_is_cut_short_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory.load(tmp_path / "bisect.json")
    memory.add(Trial(commit="c1", judgement=GOOD))

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        memory.add(Trial(commit="c2", judgement=GOOD))
    monkeypatch.undo()
    assert set(Memory.load(tmp_path / "bisect.json").trials) == {"c1"}


def test_only_a_commit_with_an_image_and_a_verdict_is_the_same_as_another(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "bisect.json")
    memory.add(Trial(commit="c0", judgement=SKIP, image="i"))
    memory.add(Trial(commit="c1", judgement=SKIP))
    memory.add(Trial(commit="c2", judgement=GOOD, image="i"))
    found = memory.by_image("i")
    assert found and found.commit == "c2"
    assert memory.by_image("") is None
    assert memory.by_image("other") is None


def test_another_schema_is_not_taken_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "bisect.json").write_text(json.dumps({"schema": 0, "what": "ever"}))
    with pytest.raises(BadInput):
        Memory.load(tmp_path / "bisect.json")
