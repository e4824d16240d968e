# SPDX-License-Identifier: MIT
"""pytest's hooks: the harness's options as pytest's own, guest tests and selftests as its items, one run around them.

Collecting reads sources only; kernels, images and guests are prepared when the first guest case is about to run.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import interrupts, pools, shards
from harness.collector import DEALT, TRAVELS, Collector
from harness.errors import BadInput, HarnessError
from harness.guest.cases import STRESS
from harness.items import GuestItem, Program
from harness.kselftest import wanted
from harness.kselftest.item import Collections, KselftestItem
from harness.options import add_options, checked, expand, kernel_request, wants_reference
from harness.paths import GUEST_TESTS, ROOT
from harness.running import OUTCOME, RUN, UNREADABLE, give_up, outcome, uncaptured

if TYPE_CHECKING:
    from harness.kernel.build import Kernel
    from harness.report.results import CaseResult
    from harness.session import Run
    from harness.verdict.expected import Expected
    from harness.vm.machine import Machine


COLLECTOR = "hgm-collector"
BY_VERB = "--by-verb"  # that it is `./hgm run`, not pytest itself


def pytest_addoption(parser: pytest.Parser) -> None:
    """Give pytest every option of `./hgm run`."""
    add_options(parser.getgroup("hgm", "kernels and guests").addoption)
    parser.addoption(BY_VERB, action="store_true", help=argparse.SUPPRESS)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Let `./hgm run` have several guests at once, where all cases shall run and nothing asks for one at a time."""
    option = config.option
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS or option.capture == "no"
    # Some are not there without the plugin they belong to.
    names = ("keyword", "markexpr", "lf", "stepwise", "trace", "kselftest", "pause_on_failure")
    chosen |= any(getattr(option, name, None) for name in names)
    # A worker has the options of the run, but for -n, and must not have workers of its own.
    worker = hasattr(config, "workerinput")
    if option.by_verb and not chosen and not worker and getattr(option, "numprocesses", 0) is None:
        option.numprocesses = "auto"
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Take `-n auto` for as many as the host has places for guests."""
    from harness.vm import places  # slow to import

    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    try:
        return min(places.number(pools.of(arch, config.option.huge_pages)) for arch in expand(config.option.arch))
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check what can be checked of the options before anything is collected."""
    if config.rootpath != ROOT and config.invocation_params.dir.is_relative_to(ROOT):
        # pytest looks for its root before it knows the options of plugins, and takes their values for test paths.
        raise pytest.UsageError(
            f"pytest takes {config.rootpath} for the root of the tests, since an option's value looks like a test\n"
            "  hint: write such options with '=', as in --tree=DIR, or use ./hgm run"
        )
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR and config.rootpath == ROOT:
        # pytest heeds `testpaths` only in its root; from anywhere else the same command is the same run.
        config.args = [os.fspath(GUEST_TESTS)]
    ids = [arg for arg in config.args if arg.startswith(wanted.PREFIX)]
    if config.getoption("kselftest") or ids:
        # Whoever asks for the kernel's own tests gets these alone, unless paths are named, too.
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*(arg for arg in named if arg not in ids), os.fspath(wanted.ANCHOR)]
        config.option.kselftest = [*config.option.kselftest, *ids]
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config), COLLECTOR)
    try:
        checked(config.option, config.invocation_params.dir)
        wanted.read(config.getoption("kselftest"))
        if config.getoption("pause_on_failure") and getattr(config.option, "numprocesses", None):
            hint = "leave one of the two out"
            raise BadInput("--pause-on-failure stops at one guest, and -n runs several", hint=hint)
        if config.getoption("pause_on_failure") and config.getoption("kselftest"):
            raise BadInput("--pause-on-failure is for guest tests, and --kselftest runs none", hint="leave one out")
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect programs below guest_tests/ (stress/ only with --stress), and any below a directory guest_programs."""
    if file_path == wanted.ANCHOR and parent.config.getoption("kselftest"):
        collections: Collections = Collections.from_parent(parent, path=file_path)
        return collections
    bases = [GUEST_TESTS] if file_path.is_relative_to(GUEST_TESTS) else []
    bases += [place for place in file_path.parents if place.name == "guest_programs"]
    if not bases or file_path.suffix not in (".c", ".py") or "lib" in file_path.relative_to(bases[0]).parts:
        return None
    if file_path.parent.name == STRESS and not parent.config.getoption("stress"):
        return None
    program: Program = Program.from_parent(parent, path=file_path)
    return program


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --shard, keep this shard's part of what -k, -m and others have left."""
    shard = shards.parse(config.getoption("shard"))
    if not shard:
        return
    number, count = shard
    guest = [item for item in items if isinstance(item, GuestItem | KselftestItem)]
    config.stash[DEALT] = sorted(item.nodeid for item in guest)
    try:
        mine = shards.deal([item.nodeid for item in items], count, shards.read())[number - 1]
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error
    others = [item for item in items if item.nodeid not in mine]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.nodeid in mine]


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[Any]:
    """Prepare everything for the guest cases that were selected, run, and leave no guest behind."""
    config = session.config
    items = [item for item in session.items if isinstance(item, GuestItem | KselftestItem)]
    goes_on = config.option.collectonly or config.option.continue_on_collection_errors
    if not goes_on and (unreadable := config.stash.get(UNREADABLE, [])):
        outcome(config)
        give_up(config, unreadable[0])
    # A worker runs what it has collected, whatever else could not be.
    failed = session.testsfailed and not goes_on and not hasattr(config, "workerinput")
    if not items or config.option.collectonly or failed:
        return (yield)
    from harness.session import Run  # paramiko and QMP are slow to import; collecting does without them
    from harness.supply import Fresh

    run: Run | None = None
    with interrupts.handled():
        try:
            with uncaptured(config):
                directory, result = outcome(config)
                result.selected = [item.nodeid for item in items]
                if collector := config.pluginmanager.getplugin(COLLECTOR):  # a worker has none
                    collector.keep()
                run = Run(
                    request=kernel_request(config.option, items[0].arch, config.invocation_params.dir),
                    huge_pages=config.getoption("huge_pages"),
                    expect_hgm=config.getoption("expect_hgm") or wants_reference(config.option),
                    directory=directory,
                    result=result,
                    stress_s=config.getoption("stress"),
                    fresh=Fresh(config.getoption("fresh")) if config.getoption("fresh") else None,
                    repeat=config.getoption("repeat"),
                    rerun=not (config.getoption("no_rerun") or config.getoption("pause_on_failure")),
                    expected=_expected(config),
                    dump_memory=config.getoption("dump_memory"),
                    pause=functools.partial(_pause, config) if config.getoption("pause_on_failure") else None,
                )
                config.stash[RUN] = run
                for arch in dict.fromkeys(item.arch for item in items):
                    here = [item for item in items if item.arch is arch]
                    programs = {item.path for item in here if isinstance(item, GuestItem)}
                    run.prepare(arch, programs, [item.wanted for item in here if isinstance(item, KselftestItem)])
            return (yield)
        except HarnessError as error:
            interrupts.raise_lost()
            give_up(config, error)
        except KeyboardInterrupt as interrupt:
            if run:
                run.result.interrupted = True
            # With a traceback of its own: in Python 3.11 one from the midst of a call may lack a line number, and
            # pytest, which wants to show the place, then fails for that and takes its status from there.
            raise KeyboardInterrupt(*interrupt.args) from None
        finally:
            if run:
                run.close()


