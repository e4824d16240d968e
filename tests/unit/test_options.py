# SPDX-License-Identifier: MIT
"""Options that cannot be are refused by whoever reads them, before anything is built."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness import bench, doctor, options, pools, series, shell
from harness.arch import ALL, ARM64, X86_64
from harness.bisect import verbs as bisect
from harness.errors import BadInput, Exit, HarnessError, HostFault
from harness.kernel.build import prepare
from harness.kernel.repo import disk_faults
from harness.mutants import verbs as mutants
from harness.paths import ROOT


def parsed(*words: str) -> argparse.Namespace:
    parser = options.Parser()
    options.add_options(parser.add_argument)
    return parser.parse_args(words)


def checked(*words: str) -> object:
    return options.checked(parsed(*words), Path.cwd())


def test_every_option_is_about_something() -> None:
    assert vars(parsed()).keys() == {
        "arch", "results", *options.OF_KERNELS, *options.OF_GUESTS, *options.OF_CASES,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, value in vars(parsed()).items() if not isinstance(value, bool | int)])
def test_an_empty_value_is_not_the_default(name: str) -> None:
    with pytest.raises(BadInput, match=rf"argument {options.word(name)}: (its value is empty|invalid choice: '')"):
        parsed(f"{options.word(name)}=")


def test_pytest_refuses_them_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--results={tmp_path}", "--collect-only"]
    for word, told in (("--tree=", "its value is empty"), ("--stress=-5", "'-5' is no number from 0 on")):
        done = subprocess.run([*argv, word], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, told in done.stderr) == (Exit.BAD_INPUT, True), done.stdout + done.stderr
    assert parsed().shard == parsed().huge_pages == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--arch=vax"], "unknown architecture"),
        (["--stress=-5"], "'-5' is no number from 0 on"),
        (["--repeat=0"], "'0' is no number from 1 on"),
        (["--repeat=²"], "'²' is no number from 1 on"),
        (["--tree=~nobody-at-all/x"], "~nobody-at-all/x: Could not determine home directory"),
        (["--shard=1/99999999999"], "--shard 1/99999999999"),
        (["--expected-failures=/nope"], "/nope cannot be read"),
        (["--stock", "--tree=x"], "--tree names another kernel than --stock does"),
        (["--stock", "--series=x"], "--series names another kernel than --stock does"),
        (["--huge-pages=rubbish"], "'rubbish' is no pool"),
        (["--huge-pages=2M=0"], "'2M=0' is no pool"),
        (["--huge-pages=2M=1,2048K=1"], "2M is there twice"),
        (["--huge-pages=3M=5"], "no pool is for x86_64\n  hint: x86_64 has 2M, 1G"),
        (["--huge-pages=0M=5"], "no pool is for x86_64"),
        (["--huge-pages=4K=100"], "no pool is for x86_64"),
        (["--huge-pages=2M=128,3M=5"], "there are no pages of 3M\n  hint: x86_64 has 2M, 1G"),
        (["--huge-pages=2M=128,64K=5"], "there are no pages of 64K"),
        (["--huge-pages=64K=5", "--arch=all"], "no pool is for x86_64"),
        (["--huge-pages=2M=8,16M=5", "--arch=all"], "there are no pages of 16M"),
    ],
)
def test_values_that_cannot_be(words: list[str], told: str) -> None:
    with pytest.raises(BadInput) as caught:
        checked(*words)
    assert told in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("HGM_ACCEL", "foo"), ("HGM_SLOWNESS", "-1")])
def test_variables_that_cannot_be(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    for tried in (checked, doctor.main, lambda: mutants.main(["--results=/proc/x"])):
        with pytest.raises(BadInput, match=name):
            tried()


def test_each_architecture_gets_the_pools_it_has() -> None:
    assert checked("--huge-pages=2M=8,64K=5", "--arch=all") == list(ALL)
    assert ",".join(map(str, pools.of(X86_64, "2M=8,64K=5"))) == "2M=8"
    assert ",".join(map(str, pools.of(ARM64, "2M=8,64K=5"))) == "2M=8,64K=5"
    assert ",".join(map(str, pools.of(ARM64, ""))) == ARM64.huge_pages


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shard=1/2"], "--shard is about cases"),
        (["--repeat=3"], "--repeat is about cases"),
        (["--kselftest=mm"], "--kselftest is about cases"),
        (["--results=x"], "--results is about cases"),
        (["--huge-pages=rubbish"], "'rubbish' is no pool"),
    ],
)
def test_a_shell_refuses_what_it_would_pass_over(words: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        shell.main(words)


@pytest.mark.parametrize("words", [["--runs", "0"], ["--runs", "x"], ["extra"]])
def test_what_bench_refuses_is_bad_input_and_no_interrupt(words: list[str]) -> None:
    with pytest.raises(BadInput):
        bench.main(words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sample=²"], "--sample ² is none"),
        (["--sample=3/²"], "--sample 3/² is none"),
        (["--sample=3/2"], "--sample 3/2 is none"),
        (["--sample="], "--sample: its value is empty"),
        (["--workers=-3"], "--workers: '-3' is no number from 1 on"),
        (["--whole", "--narrow"], "--whole and --narrow exclude each other"),
        (["--restart"], "--restart without --results"),
    ],
)
def test_what_mutants_refuses(words: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        mutants.main([*words, "--list"])


def test_words_that_are_repeated_mean_the_same_elsewhere(tmp_path: Path) -> None:
    kinds = ("--arch=arm64", "--flavour=debug")
    words = options.repeated(parsed(*kinds, "--series=b", "--series=/a", "--kconfig=d", "--kconfig=/c"), tmp_path)
    there = (f"--series={tmp_path / 'b'}", "--series=/a", f"--kconfig={tmp_path / 'd'}", "--kconfig=/c")
    assert parsed(*words) == parsed(*kinds, *there)
    assert parsed(*options.repeated(parsed(), tmp_path)) == parsed()


def test_whoever_names_a_kernel_or_a_series_gets_that_alone() -> None:
    assert options.wants_reference(parsed("--flavour=debug"))
    for word in ("--tree=x", "--tarball=x", "--kernel=x", "--source-package=x", "--series=x", "--stock"):
        assert not options.wants_reference(parsed(word))


@pytest.mark.parametrize("main", [series.main, bisect.main, bisect.step])
def test_help_says_nothing_of_exceptions(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "raises" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize("word", ["series", "kernel", "kconfig", "tarball", "tree"])
def test_what_cannot_be_opened_is_bad_input(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    for name in ("Makefile", "Kconfig", "mm/hugetlb.c", "scripts/kconfig/merge_config.sh"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("VERSION = 6\nPATCHLEVEL = 1\n")
    (tmp_path / "tree/scripts/decode_stacktrace.sh").touch()
    words = [f"--tree={tmp_path / 'tree'}"] if word in ("series", "kconfig") else []
    with pytest.raises(BadInput, match=r"File name too long for /x{300}\n"):
        prepare(options.kernel_request(parsed(*words, f"--{word}=/{'x' * 300}"), X86_64, tmp_path))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--kernel-config=x", "--kernel-config .*/x without --kernel"),
        ("--series=https://lore.kernel.org/all/", "--series https://lore.kernel.org/all/ names no mail"),
    ],
)
def test_messages_name_what_was_typed(word: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        prepare(options.kernel_request(parsed(word), X86_64, tmp_path))


def test_only_what_lies_outside_of_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    faults: list[tuple[type[HarnessError], int, Path]] = [
        (BadInput, errno.EACCES, tmp_path / "a.patch"),
        (BadInput, errno.ELOOP, tmp_path / "a.patch"),
        (HostFault, errno.EACCES, tmp_path / "cache/kernels"),
        (HostFault, errno.ENOSPC, tmp_path / "a.patch"),
    ]
    for kind, number, path in faults:
        with pytest.raises(kind, match=f"{os.strerror(number)} for {path}"), disk_faults():
            raise OSError(number, os.strerror(number), os.fspath(path))
