# SPDX-License-Identifier: MIT
"""pytest's face of the harness: guest cases as items, the harness's options as pytest's, evidence as failures.

Collecting reads sources only; kernels, images and guests are prepared when the first guest case is about to run.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness import interrupts, pools, shards
from harness.arch import Arch, size_name
from harness.errors import BadInput, HarnessError
from harness.guest.cases import STRESS, Case, find
from harness.kselftest import wanted
from harness.options import add_options, expand, kernel_request, wants_reference
from harness.paths import GUEST_TESTS, ROOT

if TYPE_CHECKING:
    from harness.kernel.build import Kernel
    from harness.report.results import CaseResult, RunResult
    from harness.session import Run
    from harness.verdict.expected import Expected
    from harness.vm.machine import Machine

RUN = pytest.StashKey["Run"]()
TRAVELS = "hgm_result"  # attribute of a report; pytest-xdist carries it from a worker to the process that collects
OUTCOME = pytest.StashKey["tuple[Path, RunResult]"]()  # where results go, and all of them
DEALT = pytest.StashKey[list[str]]()  # of a shard: ids of all the cases that the shards share


def pytest_addoption(parser: pytest.Parser) -> None:
    """Give pytest every option of `./hgm run`."""
    add_options(parser.getgroup("hgm", "kernels and guests").addoption)


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
        config.pluginmanager.register(Collector(config), "hgm-collector")
    try:
        for arch in expand(config.getoption("arch")):
            pools.of(arch, config.getoption("huge_pages"))
        if config.getoption("repeat") < 1:
            raise BadInput(f"--repeat {config.getoption('repeat')}: each case must run at least once")
        _expected(config)
        shards.parse(config.getoption("shard"))
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
        from harness.kselftest.item import Collections

        collections: Collections = Collections.from_parent(parent, path=file_path)
        return collections
    places = [GUEST_TESTS] if file_path.is_relative_to(GUEST_TESTS) else []
    places += [place for place in file_path.parents if place.name == "guest_programs"]
    if not places or file_path.suffix not in (".c", ".py") or file_path.parent.name == "lib":
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
    from harness.kselftest.item import KselftestItem

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


class Program(pytest.File):
    """A guest test program."""

    def collect(self) -> Iterator[GuestItem]:
        """Yield an item for each case, architecture and huge page size."""
        try:
            cases = find(self.path)
        except BadInput as error:
            raise self.CollectError(str(error)) from error
        for arch in expand(self.config.getoption("arch")):
            reserved = {pool.size for pool in pools.of(arch, self.config.getoption("huge_pages"))}
            for case in cases:
                for size in case.sizes_on(arch):
                    if size not in reserved:
                        continue
                    name = f"{case.name}[{arch.name}-{size_name(size)}]"
                    item: GuestItem = GuestItem.from_parent(self, name=name, case=case, arch=arch, size=size)
                    yield item


class GuestItem(pytest.Item):
    """One case on one architecture at one huge page size."""

    def __init__(self, *, case: Case, arch: Arch, size: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.case, self.arch, self.size = case, arch, size
        self.result: CaseResult | None = None
        # Words that -k understands besides the id's own.
        self.extra_keyword_matches.update(
            (case.category, arch.name, size_name(size), "hgm" if case.needs_hgm else "stock")
        )
        known = {"claim": case.claim, "category": case.category, "huge_page_size": size_name(size)}
        self.user_properties += known.items()

    def runtest(self) -> None:
        """Run the case and raise what its result says."""
        from harness.report.whole import facts

        run = self.config.stash[RUN]
        self.user_properties += facts(run.result, self.arch.name).items()
        try:
            with uncaptured(self.config) if run.boots_for(self.case, self.arch) else contextlib.nullcontext():
                result = run.run(self.case, self.arch, self.size, self.nodeid)
        except HarnessError as error:
            give_up(self.config, error)
        finally:
            interrupts.raise_lost()
        self.result = result
        if result.status == "skip":
            pytest.skip(result.reason or "the program gave no reason")
        if result.status == "xfail":
            pytest.xfail(result.reason)
        if result.red:
            raise CaseFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The evidence instead of a traceback, which would only show the harness."""
        if isinstance(excinfo.value, CaseFailed):
            return evidence(excinfo.value.result, outcome(self.config)[0])
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int, str]:
        """Where the case stands in its source."""
        return self.path, self.case.line - 1, self.name


class CaseFailed(Exception):
    """A case that did not pass; its result says why."""

    def __init__(self, result: CaseResult) -> None:
        super().__init__(f"{result.status}: {'; '.join(finding.message for finding in result.findings)}")
        self.result = result


def evidence(result: CaseResult, directory: Path) -> str:
    """Return the text of a failure: status, claim, each finding with what it stands on, and where the files are."""
    lines = [f"{result.status.upper()}: {result.id}", f"claim: {result.claim}"]
    if result.attempts:
        lines.append(f"run {len(result.attempts)} times: {', '.join(one.status for one in result.attempts)}")
    if result.status == "xpass":
        lines.append(f"- passes, but was {result.reason}; take it off the list of expected failures")
    for finding in result.findings:
        lines.append(f"- {finding.message}")
        lines += [f"    {line}" for line in finding.evidence.splitlines()[:60]]
    lines.append(f"files: {directory / result.directory}")
    return "\n".join(lines)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[Any]:
    """Prepare everything for the guest cases that were selected, run, and leave no guest behind."""
    config = session.config
    from harness.kselftest.item import KselftestItem

    items = [item for item in session.items if isinstance(item, GuestItem | KselftestItem)]
    if not items or config.option.collectonly or session.testsfailed:
        return (yield)
    from harness.session import Run  # paramiko and QMP are slow to import; collecting does without them
    from harness.supply import Fresh

    run: Run | None = None
    with interrupts.handled():
        try:
            with uncaptured(config):
                directory, result = outcome(config)
                result.selected = [item.nodeid for item in items]
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


