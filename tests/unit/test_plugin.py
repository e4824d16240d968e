# SPDX-License-Identifier: MIT
"""How many guests a run has at a time, where nothing is said of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import plugin
from harness.vm import places

GUESSED = pytest.Config.ArgsSource.TESTPATHS


def workers(source: pytest.Config.ArgsSource = GUESSED, *, inside: bool = False, **given: Any) -> object:
    """What -n is, once `./hgm run`, or a worker that is `inside` one, was called with these options."""
    option = SimpleNamespace(**{"by_verb": True, "numprocesses": None, "capture": "fd", "keyword": ""} | given)
    more: dict[str, Any] = {"workerinput": {}} if inside else {}
    config = cast(pytest.Config, SimpleNamespace(option=option, args_source=source, **more))
    next(plugin.pytest_cmdline_main(config))
    return option.numprocesses


def test_all_cases_have_several() -> None:
    assert workers() == "auto"
    assert workers(pytest.Config.ArgsSource.INVOCATION_DIR) == "auto"


@pytest.mark.parametrize(
    "given",
    [{"keyword": "fork"}, {"markexpr": "slow"}, {"lf": True}, {"kselftest": ["mm"]}, {"pause_on_failure": True},
     {"capture": "no"}, {"stepwise": True}, {"trace": True}, {"by_verb": False}],
)  # fmt: skip
def test_some_cases_or_what_goes_one_by_one_have_one(given: dict[str, Any]) -> None:
    assert workers(**given) is None


def test_a_worker_has_none_of_its_own() -> None:
    assert workers(inside=True) is None


def test_named_files_have_one() -> None:
    assert workers(pytest.Config.ArgsSource.ARGS) is None


def test_what_is_said_holds() -> None:
    assert workers(numprocesses=0) == 0
    assert workers(keyword="fork", numprocesses=3) == 3


def test_automatic_is_what_the_host_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    monkeypatch.setattr(places, "number", len)  # of the pools
    config = cast(pytest.Config, SimpleNamespace(option=SimpleNamespace(arch="x86_64", huge_pages="2M=1,1G=1")))
    assert plugin.pytest_xdist_auto_num_workers(config) == 2
    config.option.huge_pages = "many"
    with pytest.raises(pytest.UsageError, match="is no pool"):
        plugin.pytest_xdist_auto_num_workers(config)
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "7")
    assert plugin.pytest_xdist_auto_num_workers(config) is None
