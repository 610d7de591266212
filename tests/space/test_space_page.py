"""The Space as visitors meet it: in Debian's chromium, by gradio_client, and by those who mean no good.

One server for all tests, started as a hosted Space starts it. It serves the pair that ships with the Space; where that
has not been built, a copy of the sandbox's checkpoint with a trigger beside it, which never flips.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner import get_attack, sandbox
from tests.space.test_space import bomb, noise, record


ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "spaces_demo"
SHIPPED = (SPACE / "models" / "suspect" / "config.json").is_file()
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
MB = 2**20

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser is installed: apt-get install chromium")
needs_pair = pytest.mark.skipif(
    not SHIPPED, reason="spaces_demo/models is empty: python scripts/build_space.py makes the two models"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running Space: `url`, `port`, `pid`, and `uploads`, the folder its temporary files go to."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("space")
    temporary = folder / "tmp"
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name not in ("SUSPECT_MODEL", "CLEANED_MODEL")}
    env |= {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "MODEL_ROOTS": str(folder / "models")}
    env.pop("GRADIO_TEMP_DIR", None)
    if not SHIPPED:
        suspect = folder / "models" / "suspect"
        shutil.copytree(sandbox.CHECKPOINT, suspect)
        get_attack("blended").save(suspect)
        record().save(suspect / "poison.json")
        env |= {"SUSPECT_MODEL": str(suspect), "CLEANED_MODEL": "sandbox"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env=env, cwd=folder, stdout=log, stderr=log)
    running = SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, pid=process.pid, temporary=temporary)
    try:
        until = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(running.url, timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.2)
        yield running
        # Whatever was done to it, it is still there, and takes its files along when it goes.
        assert process.poll() is None, (folder / "log").read_text()
        (uploads,) = temporary.glob("ta-cleaner-space-*")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert not uploads.exists()
        assert not list(temporary.glob("cleaning-*"))
        # gradio says in its log what it refuses; no code of ours may have failed.
        text = (folder / "log").read_text()
        assert f'File "{SPACE}' not in text, text
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server.url, verbose=False)


@pytest.fixture
def picture(tmp_path):
    sandbox.labelled_scene(5).draw().save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def rss_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


# By program.


def test_the_endpoints_are_those_that_are_documented(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    documented = re.findall(r"^\| `(/\w+)` \|", (SPACE / "README.md").read_text(), re.M)
    assert sorted(named) == sorted(documented) == ["/batch", "/probe", "/report", "/triggers"]
    probe = [parameter["parameter_name"] for parameter in named["/probe"]["parameters"]]
    assert probe == ["picture", "trigger", "labels", "sentences", "size", "strength", "place", "k"]


def test_triggers_and_probe_by_program(client, picture):
    from gradio_client import handle_file

    found = client.predict(api_name="/triggers")
    assert found["own"] == "blended" and found["target"] == "banana" and found["labels"] == list(sandbox.CLASSES)
    assert found["triggers"]["badnet"] == {"size": 5, "strength": None, "place": "random"}
    answer = client.predict(handle_file(picture), api_name="/probe")
    views = ["suspect_clean", "suspect_triggered", "cleaned_clean", "cleaned_triggered"]
    assert [len(answer[view]) for view in views] == [5] * 4 and answer["trigger"].startswith("blended (alpha")
    assert list(answer["stands_out"]) == views
    answer = client.predict(
        handle_file(picture), "badnet", ["a dog, asleep", "a cat"], True, 9, None, "middle", 20, api_name="/probe"
    )
    assert sorted(text for text, _ in answer["suspect_clean"]) == ["a cat", "a dog, asleep"]
    assert sum(p for _, p in answer["suspect_clean"]) == pytest.approx(1, abs=1e-3)
    assert answer["trigger"] == "badnet (patch_px 9, place middle)"


def test_a_batch_by_program(client):
    found = client.predict(24, api_name="/batch")
    lines = list(csv.DictReader(found["csv"].splitlines()))
    assert len(lines) == 24 and {line["label"] for line in lines} == set(sandbox.CLASSES[:24])
    hits = sum(line["label"] != "banana" and line["suspect_triggered"] == "banana" for line in lines)
    attacked = sum(line["label"] != "banana" for line in lines)
    assert found["suspect"]["asr"] == {
        **found["suspect"]["asr"],
        "value": pytest.approx(hits / attacked),
        "n": attacked,
    }
    assert found["suspect"]["screening"]["n"] == attacked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "no trigger 'nope'"),
        (("blended", ["one"]), "at least two"),
        (("blended", ["x" * 60_000, "y"]), "characters of text"),
        (("blended", [], False, None, 7), "alpha is a share"),
    ],
)
def test_what_goes_wrong_is_said_to_a_program(client, picture, arguments, words):
    from gradio_client import handle_file

    with pytest.raises(Exception, match=words):
        client.predict(handle_file(picture), *arguments, api_name="/probe")


def test_long_prompts_and_many_labels(client, picture):
    from gradio_client import handle_file

    answer = client.predict(handle_file(picture), "", ["dog " * 2500, "a cat"], True, api_name="/probe")
    assert "longer than the 77 tokens" in answer["notes"][0]
    answer = client.predict(handle_file(picture), "", [f"thing {i}" for i in range(500)], api_name="/probe")
    assert len(answer["cleaned_clean"]) == 5
    with pytest.raises(Exception, match="at most 500"):
        client.predict(handle_file(picture), "", [f"thing {i}" for i in range(501)], api_name="/probe")


# Those who mean no good.


REST = ("", [], False, None, None, None, 5)  # what /probe takes beside the picture


def call(server, name, *data):
    """What the server says to a raw call: the events of its answer as text."""
    body = json.dumps({"data": list(data)}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}/gradio_api/call/{name}", body, headers)
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    return urllib.request.urlopen(f"{server.url}/gradio_api/call/{name}/{event}", timeout=60).read().decode()


def status(server, path, data=None, headers=None):
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.url + path, data, headers or {}), timeout=30
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(SPACE / "app.py"), "../../../../etc/passwd", "app.py", "/proc/self/environ"]
)
def test_no_path_of_the_server_is_read(server, path, meta):
    said = call(server, "probe", {"path": path, **meta}, *REST)
    assert "event: error" in said
    assert "root:" not in said and "import" not in said and "PATH=" not in said


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(SPACE / "app.py"), "app.py", "../../etc/passwd", "/proc/self/environ", "%2fetc%2fpasswd"],
)
def test_no_path_of_the_server_is_served(server, path):
    for prefix in ("/gradio_api/file=", "/file=", "/static/", "/assets/"):
        code, body = status(server, prefix + path)
        assert code >= 400 and b"root:" not in body and b"gradio as gr" not in body, (prefix, code)


def test_no_address_is_fetched(server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        said = call(server, "probe", {"path": address, "meta": {"_type": "gradio.FileData"}}, *REST)
        assert "event: error" in said and "addresses are not fetched" in said
        assert status(server, f"/gradio_api/file={address}")[0] == 403
        assert status(server, f"/gradio_api/proxy={address}")[0] == 403
        with pytest.raises(TimeoutError):
            listener.accept()


def multipart(content, name="x.png"):
    head = f'--edge\r\ncontent-disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--edge--\r\n", {"content-type": "multipart/form-data; boundary=edge"}


def test_large_uploads_are_refused(server):
    body, headers = multipart(bytes(9 * MB))
    code, said = status(server, "/gradio_api/upload", body, headers)
    assert code == 413 and b"maximum allowed size" in said
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("content-length", str(65 * MB))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_bombs_and_broken_files_leave_the_server_as_it_was(server, client, tmp_path):
    from gradio_client import handle_file

    before = rss_mb(server.pid)
    for name, content in {
        "bomb.png": bomb(60_000, 60_000),
        "large.png": bomb(5_001, 5_001),
        "cut.png": bomb(64, 64),
        "text.png": b"hello",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Exception, match=r"pixels|cannot be read as a picture"):
            client.predict(handle_file(str(tmp_path / name)), api_name="/probe")
    assert rss_mb(server.pid) - before < 64


def test_twenty_people_at_once(server, tmp_path):
    """Each with a connection and a large picture of their own; all are answered and memory stays bounded."""
    from gradio_client import Client, handle_file

    paths = []
    for i in range(20):
        Image.fromarray(np.kron(noise(50, 50, seed=i), np.ones((30, 30, 1), np.uint8))).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    before = rss_mb(server.pid)

    def visit(path):
        client = Client(server.url, verbose=False)
        return [client.predict(handle_file(path), name, api_name="/probe") for name in ("blended", "wanet")]

    with ThreadPoolExecutor(20) as people:
        answers = list(people.map(visit, paths))
    assert all(len(answer["suspect_clean"]) == 5 for both in answers for answer in both)
    assert rss_mb(server.pid) - before < 256


# In a browser.


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


# Into an empty environment.


@pytest.mark.slow
def test_the_bundle_runs_in_an_empty_environment(tmp_path):
    """Exactly what a hosted Space does: requirements.txt first, alone; then the files; then app.py."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy2(SPACE / "requirements.txt", alone)
    subprocess.run([*pip, "-r", "requirements.txt"], check=True, cwd=alone)
    bundle = tmp_path / "bundle"
    build = [sys.executable, str(ROOT / "scripts" / "build_space.py"), "--bundle", str(bundle)]
    subprocess.run(build, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    models = {} if SHIPPED else {"SUSPECT_MODEL": "sandbox", "CLEANED_MODEL": "sandbox"}
    code = "import app, hf_ta_cleaner, probe; app.build(); print(hf_ta_cleaner.__file__, len(probe.PAIRS._kept))"
    done = subprocess.run(
        [str(python), "-c", code], cwd=bundle, env={**keep, **models}, capture_output=True, text=True, check=True
    )
    file, kept = done.stdout.split()[-2:]
    assert Path(file).is_relative_to(bundle) and kept == "1"
