# SPDX-License-Identifier: MIT
"""In the guest: makes a directory in which a collection looks as installed, and runs it, or one program, there.

start.py PLACE TURN COMMAND...: PLACE holds the collection. TURN is the number of the program that really runs, in the
order in which COMMAND calls them; with 0 none runs, and they are listed instead.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path("/tmp/kselftest")


def main() -> None:
    """Prepare, and become COMMAND; with TURN 0 print how each program would be run."""
    place, turn, command = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
    directory, ours, tools = WORK / place.name, WORK / "ours", WORK / "bin"
    for new in (WORK, directory, ours, tools):
        new.mkdir()
        # Some programs are run as another user.
        new.chmod(0o777)
    for path in place.iterdir():
        is_program = path.is_file() and os.access(path, os.X_OK)
        is_script_around = f"./{path.name}" in command[1:]
        (directory / path.name).symlink_to(HERE / "shim.sh" if is_program and not is_script_around else path)
    (WORK / "kselftest").symlink_to(HERE / "kselftest")
    for name in ("sleep", "sudo"):
        (ours / name).symlink_to(HERE / name)
    # What the scripts use and a small guest has no link for, behind all that it has.
    subprocess.run(["busybox", "--install", "-s", tools], check=True)
    (WORK / "order").write_text(f"{place} {turn}\n")
    for name, text in (("turn", "0\n"), ("list", "")):
        (WORK / name).write_text(text)
        (WORK / name).chmod(0o666)
    os.environ["PATH"] = f"{ours}:/bin:/usr/bin:/usr/sbin:{tools}"
    os.chdir(directory)
    if turn != "0":
        os.execvp(command[0], command)
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    sys.stdout.write((WORK / "list").read_text())


main()
