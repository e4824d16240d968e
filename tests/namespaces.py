# SPDX-License-Identifier: MIT
"""Mounts for one command only: full disks and read-only trees, which permission bits do not make for root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest


def with_mounts(script: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """Return what to put before a command so that it runs after `script` in a mount namespace of its own.

    `script` is for sh, `arguments` are its $0, $1, …; what comes after them is the command, which it must run.
    Skips the test on a machine where that cannot be done.
    """
    ways = [["unshare", "--map-root-user", "--mount"]]
    if os.geteuid() == 0:
        # Some systems forbid namespaces of users even to root.
        ways.append(["unshare", "--mount"])
        # A chroot's root is no mount point, so nothing can be made private there; where nothing is shared, all is.
        if "shared:" not in Path("/proc/self/mountinfo").read_text():
            ways.append(["unshare", "--mount", "--propagation", "unchanged"])
    for way in ways:
        try:
            mount = [*way, "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
            possible = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
        except FileNotFoundError:
            break
        if possible:
            return [*way, "sh", "-c", script, *(os.fspath(argument) for argument in arguments)]
    pytest.skip("this machine has no unshare or no mount, or lets nobody use them")
