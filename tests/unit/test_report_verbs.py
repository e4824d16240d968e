# SPDX-License-Identifier: MIT
"""`./hgm report`, as typed; and what GitHub Actions is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import Exit
from harness.report import files, github
from harness.report.results import Fault, RunResult, read
from tests.runs import case, every_status, run


def stored(place: Path, result: RunResult) -> str:
    """Leave a run in `place` as the harness would, less its reports."""
    for one in result.cases:
        (place / one.directory).mkdir(parents=True, exist_ok=True)
        (place / one.directory / "dmesg.txt").write_text(one.id)
    place.mkdir(exist_ok=True)
    result.write(place / "results.json")
    return str(place)


def test_a_run_is_told_again_and_its_reports_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = stored(tmp_path / "run", every_status())
    assert main(["report", place]) == Exit.OK
    said = capsys.readouterr().out
    for words in (
        "CRASH: guest_tests/fork/a.c::crash[x86_64-2M]",
        "- not ok: x",
        "x86_64: Linux 6.1.192-hgm fast, tcg",
    ):
        assert words in said
    assert said.index("CRASH: ") < said.index("HANG: ") < said.index("FAIL: ")
    assert said.splitlines()[-1] == f"results: {place}"
    assert "w: 2 cases, such as" in said
    files.write(tmp_path, every_status())
    for name in ("results.json", "junit.xml", "run.ktap", "kcidb.json"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / name).read_text()


def test_a_file_of_another_name_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    place = stored(tmp_path / "run", run(case("x")))
    (tmp_path / "run/baseline.json").write_text((tmp_path / "run/results.json").read_text().replace("::x", "::y"))
    assert main(["report", f"{place}/baseline.json"]) == Exit.OK
    assert "::x" in (tmp_path / "run/results.json").read_text() and not (tmp_path / "run/junit.xml").exists()


def test_keys_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    place = stored(tmp_path / "run", run(case("x", "fail"), fault=Fault(exit_code=11, message="the disk is full")))
    file = tmp_path / "run/results.json"
    data = json.loads(file.read_text())
    for one in (data, data["fault"], data["cases"][0], data["cases"][0]["findings"][0]):
        one["new"] = {}
    file.write_text(json.dumps(data))
    assert main(["report", place]) == Exit.OK


def test_the_latest_run_is_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "2026", run(case("x")))
    (tmp_path / "latest").symlink_to("2026")
    monkeypatch.setenv("HGM_RESULTS", str(tmp_path))
    assert main(["report"]) == Exit.OK
    assert f"results: {tmp_path / '2026'}" in capsys.readouterr().out


def test_a_run_cut_short_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = stored(tmp_path / "run", run(case("x"), fault=Fault(exit_code=11, message="the disk is full")))
    assert main(["report", place]) == Exit.OK
    assert "cut short: the disk is full" in capsys.readouterr().out


def test_against_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = stored(tmp_path / "old", run(case("x"))), stored(tmp_path / "new", run(case("x", "fail")))
    assert main(["report", new, "--against", f"{old}/results.json"]) == Exit.TESTS_FAILED
    assert "broke: 1\n  guest_tests/fork/a.c::x[x86_64-2M]: pass -> fail\n    not ok: x" in capsys.readouterr().out
    assert main(["report", old, "--against", new, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["fixed"][0]["after"] == "pass"


def test_shards_are_joined_with_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dealt = [case("x").id, case("y").id]
    parts = [
        stored(tmp_path / "1", run(case("x"), shard="1/2", dealt=dealt)),
        stored(tmp_path / "2", run(case("y"), shard="2/2", dealt=dealt)),
    ]
    out = tmp_path / "out"
    assert main(["report", "--merge", *parts, "--results", str(out)]) == Exit.OK
    assert f"results: {out}" in capsys.readouterr().out
    assert [one.id for one in read(out / "results.json").cases] == dealt
    for one in read(out / "results.json").cases:
        assert (out / one.directory / "dmesg.txt").read_text() == one.id
    assert (out / "junit.xml").exists()
    assert main(["report", "--merge", parts[0], "--results", str(tmp_path / "half")]) == Exit.HOST_FAULT
    assert "cut short: shard 2/2 is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("merged", "status"), [("pass", Exit.OK), ("skip", Exit.TESTS_FAILED), ("lost", Exit.HOST_FAULT)]
)
def test_what_was_joined_is_compared_and_recorded_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], merged: str, status: Exit
) -> None:
    base, lost = stored(tmp_path / "base", run(case("x"))), str(tmp_path / "lost")
    parts = [stored(tmp_path / "1", run(case("x", "skip" if merged == "skip" else "pass")))]
    parts += [lost] if merged == "lost" else []
    words = ["report", "--merge", *parts, "--results", str(tmp_path / "out"), "--against", base]
    durations = tmp_path / "durations.json"
    assert main([*words, "--durations", str(durations)]) == status
    said = capsys.readouterr().out
    assert f"results: {tmp_path / 'out'}" in said and ("skipped now: 1" in said) == (merged == "skip")
    assert case("x").id in json.loads(durations.read_text())["seconds"]
    assert main([*words, "--json"]) == status
    assert json.loads(capsys.readouterr().out)["exit_status"] == (Exit.OK if merged == "pass" else Exit.TESTS_FAILED)


@pytest.mark.parametrize("there", [True, False])
def test_a_part_without_results_is_a_fault_and_the_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    lost = tmp_path / "lost"
    if there:
        lost.mkdir()
    out = tmp_path / "out"
    words = ["report", "--results", str(out), "--merge", str(lost)]
    assert main(words) == Exit.BAD_INPUT and not out.exists()
    assert main([*words, stored(tmp_path / "1", run(case("x", "fail")))]) == Exit.HOST_FAULT
    assert f"cut short: {lost} has no results" in capsys.readouterr().out
    whole = read(out / "results.json")
    assert [one.id for one in whole.cases] == [case("x").id] and whole.fault
    assert (out / "report.html").exists()


def test_a_merge_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    out, part = tmp_path / "out", stored(tmp_path / "1", run(case("x")))
    stored(out, run(case("x", "hang"), case("y")))
    (out / "cases/x/hang.txt").write_text("the earlier one")
    assert main(["report", "--merge", part, part, "--results", str(out)]) == Exit.BAD_INPUT
    assert list(out.iterdir()) == []
    assert main(["report", "--merge", part, "--results", str(out)]) == Exit.OK
    assert [path.name for path in (out / "cases").rglob("*.txt")] == ["dmesg.txt"]


def test_durations_are_recorded_and_others_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, file = stored(tmp_path / "run", run(case("x"))), tmp_path / "durations.json"
    file.write_text('{"seconds": {"other": 3}}')
    assert main(["report", place, "--durations", str(file)]) == Exit.OK
    assert json.loads(file.read_text())["seconds"] == {case("x").id: 2.0, "other": 3.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "RUN/nothing"], "nothing: No such file"),
        (["report", "RUN", "--against", "RUN/no.json"], "no.json: No such file"),
        (["report", "RUN/old.json"], "is not of schema"),
        (["report", "RUN/broken.json"], "holds no results"),
        (["report", "RUN/list.json"], "holds no results"),
        (["report", "RUN/half.json"], "holds no results"),
        (["report", "RUN/types.json"], "Expected `array`, got `int` - at `$.selected`"),
        (["report", "RUN/deep.json"], "holds no results"),
        (["report", "RUN", "--json"], "--json without --against"),
        (["report", "RUN", "--results", "x"], "--results without --merge"),
        (["report", "--merge", "x", "--results", "RUN", "--against", "RUN"], "--against what --results replaces"),
        (["report", "--merge", "RUN", "RUN"], "both have a result"),
        (["report", "RUN", "--merge", "RUN"], "before --merge"),
        (["report", "--merge", "RUN", "--results", "RUN"], "is one of what shall be joined"),
        (["report", "--unknown"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setenv("HGM_RESULTS", str(tmp_path / "results"))
    place = stored(tmp_path / "run", run(case("x")))
    (tmp_path / "run/old.json").write_text('{"schema": 1}')
    (tmp_path / "run/broken.json").write_text('{"schema": ')
    (tmp_path / "run/list.json").write_text("[]")
    (tmp_path / "run/half.json").write_text('{"schema": 2, "cases": [{"id": "x"}]}')
    (tmp_path / "run/types.json").write_text('{"schema": 2, "started": "", "command": [], "selected": 3}')
    (tmp_path / "run/deep.json").write_text("[" * 100_000)
    assert main([word.replace("RUN", place) for word in words]) == Exit.BAD_INPUT
    errors = capsys.readouterr().err
    assert said in errors and "hint: " in errors and "Traceback" not in errors


def test_annotations_follow_the_rules_of_escaping() -> None:
    lines = list(github.errors(run(case("x", "fail", id="a,b:c.c::x[x86_64-2M]"), case("y"))))
    assert lines == [
        "::error title=fail%3A a%2Cb%3Ac.c%3A%3Ax[x86_64-2M],file=a%2Cb%3Ac.c::not ok: x",
    ]
    cut = run(case("x"), fault=Fault(exit_code=11, message="100 %\nfull"))
    assert list(github.errors(cut)) == ["::error title=the run was cut short::100 %25%0Afull"]


def test_the_last_annotation_counts_what_does_not_fit() -> None:
    many = run(*(case(f"x{number}", "fail") for number in range(30)))
    lines = list(github.errors(many))
    assert len(lines) == github.SHOWN
    assert lines[-1].startswith("::error title=21 further cases are red::")


def test_github_is_told_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    assert github.publish(every_status()) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert len(github.publish(every_status())) == github.SHOWN
    assert github.publish(every_status(), cases=False) == []
    assert len(github.publish(replace(every_status(), interrupted=True), cases=False)) == 1
    text = (tmp_path / "summary.md").read_text()
    assert "| category | pass | fail | crash | hang | error | skip | flaky | xfail | xpass |" in text
    assert "| fork | 2 | 2 | 2 | 2 | 2 | 2 | 2 | 2 | 2 |" in text
    assert text.count("## Guest tests") == 3
