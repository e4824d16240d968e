# SPDX-License-Identifier: MIT
"""The options of `./hgm run`, which are pytest's too: declared once, and turned into what the rooms understand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import arch as archs
from harness.arch import Arch
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.kernel.build import KernelRequest

REFERENCE = ROOT / "patches/reference"


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
    add("--series", action="append", default=[], metavar="DIR|MBOX", help="patches to apply, in order; may be repeated")
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
        series=(REFERENCE,) if wants_reference(options) else tuple(map(absolute, options.series)),
        flavour=options.flavour,
        kconfig=tuple(map(absolute, options.kconfig)),
        image=path(options.kernel),
        config=path(options.kernel_config),
    )
