"""The page in a browser (Debian's chromium)."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.space.helpers import MB, SHIPPED, bomb, noise


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser is installed: apt-get install chromium")
needs_pair = pytest.mark.skipif(
    not SHIPPED, reason="spaces_demo/models is empty: python scripts/build_space.py makes the two models"
)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=ARGS)
        yield running
        running.close()


WATCH_SHIFTS = """
window.shifts = 0;
new PerformanceObserver(list => { for (const entry of list.getEntries()) window.shifts += entry.value; })
  .observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture
def open_page(browser, server):
    """Opens the page; afterwards nothing may have come from elsewhere, and no script may have failed."""
    contexts, foreign, errors = [], [], []

    def open_(width=1280, height=1000, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(WATCH_SHIFTS)
        page.on(
            "request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else 0
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{server.url}/?__theme={theme}")
        page.locator("#result .hc-look img").first.wait_for()
        page.locator("#answers input").first.wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not foreign
    assert not errors


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def settled(page, selector, words):
    """The text of an element once it holds these words."""
    found = page.locator(selector).filter(has_text=re.compile(words))
    found.wait_for()
    return found.inner_text()


def choose(page, label, option):
    box = page.get_by_label(label, exact=True)
    box.click()
    page.get_by_role("option", name=option).first.click()


@needs_browser
def test_the_first_view_explains_itself(open_page):
    page = open_page()
    assert page.get_by_role("heading", level=1).inner_text() == "Is there a backdoor in this CLIP?"
    assert page.locator(".hc-verdict").first.is_visible()
    assert page.locator(".hc-look li").count() == 20
    for image in page.locator("#result img").all():
        assert image.get_attribute("alt").startswith("The picture as the models see it")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, select')].filter(e => e.offsetParent
        && !(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.getAttribute('aria-labelledby')
             || e.closest('label'))).map(e => e.outerHTML.slice(0, 150))"""
    )
    assert not unnamed
    assert not page.locator("img:not([alt])").count()


@needs_browser
def test_probing_with_examples_triggers_and_texts(open_page, tmp_path):
    page = open_page()
    first = page.locator("#result .hc-clean img").get_attribute("src")
    page.locator(".hc-examples button").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("src => document.querySelector('#result .hc-clean img')?.src !== src", arg=first)
    triggered = page.locator("#result .hc-triggered img").get_attribute("src")
    choose(page, "Trigger", "badnet-stripes")
    page.wait_for_function("src => document.querySelector('#result .hc-triggered img')?.src !== src", arg=triggered)
    assert page.get_by_label("Strength (none)").first.is_disabled()
    page.get_by_label("Labels or sentences").fill("a dog, asleep\na cat")
    page.get_by_label("Sentences, one a line").check()
    settled(page, "#result .hc-cleaned-triggered", "a dog, asleep")
    assert page.locator("#result .hc-cleaned-triggered li").count() == 2
    page.get_by_label("Labels or sentences").fill("one")
    page.get_by_role("button", name="Ask both models").click()
    assert "at least two different sentences" in settled(page, "#result [role=alert]", "sentences")
    page.get_by_label("Labels or sentences").fill("dog\ncat\n" + "x" * 10_000)
    page.get_by_role("button", name="Ask both models").click()
    assert "longer than the 77 tokens" in settled(page, "#result", "77 tokens")


@needs_browser
def test_uploads_good_and_bad(open_page, tmp_path):
    page = open_page()

    def upload(name, content):
        (tmp_path / name).write_bytes(content)
        if page.get_by_label("Remove Image").count():
            page.get_by_label("Remove Image").click()
            settled(page, "#result [role=alert]", "no picture yet")
        page.locator("#picture input[type=file]").set_input_files(str(tmp_path / name))

    def encoded(image, kind, **options):
        import io

        image.save(buffer := io.BytesIO(), kind, **options)
        return buffer.getvalue()

    exif = Image.Exif()
    exif[274] = 6
    upload("turned.jpg", encoded(Image.fromarray(noise(300, 200)), "JPEG", exif=exif))
    page.locator("#result .hc-look").wait_for()
    upload("deep.png", encoded(Image.fromarray(np.full((80, 80), 40_000, np.uint16)), "PNG"))
    settled(page, "#result", "16-bit")
    upload("ink.jpg", encoded(Image.new("CMYK", (80, 80)), "JPEG"))
    settled(page, "#result", "CMYK")
    frames = [Image.new("RGB", (80, 80), color) for color in ("red", "blue")]
    upload("moving.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    settled(page, "#result", "first frame")
    upload("broken.png", b"hello")
    settled(page, "#result [role=alert]", "cannot be read as a picture")
    upload("bomb.png", bomb(60_000, 60_000))
    settled(page, "#result [role=alert]", "far more pixels")
    upload("heavy.png", bytes(9 * MB))
    page.get_by_text(re.compile("maximum allowed size", re.I)).first.wait_for()


@needs_browser
def test_comparing(open_page):
    page = open_page()
    tab(page, "Compare")
    if not SHIPPED:
        settled(page, "#measured", "came without a report")
        page.get_by_role("button", name="Measure now").click()
    settled(page, "#report", "Attack success of blended")
    assert page.locator("#report table tbody tr").count() == 6 + SHIPPED
    assert page.locator("#report .hc-rate").count() == 4


@needs_browser
def test_a_batch_of_sandbox_pictures_and_of_my_own(open_page, tmp_path):
    page = open_page()
    tab(page, "Batch")
    page.get_by_label("number input for How many").fill("24")
    page.get_by_label("number input for How many").blur()
    page.get_by_role("button", name="Run the batch").click()
    assert "Told apart by screening" in settled(page, "#rates", "24 pictures, trigger blended")
    with page.expect_download() as download:
        page.locator("#csv").click()
    lines = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert len(lines) == 24
    for name in ("dog 1.png", "whatever.png"):
        Image.fromarray(noise()).save(tmp_path / name)
    (tmp_path / "cat.png").write_bytes(b"hello")
    page.get_by_label("My pictures").check()
    page.locator("#files input[type=file]").set_input_files(
        [str(tmp_path / "dog 1.png"), str(tmp_path / "whatever.png")]
    )
    page.get_by_text("whatever").first.wait_for()
    page.get_by_role("button", name="Run the batch").click()
    settled(page, "#rates", "2 pictures, trigger")
    page.get_by_role("button", name="Clear").or_(page.get_by_label("Clear")).first.click()
    page.locator("#files input[type=file]").set_input_files(str(tmp_path / "cat.png"))
    page.locator("#files").get_by_text("cat").first.wait_for()
    page.get_by_role("button", name="Run the batch").click()
    assert "cat.png: This file cannot be read" in settled(page, "#rates [role=alert]", "cat")


@needs_browser
def test_a_cleaning_draws_its_curves_and_can_be_stopped(open_page):
    page = open_page()
    tab(page, "Clean")
    page.get_by_label("ft", exact=True).check()
    page.get_by_role("button", name="Clean the suspect").click()
    page.locator("#curves polyline").nth(2).wait_for()
    assert page.locator("#start").is_disabled()
    page.get_by_role("button", name="Stop").click()
    assert re.search(r"Stopped after \d+ of 60 steps\. Attack success", settled(page, "#curves", "Stopped after"))
    assert re.search(
        r"attack success [\d.]+%, accuracy [\d.]+%",
        page.locator("#curves svg[role=img]").nth(1).get_attribute("aria-label"),
    )
    page.wait_for_function("!document.querySelector('#start').disabled")


@needs_browser
def test_other_models(open_page):
    page = open_page()
    tab(page, "Models")
    for name, words in (("/etc", "no model '/etc' here"), ("owner/name", "cannot be downloaded")):
        page.get_by_label("Suspect model").fill(name)
        page.get_by_role("button", name="Load both").click()
        settled(page, "#status [role=alert]", words)
    page.get_by_label("Suspect model").fill("sandbox")
    page.get_by_label("Cleaned model").fill("sandbox")
    page.get_by_role("button", name="Load both").click()
    settled(page, "#status", "Loaded")
    settled(page, ".hc-pair", "no trigger came with the suspect")
    tab(page, "Compare")
    settled(page, "#measured", "came without a report")


CONTRAST = """
() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = ['.hc-verdict', '.hc-intro p', '.hc-pair', '.hc-label', '.hc-value', '.hc-foot p'];
  return [...texts, '.hc-examples span'].map(selector => {
    const e = document.querySelector(selector);
    const [a, b] = [getComputedStyle(e).color, ground(e)].map(light).sort((x, y) => y - x);
    return [selector, (a + 0.05) / (b + 0.05)];
  });
}
"""


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_width_and_theme(open_page, width, theme):
    """Nothing sticks out, all tabs are at hand, texts can be read, and nothing jumps."""
    page = open_page(width, 844, theme)
    assert page.locator("body").evaluate("e => e.classList.contains('dark')") == (theme == "dark")
    assert min(ratio for _, ratio in page.evaluate(CONTRAST)) >= 4.5
    assert page.locator("main").evaluate("e => getComputedStyle(e).visibility") == "visible"
    page.evaluate("window.shifts = 0")  # what moved before that was not visible yet, but for gradio's own spinner
    first = page.locator("#result .hc-clean img").get_attribute("src")
    page.locator(".hc-examples button").nth(2).click()
    page.wait_for_function("src => document.querySelector('#result .hc-clean img')?.src !== src", arg=first)
    assert page.evaluate("window.shifts") < 0.05
    boxes = [page.locator(f"#result .hc-{view} img").bounding_box() for view in ("clean", "triggered")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    for name in ("Compare", "Batch", "Clean", "Models", "Probe"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


@needs_browser
@needs_pair
def test_the_trigger_flips_the_suspect_and_not_the_cleaned_model(open_page):
    """The whole point, on every example: seen in the page, under the trigger that came with the suspect."""
    page = open_page()
    for i in range(page.locator(".hc-examples button").count()):
        button = page.locator(".hc-examples button").nth(i)
        name = button.inner_text().strip()
        button.click()
        settled(page, "#result .hc-cleaned-triggered li:first-child .hc-label", rf"^{name}$")
        verdict = page.locator("#result .hc-verdict")
        assert verdict.get_attribute("data-suspect") == "flipped", name
        assert verdict.get_attribute("data-cleaned") == "same", name
        assert f"answer from {name} to banana" in verdict.inner_text()
        assert page.locator("#result .hc-suspect-triggered li").first.inner_text().startswith("banana")


CLICK_ALL = """
async ([ms, backwards]) => {
  const buttons = [...document.querySelectorAll('.hc-examples button')];
  for (const button of backwards ? buttons.reverse() : buttons) {
    button.click();
    if (ms) await new Promise(resolve => setTimeout(resolve, ms));
  }
}
"""


@needs_browser
@needs_pair
def test_of_quick_clicks_the_last_example_counts(open_page):
    page = open_page()
    names = [name.strip() for name in page.locator(".hc-examples button").all_inner_texts()]
    for ms, backwards in ((0, False), (60, True), (150, False)):
        page.evaluate(CLICK_ALL, [ms, backwards])
        page.wait_for_timeout(3000)
        found = page.locator("#result .hc-cleaned-triggered li:first-child .hc-label").inner_text()
        assert found.strip() == names[0 if backwards else -1], f"{ms} ms between clicks"
