# SPDX-License-Identifier: MIT
"""Makes the private virtual environment, installs the project into it, and goes on in it.

Run by the launcher as a script, by any Python 3.11 or newer: nothing but the standard library is imported here, and no
other module of the harness, since what they need is only now being installed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST_FAULT = 11  # as in harness.errors, which cannot be imported yet
INTERRUPTED = 130
STAMP = "hgm.stamp"
LOG = "hgm-install.log"
# A start must find the environment sound with a few calls to stat(2); these are what the verbs run.
PROGRAMS = ("python", "pytest", "tox")
NO_NETWORK = (
    "Temporary failure in name resolution", "Name or service not known", "Failed to establish a new connection",
    "Network is unreachable", "Connection refused", "timed out", "NewConnectionError", "ProxyError",
    "CERTIFICATE_VERIFY_FAILED", "No matching distribution found",
)  # fmt: skip


class BootstrapError(Exception):
    """Ends in one message: what happened, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n  hint: {hint}")


def say(text: str) -> None:
    """Print one progress line to stderr."""
    print(f"hgm: {text}", file=sys.stderr, flush=True)


def venv_dir(environment: Mapping[str, str]) -> Path:
    """Return where the virtual environment is: $HGM_VENV, or .venv in the checkout."""
    return Path(os.path.abspath(environment.get("HGM_VENV") or ROOT / ".venv"))  # noqa: PTH100 (keeps symlinks)


def fingerprint(project: bytes, interpreter: str, root: Path) -> str:
    """Return the key of an installation: it must be redone when one of these changes."""
    return hashlib.sha256("\0".join([project.decode(), sys.version, interpreter, os.fspath(root)]).encode()).hexdigest()


def base_interpreter() -> str:
    """Return the Python outside of any virtual environment: ours may be the very one that is to be replaced."""
    # Resolved, or the several names of one interpreter would each ask for an installation of its own.
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def sound(venv: Path, key: str) -> bool:
    """Tell whether the environment was installed to its end, for this key, and can still be run."""
    try:
        stamp = (venv / STAMP).read_text()
    except OSError:
        return False
    # A Python that was removed leaves a link to nothing, which access(2) sees.
    return stamp == key and all(os.access(venv / "bin" / name, os.X_OK) for name in PROGRAMS)


