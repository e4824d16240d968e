# SPDX-License-Identifier: MIT
"""What long undertakings keep of themselves."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import record
from harness.errors import BadInput, HostFault


@dataclass
class Kept:
    """What some undertaking has found out."""

    numbers: list[int] = field(default_factory=list)


def test_what_was_saved_is_loaded_under_the_same_schema_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    assert record.load(path, 1, Kept) == Kept()
    record.save(path, 1, Kept([1, 2]))
    assert record.load(path, 1, Kept) == Kept([1, 2])
    with pytest.raises(BadInput, match="of another version"):
        record.load(path, 2, Kept)
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"schema": 1, "numbers": ["one"]}'])
def test_what_cannot_be_read_is_not_replaced(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text)
    with pytest.raises(BadInput, match=str(path)):
        record.load(path, 1, Kept)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    record.save(path, 1, Kept([1]))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HostFault, match="No space left"):
        record.save(path, 1, Kept([2]))
    assert record.load(path, 1, Kept) == Kept([1])
