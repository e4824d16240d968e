# SPDX-License-Identifier: MIT
"""report.html as a reader has it: on a phone and on a desk, light and dark, with scripts and without."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from harness.report import files
from harness.report.results import RED
from tests.browser.conftest import DESK, PHONE, Browser
from tests.samples import SPLAT, whole

CASES = 12 + 5  # of the sample: two for each size of both architectures, and five in which things go wrong
VISIBLE = "return [...document.querySelectorAll('.case:not([hidden])')].map((one) => one.dataset.status)"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report as a run writes it, in its directory."""
    directory = tmp_path_factory.mktemp("run")
    for name in ("crash", "flaky[x86_64-2M]", "flaky[x86_64-2M]-2"):
        place = directory / "cases" / name
        place.mkdir(parents=True)
        (place / "console.txt").write_text("\n".join([*(f"line {n}" for n in range(300)), SPLAT, "after"]))
    files.write(directory, whole())
    return directory / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_fetches_nothing_and_complains_of_nothing(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.complaints()
    browser.open(report, width=width, scheme=scheme)
    outside = [address for address in browser.fetched() if not address.startswith(("data:", "about:"))]
    assert outside == [report.as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_nothing_is_wider_than_the_window(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width)
    browser.ask("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.ask("return document.documentElement.scrollWidth") <= width


def test_both_schemes_have_their_colours_and_contrast(browser: Browser, report: Path) -> None:
    """WCAG 2 AA: 4.5 to 1 for text, 3 to 1 for large text and for what is no text."""
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(report, scheme=scheme)
        grounds.append(browser.ask("return getComputedStyle(document.body).backgroundColor"))
        browser.ask("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.ask(CONTRAST) == []
    assert len(set(grounds)) == 2


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const parse = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (colour) => parse(colour).slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (parse(colour)[3] === 255) return colour;
  }
  return "white";
};
const poor = new Set();
for (const element of document.querySelectorAll("body *:not(svg *, script, style)")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const enough = parseFloat(getComputedStyle(element).fontSize) >= 24 ? 3 : 4.5;
  if (ratio < enough) poor.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
return [...poor];
"""


def test_each_red_case_shows_how_its_pages_were_mapped(browser: Browser, report: Path) -> None:
    for width in (PHONE, DESK):
        browser.open(report, width=width)
        seen = browser.ask(
            "return [...document.querySelectorAll('#red > .case')].map((one) => [...one.querySelectorAll('.pic')]"
            ".filter((pic) => pic.checkVisibility()).map((pic) => [pic.querySelector('use').getBBox().width,"
            " pic.getBoundingClientRect().height, pic.querySelector('title').textContent]))"
        )
        assert len(seen) == 4
        for pictures in seen:
            assert pictures
            for drawn, height, words in pictures:
                assert drawn > width / 4 and height >= 20 and words.startswith("Huge page of ")


def test_a_hole_of_4k_is_seen_on_a_phone(browser: Browser, report: Path) -> None:
    browser.open(report, width=PHONE)
    widths = browser.ask(
        "const pic = document.querySelector('.case.crash .pic');"
        "const symbol = document.querySelector(pic.querySelector('use').getAttribute('href'));"
        "return [...symbol.querySelectorAll('rect[height=\"26\"]')]"
        ".map((one) => parseFloat(one.getAttribute('width')) / 100 * pic.getBoundingClientRect().width)"
    )
    assert min(widths) > 10


def test_words_filter(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert len(browser.ask(VISIBLE)) == CASES
    field = browser.driver.find_element(By.NAME, "q")
    field.send_keys("not ok: x")
    assert sorted(browser.ask(VISIBLE)) == ["fail", "flaky"]
    assert browser.driver.find_element(By.TAG_NAME, "output").text == f"2 of {CASES} cases"
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    assert len(browser.ask(VISIBLE)) == CASES


def test_toggles_filter_and_the_address_keeps_them(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.driver.find_element(By.CSS_SELECTOR, ".filter summary").click()
    for value in ("crash", "hang"):
        browser.driver.find_element(By.CSS_SELECTOR, f"input[value={value}] + span").click()
    assert browser.ask(VISIBLE) == ["crash", "hang"]
    fragment = browser.ask("return location.hash")
    browser.open(report, part=fragment)
    assert browser.ask(VISIBLE) == ["crash", "hang"]
    browser.driver.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    browser.driver.execute_async_script("setTimeout(arguments[0])")
    assert len(browser.ask(VISIBLE)) == CASES
    assert browser.ask("return location.hash") == ""


def test_a_cell_of_the_matrix_shows_its_cases(browser: Browser, report: Path) -> None:
    browser.open(report)
    cells = browser.driver.find_elements(By.CSS_SELECTOR, ".matrix td a")
    counts = [sum(int(one.text.split()[0]) for one in cell.find_elements(By.CSS_SELECTOR, ".count")) for cell in cells]
    assert sum(counts) == CASES
    for cell, count in zip(cells, counts, strict=True):
        browser.ask("arguments[0].click()", cell)
        assert len(browser.ask(VISIBLE)) == count
        shown = browser.ask(
            "return [...document.querySelectorAll('.case')].filter((one) => one.checkVisibility()).length"
        )
        assert shown == count, "the groups of cases that fit are open"


def test_a_link_to_a_case_leads_to_it_whatever_is_filtered(browser: Browser, report: Path) -> None:
    browser.open(report)
    name = browser.ask("return document.querySelector('#rest .case').id")
    browser.open(report, part="#status=crash")
    assert browser.ask(VISIBLE) == ["crash"]
    browser.ask("location.hash = arguments[0]", name)
    browser.driver.execute_async_script("setTimeout(arguments[0])")
    open_, top = browser.ask(
        "const one = document.getElementById(arguments[0]);"
        "return [one.open && one.checkVisibility(), one.getBoundingClientRect().top]",
        name,
    )
    assert open_ and -1 <= top < 800


def test_the_splat_is_in_view_in_its_console(browser: Browser, report: Path) -> None:
    browser.open(report)
    inside = browser.ask(
        "const mark = document.querySelector('.case.crash mark.title'), pre = mark.closest('pre');"
        "const [a, b] = [mark.getBoundingClientRect(), pre.getBoundingClientRect()];"
        "return a.top >= b.top && a.bottom <= b.bottom"
    )
    assert inside


def test_all_can_be_read_without_scripts(browser: Browser, report: Path) -> None:
    browser.open(report, scripts=False)
    try:
        body = browser.driver.find_element(By.TAG_NAME, "body")
        assert "Red: 1 crash, 1 hang, 1 fail, 1 flaky" in body.text
        assert not browser.driver.find_element(By.CSS_SELECTOR, ".filter").is_displayed()
        red = browser.driver.find_elements(By.CSS_SELECTOR, "#red > .case")
        assert {one.get_dom_attribute("data-status") for one in red} <= set(RED)
        assert all(one.find_element(By.CSS_SELECTOR, ".claim").is_displayed() for one in red)
        group = browser.driver.find_element(By.CSS_SELECTOR, ".group")
        group.find_element(By.TAG_NAME, "summary").click()
        assert group.find_element(By.CSS_SELECTOR, ".claim").is_displayed()
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_files_of_cases_can_be_reached(browser: Browser, report: Path) -> None:
    browser.open(report)
    links = browser.ask("return [...document.querySelectorAll('.files a')].map((one) => one.href)")
    assert report.parent.as_uri() + "/cases/" + quote("flaky[x86_64-2M]/console.txt") in links
    browser.driver.get(links[0])
    assert "BUG: kernel NULL pointer" in browser.driver.find_element(By.TAG_NAME, "body").text
