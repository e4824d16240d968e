# SPDX-License-Identifier: MIT
"""One function per verb of `./hgm`."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from harness import interrupts
from harness.errors import Exit, HarnessError
from harness.paths import ROOT

VERBS: dict[str, Callable[[list[str]], int]] = {}


def verb(function: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Make a function a verb; the first line of its docstring is its help."""
    VERBS[function.__name__.replace("_", "-")] = function
    return function


@verb
def run(arguments: list[str]) -> int:
    """Build or take a kernel, boot it, run the guest tests in it; all of pytest's options work."""
    import pytest

    if not {"-h", "--help", "--co", "--collect-only", "--version"} & set(arguments):
        from harness import doctor
        from harness.options import Parser, expand

        asked = Parser(prog="hgm run", add_help=False, allow_abbrev=False)
        asked.add_argument("--arch", default="x86_64")
        doctor.ensure(expand(asked.parse_known_args(arguments)[0].arch))
    # -c and --rootdir make it the same run from any directory; paths stay relative to the user's own.
    fixed = ["-c", os.fspath(ROOT / "pyproject.toml"), "--rootdir", os.fspath(ROOT), "--by-verb"]
    # Our own package is imported by now, which pytest warns of; its asserts are none that pytest should rewrite.
    fixed += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*fixed, *arguments]))


@verb
def selftest(arguments: list[str]) -> int:
    """Run the project's own tests: lint, types, unit, browser and VM tests; arguments go to tox (such as -e unit)."""
    from harness import doctor
    from harness.arch import ALL
    from harness.needs import Stage

    doctor.ensure(ALL, stages=tuple(Stage))
    # In a checkout that cannot be written, tox works where the virtual environment is.
    workdir = ["--workdir", os.fspath(Path(sys.prefix) / "tox")] if os.environ.get("HGM_VENV") else []
    argv = [sys.executable, "-m", "tox", "run", "--conf", os.fspath(ROOT / "tox.ini"), *workdir, *arguments]
    return subprocess.call(argv, cwd=ROOT)


@verb
def build(arguments: list[str]) -> int:
    """Build the kernel that the same options of `run` would test, and print where its image is."""
    from harness import doctor
    from harness.kernel.build import prepare
    from harness.options import OF_CASES, OF_GUESTS, Parser, add_options, checked, given, kernel_request, refuse

    parser = Parser(prog="hgm build", description=build.__doc__, allow_abbrev=False)
    add_options(parser.add_argument)
    options = parser.parse_args(arguments)
    unused = (*OF_GUESTS, *OF_CASES, "results")
    refuse(given(options, parser), unused, "is about guests, and a build boots none", hint="./hgm run takes it")
    for arch in checked(options, Path.cwd()):
        doctor.ensure([arch])
        print(prepare(kernel_request(options, arch, Path.cwd())).image)
    return Exit.OK


@verb
def shell(arguments: list[str]) -> int:
    """Open a shell in a fresh guest of the kernel that the same options of `run` would test."""
    from harness import shell as room

    return room.main(arguments)


@verb
def series(arguments: list[str]) -> int:
    """Build and boot the kernel after each patch of a series, on each architecture asked for, and print a table."""
    from harness import series as room

    return room.main(arguments)


@verb
def bisect(arguments: list[str]) -> int:
    """Find the first commit of a tree at which a guest test fails, between a good one and a bad one."""
    from harness.bisect import verbs

    return verbs.main(arguments)


@verb
def bisect_step(arguments: list[str]) -> int:
    """Judge one state of a tree for `git bisect run`: 0 good, 1 bad, 125 cannot be tested, 128 and above no answer."""
    from harness.bisect import verbs

    return verbs.step(arguments)


@verb
def mutants(arguments: list[str]) -> int:
    """Seed bugs into the reference series one by one, see which guest tests notice, and print a table."""
    from harness.mutants import verbs

    return verbs.main(arguments)


@verb
def soak(arguments: list[str]) -> int:
    """Run the guest tests again and again, in random order, on a kernel that is right, and count false alarms."""
    from harness import soak as room

    return room.main(arguments)


@verb
def report(arguments: list[str]) -> int:
    """Tell what a run came to, what broke since another run, or what shards came to together."""
    from harness.report import verbs

    return verbs.main(arguments)


@verb
def doctor(arguments: list[str]) -> int:
    """List what this machine must have, what it lacks, and the one command that mends it."""
    from harness import doctor as room
    from harness.options import Parser

    parser = Parser(prog="hgm doctor", description=doctor.__doc__, allow_abbrev=False)
    parser.add_argument("--install", action="store_true", help="run the command that mends it")
    return room.main(install=parser.parse_args(arguments).install)


@verb
def cache(arguments: list[str]) -> int:
    """List what the cache holds, and with --drop-unused remove what no run has used for so many days."""
    from harness import cache as room

    return room.main(arguments)


@verb
def bench(arguments: list[str]) -> int:
    """Measure what users wait for, side by side in one run, and print a table."""
    from harness import bench as room

    return room.main(arguments)


def main(arguments: list[str]) -> int:
    """Run one verb; errors of the harness end in one message and their own exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: ./hgm VERB [options]\n")
        for name, function in VERBS.items():
            print(f"  {name:<11} {(function.__doc__ or '').splitlines()[0]}")
        return Exit.OK if arguments else Exit.BAD_INPUT
    if arguments[0] not in VERBS:
        print(f"hgm: unknown verb {arguments[0]!r}\n  hint: one of {', '.join(VERBS)}", file=sys.stderr)
        return Exit.BAD_INPUT
    try:
        # Whoever ends us politely gets the same clean end as Ctrl-C: no make and no QEMU is left behind.
        with interrupts.handled():
            return VERBS[arguments[0]](arguments[1:])
    except HarnessError as error:
        print(f"hgm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hgm: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except Exception:
        # Python's own status for it is 1, which is a verdict on a kernel, and this is none.
        traceback.print_exc()
        return Exit.OUR_FAULT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
