# SPDX-License-Identifier: MIT
"""`./hgm report`: what a run came to, told again; against another run; or of several runs as one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from harness import shards
from harness.errors import BadInput, Exit
from harness.options import Parser
from harness.paths import ROOT
from harness.report import compare, files, github, merge, results, text
from harness.report.results import RunResult
from harness.report.whole import exit_status

NAME = "results.json"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's options."""
    words = "Without an option: print what a run came to, and write its reports anew from its results.json."
    made = Parser(prog="hgm report", description=words, allow_abbrev=False)
    base = os.environ.get("HGM_RESULTS") or ROOT / "results"
    made.set_defaults(latest=Path(base) / "latest")
    help_text = "directory of a run, or its results.json (default: results/latest)"
    made.add_argument("results", nargs="?", type=Path, metavar="RESULTS", help=help_text)
    help_text = "what broke since that run, what got fixed, what got slower; status 1 if anything broke or is missing"
    made.add_argument("--against", type=Path, metavar="RESULTS", help=help_text)
    made.add_argument("--json", action="store_true", help="with --against: print it as JSON")
    help_text = "join the results of shards or architectures; ends as one run would have, or else as --against"
    made.add_argument("--merge", nargs="+", type=Path, metavar="RESULTS", help=help_text)
    # Not `--results`, whose destination is that of the positional argument.
    help_text = "with --merge: where the joined results go (default: a dated directory in results/)"
    made.add_argument("--results", dest="target", type=Path, metavar="DIR", help=help_text)
    help_text = "record how long each case took, by which --shard deals them out (default: guest_tests/durations.json)"
    made.add_argument("--durations", nargs="?", type=Path, const=shards.DURATIONS, metavar="FILE", help=help_text)
    return made


def main(arguments: list[str]) -> int:
    """Run the verb. Raises BadInput for a file that is no results.json of this version, or is not there."""
    options = parser().parse_args(arguments)
    if options.json and not options.against:
        raise BadInput("--json without --against", hint="results.json is the run as JSON")
    if options.target and not options.merge:
        raise BadInput("--results without --merge", hint="a run that is told again stays where it is")
    if options.merge and options.results:
        raise BadInput(f"{options.results} before --merge", hint="name all that shall be joined behind --merge")
    if options.target and options.target.resolve() in [_file(path).resolve().parent for path in options.merge]:
        raise BadInput(f"--results {options.target} is one of what shall be joined", hint="choose another place")
    if options.target and options.against and _file(options.against).resolve().parent == options.target.resolve():
        raise BadInput("--against what --results replaces", hint="keep the older results in another place")
    # With --json nothing else is on standard output.
    told = sys.stderr if options.json else sys.stdout
    status: int = Exit.OK
    if options.merge:
        place, result = _merge(options.merge, options.target)
        status = exit_status(result)
    else:
        place, result = load(options.results or options.latest)
    if options.merge or not (options.against or options.durations):
        # A file of another name lies beside the results of perhaps another run.
        if options.merge or _file(options.results or options.latest).name == NAME:
            files.write(place, result)
        print("\n".join(_told(place, result)), file=told)
    for line in github.publish(result, cases=False) if options.merge else ():
        print(line, file=told)
    if options.durations:
        print(_record(result, options.durations), file=told)
    if options.against:
        difference = compare.compare(result, load(options.against)[1])
        print(json.dumps(difference.to_json(), indent=1) if options.json else "\n".join(compare.text(difference)))
        # That the run is not what it should be says more than what it is beside another one.
        status = status or difference.exit_status
    return status


def load(path: Path) -> tuple[Path, RunResult]:
    """Return the directory and the result of a run, which `path` names by either. Raises BadInput."""
    file = _file(path)
    try:
        return file.resolve().parent, results.read(file)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}", hint="name the directory of a run, or its results.json") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{file} holds no results that this version reads: {error}",
            hint=f"it reads results.json of schema {results.SCHEMA}, see docs/results.md",
        ) from error


def _file(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _merge(paths: list[Path], target: Path | None) -> tuple[Path, RunResult]:
    """Join the runs that left results; that others left none, since they were killed early, must not lose these."""
    from harness.session import start

    lost = [path for path in paths if not _file(path).exists()]
    parts = [(path, *load(path)) for path in paths if path not in lost or lost == paths]
    base = Path(os.environ.get("HGM_RESULTS") or ROOT / "results")
    directory, empty = start(target.absolute() if target else None, base, sys.argv)
    files.remove(directory)
    joined = [(os.fspath(path), part) for path, _, part in parts]
    whole = merge.merged(joined, started=empty, lost=[os.fspath(path) for path in lost])
    for _, source, part in parts:
        merge.copy_files(part, source, directory)
    return directory, whole


def _record(result: RunResult, path: Path) -> str:
    known = shards.read(path) if path.exists() else {}
    shards.write(path, known | shards.recorded(result))
    return f"{len(result.cases)} durations recorded in {path}"


def _told(place: Path, result: RunResult) -> list[str]:
    return [*text.failures(result), *text.summary(result), f"results: {place}"]
