# SPDX-License-Identifier: MIT
"""The options of `./hgm run`, which are pytest's too: declared once, and turned into what the rooms understand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import arch as archs
from harness.arch import Arch
from harness.errors import BadInput
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.kernel.build import KernelRequest

REFERENCE = ROOT / "patches/reference"


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are BadInput; argparse's own status, 2, is that of an interrupted run here."""

    def error(self, message: str) -> NoReturn:
        """Raise BadInput with what argparse says."""
        raise BadInput(message, hint=f"{self.prog} --help")


def add_options(add: Callable[..., Any]) -> None:
    """Declare every option through `add`, which is argparse's add_argument or pytest's addoption."""
    add(
        "--arch",
        default="x86_64",
        metavar="ARCH",
        help="x86_64, arm64, arm64-64k (base pages of 64K), or all: the first two (default: x86_64)",
    )
    add("--tree", metavar="DIR", help="kernel tree to build, with its uncommitted changes; it is never written to")
    add("--commit", metavar="REV", help="with --tree: build this commit instead of the working tree")
    add("--source-package", metavar="NAME", help="Debian package with the kernel source (default: linux-source-6.1)")
    add("--tarball", metavar="FILE", help="kernel source as a tarball")
    add("--kernel", metavar="IMAGE", help="an image built elsewhere; nothing is built")
    add("--kernel-config", metavar="FILE", help="with --kernel: its .config, if the image does not hold it")
    help_text = "patches to apply, in order; may be repeated; a message id is fetched with b4"
    add("--series", action="append", default=[], metavar="DIR|MBOX|ID", help=help_text)
    add("--kconfig", action="append", default=[], metavar="FILE", help="a further Kconfig fragment; may be repeated")
    add("--flavour", default="fast", choices=("fast", "debug"), help="fast (DEBUG_VM) or debug (lockdep, KASAN)")
    add("--stock", action="store_true", help="the default kernel without this project's reference series")
    add("--expect-hgm", action="store_true", help="a kernel without HGM is a failure, not a skip; so by default")
    usual = "; ".join(f"{arch.name} {arch.huge_pages}" for arch in archs.ARCHES.values())
    help_text = f"pools to reserve, and with them the sizes that cases run at (default: {usual})"
    add("--huge-pages", default="", metavar="SIZE=COUNT,...", help=help_text)
    add("--stress", type=int, default=0, metavar="SECONDS", help="also run the stress cases, each for so long")
    fresh_help = "how long a guest is used: one test, file, or run (default: test, or run where guests must boot)"
    add("--fresh", default="", choices=("test", "file", "run"), help=fresh_help)
    add("--repeat", type=int, default=1, metavar="N", help="run each case N times; one that varies is flaky, and red")
    help_text = "do not run a case that did not pass a second time; without it, one that passes then is flaky, and red"
    add("--no-rerun", action="store_true", help=help_text)
    help_text = "cases that are known to fail, each with its reason and the day to look again (TOML)"
    add("--expected-failures", metavar="FILE", help=help_text)
    help_text = (
        "run the K-th of N parts, which together are what is selected; `./hgm report --merge` joins their results"
    )
    add("--shard", default="", metavar="K/N", help=help_text)
    selftest_help = "run the kernel's own selftests, and no other tests unless named; may be repeated"
    add("--kselftest", action="append", default=[], metavar="COLLECTION[:PROGRAM,...]", help=selftest_help)
    help_text = "keep the memory of a guest that hangs, or whose kernel has crashed, for drgn"
    add("--dump-memory", action="store_true", help=help_text)
    help_text = "after a case that did not pass, wait with its guest alive, and say how to look at it"
    add("--pause-on-failure", action="store_true", help=help_text)
    add("--results", metavar="DIR", help="where the results go (default: a dated directory in results/)")


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
    """Return the options of how a kernel is configured and run, but not of which, as words of a command line.

    Relative paths are made absolute from `directory`, so that the words mean the same anywhere.
    """
    words = [f"--arch={options.arch}", f"--flavour={options.flavour}"]
    words += [f"--series={_series(one, directory)}" for one in options.series]
    words += [f"--kconfig={directory / Path(path).expanduser()}" for path in options.kconfig]
    words += [f"--huge-pages={options.huge_pages}"] if options.huge_pages else []
    words += ["--expect-hgm"] if options.expect_hgm else []
    return words + ([f"--stress={options.stress}"] if options.stress else [])


def _series(value: str, directory: Path) -> Path:
    """Return the path that --series means; a message id is fetched. Raises what harness.kernel.b4.fetch does."""
    from harness.kernel import b4

    path = directory / Path(value).expanduser()
    name = "" if path.exists() else b4.message_id(value)
    return b4.fetch(name) if name else path
