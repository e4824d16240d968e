# SPDX-License-Identifier: MIT
"""`./hgm bisect` and `./hgm bisect-step`."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

from harness import doctor, trial
from harness.arch import Arch
from harness.bisect import failure as failures
from harness.bisect.failure import Failure, Judgement, Word
from harness.bisect.memory import Memory
from harness.bisect.search import History, find_commit
from harness.bisect.walk import Bisection, build, no_guest
from harness.errors import BadInput, GuestFault, HarnessError
from harness.kernel import config as kconfig
from harness.kernel import series
from harness.kernel.build import KernelRequest
from harness.kernel.repo import disk_faults
from harness.kernel.source import resolve
from harness.options import (
    OF_CASES,
    Parser,
    add_options,
    at_least,
    checked,
    given,
    kernel_request,
    location,
    nonempty,
    refuse,
    repeated,
    word,
)
from harness.paths import ROOT, cache_dir, digest, locked
from harness.process import say
from harness.report.results import read

RUNNING = ("huge_pages", "expect_hgm", "stress")  # options that every run of cases gets
NO_COMMITS = ("source_package", "tarball", "kernel", "kernel_config", "stock")


class Told(IntEnum):
    """What `bisect-step` tells `git bisect run` (git-bisect(1)): from 128 on it stops, and blames no commit."""

    GOOD = 0
    # The launcher makes it 1. A Python that cannot even import the harness ends with 1, and must not be heard as bad.
    BAD = 100
    SKIP = 125
    FAULT = 128
    USAGE = 129  # as git's own commands have it
    INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Find the first bad commit between two: status 0 if it is one, 1 if it may be several. Raises HarnessError."""
    parser = _parser("bisect", (main.__doc__ or "").partition(" Raises ")[0])
    parser.add_argument("--good", required=True, type=nonempty, metavar="REV", help="commit at which it worked")
    parser.add_argument("--bad", required=True, type=nonempty, metavar="REV", help="later commit at which it fails")
    parser.add_argument(
        "--restart", action="store_true", help="forget what an earlier, interrupted bisection found out"
    )
    options, running, selection = _parse(parser, arguments)
    hint = "--tree DIR --good REV --bad REV"
    if options.commit:
        raise BadInput("--commit names one commit, and a bisection is between two", hint=hint)
    if not options.tree:
        raise BadInput("a bisection goes through the commits of a tree", hint=hint)
    arch = _one_arch(options)
    tree = _real(options.tree)
    good, bad = find_commit(tree, options.good), find_commit(tree, options.bad)
    words = repeated(options, Path.cwd())
    # Also what the words only name: other patches or other guest tests make it another bisection.
    request = _checked(options, arch, good)
    contents = _contents([*request.series, *request.kconfig, ROOT / "guest_tests"])
    asked = digest(os.fspath(tree), good, bad, [*words, *running], selection, options.runs, contents)
    place = cache_dir() / "bisect" / asked
    with locked(f"bisect-{place.name}"):
        if options.restart and place.exists():
            shutil.rmtree(place)
        history = History.open(tree, place / "git")
        history.start(good, bad)
        doctor.ensure([arch])
        bisection = Bisection(
            tree=tree,
            words=words,
            running=running,
            selection=selection,
            runs=options.runs,
            history=history,
            memory=Memory.load(place / "bisect.json"),
            directory=trial.new_directory(options.results),
        )
        try:
            return bisection.run(good, bad)
        except KeyboardInterrupt:
            say("what was found out so far is kept: the same command goes on from here")
            raise


def step(arguments: Sequence[str]) -> int:
    """Judge one state of a tree for `git bisect run`: 0 good, 1 bad, 125 cannot be tested, 128 and above no answer."""
    try:
        judgement = _step(arguments)
    except KeyboardInterrupt:
        print("hgm: interrupted", file=sys.stderr)
        return Told.INTERRUPTED
    except BadInput as error:
        print(f"hgm: {error}", file=sys.stderr)
        return Told.USAGE
    except HarnessError as error:
        print(f"hgm: {error}", file=sys.stderr)
        return Told.FAULT
    except Exception:
        # A fault of the harness itself: whatever it is, it says nothing of the commit.
        traceback.print_exc()
        return Told.FAULT
    print(f"{judgement.word}: {judgement.why}")
    if judgement.evidence:
        print(judgement.evidence)
    return {Word.GOOD: Told.GOOD, Word.BAD: Told.BAD, Word.SKIP: Told.SKIP}[judgement.word]


