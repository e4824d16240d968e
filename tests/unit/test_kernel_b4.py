# SPDX-License-Identifier: MIT
"""A series by message id: what is one, and that b4 is asked once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import BadInput, HostFault
from harness.kernel import b4
from harness.kernel.series import read

NAME = "20230218002819.1486479-1-jthoughton@google.com"
# Does as `b4 am` does for an id that it knows: one .mbx below --outdir, and a word for each call.
STUB = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
case "$*" in *unknown*) echo 'That message-id is not known.' >&2; exit 1 ;; esac
printf 'From a@b Thu Jan  1 00:00:00 1970\\nSubject: [PATCH] mm: one\\n\\n' > "$4/one.mbx"
printf -- '--- a/f\\n+++ b/f\\n@@ -1 +1 @@\\n-a\\n+b\\n' >> "$4/one.mbx"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A b4 on PATH, and the file in which its calls stand."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/b4").write_text(STUB)
    (tmp_path / "bin/b4").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    return tmp_path / "bin/calls"


@pytest.mark.parametrize(
    "text",
    [NAME, f"<{NAME}>", f"https://lore.kernel.org/linux-mm/{NAME}/", f"https://lore.kernel.org/all/{NAME}",
     f"https://patch.msgid.link/{NAME}"],
)  # fmt: skip
def test_what_is_a_message_id(text: str) -> None:
    assert b4.message_id(text) == NAME


@pytest.mark.parametrize("text", ["series.mbox", "patches/reference", "/home/a@b/series", "~/x@y/z.mbox", ""])
def test_what_is_none(text: str) -> None:
    assert b4.message_id(text) == ""


def test_the_series_is_fetched_once(calls: Path) -> None:
    path = b4.fetch(NAME)
    assert [patch.subject for patch in read(path)] == ["mm: one"]
    assert b4.fetch(NAME) == path
    assert len(calls.read_text().splitlines()) == 1


def test_an_id_that_b4_does_not_know_is_bad_input(calls: Path) -> None:
    with pytest.raises(BadInput, match=r"no series for unknown@example\.org\nThat message-id is not known"):
        b4.fetch("unknown@example.org")
    assert not list((calls.parent.parent / "cache/mail").iterdir())


def test_without_b4_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(HostFault, match="b4 is needed"):
        b4.fetch(NAME)
