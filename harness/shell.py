# SPDX-License-Identifier: MIT
"""A shell in a fresh guest of the kernel under test: the guest tests are there, and page tables can be looked at."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import doctor
from harness.errors import BadInput
from harness.guest.cases import known_cases
from harness.image import WORKDIR
from harness.options import OF_CASES, Parser, add_options, checked, given, kernel_request, refuse
from harness.pagetable import probe
from harness.process import say
from harness.report.results import RunResult
from harness.session import Run

SETTING = "export PYTHONPATH=lib PYTHONPYCACHEPREFIX=/run/pycache"


def main(arguments: Sequence[str]) -> int:
    """Open a shell in a fresh guest, or run the command that follows `--` there; its exit status is ours."""
    parser = Parser(
        prog="hgm shell",
        usage="hgm shell [options] [-- COMMAND]",
        description=main.__doc__,
        epilog="In the guest, ./hgm shape --pid PID shows how the huge pages of a process are mapped.",
        allow_abbrev=False,
    )
    add_options(parser.add_argument)
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    found = given(options, parser)
    refuse(found, (*OF_CASES, "results"), "is about cases, and a shell runs none", hint="./hgm run takes it")
    arches = checked(options, Path.cwd())
    if len(arches) > 1:
        raise BadInput(f"a shell is in one guest, and --arch {options.arch} is {len(arches)}", hint="--arch arm64")
    (arch,) = arches
    doctor.ensure(arches)
    programs = list(dict.fromkeys(case.program for case in known_cases()))
    with tempfile.TemporaryDirectory(prefix="hgm-shell-") as place:
        run = Run(
            request=kernel_request(options, arch, Path.cwd()),
            huge_pages=options.huge_pages,
            expect_hgm=False,
            directory=Path(place),
            result=RunResult(started="", command=[]),
        )
        run.prepare(arch, programs)
        with run.guest(arch) as guest, probe.answering(guest.machine, guest.machine.questions):
            command = shlex.join(words[at + 1 :]) if words[at + 1 :] else ""
            if not command:
                release = run.result.kernels[arch.name]["release"]
                say(f"{arch.name}, Linux {release}; tests lie here, such as splitting/ladder; Ctrl-D or exit ends it")
            return guest.machine.ssh.attach(f"cd {WORKDIR} && {SETTING} && exec {command or 'sh'}")