def _step(arguments: Sequence[str]) -> Judgement:
    parser = _parser("bisect-step", step.__doc__)
    parser.add_argument(
        "--same-as", type=location, metavar="RESULTS", help="results of a run at the bad end: only its failures are bad"
    )
    options, running, selection = _parse(parser, arguments)
    arch = _one_arch(options)
    options.tree = os.fspath(_real(options.tree or "."))
    _checked(options, arch, options.commit)
    doctor.ensure([arch])
    wanted = _known_failures(Path(options.same_as).expanduser()) if options.same_as else []
    where = [f"--tree={options.tree}", *([f"--commit={options.commit}"] if options.commit else [])]
    where += repeated(options, Path.cwd())
    cwd = Path.cwd()
    if wanted and not selection:
        selection, cwd = [one.case for one in wanted], ROOT
    place = trial.new_directory(options.results)
    built = build(where, place)
    if not built.digest:
        return Judgement(word=Word.SKIP, why=built.problem)
    judged = []
    for number in range(1, options.runs + 1):
        try:
            cases = trial.run_cases([*where, *running, *selection], place / f"run-{number}", cwd).cases
        except GuestFault as error:
            judged.append(no_guest(error, place / f"run-{number}"))
            continue
        judged.append(
            failures.together([failures.judge(one, cases) for one in wanted]) if wanted else failures.judge_any(cases)
        )
        if judged[-1].word is Word.BAD:
            break
    return failures.together(judged)


def _checked(options: argparse.Namespace, arch: Arch, commit: str | None) -> KernelRequest:
    """Return the request. Raises BadInput for what no commit can make right, and a build would take for one to skip."""
    request = kernel_request(options, arch, Path.cwd())
    with disk_faults():
        for path in request.series:
            series.read(path)
        for path in request.kconfig:
            kconfig.read(path)
    resolve(replace(request.source, commit=commit))
    return request


def _known_failures(path: Path) -> list[Failure]:
    """Return the failures in the results of a run. Raises BadInput if there are none."""
    try:
        file = path / "results.json" if path.is_dir() else path
        found = [one for case in read(file).cases if (one := failures.failure_of(case))]
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"--same-as {path} cannot be read: {error!r}", hint="the results.json of a run") from error
    if not found:
        raise BadInput(f"in {file} no case has failed, so there is nothing to compare with")
    return found


def _parser(name: str, about: str | None) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"hgm {name}",
        usage=f"hgm {name} [options] [-- PYTEST-ARGUMENTS]",
        description=about,
        epilog="PYTEST-ARGUMENTS select the cases, such as -k mapcount",
        allow_abbrev=False,
    )
    add_options(parser.add_argument)
    help_text = "runs of each step; more find a flaky failure"
    parser.add_argument("--runs", type=at_least(1), default=1, metavar="N", help=help_text)
    return parser


def _parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Return the options, the words for each run that come of them, and those by which the user selects cases."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    found = given(options, parser)
    refuse(found, NO_COMMITS, "has no commits to bisect", hint="give a git tree with --tree DIR")
    others = [name for name in OF_CASES if name not in RUNNING]
    refuse(found, others, "is not an option of a bisection", hint="what stands behind -- goes to each run")
    return options, [word(name, found[name]) for name in RUNNING if name in found], words[at + 1 :]


def _one_arch(options: argparse.Namespace) -> Arch:
    arches = checked(options, Path.cwd())
    if len(arches) > 1:
        raise BadInput(
            f"--arch {options.arch}: a commit is judged on one architecture", hint="one run for each of them"
        )
    return arches[0]


def _real(path: str) -> Path:
    # Path.resolve() fails where links go round in circles; whoever opens the path then says it better.
    return Path(os.path.realpath(Path(path).expanduser()))


def _contents(paths: Iterable[Path]) -> str:
    """Return a key of what the files are, or those in the directories."""
    files = []
    for path in paths:
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    # What is no source comes and goes with every run of Python.
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file() and file.suffix != ".pyc"]
    return digest(*sums)
