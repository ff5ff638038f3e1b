"""The page in a real browser: filter, sort, light and dark; no request, no script error."""

import itertools
import shutil

import pytest
from gate_data import ENTRY, entries, record
from playwright.sync_api import expect, sync_playwright

from harness.gate.baselines import Baselines
from harness.gate.verdict import judge
from harness.law import Layer
from harness.report import html
from harness.results.finding import Finding
from harness.results.folder import RunInfo
from harness.results.record import finish, to_frame

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser is installed: none of {', '.join(BROWSERS)} on the path"
)


def broken(i):
    finding = Finding("visibility")
    finding.compare_sets(Layer(window=4).mask(0, 12, 12), Layer(window=5).mask(0, 12, 12))
    made = record(
        item=f"broken{i}",
        subject="theirs",
        check="visibility",
        case=f"gemma3/c{i}/float32/b1",
        scheme="interleaved",
    )
    return finish(made, finding, 0.2 + i)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    records = [
        *(record(item=f"ok{i}", case=f"mistral/s{i}/float32/b1", seconds=i / 7) for i in range(12)),
        *(broken(i) for i in range(3)),
    ]
    known = entries(tmp_path_factory.mktemp("known"), ENTRY)
    frame = to_frame(records)
    verdict = judge(frame, Baselines(), known, RunInfo(run="r1", exit_status=1))
    return html.build(frame, verdict, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


class Opened:
    """An open page, with its script errors and its requests."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser, path):
    made = Opened(browser, path)
    yield made
    assert not made.errors
    assert [url for url in made.requests if not url.startswith(("file:", "data:"))] == []
    made.context.close()


def test_the_verdict_is_the_first_thing_and_leads_to_what_broke(opened):
    page = opened.page
    assert page.locator("h1").inner_text().strip().startswith("Red")
    page.locator(".first a").first.click()
    card = page.locator(page.locator(".first a").first.get_attribute("href"))
    assert card.is_visible()
    assert "theirs" in card.inner_text()
    assert page.evaluate("scrollY") > 0


def test_the_filter_leaves_what_has_all_words(opened):
    page = opened.page
    page.fill("#find", "gemma3 c1")
    expect(page.locator("#shown")).to_have_text("1 of 15 cases")
    left = page.locator(".cases tbody tr[data-s]:not([hidden])")
    assert left.count() == 1
    assert "gemma3/c1/float32/b1" in left.first.text_content()
    page.fill("#find", "")
    expect(page.locator("#shown")).to_have_text("")
    assert page.locator(".cases tbody tr[data-s]:not([hidden])").count() == 15


def test_a_status_button_shows_that_status_alone(opened):
    page = opened.page
    button = page.locator('.toggles button[data-status="pass"]')
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    shown = page.locator(".cases tbody tr[data-s]:not([hidden])")
    assert shown.count() == 12
    assert page.locator(".card:not([hidden])").count() == 0
    button.click()
    assert page.locator(".card:not([hidden])").count() > 0


def test_a_column_sorts_by_number_both_ways(opened):
    page = opened.page
    table = page.locator('section[aria-labelledby="slowest"] table')
    head = table.locator("thead button").first
    seconds = "rows => rows.map(row => Number(row.cells[0].textContent))"
    head.click()
    up = table.locator("tbody tr").evaluate_all(seconds)
    head.click()
    down = table.locator("tbody tr").evaluate_all(seconds)
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert table.locator("thead th").first.get_attribute("aria-sort") == "descending"


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def brightness(colour):
    red, green, blue = (float(x) for x in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return (red + green + blue) / (3 * 255)


def test_light_and_dark_follow_the_system_and_the_reader(browser, path):
    light = Opened(browser, path, color_scheme="light")
    dark = Opened(browser, path, color_scheme="dark")
    assert brightness(background(light.page)) > 0.8
    assert brightness(background(dark.page)) < 0.2
    dark.page.click("#theme")
    assert brightness(background(dark.page)) > 0.8
    assert any(is_light_again(dark.page) for _ in range(100)), "the reader's choice is kept"
    assert not light.errors + dark.errors


def is_light_again(page):
    """A page of a new process knows the choice only once the browser has handed it on."""
    page.reload()
    page.wait_for_timeout(50)
    return brightness(background(page)) > 0.8


def test_text_of_both_modes_can_be_read(browser, path):
    """Contrast of body text is at least 4.5 to 1, as WCAG 2.2 asks."""
    for scheme in ("light", "dark"):
        made = Opened(browser, path, color_scheme=scheme)
        text = made.page.evaluate("getComputedStyle(document.body).color")
        assert contrast(text, background(made.page)) >= 4.5
        for muted in made.page.locator("p.muted").all()[:3]:
            colour = muted.evaluate("e => getComputedStyle(e).color")
            assert contrast(colour, background(made.page)) >= 4.5


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = [float(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_keyboard_reaches_the_verdict_first_and_every_control(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert "find" in reached
    assert "BUTTON" in reached


def focus_is_seen(page):
    style = "getComputedStyle(document.activeElement)"
    return page.evaluate(f"{style}.outlineStyle !== 'none' && parseFloat({style}.outlineWidth) > 0")


def test_filter_and_sort_need_no_mouse(opened):
    page = opened.page
    page.locator("#find").focus()
    page.keyboard.type("gemma3 c1")
    expect(page.locator("#shown")).to_have_text("1 of 15 cases")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.status")
    assert focus_is_seen(page)
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.keyboard.press("Space")
    head = page.locator('section[aria-labelledby="slowest"] thead button').first
    head.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert focus_is_seen(page), "by the keyboard"
    page.keyboard.press("Enter")
    sorted_by = "document.activeElement.closest('th').getAttribute('aria-sort')"
    assert page.evaluate(sorted_by) == "ascending"
    page.keyboard.press("Enter")
    assert page.evaluate(sorted_by) == "descending"


def test_every_control_and_drawing_has_a_name(opened):
    unnamed = opened.page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, svg[role], [role=region], table")]
          .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
            || e.textContent.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_focus_goes_down_the_page(opened):
    """The Tab key reaches controls in their order on the page."""
    page, tops = opened.page, []
    for _ in range(40):
        page.keyboard.press("Tab")
        tops.append(page.evaluate("document.activeElement.getBoundingClientRect().top + scrollY"))
    assert tops[0] < 0 or tops[0] < 20
    assert all(after >= before - 30 for before, after in itertools.pairwise(tops[1:]))


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_lines_of_the_charts_stand_out_from_the_page(browser, path, scheme, width):
    """Contrast is at least 3 to 1, as WCAG 2.2 asks of drawings."""
    made = Opened(browser, path, color_scheme=scheme, viewport={"width": width, "height": 800})
    lines = made.page.locator(".charts .plot:not(.key) .law").all()
    assert len(lines) > 20
    for line in lines:
        stroke = line.evaluate("e => getComputedStyle(e).stroke")
        assert contrast(stroke, background(made.page)) >= 3, line.get_attribute("class")
    assert not made.errors


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_screen(browser, path, width):
    made = Opened(browser, path, viewport={"width": width, "height": 800})
    assert made.page.evaluate("document.documentElement.scrollWidth") <= width
    assert not made.errors


def test_the_page_works_without_script(browser, path):
    made = Opened(browser, path, java_script_enabled=False)
    assert made.page.locator("h1").inner_text().strip().startswith("Red")
    assert not made.page.locator(".tools").is_visible()