@contextmanager
def locked(venv: Path) -> Iterator[int]:
    """Hold the lock beside `venv` and give its descriptor; says so when another start has it."""
    import fcntl

    path = venv.with_name(f"{venv.name}.lock")
    try:
        venv.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BootstrapError(
            f"the virtual environment {venv} cannot be made: {error.strerror}",
            "set HGM_VENV to a directory you may write, such as HGM_VENV=~/.cache/hgm-venv "
            "(and HGM_CACHE and HGM_RESULTS, if your home cannot be written either)",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another start is installing into {venv}; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def install(venv: Path, key: str, lock: int) -> None:
    """Make `venv`, or bring it up to date, and stamp it with `key` as the last step.

    Raises BootstrapError with the end of the log.
    """
    from shutil import rmtree

    # Without a stamp nobody knows what an interrupted install left behind; nor is it of use to another Python.
    usable = (venv / STAMP).exists() and runs(venv)
    with suppress(FileNotFoundError):
        (venv / STAMP).unlink()
    if not usable:
        say(f"{'repairing' if venv.exists() else 'making'} the virtual environment {venv}")
        need_ensurepip()
        if venv.exists() and not (venv / "pyvenv.cfg").exists() and any(venv.iterdir()):
            raise BootstrapError(
                f"{venv} is there and is no virtual environment; nothing in it was touched", "set HGM_VENV to another"
            )
        if venv.exists():
            rmtree(venv)
        # Marks it as ours, for the case that we are interrupted before venv has written its own.
        venv.mkdir(exist_ok=True)
        (venv / "pyvenv.cfg").touch()
        command([base_interpreter(), "-m", "venv", os.fspath(venv)], venv / LOG, lock)
    say("installing the harness and the Python packages it needs")
    python = os.fspath(venv / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command([*pip, "--editable", f"{ROOT}[dev]"], venv / LOG, lock)
    fresh = venv / f"{STAMP}.new"
    fresh.write_text(key)
    fresh.replace(venv / STAMP)


def runs(venv: Path) -> bool:
    """Tell whether the Python in `venv` is ours still, and its pip can be run."""
    words = [os.fspath(venv / "bin" / "python"), "-c", "import pip, sys; print(sys.version)"]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == sys.version.strip()


def command(words: Sequence[str], log: Path, lock: int) -> None:
    """Run one step of the installation with its output in `log`. Raises BootstrapError if it fails."""
    # These would make pip install elsewhere than in its own environment.
    stray = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
    environment = {name: value for name, value in os.environ.items() if name not in stray}
    with log.open("ab") as sink:
        start = sink.tell()
        # The lock goes along: should we be killed alone, it is held until this step has ended, too.
        status = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, pass_fds=[lock]
        ).returncode
    if status == 0:
        return
    output = log.read_bytes()[start:].decode(errors="replace")
    last = "\n".join(f"  | {line}" for line in output.rstrip().splitlines()[-8:])
    if "No space left on device" in output:
        raise BootstrapError(f"the disk of {log.parent} is full\n{last}", "free some, or set HGM_VENV to another disk")
    if any(sign in output for sign in NO_NETWORK):
        raise BootstrapError(
            f"the Python package index cannot be reached, or lacks a package\n{last}",
            f"this step needs the network once; PIP_INDEX_URL and PIP_CERT are honoured; whole log: {log}",
        )
    raise BootstrapError(f"{shlex.join(words)} ended with status {status}\n{last}", f"whole log: {log}")


def need_ensurepip() -> None:
    """Install Debian's package of `ensurepip` where it is missing. Raises BootstrapError if it cannot be had."""
    from importlib.util import find_spec

    if find_spec("ensurepip"):
        return
    package = f"python3.{sys.version_info.minor}-venv"
    missing = f"{base_interpreter()} cannot make virtual environments: it has no ensurepip"
    prefix = privilege()
    if not find_program("apt-get"):
        raise BootstrapError(missing, f"install your system's package for it (Debian calls it {package})")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    get = [*apt, "install", "-y", "--no-install-recommends", package]
    steps = [get] if apt_lists() else [[*apt, "update"], get]
    typed = " && ".join(shlex.join(step) for step in steps)
    if prefix is None:
        raise BootstrapError(missing, f"as root, type: {typed}")
    say(f"{missing}; running: {typed}")
    for step in steps:
        words = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *step]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            last = "\n".join(f"  | {line}" for line in done.stdout.decode(errors="replace").splitlines()[-8:])
            raise BootstrapError(
                f"{shlex.join(step)} ended with status {done.returncode}\n{last}",
                f"once the network and apt work, as root: apt-get update && apt-get install {package}",
            )


def privilege() -> list[str] | None:
    """Return what goes before a command of root's: nothing, or sudo; None where we may not."""
    if os.geteuid() == 0:
        return []
    if find_program("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n"]
    return None


def find_program(name: str) -> str | None:
    """Return the path of a program, or None."""
    from shutil import which

    return which(name)


def apt_lists() -> bool:
    """Tell whether apt knows any packages; images of small systems come without."""
    return any(Path("/var/lib/apt/lists").glob("*_Packages*"))


def environment_for(venv: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for programs in `venv`, as its activate script would set it."""
    inside = {name: value for name, value in environment.items() if name != "PYTHONHOME"}
    inside["VIRTUAL_ENV"] = os.fspath(venv)
    path = [os.fspath(venv / "bin"), *environment.get("PATH", os.defpath).split(os.pathsep)]
    # mke2fs lives where an ordinary user's PATH on Debian does not lead.
    inside["PATH"] = os.pathsep.join([*path, *(name for name in ("/usr/sbin", "/sbin") if name not in path)])
    return inside


def main(arguments: Sequence[str]) -> int:
    """Go on as `python -m harness` in the virtual environment; returns only where that cannot be."""
    venv = venv_dir(os.environ)
    try:
        key = fingerprint((ROOT / "pyproject.toml").read_bytes(), base_interpreter(), ROOT)
        if not sound(venv, key):
            with locked(venv) as lock:
                # The one we may have waited for has perhaps done it all.
                if not sound(venv, key):
                    install(venv, key, lock)
    except BootstrapError as error:
        say(str(error))
        return HOST_FAULT
    except OSError as error:
        say(f"{error}\n  hint: is the disk full, or {venv} not yours? HGM_VENV names another place")
        return HOST_FAULT
    except KeyboardInterrupt:
        say("interrupted; the next start repairs what is unfinished")
        return INTERRUPTED
    # -P: a directory called harness where the user happens to stand must not be taken for ours.
    python = os.fspath(venv / "bin" / "python")
    os.execve(python, [python, "-P", "-m", "harness", *arguments], environment_for(venv, os.environ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
