"""The report in a real Chromium, opened as a file, without a network."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

import made_report
from browser import chromium
from slicestream.__main__ import main

PLOTS = {"froc", "sensitivity", "volumes", "calibration", "loss", "agreement", "timeline", "steps"}
ROWS = 24 + 12 + 8  # nodules found, false positives, missed


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    words = made_report.write_cohort(folder)
    assert main([*words, "--viewer", "--out", str(folder / "out")]) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")  # no longer: its event loop is in the way of tests that have one of their own
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    context = browser.new_context(
        offline=True, color_scheme="light", reduced_motion="reduce", viewport={"width": 1280, "height": 900}
    )
    page = context.new_page()
    page.goto(report.as_uri())
    yield page
    context.close()


def column(page: Page, table: str, number: int) -> list[str]:
    cells = page.locator(f"#{table} tbody tr:not([hidden]) td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def in_view(page: Page, what: Locator) -> bool:
    box, size = what.bounding_box(), page.viewport_size
    return bool(box and size and 0 <= box["y"] < size["height"])


def test_every_plot_is_drawn_and_nothing_is_asked_for(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report.as_uri())
    drawn = page.locator("[data-plot]:has(svg[role=img][aria-label])")
    assert set(drawn.evaluate_all("figures => figures.map(figure => figure.dataset.plot)")) == PLOTS
    page.mouse.wheel(0, 20000)
    assert {url for url in asked if not url.startswith("data:image/")} == {report.as_uri()}
    assert said == []
    page.close()


def test_what_is_put_into_the_page_can_neither_run_nor_reach_out(browser: Browser, report: Path) -> None:
    page = browser.new_page()  # not told to be offline
    page.goto(report.as_uri())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        broken = page.evaluate(
            """async (port) => {
                const broken = [];
                document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
                const script = document.createElement("script");
                script.textContent = "document.title = 'taken'";
                document.body.append(script);
                new Image().src = `http://127.0.0.1:${port}/picture`;
                await fetch(`http://127.0.0.1:${port}/data`).catch(() => 0);
                await new Promise((then) => setTimeout(then, 100));
                return broken;
            }""",
            server.getsockname()[1],
        )
        assert sorted(broken) == ["connect-src", "img-src", "script-src-elem"]
        assert page.title() != "taken"
        with pytest.raises(TimeoutError):
            server.accept()
    page.close()


def test_worst_stand_first_and_heads_sort_both_ways_by_keyboard(page: Page) -> None:
    worst = column(page, "case_table", 3)
    assert [float(text) for text in worst] == sorted(float(text) for text in worst)
    assert column(page, "nodule_table", 1) == ["missed"] * 8 + ["false positive"] * 12 + ["true positive"] * 24
    head = page.locator("#nodule_table th", has_text="Diameter")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    sizes = [float(text) for text in column(page, "nodule_table", 7)]
    assert sizes == sorted(sizes)
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert [float(text) for text in column(page, "nodule_table", 7)] == sorted(sizes, reverse=True)
    page.locator("#nodules .worst").press("Space")
    assert column(page, "nodule_table", 1)[0] == "missed"
    assert head.get_attribute("aria-sort") is None


def test_rows_without_a_value_stand_last_both_ways(page: Page) -> None:
    score = page.locator("#nodule_table th", has_text="Score").get_by_role("button")
    for _ in range(2):
        score.click()
        assert column(page, "nodule_table", 5)[-8:] == ["–"] * 8


def test_tables_filter_by_pseudonym_and_status(page: Page) -> None:
    told = page.locator("#nodules output")
    expect(told).to_have_text(f"{ROWS} rows")
    page.get_by_label("Status").select_option("missed")
    expect(told).to_have_text(f"8 of {ROWS} rows")
    assert set(column(page, "nodule_table", 1)) == {"missed"}
    page.get_by_label("Filter the nodules").fill(made_report.series_id(3)[1])
    expect(told).to_have_text(f"1 of {ROWS} rows")


def test_a_case_leads_to_its_nodules_and_a_nodule_to_its_overlay_and_back(page: Page) -> None:
    _, series = made_report.series_id(6)
    page.locator(f"#case_table a[data-series='{series}']").press("Enter")
    assert column(page, "nodule_table", 1) == ["missed", "false positive", "true positive"]
    page.locator("#nodule_table tr:not([hidden])", has_text="missed").get_by_role("link", name="Overlay").press("Enter")
    picture = page.locator(f"[id='o-{'-'.join(made_report.series_id(6))}-0009']")
    expect(picture.locator("figure")).to_be_focused()
    assert in_view(page, picture)
    page.get_by_label("Filter the nodules").fill("nothing has this")
    picture.get_by_role("link", name="missed").press("Enter")
    row = page.locator("#nodule_table tr.here")
    expect(row).to_be_focused()
    expect(row).to_contain_text("missed")


def test_a_nodule_leads_to_the_viewer_beside_the_page(page: Page) -> None:
    patient, series = made_report.series_id(1)
    row = page.locator(f"#nodule_table tr[data-text='{patient} {series}']")
    link = row.get_by_role("link", name="Viewer").get_attribute("href")
    assert link == f"viewer/index.html#series={patient}-{series}&nodule=1"
    missed = page.locator("#nodule_table tbody tr", has_text="missed").first.get_by_role("link", name="Viewer")
    expect(missed).to_have_attribute("href", re.compile(r"&nodule=r\d+$"))


def test_a_dot_of_bland_and_altman_tells_what_it_is_and_leads_to_its_row(page: Page) -> None:
    dots = page.locator("[data-plot=volumes] svg [aria-label=dot] circle")
    expect(dots).to_have_count(made_report.SERIES)
    dots.nth(5).scroll_into_view_if_needed()
    dots.nth(5).hover(force=True)
    expect(page.locator("[data-plot=volumes] svg [aria-label=tip]")).to_contain_text("mm³")
    dots.nth(5).click(force=True)
    expect(page.locator("#nodule_table tr.here")).to_contain_text("true positive")


def test_light_and_dark_follow_the_system_until_the_button_says_else(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert dark != light
    page.get_by_role("button", name="Switch to light colours").press("Enter")
    assert background() == light
    page.reload()
    assert background() == light
    assert page.get_by_role("button", name="Switch to dark colours").is_visible()


def test_the_first_tab_skips_to_the_figures(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("summary").first.click()
    page.wait_for_function("[...document.querySelectorAll('[data-plot] svg')].every((p) => p.clientWidth <= 390)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_paper_is_light_whole_and_without_buttons(page: Page) -> None:
    page.emulate_media(color_scheme="dark", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#metrics dl").is_visible()
    assert not page.locator(".bar").is_visible()
    assert not page.locator(".tools").first.is_visible()
    assert page.locator("#nodule_table tr").last.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF-")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page).response
    assert len(found["passes"]) > 20
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in grave] == []
