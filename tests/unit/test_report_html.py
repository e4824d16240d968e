# SPDX-License-Identifier: MIT
"""report.html: what ended a run is never green, hostile words stay words, and forty crashes are one line."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.report import html
from harness.report.results import RED, Fault, Finding, RunResult, Status
from tests.samples import NO_FILES, SPLAT, Kept, case, flaky, run, splat, whole


class Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.tags if name in attributes.get("class", "").split()]


def page(result: RunResult, files: Kept = NO_FILES) -> Page:
    return Page(html.render(result, files))


def lamp(result: RunResult) -> str:
    (header,) = page(result).of_class("verdict")
    return header["class"].removeprefix("verdict lamp-")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (run([case(Status.PASS)]), "green"),
        (run([case(Status.PASS), case(Status.SKIP)]), "green"),
        (run([case(Status.XFAIL)]), "green"),
        (run([case(Status.SKIP)]), "grey"),
        (run([]), "grey"),
        (run([case(Status.PASS)], finished=""), "amber"),
        (run([case(Status.PASS)], interrupted=True), "amber"),
        (run([case(Status.PASS)], fault=Fault(exit_code=10, message="no guest")), "amber"),
        (run([case(Status.PASS)], fault=Fault(exit_code=99, message="no guest")), "amber"),
        (run([], fault=Fault(exit_code=12, message="does not build")), "amber"),
        (run([case(Status.FAIL)], interrupted=True), "red"),
        (run([case(Status.PASS)], not_run=["a.c::x[x86_64-2M]"]), "amber"),
    ]
    + [(run([case(Status.PASS), case(status)]), "red") for status in RED],
)
def test_only_a_whole_run_in_which_something_passed_is_green(result: RunResult, expected: str) -> None:
    assert lamp(result) == expected


def test_what_ended_the_run_stands_at_the_top() -> None:
    shown = page(run([case(Status.PASS)], fault=Fault(exit_code=10, message="the guest did not boot\nlast words")))
    assert "the guest did not boot\nlast words" in shown.words
    assert "no verdict" in shown.words


def test_every_status_is_shown() -> None:
    cases = [case(status, reason="for a reason") for status in Status]
    shown = page(run(cases))
    assert Counter(one["data-status"] for one in shown.of_class("case")) == Counter(Status)
    red = [one["data-status"] for one in shown.of_class("case")][:6]
    assert red == ["crash", "hang", "fail", "error", "flaky", "xpass"]


HOSTILE = '</pre></script><script>alert("x")</script><img src=x onerror=alert(1)> \x1b[31m\x00 \u202e " \' & ]]> -->'


def test_hostile_words_stay_words() -> None:
    hostile = case(
        Status.CRASH,
        claim=HOSTILE,
        category=HOSTILE,
        reason=HOSTILE,
        findings=(Finding(kind="splat", message=f"oops: {HOSTILE}", evidence=HOSTILE, fingerprint=HOSTILE),),
        diagnostics=(HOSTILE,),
        shapes=((HOSTILE,), ("2M: 2M×1",)),
        directory=f"cases/{HOSTILE}",
    )
    hostile = replace(hostile, id=f"{HOSTILE}::{HOSTILE}[x86_64-2M]")
    result = run(
        [hostile, replace(hostile, status=Status.XFAIL)],
        kernels={"x86_64": {"release": HOSTILE, "subjects": [HOSTILE]}},
    )
    result.command = [HOSTILE, "\udcff"]
    text = html.render(result, Kept({"console.txt": HOSTILE, HOSTILE: ""}))
    shown = Page(text)
    names = [tag for tag, _ in shown.tags]
    assert names.count("script") == names.count("style") == 1
    assert "img" not in names
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert 'alert("x")' in shown.words
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    text.encode()


def test_nothing_is_fetched_and_no_other_script_may_run() -> None:
    shown = page(whole())
    assert not [
        attributes
        for tag, attributes in shown.tags
        for name in ("src", "href", "action", "data")
        if re.match(r"[a-z]+:|//", attributes.get(name, "")) and tag != "link"
    ]
    (policy,) = (attributes["content"] for tag, attributes in shown.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy
    assert not [attributes for _, attributes in shown.tags if "style" in attributes]


def test_links_lead_to_something() -> None:
    shown = page(whole())
    names = Counter(attributes["id"] for _, attributes in shown.tags if "id" in attributes)
    assert max(names.values()) == 1
    links = [attributes["href"] for tag, attributes in shown.tags if tag in ("a", "use")]
    assert {link[1:] for link in links if link.startswith("#") and "=" not in link} <= set(names)
    shown = page(run([flaky()]), Kept({"ktap.txt": ""}))
    assert "cases/flaky%5Bx86_64-2M%5D-2/ktap.txt" in [one.get("href") for _, one in shown.tags]


def test_the_same_crash_in_forty_cases_is_one_line() -> None:
    cases = [case(Status.CRASH, findings=(splat(),), directory="cases/a") for _ in range(40)]
    shown = page(run(cases), Kept({"console.txt": f"before\n{SPLAT}\nafter\n"}))
    assert len(shown.of_class("complaint")) == 1
    assert "40 cases" in shown.words
    assert len(shown.of_class("console")) == 2


def test_a_splat_is_marked_in_the_console_and_linked() -> None:
    console = "\n".join([*(f"line {n}" for n in range(500)), SPLAT, "the rest", "Call Trace:", " asked for"])
    crashed = case(Status.CRASH, findings=(splat(),), directory="cases/a")
    text = html.render(run([crashed]), Kept({"console.txt": console}))
    assert re.findall(r'<mark class="(\w+)"', text) == ["title", *["splat"] * (len(SPLAT.splitlines()) - 1)]
    assert "line 460\n" in text and "line 459\n" not in text
    assert "460 lines before" in text


def test_attempts_that_differ_stand_side_by_side() -> None:
    shown = page(run([flaky()]))
    assert [one["class"] for one in shown.of_class("side")] == ["side fail", "side pass"]
    assert "Run 3 times" in " ".join(shown.words.split())


def test_a_thousand_shapes_are_bounded() -> None:
    same = case(Status.PASS, shapes=(("2M: 2M×1",),) * 1000)
    assert "the same in all 1000 looks" in page(run([same])).words
    steps = tuple((f"2M: 4K×{n % 500 + 1} hole×{511 - n % 500}",) for n in range(1000))
    text = html.render(run([case(Status.FAIL, shapes=steps)]), NO_FILES)
    assert len(text) < 250_000
    assert "974 more, in results.json" in text


def test_a_whole_run_of_both_architectures_is_small_and_quick() -> None:
    started = time.process_time()
    text = html.render(whole(copies=138), NO_FILES)
    assert time.process_time() - started < 10
    assert len(Page(text).of_class("case")) == 828 + 138
    assert len(text.encode()) < 4_000_000


def test_a_run_in_which_all_is_red_is_bounded() -> None:
    noise = "\n".join(f"{n}: " + "x" * 90 for n in range(3000))
    cases = [
        case(
            Status.CRASH,
            findings=(replace(splat(), fingerprint=f"oops {n}", evidence=noise),),
            directory="cases/a",
        )
        for n in range(828)
    ]  # fmt: skip
    text = html.render(run(cases), Kept({"console.txt": noise}))
    assert len(text.encode()) < 8_000_000
    assert "would grow too large" in text
