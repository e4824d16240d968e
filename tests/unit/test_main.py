# SPDX-License-Identifier: MIT
"""What a verb ends with: a fault of the harness is no verdict on a kernel."""

from __future__ import annotations

import pytest

from harness import __main__ as launcher
from harness.errors import BadInput, Exit


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BadInput("no such thing", hint="another"), Exit.BAD_INPUT, "hgm: no such thing\n  hint: another\n"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "hgm: interrupted\n"),
        (KeyError("odd"), Exit.OUR_FAULT, "KeyError: 'odd'\n"),
    ],
)
def test_every_end_has_its_status(
    error: BaseException, status: Exit, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: list[str]) -> int:
        raise error

    monkeypatch.setitem(launcher.VERBS, "cache", fails)
    assert launcher.main(["cache"]) == status
    assert capsys.readouterr().err.endswith(words)


def test_an_unknown_option_is_bad_input() -> None:
    assert launcher.main(["doctor", "--bogus"]) == Exit.BAD_INPUT
    assert launcher.main(["run", "--arch", "--kernel", "X"]) == Exit.BAD_INPUT