def outcome(config: pytest.Config) -> tuple[Path, RunResult]:
    """Return where the results of the run go, and what holds them; made by the first who asks.

    A worker of pytest-xdist is told where, and hands its part over to the process that collects them all.
    """
    from harness.report.results import RunResult
    from harness.session import start

    if OUTCOME not in config.stash:
        told = getattr(config, "workerinput", {}).get("hgm_results")
        if told:
            config.stash[OUTCOME] = Path(told), RunResult(started="", command=[])
        else:
            chosen = config.getoption("results")
            base = Path(os.environ.get("HGM_RESULTS") or ROOT / "results")
            config.stash[OUTCOME] = start(Path(chosen).absolute() if chosen else None, base, sys.argv)
    return config.stash[OUTCOME]


def _expected(config: pytest.Config) -> tuple[Expected, ...]:
    """Return the failures that are expected. Raises BadInput if the list cannot be read."""
    from harness.verdict import expected

    path = config.getoption("expected_failures")
    return expected.read(config.invocation_params.dir / Path(path).expanduser()) if path else ()


def give_up(config: pytest.Config, error: HarnessError) -> NoReturn:
    """End the run: without a guest no later case can do better, and a run cut short must not look like a verdict."""
    from harness.report.results import Fault

    if hasattr(config, "workeroutput"):
        config.workeroutput["hgm_fault"] = error.message, str(error), int(error.exit_code)
    elif OUTCOME in config.stash:
        config.stash[OUTCOME][1].fault = Fault(exit_code=error.exit_code, message=error.message)
    pytest.exit(str(error), returncode=error.exit_code)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the result travel with the report, which goes from a worker to the process that collects."""
    from harness.kselftest.item import KselftestItem

    report = yield
    results = item.results if isinstance(item, KselftestItem) else []
    if isinstance(item, GuestItem) and item.result:
        results = [item.result]
    if results and report.when == "call":
        setattr(report, TRAVELS, [result.to_json() for result in results])
    return report


class Collector:
    """Collects the results: in the one process there is, or in the one that gives work to pytest-xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ended: set[str] = set()  # ids of what has a result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the results of an item over."""
        from harness.report.results import CaseResult

        if report.when == "call" and (report.passed or hasattr(report, TRAVELS)):
            self._ended.add(report.nodeid)
        for text in getattr(report, TRAVELS, ()):
            outcome(self._config)[1].cases.append(CaseResult.from_json(text))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where results go."""
        node.workerinput["hgm_results"] = os.fspath(outcome(self._config)[0])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Learn what was selected; every worker selects the same."""
        from harness.report.whole import arch_of

        outcome(self._config)[1].selected = [name for name in ids if arch_of(name)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker knows besides its results; end the run if it knows that no guest is to be had."""
        from harness.report.results import Fault

        told = getattr(node, "workeroutput", {})
        _, result = outcome(self._config)
        kernels, machines, interrupted = json.loads(told.get("hgm", "[{}, {}, false]"))
        result.kernels.update(kernels)
        result.interrupted |= interrupted
        for name, machine in machines.items():
            known = result.machines.setdefault(name, machine)
            for key in ("boot_seconds", "clone_seconds") if known is not machine else ():
                known[key] += machine[key]
        if "hgm_dealt" in told:
            self._config.stash[DEALT] = told["hgm_dealt"]
        if "hgm_fault" in told:
            message, words, status = told["hgm_fault"]
            result.fault = Fault(exit_code=status, message=message)
            pytest.exit(words, returncode=status)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports."""
        dealt = self._config.stash.get(DEALT, [])
        if dealt and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not self._config.option.collectonly:
            # More shards than cases: there is nothing to do in this one, which must not fail the fleet.
            session.exitstatus = pytest.ExitCode.OK
            outcome(self._config)
        if OUTCOME in self._config.stash:
            from harness.report.results import Fault

            directory, result = self._config.stash[OUTCOME]
            result.not_run = [name for name in result.selected if name not in self._ended]
            result.shard, result.dealt = self._config.getoption("shard"), dealt
            result.interrupted |= session.exitstatus == pytest.ExitCode.INTERRUPTED
            if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR:
                result.fault = Fault(exit_code=pytest.ExitCode.INTERNAL_ERROR, message="pytest met an internal error")
            result.finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            # Before anything else can go wrong: all other files can be made from it again.
            result.write(directory / "results.json")
            from harness.report import files

            files.write(directory, result)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker, hand over what it knows besides its results."""
    config = session.config
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


@contextlib.contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Let progress lines through to the terminal, which pytest would else keep for a failure report."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter:
        reporter.ensure_newline()  # pytest may stand in the middle of a line of dots
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield
