# SPDX-License-Identifier: MIT
"""The options of `./hgm run`, which are pytest's too: declared once, and turned into what the rooms understand."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import arch as archs
from harness.arch import Arch
from harness.errors import BadInput
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.kernel.build import KernelRequest

REFERENCE = ROOT / "patches/reference"

# Each option but --arch and --results is about one of three things: which kernel, its guests, or how cases are run.
OF_KERNELS = (
    "tree", "commit", "source_package", "tarball", "kernel", "kernel_config", "series", "kconfig", "flavour", "stock",
)  # fmt: skip
OF_GUESTS = ("huge_pages",)
OF_CASES = (
    "expect_hgm", "stress", "fresh", "repeat", "no_rerun", "expected_failures", "shard", "kselftest", "dump_memory",
    "pause_on_failure",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are BadInput; argparse's own status, 2, is that of an interrupted run here."""

    def error(self, message: str) -> NoReturn:
        """Raise BadInput with what argparse says."""
        raise BadInput(message, hint=f"{self.prog} --help")


class _Default(str):
    """The default "" of an option: argparse puts it through the option's type, as if the user had given it."""


def nonempty(value: str) -> str:
    """Return an option's value. An empty one, as of a variable that is not set, must not pass for none at all.

    This and the others below are types for add_argument and raise ArgumentTypeError.
    """
    if not value and not isinstance(value, _Default):
        raise argparse.ArgumentTypeError("its value is empty; give one, or leave the option out")
    return str(value)


def location(value: str) -> str:
    """Return a path as it was given. One that begins with ~ must name a user there is."""
    try:
        Path(nonempty(value)).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{value}: {error}") from error
    return value


def writable(value: str) -> Path:
    """Return the path of a file that can be written: it is tried before hours go into what it shall hold."""
    path = Path(location(value)).expanduser()
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {error.strerror}") from error
    return path


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a number that is `least` or more."""

    def number(value: str) -> int:
        if not re.fullmatch(r"-?\d+", value, re.ASCII) or int(value) < least:
            raise argparse.ArgumentTypeError(f"{value!r} is no number from {least} on")
        return int(value)

    return number


def add_options(add: Callable[..., Any]) -> None:
    """Declare every option through `add`, which is argparse's add_argument or pytest's addoption."""
    help_text = "x86_64, arm64, arm64-64k (base pages of 64K), or all: the first two (default: x86_64)"
    add("--arch", default="x86_64", metavar="ARCH", type=nonempty, help=help_text)
    help_text = "kernel tree to build, with its uncommitted changes; it is never written to"
    add("--tree", metavar="DIR", type=location, help=help_text)
    help_text = "with --tree: build this commit instead of the working tree"
    add("--commit", metavar="REV", type=nonempty, help=help_text)
    help_text = "Debian package with the kernel source (default: linux-source-6.1)"
    add("--source-package", metavar="NAME", type=nonempty, help=help_text)
    add("--tarball", metavar="FILE", type=location, help="kernel source as a tarball")
    add("--kernel", metavar="IMAGE", type=location, help="an image built elsewhere; nothing is built")
    help_text = "with --kernel: its .config, if the image does not hold it"
    add("--kernel-config", metavar="FILE", type=location, help=help_text)
    help_text = "patches to apply, in order; may be repeated; a message id is fetched with b4"
    add("--series", action="append", default=[], metavar="DIR|MBOX|ID", type=location, help=help_text)
    help_text = "a further Kconfig fragment; may be repeated"
    add("--kconfig", action="append", default=[], metavar="FILE", type=location, help=help_text)
    add("--flavour", default="fast", choices=("fast", "debug"), help="fast (DEBUG_VM) or debug (lockdep, KASAN)")
    add("--stock", action="store_true", help="the default kernel without this project's reference series")
    help_text = "a kernel without HGM is a failure, not a skip; so by default where no kernel and no series is named"
    add("--expect-hgm", action="store_true", help=help_text)
    usual = "; ".join(f"{arch.name} {arch.huge_pages}" for arch in archs.ARCHES.values())
    help_text = f"pools to reserve, and with them the sizes that cases run at (default: {usual})"
    add("--huge-pages", default=_Default(), metavar="SIZE=COUNT,...", type=nonempty, help=help_text)
    help_text = "also run the stress cases, each for so long"
    add("--stress", type=at_least(0), default=0, metavar="SECONDS", help=help_text)
    fresh_help = "how long a guest is used: one test, file, or run (default: test, or run where guests must boot)"
    add("--fresh", default="", choices=("test", "file", "run"), help=fresh_help)
    help_text = "run each case N times; one that varies is flaky, and red"
    add("--repeat", type=at_least(1), default=1, metavar="N", help=help_text)
    help_text = "do not run a case that did not pass a second time; without it, one that passes then is flaky, and red"
    add("--no-rerun", action="store_true", help=help_text)
    help_text = "cases that are known to fail, each with its reason and the day to look again (TOML)"
    add("--expected-failures", metavar="FILE", type=location, help=help_text)
    help_text = (
        "run the K-th of N parts, which together are what is selected; `./hgm report --merge` joins their results"
    )
    add("--shard", default=_Default(), metavar="K/N", type=nonempty, help=help_text)
    help_text = "run the kernel's own selftests, and no other tests unless named; may be repeated"
    add("--kselftest", action="append", default=[], metavar="COLLECTION[:PROGRAM,...]", type=nonempty, help=help_text)
    help_text = "keep the memory of a guest that hangs, or whose kernel has crashed, for drgn"
    add("--dump-memory", action="store_true", help=help_text)
    help_text = "after a case that did not pass, wait with its guest alive, and say how to look at it"
    add("--pause-on-failure", action="store_true", help=help_text)
    help_text = "where the results go (default: a dated directory in results/)"
    add("--results", metavar="DIR", type=location, help=help_text)


def given(options: Any, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the options that were given, by name, with their values: all that are not at their defaults."""
    return {name: value for name, value in vars(options).items() if value != parser.get_default(name)}


def word(name: str, value: object = True) -> str:
    """Return an option as a word of a command line."""
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def refuse(found: Iterable[str], unfit: Iterable[str], why: str, *, hint: str) -> None:
    """Raise BadInput for the first name in `found` that is in `unfit`: an option that would be passed over silently."""
    for name in found:
        if name in unfit:
            raise BadInput(f"{word(name)} {why}", hint=hint)


def checked(options: Any, directory: Path) -> list[Arch]:
    """Return the architectures of a run. Raises BadInput for all that can be told before anything is built.

    Relative paths are relative to `directory`, where the user typed them.
    """
    from harness import accel, pools, shards
    from harness.verdict import expected

    arches = expand(options.arch)
    if options.stock:
        named = ("tree", "tarball", "source_package", "series")
        taken = [name for name in named if getattr(options, name)]
        refuse(taken, named, "names another kernel than --stock does", hint="leave one of the two out")
    pools.check(arches, options.huge_pages)
    shards.parse(options.shard)
    for arch in arches:
        accel.check(arch)
    if options.expected_failures:
        expected.read(directory / Path(options.expected_failures).expanduser())
    return arches


def expand(name: str) -> list[Arch]:
    """Return the architectures that --arch names. Raises BadInput for an unknown one."""
    return list(archs.ALL) if name == "all" else [archs.find(name)]


def wants_reference(options: Any) -> bool:
    """Whether the project's reference series is under test: whoever names a kernel or a series gets that alone."""
    named = (options.tree, options.tarball, options.kernel, options.source_package, options.series)
    return not (options.stock or any(named))


def kernel_request(options: Any, arch: Arch, directory: Path) -> KernelRequest:
    """Turn the options (argparse's or pytest's namespace) into what the kernel room takes.

    Relative paths are relative to `directory`, where the user typed them.
    """
    from harness.kernel.build import KernelRequest
    from harness.kernel.source import SourceSpec

    def absolute(value: str) -> Path:
        return directory / Path(value).expanduser()

    def path(value: str | None) -> Path | None:
        return absolute(value) if value else None

    return KernelRequest(
        arch=arch,
        source=SourceSpec(
            tree=path(options.tree),
            commit=options.commit,
            package=options.source_package,
            tarball=path(options.tarball),
        ),
        series=(REFERENCE,) if wants_reference(options) else tuple(_series(one, directory) for one in options.series),
        flavour=options.flavour,
        kconfig=tuple(map(absolute, options.kconfig)),
        image=path(options.kernel),
        config=path(options.kernel_config),
    )


def repeated(options: Any, directory: Path) -> list[str]:
    """Return the options of how a kernel is configured, but not of which, as words of a command line.

    Relative paths are made absolute from `directory`, so that the words mean the same anywhere.
    """
    words = [f"--arch={options.arch}", f"--flavour={options.flavour}"]
    words += [f"--series={_series(one, directory)}" for one in options.series]
    return words + [f"--kconfig={directory / Path(path).expanduser()}" for path in options.kconfig]


def _series(value: str, directory: Path) -> Path:
    """Return the path that --series means; a message id is fetched. Raises what harness.kernel.b4.fetch does."""
    from harness.kernel import b4
    from harness.kernel.repo import disk_faults

    path = directory / Path(value).expanduser()
    with disk_faults():
        name = "" if path.exists() else b4.message_id(value)
    if not name and value.startswith("https://"):
        raise BadInput(f"--series {value} names no mail", hint="the link to a mail ends in its message id")
    return b4.fetch(name) if name else path
