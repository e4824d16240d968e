# SPDX-License-Identifier: MIT
"""Places for guests on a host: one at a time each, and in turn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest import mock

import pytest

from harness.vm import places

SECONDS = 30.0


def takes_once(waiting: Event, mine: Event, leave: Event) -> None:
    """Wait for a place, in a process of its own, and keep it until told to leave."""
    with mock.patch.object(places, "say", lambda _: waiting.set()), places.taken(()):
        mine.set()
        assert leave.wait(SECONDS)


@pytest.fixture
def one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    monkeypatch.setattr(places, "number", lambda pools: 1)


@pytest.mark.usefixtures("one_place")
def test_who_gives_up_a_place_and_looks_at_once_gets_it_after_the_one_that_waits(
    started: Callable[[], tuple[Event, Event, Event]],
) -> None:
    for _ in range(5):
        with places.taken(()):
            waiting, mine, leave = started()
            assert waiting.wait(SECONDS)
            assert not mine.is_set()
        leave.set()
        with places.taken(()):
            assert mine.is_set()


@pytest.fixture
def started() -> Callable[[], tuple[Event, Event, Event]]:
    """What starts another process that waits for a place; gives what it sets when it waits and has it, and obeys."""
    context = multiprocessing.get_context("fork")

    def start() -> tuple[Event, Event, Event]:
        events = context.Event(), context.Event(), context.Event()
        context.Process(target=takes_once, args=events, daemon=True).start()
        return events

    return start