def _pause(config: pytest.Config, machine: Machine, kernel: Kernel, result: CaseResult) -> None:
    from harness import pause

    with uncaptured(config):
        pause.wait(machine, kernel, result)


def _expected(config: pytest.Config) -> tuple[Expected, ...]:
    """Return the failures that are expected. Raises BadInput if the list cannot be read."""
    from harness.verdict import expected

    path = config.getoption("expected_failures")
    return expected.read(config.invocation_params.dir / Path(path).expanduser()) if path else ()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the result travel with the report, which goes from a worker to the process that collects."""
    report = yield
    results = item.results if isinstance(item, KselftestItem) else []
    if isinstance(item, GuestItem) and item.result:
        results = [item.result]
    if results and report.when == "call":
        setattr(report, TRAVELS, [result.to_json() for result in results])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker, hand over what it knows besides its results."""
    config = session.config
    if hasattr(config, "workeroutput"):
        items = [item.nodeid for item in session.items if isinstance(item, GuestItem | KselftestItem)]
        config.workeroutput["hgm_selected"] = items
    if hasattr(config, "workeroutput") and DEALT in config.stash:
        config.workeroutput["hgm_dealt"] = config.stash[DEALT]
    if hasattr(config, "workeroutput") and OUTCOME in config.stash:
        _, result = config.stash[OUTCOME]
        config.workeroutput["hgm"] = json.dumps([result.kernels, result.machines, result.interrupted])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table by category, the reasons of skips, and where the results lie."""
    if OUTCOME not in config.stash:
        return
    from harness.report import github, text

    directory, result = config.stash[OUTCOME]
    for line in github.publish(result):
        terminalreporter.write_line(line)
    if not result.kernels:
        return
    terminalreporter.section("guest tests")
    for line in text.summary(result):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"results: {directory}")
