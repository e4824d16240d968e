# SPDX-License-Identifier: MIT
"""One run of the harness in a process of its own, as the verbs that compare kernels need it: its results or an error.

The verdict is read from results.json. An exit status alone is never one: a run that was cut short, a typo and a host
without memory end with a status other than 0, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput, Exit, GuestFault, HarnessError, HostFault
from harness.kernel.build import BuildFailed
from harness.paths import ROOT
from harness.process import run, tail
from harness.report.results import RunResult, read

# Both verbs write here what goes wrong; the child ends by itself, and cleanly, should this process be killed.
_CHILD = ("setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-P", "-m", "harness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What building one state of a source came to."""

    image: Path | None  # None: there is none, and `problem` says why
    problem: str = ""


def build(arguments: Sequence[str], log: Path, cwd: Path) -> Built:
    """Build the kernel that `arguments` (of `./hgm build`) ask for; what is said goes to `log`.

    A source that does not build is an answer, and so is one that the request does not fit: a series that does not apply
    to it, an option that it does not have. Raises HostFault if this machine fails, KeyboardInterrupt if the child was
    interrupted.
    """
    log.unlink(missing_ok=True)
    done = run([*_CHILD, "build", *arguments], cwd=cwd, log=log, check=False, quiet=True)
    lines = done.stdout.splitlines()
    said = [number for number, line in enumerate(lines) if line.startswith("hgm: ")]
    last = "\n".join(lines[said[-1] :]).removeprefix("hgm: ") if said else tail(done.stdout)
    # The hint names make's log, which the next build in the same directory replaces.
    last = last.partition("\n  hint: ")[0]
    match done.returncode:
        case Exit.OK:
            return Built(image=Path(lines[-1]))
        case Exit.BUILD_FAILED | Exit.BAD_INPUT:
            return Built(image=None, problem=last)
        case Exit.INTERRUPTED:
            raise KeyboardInterrupt("the build was interrupted")
    raise HostFault(f"the build ended with status {done.returncode}\n{last}", hint=f"its log is {log}")


def run_cases(
    arguments: Sequence[str | os.PathLike[str]], directory: Path, cwd: Path, *, partial: bool = False
) -> RunResult:
    """Run the guest tests that `arguments` (of `./hgm run`) select, each case once, with the results in `directory`.

    Raises what ended the run before its time: GuestFault, BuildFailed, HostFault or BadInput (also if no case was
    selected), KeyboardInterrupt if the child was interrupted. It is a HostFault, too, if nothing is red and yet cases
    have no result, unless the caller looks at `not_run` itself (`partial`); a red case says no whatever became of
    others.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written, log = directory / "results.json", directory / "output.txt"
    for old in (written, log):
        old.unlink(missing_ok=True)
    argv = [*_CHILD, "run", "-p", "no:cacheprovider", "--no-rerun", "--results", directory, *arguments]
    done = run(argv, cwd=cwd, log=log, check=False, quiet=True)
    result = read(written) if written.exists() else None
    if done.returncode == Exit.INTERRUPTED or (result and result.interrupted):
        raise KeyboardInterrupt("the run was interrupted")
    if result and result.fault:
        kinds: list[type[HarnessError]] = [BadInput, GuestFault, BuildFailed]
        kind = next((one for one in kinds if one.exit_code == result.fault.exit_code), HostFault)
        raise kind(result.fault.message, hint=f"its log is {log}")
    if done.returncode == Exit.NO_TESTS:
        raise BadInput("no case was selected", hint="see what there is with ./hgm run --collect-only -q")
    if done.returncode == Exit.BAD_INPUT:
        raise BadInput(f"the run was refused:\n{tail(done.stdout)}")
    if not result or not result.finished or done.returncode not in (Exit.OK, Exit.TESTS_FAILED):
        raise HostFault(f"the run ended with status {done.returncode}\n{tail(done.stdout)}", hint=f"its log is {log}")
    if result.not_run and not partial and not any(case.red for case in result.cases):
        lost = f"{len(result.not_run)} case(s) without a result, such as {result.not_run[0]}"
        raise HostFault(f"the run has left {lost}\n{tail(done.stdout)}", hint=f"its log is {log}")
    return result


def new_directory(given: str | None) -> Path:
    """Make and return the directory of the results: `given`, or a dated one. Raises BadInput if it cannot be made."""
    from harness.session import start  # slow to import

    base = Path(os.environ.get("HGM_RESULTS") or ROOT / "results")
    return start(Path(given).expanduser().absolute() if given else None, base, sys.argv)[0]
