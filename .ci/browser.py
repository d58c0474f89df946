"""Headless Chromium, spoken to in its DevTools protocol; and a WebSocket without any of its manners."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from programs import PATIENCE, Program, connect, equal



def find_chromium():
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def chromium():
    if path := find_chromium():
        return path
    print("installing chromium", flush=True)
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    environment = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    try:
        subprocess.run([*environment, "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
        install = ["install", "-y", "-qq", "--no-install-recommends"]
        subprocess.run(
            [*environment, *install, "chromium", "fonts-dejavu-core"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"chromium cannot be installed: {e}", flush=True)
    return find_chromium()


class Browser:
    """Headless Chromium, spoken to in its DevTools protocol over a pair of pipes."""

    def __init__(self, path):
        self.profile = tempfile.mkdtemp(prefix="chat-chromium-")
        to_read, self.to_write = os.pipe()
        self.to_read, to_write = os.pipe()
        # The pipes are descriptors 3 and 4 to Chromium; numbers that cannot be in their way first.
        inner = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_read, to_write)]
        os.close(to_read)
        os.close(to_write)
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{inner[0]} 4>&{inner[1]}', "bash", path]
            + ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            + ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
            + ["--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"]
            + ["--remote-debugging-pipe", f"--user-data-dir={self.profile}"],
            pass_fds=inner,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in inner:
            os.close(fd)
        self.changed = threading.Condition()
        self.answers = {}
        self.asked = 0
        self.pages = {}
        self.ended = False
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        buffer = b""
        while piece := os.read(self.to_read, 1 << 20):
            *messages, buffer = (buffer + piece).split(b"\0")
            for message in map(json.loads, messages):
                with self.changed:
                    if "id" in message:
                        self.answers[message["id"]] = message
                        self.changed.notify_all()
                    elif page := self.pages.get(message.get("sessionId")):
                        page.happened(message["method"], message["params"])
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def ask(self, method, session=None, **parameters):
        with self.changed:
            self.asked += 1
            number = self.asked
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        with self.changed:
            answered = self.changed.wait_for(
                lambda: number in self.answers or self.ended, timeout=PATIENCE
            )
            assert answered and not self.ended, f"chromium does not answer to {method}"
            answer = self.answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    @contextlib.contextmanager
    def page(self, url, **options):
        """A page in a browser of its own: it shares no storage with others."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        try:
            yield self.tab(context, url, **options)
        finally:
            self.ask("Target.disposeBrowserContext", browserContextId=context)

    def tab(self, context, url, **options):
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)
        target = target["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, context, session)
        self.pages[session] = page
        page.open(url, **options)
        return page

    def close(self):
        with contextlib.suppress(Exception):
            self.ask("Browser.close")
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to_write)
        shutil.rmtree(self.profile, ignore_errors=True)


KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "PageUp": 33}


class Page:
    """A tab with the chat in it."""

    def __init__(self, browser, context, session):
        self.browser, self.context, self.session = browser, context, session
        self.complaints = []

    def ask(self, method, **parameters):
        return self.browser.ask(method, self.session, **parameters)

    def happened(self, method, parameters):
        """Errors of the script, and what the browser refused: a breach of the policy, say."""
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            entry = parameters["entry"]
            # That a server which is down cannot be reached is logged, and is no fault.
            if "WebSocket connection to" not in entry["text"]:
                self.complaints.append(f"{entry['level']}: {entry['text']}")

    def open(self, url, width=1000, height=640, phone=False, scale=1, dark=False, calm=False,
             chat=True):  # fmt: skip
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        if phone:
            self.ask("Emulation.setTouchEmulationEnabled", enabled=True)
        self.media(dark, calm)
        self.ask("Emulation.setLocaleOverride", locale="en-GB")
        self.ask("Page.navigate", url=url)
        if chat:
            self.wait("document.readyState === 'complete' && !!document.querySelector('#log')")

    def media(self, dark=False, calm=False):
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def run(self, script):
        """The value of an expression, in the page."""
        result = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, (script, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, script, seconds=PATIENCE):
        """Waits until an expression is true, and answers its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > deadline:
                shown = self.run("document.body?.innerText.slice(-1000)")
                raise AssertionError(f"never true: {script}; the page shows {shown!r}")
            time.sleep(0.03)
        return value

    # What the page shows.

    def state(self, state):
        self.wait(f"document.querySelector('#state').textContent === {json.dumps(state)}")

    def people(self):
        items = "[...document.querySelectorAll('#names li')].map(li => li.firstChild.data)"
        return self.run(items)

    def wait_people(self, *names):
        names = json.dumps(sorted(names))
        items = "[...document.querySelectorAll('#names li')].map(li => li.firstChild.data).sort()"
        self.wait(f"JSON.stringify({items}) === JSON.stringify({names})")

    def wait_said(self, name, words):
        """The last thing this member said, as the page shows it, is this."""
        expected = json.dumps([name, words])
        self.wait(
            "(() => { const s = [...document.querySelectorAll('.said')].map(e => "
            "[e.querySelector('b').textContent, e.querySelector('p').textContent]);"
            f"return s.some(one => JSON.stringify(one) === JSON.stringify({expected})) }})()"
        )

    def wait_notice(self, words):
        self.wait(
            "[...document.querySelectorAll('.notice span')].some(e => e.textContent === "
            f"{json.dumps(words)})"
        )

    # What somebody does with it: by keyboard alone, if not said otherwise.

    def press(self, key, shift=False):
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        down = "keyDown" if text else "rawKeyDown"
        self.ask("Input.dispatchKeyEvent", type=down, text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def focused(self):
        return self.run("document.activeElement.id || document.activeElement.tagName")

    def say(self, text):
        if self.focused() != "text":
            self.run("document.querySelector('#text').focus()")
        self.type(text)
        self.press("Enter")

    def call_oneself(self, name):
        self.say(f"/nick {name}")
        self.wait_notice(f"You are now {name}.")

    def picture(self):
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])


# ---- without a browser ----


def openssl(port, *options):
    return Program("openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", *options)


class RawSocket:
    """A WebSocket without any of a browser's manners."""

    def __init__(self, port, receive_buffer=None):
        self.socket = connect(port, receive_buffer)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(upgrade_request(port).encode())
        equal(self.stream.readline(), b"HTTP/1.1 101 Switching Protocols\r\n")
        while self.stream.readline() != b"\r\n":
            pass

    def send(self, payload, opcode=1):
        """A masked frame; the mask is zero, which is a mask like another."""
        length = len(payload)
        size = bytes([0x80 | length]) if length < 126 else struct.pack(">BH", 0x80 | 126, length)
        self.socket.sendall(bytes([0x80 | opcode]) + size + bytes(4) + payload)

    def frame(self):
        opcode, length = self.stream.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.stream.read(2))
        return opcode & 15, self.stream.read(length)

    def line(self):
        opcode, payload = self.frame()
        equal(opcode, 1)
        return payload.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()


def upgrade_request(port, path="/room", **fields):
    fields = {"Host": f"127.0.0.1:{port}", **fields}
    return "".join(
        [
            f"GET {path} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            *(f"{name}: {value}\r\n" for name, value in fields.items()),
            "\r\n",
        ]
    )
