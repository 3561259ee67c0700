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


def luminance(colour):
    """WCAG's relative luminance of an 8-bit colour."""
    parts = [x / 255 for x in colour[:3]]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
    ]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
