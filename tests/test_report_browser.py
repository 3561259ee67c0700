"""The report in a real browser: nothing missing, no error, no request, no overflow.

Chromium is driven by its DevTools protocol, so no driver has to be installed.
"""

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from test_report import FIGURES, run_of, split_of

from vireid_jax.report.build import page

CHROMIUM = next(
    (
        p
        for n in ("chromium", "chromium-browser", "google-chrome")
        if (p := shutil.which(n))
    ),
    None,
)
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium here; apt-get install chromium"
    ),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


class Tab:
    """A page of a browser of its own; keeps all that DevTools tells of it."""

    def __init__(self, profile):
        import websocket

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._port(Path(profile) / "DevToolsActivePort")
        browser = f"ws://127.0.0.1:{port[0]}{port[1]}"
        self._socket = websocket.create_connection(browser, timeout=60)
        self._numbers, self._session, self.events = itertools.count(1), None, []
        (target,) = (
            t["targetId"]
            for t in self.ask("Target.getTargets")["targetInfos"]
            if t["type"] == "page"
        )
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def _port(self, file):
        for _ in range(600):
            lines = file.read_text().split() if file.exists() else []
            if len(lines) == 2:
                return lines
            assert self._process.poll() is None, "chromium ended at once"
            time.sleep(0.1)
        raise TimeoutError("chromium opened no port in a minute")

    def ask(self, method, **params):
        """Sends a command, returns its result; events on the way are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path, size, scheme):
        """Opens a file at a size, in the light or the dark theme."""
        width, height = size
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[theme])
        self.events.clear()
        self.ask("Page.navigate", url=Path(path).as_uri())
        for _ in range(600):
            if self.value("document.readyState") == "complete" and self.told(
                "Page.load"
            ):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path} did not load")

    def told(self, method):
        """Lists what the events whose name begins so say."""
        return [
            e["params"] for e in self.events if e.get("method", "").startswith(method)
        ]

    def value(self, expression):
        """Evaluates JavaScript, returns its value."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path, whole=True):
        """Writes a PNG of the page, or of what the window shows."""
        found = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def press(self, key):
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            code = {"Tab": 9}[key]
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=code)  # fmt: skip

    def close(self):
        """Ends the browser."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    found = Tab(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page([run_of()]))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_page_is_whole_and_asks_for_nothing(tab, report, size, scheme):
    tab.open(report, size, scheme)
    assert tab.told("Runtime.exceptionThrown") == []
    assert tab.told("Runtime.consoleAPICalled") == []
    assert tab.told("Log.entryAdded") == []
    asked = {r["request"]["url"] for r in tab.told("Network.requestWillBeSent")}
    assert report.as_uri() in asked  # it did listen
    assert {u for u in asked if not u.startswith("data:")} == {report.as_uri()}

    for name, panels in FIGURES.items():
        drawn = f"document.querySelectorAll('figure#{name} .panel svg').length"
        assert tab.value(drawn) == panels, name
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert tab.value(broken) == 0
    assert tab.value("document.images.length") > 40
    width = "document.documentElement.scrollWidth <= "
    assert tab.value(width + "document.documentElement.clientWidth")
    assert tab.value("innerWidth") == size[0]  # a phone zooms out to an overflow


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_two_runs_fit_with_all_their_tables_open(tab, tmp_path, size):
    runs = [run_of("runs/one"), run_of("runs/two", split_of(noise=0.8, seed=1))]
    (tmp_path / "both.html").write_text(page(runs))
    tab.open(tmp_path / "both.html", size, "light")
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= size[0]
    links = "[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))"
    titles = tab.value(f"{links}.map(i => document.getElementById(i)?.tagName)")
    assert len(titles) == 15
    assert set(titles) <= {"MAIN", "SECTION"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(tab, report, scheme):
    """WCAG 2's contrast, 4.5 to 1 for small text, of the styles that set a colour."""
    tab.open(report, SIZES["desktop"], scheme)
    seen = tab.value(
        "(() => { const c = document.createElement('canvas').getContext('2d');"
        " const rgb = v => { c.clearRect(0, 0, 1, 1); c.fillStyle = v;"
        " c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };"
        " const of = (q, p) => rgb(getComputedStyle(document.querySelector(q))[p]);"
        " const paper = of('body', 'backgroundColor');"
        " return [['body', of('body', 'color'), paper],"
        " ...['.labels', 'nav a', 'svg text', 'summary'].map(q =>"
        " [q, of(q, q == 'svg text' ? 'fill' : 'color'), paper]),"
        " ...['.match .sign', '.miss .sign', '.query .sign', '.badges .infrared'].map("
        " q => [q, of(q, 'color'), of(q, 'backgroundColor')])]; })()"
    )
    assert len(seen) == 9
    assert (sum(seen[0][2][:3]) > 600) == (scheme == "light")
    for name, ink, paper in seen:
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name


def luminance(colour):
    """WCAG's relative luminance of an 8-bit colour."""
    parts = [x / 255 for x in colour[:3]]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
    ]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_first_key_reaches_the_skip_link(tab, report):
    tab.open(report, SIZES["desktop"], "light")
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    assert tab.value("document.activeElement.getBoundingClientRect().left") >= 0
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_what_is_drawn_and_shown_has_a_name(tab, report):
    tab.open(report, SIZES["desktop"], "light")
    nameless = (
        "[...document.querySelectorAll('.panel svg')].filter(s =>"
        " !s.getAttribute('aria-label')).length"
        " + [...document.images].filter(i => !i.alt).length"
        " + [...document.querySelectorAll('[tabindex=\"0\"]')].filter(s =>"
        " !s.getAttribute('aria-label')).length"
    )
    assert tab.value(nameless) == 0
    steps = "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
    levels = tab.value(steps)
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    lost = (
        "[...document.querySelectorAll('a[href^=\"#\"], [aria-labelledby]')]"
        ".filter(a =>"
        " !document.getElementById((a.getAttribute('href') ||"
        " '#' + a.getAttribute('aria-labelledby')).slice(1))).length"
    )
    assert tab.value(lost) == 0
