"""A real browser in a test: Chromium, driven by its DevTools protocol, no driver."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(
    (
        p
        for n in ("chromium", "chromium-browser", "google-chrome")
        if (p := shutil.which(n))
    ),
    None,
)
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
    """A page of a browser of its own; keeps all events of DevTools."""

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
        """Send a command, return its result; events on the way are kept."""
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
        """Open a file at a size, in the light or the dark theme."""
        width, height = size
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[theme])
        self.events.clear()
        self.ask("Page.navigate", url=Path(path).as_uri())
        for _ in range(600):
            if self.value("document.readyState") == "complete" and self.events_of(
                "Page.load"
            ):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path} did not load")

    def events_of(self, method):
        """List the parameters of the events whose name starts with `method`."""
        return [
            e["params"] for e in self.events if e.get("method", "").startswith(method)
        ]

    def value(self, expression):
        """Evaluate JavaScript, return its value."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path, whole=True):
        """Write a PNG of the page, or of what the window shows."""
        answer = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def press(self, key):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            code = {"Tab": 9}[key]
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=code)  # fmt: skip

    def close(self):
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=30)


def luminance(colour):
    """WCAG's relative luminance of an 8-bit colour."""
    parts = [x / 255 for x in colour[:3]]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
    ]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def check_quiet(tab, path, size):
    """Check that the page at `path` made no error, no request, and fits `size`."""
    for event in ("exceptionThrown", "consoleAPICalled"):
        assert tab.events_of(f"Runtime.{event}") == []
    assert tab.events_of("Log.entryAdded") == []
    assert tab.events_of("Page.javascriptDialogOpening") == []
    requests = tab.events_of("Network.requestWillBeSent")
    urls = {request["request"]["url"] for request in requests}
    assert {url for url in urls if not url.startswith("data:")} == {path.as_uri()}
    broken = "[...document.images].filter(i => !i.naturalWidth || !i.alt).length"
    assert tab.value(broken) == 0
    width = "document.documentElement.scrollWidth <= "
    assert tab.value(width + "document.documentElement.clientWidth")
    assert tab.value("innerWidth") == size[0]  # a phone zooms out to an overflow


def check_contrast(tab, on_paper, own):
    """Check WCAG 2's contrast of small text, 4.5 to 1; return the page's colour.

    `on_paper` are selectors of text on the page, `own` of text with a background.
    """
    paper, *colours = tab.value(
        "(() => { const c = document.createElement('canvas').getContext('2d');"
        " const rgb = v => { c.clearRect(0, 0, 1, 1); c.fillStyle = v;"
        " c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };"
        " const of = (q, p) => rgb(getComputedStyle(document.querySelector(q))[p]);"
        " const ink = q => of(q, q == 'svg text' ? 'fill' : 'color');"
        " const paper = of('body', 'backgroundColor');"
        f" return [paper, ...{json.dumps(on_paper)}.map(q => [q, ink(q), paper]),"
        f" ...{json.dumps(own)}.map(q => [q, ink(q), of(q, 'backgroundColor')])]; }})()"
    )
    assert len(colours) == len(on_paper) + len(own)
    for name, *pair in colours:
        light, dark = sorted(map(luminance, pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
    return paper
