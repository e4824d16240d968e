# SPDX-License-Identifier: MIT
"""Interrupts are heard, held back where they must be, and raised again where they got lost."""

from __future__ import annotations

import signal
import sys

import pytest

from harness import interrupts

BOTH = pytest.mark.parametrize("number", interrupts.SIGNALS)


@BOTH
def test_both_signals_interrupt_within_the_block_only(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=number.name), interrupts.handled():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


@BOTH
def test_an_interrupt_while_a_command_starts_waits_and_is_not_lost(number: signal.Signals) -> None:
    reached: list[str] = []

    def start() -> None:
        with interrupts.handled(), interrupts.held():
            signal.raise_signal(number)
            reached.append("the end of the block")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached


def test_a_lost_interrupt_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    with interrupts.handled():
        interrupts.raise_lost()
        Careless()
        assert lost
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            interrupts.raise_lost()


def test_an_ignored_interrupt_stays_ignored_while_held() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interrupts.held():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
