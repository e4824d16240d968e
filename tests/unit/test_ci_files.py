# SPDX-License-Identifier: MIT
"""The files for CI engines: every command in them is one that the harness understands, and every shard is run once."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import VERBS
from harness.arch import ALL
from harness.errors import Exit
from harness.options import Parser, add_options
from harness.paths import ROOT
from harness.report import verbs
from harness.shards import parse
from tests.extra import module

GITHUB = ROOT / ".github/workflows/hgm.yml"
GITLAB = ROOT / ".gitlab-ci.yml"


def loaded(path: Path) -> dict[str, Any]:
    data = module("yaml").safe_load(path.read_text())
    assert isinstance(data, dict)
    return data


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)


def commands(path: Path) -> list[list[str]]:
    """Every command line of ./hgm in a file, as its shell would see it in the last job of the matrix."""
    known = {"matrix.arch": "arm64", "matrix.shard": "2/2", "MACHINE": "arm64", "SHARD": "2/2", "CI_NODE_INDEX": "4"}
    found = []
    for text in strings(loaded(path)):
        for line in text.splitlines():
            if line.startswith("./hgm "):
                line = re.sub(r"\$\{\{ *([\w.]+) *\}\}|\$(\w+)", lambda name: known[name[1] or name[2]], line)
                found.append(shlex.split(line)[1:])
    return found


def cells(path: Path) -> list[tuple[str, str]]:
    """Architecture and shard of each job."""
    jobs = loaded(path)
    if path == GITLAB:
        return [
            cell
            for row in jobs["run"]["parallel"]["matrix"]
            for cell in itertools.product(row["MACHINE"], row["SHARD"])
        ]
    matrix = jobs["jobs"]["run"]["strategy"]["matrix"]
    return list(itertools.product(matrix["arch"], matrix["shard"]))


@pytest.mark.parametrize("path", [GITHUB, GITLAB])
def test_every_command_is_understood(path: Path) -> None:
    seen = set()
    for verb, *words in commands(path):
        seen.add(verb)
        assert verb in VERBS
        if verb == "run":
            argv = [sys.executable, "-m", "harness", "run", "--collect-only", "-q", "-p", "no:cacheprovider", *words]
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == Exit.OK, done.stdout + done.stderr
        elif verb == "report":
            verbs.parser().parse_args(words)
        else:
            assert (verb, words[0]) == ("selftest", "-e")
            environments = (ROOT / "tox.ini").read_text()
            assert all(f"[testenv:{name}]" in environments for name in words[1].split(","))
    assert seen == {"selftest", "run", "report"}


@pytest.mark.parametrize("path", [GITHUB, GITLAB])
def test_every_shard_of_every_architecture_is_run_once(path: Path) -> None:
    jobs = cells(path)
    assert {arch for arch, _ in jobs} == {arch.name for arch in ALL}
    for arch in ALL:
        shards = [parse(shard) for name, shard in jobs if name == arch.name]
        count = len(shards)
        assert sorted(filter(None, shards)) == [(number, count) for number in range(1, count + 1)]


@pytest.mark.parametrize("path", [GITHUB, GITLAB])
def test_what_is_cached_is_where_the_cache_is(path: Path) -> None:
    data = loaded(path)
    if path == GITLAB:
        place, paths = data["variables"]["HGM_CACHE"].removeprefix("$CI_PROJECT_DIR/"), data["run"]["cache"]["paths"]
    else:
        (step,) = (step for step in data["jobs"]["run"]["steps"] if step.get("uses", "").startswith("actions/cache@"))
        place, paths = data["env"]["HGM_CACHE"], step["with"]["path"].split()
    assert len(paths) > 3 and all(name.startswith(f"{place}/") for name in paths)
    # A template is taken anew on another machine, so that bringing it there is of no use.
    assert not [name for name in paths if "templates" in name]


@pytest.mark.parametrize("path", [GITHUB, GITLAB])
def test_results_of_failed_jobs_are_kept_and_reported(path: Path) -> None:
    data = loaded(path)
    if path == GITLAB:
        assert (
            data["run"]["artifacts"]["when"]
            == data["report"]["when"]
            == data["report"]["artifacts"]["when"]
            == "always"
        )
        assert data["run"]["artifacts"]["reports"]["junit"].endswith("/junit.xml")
    else:
        assert data["jobs"]["report"]["if"] == "always()"
        for job in ("run", "report"):
            (step,) = (one for one in data["jobs"][job]["steps"] if "upload-artifact" in one.get("uses", ""))
            assert step["if"] == "always()"


def test_options_are_those_of_the_parser() -> None:
    # pytest takes what it does not know for a path; this parser takes nothing that it does not know.
    parser = Parser(prog="hgm run", allow_abbrev=False)
    add_options(parser.add_argument)
    for path in (GITHUB, GITLAB):
        for verb, *words in commands(path):
            if verb == "run":
                assert parser.parse_known_args(words)[1] == ["-n", "auto"]
