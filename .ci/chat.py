#!/usr/bin/env python3
"""Runs the chat with real counterparts: headless Chromium with its page, nc, openssl
s_client; over several processes with a Redis between them.

    .ci/chat.py [--screenshot FILE] [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. The screenshot of the room goes to FILE; kept is
docs/chat.png.

Prints what failed and "N passed, N failed"; the exit status is 0 if nothing failed. Nothing is
skipped: where Chromium is missing it is installed (Debian, Ubuntu), and where it cannot be, that is
a failure. Else Python's standard library is all it needs, openssl, redis-server and nc
(netcat-openbsd).
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

SCREENSHOT = None
if "--screenshot" in sys.argv:
    at = sys.argv.index("--screenshot")
    SCREENSHOT = os.path.abspath(sys.argv[at + 1])
    del sys.argv[at : at + 2]

sys.dont_write_bytecode = True
from browser import Browser, RawSocket, chromium, openssl, upgrade_request  # noqa: E402
from checks import DIRECTORY, chosen, check, run  # noqa: E402
from programs import PATIENCE, Person, equal, example, nc, one_line, until  # noqa: E402
from service import Chat, Redis, shared_chat  # noqa: E402

MOST_BYTES = 150_000  # of the screenshot

# ---- the run's browser ----

BROWSER = None


@contextlib.contextmanager
def in_room(server, **options):
    """A page that is in the room, and that has not complained when all is over."""
    with BROWSER.page(server.url, **options) as page:
        page.state("connected")
        yield page
        equal(page.complaints, [])


# ---- one room for all ----


@check
def two_pages_nc_and_openssl_are_in_one_room():
    with Chat() as server, in_room(server) as anna, in_room(server) as ben:
        with nc(server.lines) as carla, openssl(server.tls) as dora:
            anna.call_oneself("Anna")
            ben.call_oneself("Ben")
            for program, name in ((carla, "Carla"), (dora, "Dora")):
                program.wait_for(r"\* Welcome\.")
                program.send(f"/nick {name}\n")
                program.wait_for(rf"\* guest\d is now {name}\n")
            for page in (anna, ben):
                page.wait_people("Anna", "Ben", "Carla", "Dora")

            # Everybody says something, and all the others see it, with the right name.
            words = {name: f"Good day from {name}; ünïcödé ✓" for name in ("Anna", "Ben", "Carla", "Dora")}
            pages, programs = {"Anna": anna, "Ben": ben}, {"Carla": carla, "Dora": dora}
            for name, said in words.items():
                if name in pages:
                    pages[name].say(said)
                else:
                    programs[name].send(said + "\n")
                for page in pages.values():
                    page.wait_said(name, said)
                for other, program in programs.items():
                    if other != name:
                        program.wait_for(re.escape(f"<{name}> {said}\n"))
            assert "own" in anna.run("document.querySelector('.said').className")

            # Who leaves is told, and is no longer in the list.
            carla.send("/quit\n")
            for page in (anna, ben):
                page.wait_notice("Carla has left")
                page.wait_people("Anna", "Ben", "Dora")
            dora.process.kill()
            anna.wait_notice("Dora has left")
            anna.say("/who")
            anna.wait_notice("Here now: Anna, Ben")
            ben.say("/quit")
            ben.state("left")
            anna.wait_people("Anna")


@check
def an_http_request_says_nothing_in_the_room():
    """A page of somebody else's can make a browser send one to any port, its body included."""
    words = "POST /room HTTP/1.1\r\nHost: h\r\n\r\n/nick Mallory\r\nsaid in somebody's name\r\n"
    with Chat() as server, Person(server.lines) as carla:
        with socket.create_connection(("127.0.0.1", server.lines), PATIENCE) as page:
            page.sendall(words.encode())
            answer = b"".join(iter(lambda: page.recv(4096), b""))
            assert b"not a web server" in answer, answer
        equal(carla.line(), "* guest2 has joined")
        equal(carla.line(), "* guest2 has left")


@check
def a_name_that_was_made_to_point_here_opens_no_socket():
    """DNS rebinding: the page's origin and the host agree, and both are somebody else's."""
    with Chat("--name", "Chat.example") as server:
        for host, status in (
            ("evil.example", b"403"),
            (f"evil.example:{server.web}", b"403"),
            ("chat.example", b"101"),
            (f"localhost:{server.web}", b"101"),
            (f"[::1]:{server.web}", b"101"),
            ("127.0.0.1", b"101"),
        ):
            request = upgrade_request(server.web, Host=host, Origin=f"http://{host}")
            with socket.create_connection(("127.0.0.1", server.web), PATIENCE) as page:
                page.sendall(request.encode())
                equal(page.makefile("rb").readline().split()[1], status)


@check
def a_newcomer_with_a_name_is_told_once():
    with Chat() as server, Person(server.lines) as person:
        with in_room(server) as anna:
            anna.wait_people("guest1", "guest2")
            context = anna.context
            with in_room(server) as ben:
                anna.wait_notice("guest3 has joined")
                ben.call_oneself("Ben")
                # Another name some time later is news; the one that a page brings along is not.
                anna.call_oneself("Anna")
                ben.ask("Page.reload")
                anna.wait_notice("Ben has left")
                anna.wait_notice("Ben has joined")
                anna.wait_people("guest1", "Anna", "Ben")
                ben.wait_notice("You are Ben.")
            # A second tab of the same browser: the name is in use, so it gets a number.
            tab = BROWSER.tab(context, server.url)
            tab.wait_notice("You are Anna2.")
            anna.wait_notice("Anna2 has joined")
            tab.call_oneself("Annabel")
            anna.wait_people("guest1", "Anna", "Annabel")
        equal(person.line(), "* guest2 has joined")


@check
def what_is_said_never_becomes_markup():
    attacks = [
        "<img src=x onerror=\"document.title='owned'\">",
        "<script>document.title='owned'</script>",
        "<b>bold</b> &amp; &lt;i&gt;",
        "javascript:alert(1) <a href='javascript:alert(1)'>here</a>",
        "</p></div><iframe srcdoc='<script>parent.document.title=1</script>'></iframe>",
        "<style>*{display:none}</style><svg/onload=alert(1)>",
    ]
    fakes = ["<Anna> I never said this", "* Anna has left", "* pong 1", "* Welcome. You are eve."]
    tags = (
        "[...document.querySelectorAll('#log *, #names *, header *')].map(e => e.localName)"
        ".filter((name, i, all) => all.indexOf(name) === i).sort().join()"
    )
    with Chat() as server, in_room(server) as anna, in_room(server) as ben:
        anna.call_oneself("Anna")
        before = anna.run(f"document.scripts.length + {tags}")
        with nc(server.lines) as eve:
            eve.wait_for("Here now")
            eve.send("/nick <img>\n/nick Eve\n")
            eve.wait_for(r"\* A name has 1 to")
            for words in attacks + fakes:
                eve.send(words + "\n")
                anna.wait_said("Eve", words)
                ben.wait_said("Eve", words)
            for words in attacks:
                ben.say(words)
                anna.wait_said("guest2", words)
            anna.wait_people("Anna", "guest2", "Eve")
            equal(anna.run("document.title"), "tidegate chat")
            after = anna.run(f"document.scripts.length + {tags}")
            # A picture, a link or a frame would be a new kind of element.
            new = set(re.findall(r"[a-z]+", after)) - set(re.findall(r"[a-z]+", before))
            assert new <= {"b", "p", "div", "time", "span"}, new
        # The policy is a second lock: were there markup after all, it would do nothing.
        for markup in ("<img src=x onerror=\"window.owned=1\">", "<p onclick='window.owned=1'>"):
            anna.run(
                "(() => { const e = document.createElement('div'); document.body.append(e);"
                f"e.innerHTML = {json.dumps(markup)}; e.firstChild.click(); e.remove() }})()"
            )
        anna.run("new Promise(done => setTimeout(done, 100))")
        equal(anna.run("typeof window.owned"), "undefined")
        assert all("Content Security Policy" in said for said in anna.complaints), anna.complaints
        assert anna.complaints, "the policy was not applied"
        anna.complaints.clear()


@check
def control_characters_and_line_ends_in_a_web_message_are_removed():
    with Chat() as server, Person(server.lines) as person, in_room(server) as page:
        equal(person.line(), "* guest2 has joined")
        with RawSocket(server.web) as raw:
            equal(person.line(), "* guest3 has joined")
            raw.send("one\n<guest1> two\r\n\x1b[2J\x07 \u202eend".encode())
            line = person.line()
            assert line.startswith("<guest3> one\ufffd<guest1> two"), line
            assert all(c.isprintable() for c in line), repr(line)
            page.wait_said("guest3", line.removeprefix("<guest3> "))
            # Text that is no UTF-8 is a breach of the protocol, and costs the sender alone.
            raw.send(b"\xff\xfe")
            while (frame := raw.frame())[0] != 8:
                pass
            equal(frame[1][:2], struct.pack(">H", 1007))
        equal(person.line(), "* guest3 has left")
        page.wait_people("guest1", "guest2")


# ---- one room of several processes ----

SAID = """[...document.querySelectorAll('.said')]
    .map(e => [e.querySelector('b').textContent, e.querySelector('p').textContent])"""
NOTICES = "[...document.querySelectorAll('.notice span')].map(e => e.textContent)"


def called(name, program):
    """Gives somebody at a terminal this name."""
    program.wait_for(r"\* Welcome\.")
    program.send(f"/nick {name}\n")
    program.wait_for(rf"\* guest\S+ is now {name}\n")


def numbers(lines):
    """Of lines that came, the numbers that each speaker gave to theirs."""
    came = {}
    for name, words in lines:
        if found := re.fullmatch(r"line (\d+)", words):
            came.setdefault(name, []).append(int(found.group(1)))
    return came


@check
def a_page_nc_and_openssl_on_three_processes_are_in_one_room():
    with Redis() as redis, contextlib.ExitStack() as stack:
        one, two, three = (
            stack.enter_context(shared_chat(redis, *options)) for options in (("--workers", "2"), (), ())
        )
        page = stack.enter_context(in_room(one))
        page.call_oneself("Anna")
        neighbour, ben, carla = map(
            stack.enter_context, (nc(one.lines), nc(two.lines), openssl(three.tls))
        )
        programs = {"Adam": neighbour, "Ben": ben, "Carla": carla}
        for name, program in programs.items():
            called(name, program)
        everybody = ("Adam", "Anna", "Ben", "Carla")

        def all_are_known():
            page.wait_people(*everybody)
            for program in programs.values():
                # Asked again and again: a list may come from before the last one was known.
                def knows(program=program):
                    program.send("/who\n")
                    return f"Here now: {', '.join(everybody)}\n" in program.out()
                until(knows, "all are known everywhere")

        def all_hear_all(first, last):
            """Each says these lines; all others get them, once and in order, and nothing else from before."""
            for number in range(first, last):
                for program in programs.values():
                    program.send(f"line {number}\n")
                page.say(f"line {number}")
            expected = {name: list(range(first, last)) for name in everybody}
            page.wait(f"{SAID}.filter(([, words]) => words === 'line {last - 1}').length === 4")
            for name, program in programs.items():
                others = {other: told for other, told in expected.items() if other != name}
                for other in others:
                    program.wait_for(f"<{other}> line {last - 1}\n")
                came = numbers(re.findall(r"<(\w+)> (.*)\n", program.out()))
                equal({other: [n for n in told if n >= first] for other, told in came.items()}, others)
                for told in came.values():
                    equal(told, sorted(set(told)))
            came = numbers(page.run(SAID))
            equal({other: [n for n in told if n >= first] for other, told in came.items()}, expected)
            for told in came.values():
                equal(told, sorted(set(told)))

        all_are_known()
        all_hear_all(0, 30)
        # Redis away: on each process talk goes on, between its workers as well.
        redis.kill()
        away, back = (f"Those on other servers are {how}" for how in ("out of reach", "back"))
        page.wait_notice(away)
        for program in programs.values():
            program.wait_for(re.escape(f"* {away}\n"))
        for number in range(30, 40):
            page.say(f"line {number}")
            neighbour.wait_for(f"<Anna> line {number}\n")
            neighbour.send(f"line {number}\n")
            page.wait_said("Adam", f"line {number}")
            carla.send(f"line {number}\n")
        assert "line 30\n" not in ben.out(), ben.out()
        stack.enter_context(Redis(port=redis.port))
        page.wait_notice(back)
        for program in programs.values():
            program.wait_for(re.escape(f"* {back}\n"))
        all_are_known()
        all_hear_all(40, 60)
        equal([page.run(NOTICES).count(words) for words in (away, back)], [1, 1])
        # Who leaves another process leaves the page's list.
        ben.send("/quit\n")
        page.wait_notice("Ben has left")
        page.wait_people("Adam", "Anna", "Carla")


@check
def a_page_shows_what_was_said_before_and_nothing_of_it_again():
    with Redis() as redis, shared_chat(redis) as one, contextlib.ExitStack() as stack:
        anna = stack.enter_context(nc(one.lines))
        called("Anna", anna)
        for number in range(60):
            anna.send(f"line {number}\n")
        anna.send("/ping end\n")
        anna.wait_for(r"\* pong end")
        page = stack.enter_context(in_room(one))
        page.wait_said("Anna", "line 59")
        equal(page.run(NOTICES).count("Before you came:"), 1)
        page.call_oneself("Ben")
        page.say("and mine")
        anna.wait_for("<Ben> and mine\n")
        # The connection is lost, and while it is, somebody goes on.
        page.run("socket.close()")
        anna.wait_for(r"\* Ben has left")
        anna.send("line 60\n")
        anna.send("line 61\n")
        page.wait_notice("The connection is lost.")
        page.wait_said("Anna", "line 61")
        page.wait("inRoom && people.includes('Ben')")
        anna.send("line 62\n")
        page.wait_said("Anna", "line 62")
        said = [["Anna", f"line {number}"] for number in range(10, 63)]
        equal(page.run(SAID), said[:50] + [["Ben", "and mine"]] + said[50:])


# ---- the page's connection ----


@check
def the_round_trip_is_shown_and_pings_are_for_everybody():
    with Chat() as server, in_room(server) as page, nc(server.lines) as ben:
        shown = page.wait("/^\\d+(\\.\\d)? ms$/.test(document.querySelector('#detail').textContent) "
                          "&& document.querySelector('#detail').textContent")
        assert float(shown.removesuffix(" ms")) < 1000, shown
        # It is measured again and again.
        page.wait("pings >= 2 && ping === null")
        equal(page.run("document.querySelectorAll('.notice').length"), 2)  # you are; has joined
        ben.send("/ping 17\n/ping two words\n/ping\n/ping \x1b[2J\n")
        ben.wait_for(r"\* pong 17\n\* pong two\n\* pong \?\n\* pong \ufffd\[2J\n")
        page.say("/ping hello")
        page.wait_notice("pong hello")


@check
def the_panel_shows_live_figures_while_it_is_open():
    with Chat() as server, in_room(server) as page:
        you = page.run("me")
        equal(page.run("document.querySelector('#live').open"), False)
        page.run("document.querySelector('#live summary').click()")
        page.wait("document.querySelectorAll('#figures dt').length >= 6")
        shown = "[...document.querySelectorAll('#figures dt')].map(t => [t.textContent, t.nextElementSibling.textContent])"
        equal(dict(page.run(shown))["here"], "1")
        # The same line, when somebody asks for it, is a notice; those of the panel are none.
        equal(page.run("[...log.children].filter(e => /lines said/.test(e.textContent)).length"), 0)
        page.say("/stats")
        page.wait("[...log.children].filter(e => /lines said/.test(e.textContent)).length === 1")
        # A command ends at U+0020: this is another one, and nothing is expected for it.
        page.say("/stats\u00a0please")
        page.wait_notice("I do not know /stats\u00a0please. /nick NAME  /who  /ping WORD  /stats  /quit  /help; anything else is said to everybody")
        equal(page.run("asked.includes('log')"), False)
        with Person(server.lines) as other:
            other.say("hello")
            page.wait_said(other.name, "hello")
            page.run("askFigures()")  # which it does by itself within five seconds
            page.wait("[...document.querySelectorAll('#figures dd')][1].textContent === '1'")
            page.wait("[...document.querySelectorAll('#figures dt')].some(t => t.textContent === 'messages out')")
        page.run("document.querySelector('#live summary').click()")
        page.wait("document.querySelector('#live').open === false")
        equal(page.run("me"), you)


@check
def the_page_comes_back_after_a_restart():
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Chat())
        anna, ben = (stack.enter_context(in_room(server)) for _ in range(2))
        anna.call_oneself("Anna")
        ben.call_oneself("Ben")
        # First the graceful way, then a crash.
        for number in (signal.SIGINT, signal.SIGKILL):
            server.stop(number)
            if number == signal.SIGINT:
                equal(server.process.returncode, 0)
                anna.wait_notice("The room is closing. Goodbye!")
            for page in (anna, ben):
                page.state("reconnecting")
                page.wait_notice("The connection is lost.")
                equal(page.people(), [])
            # What cannot be sent stays where it was written.
            anna.run("document.querySelector('#text').focus()")
            anna.type("Are you there?")
            anna.press("Enter")
            anna.wait("/not sent/.test(document.querySelector('#hint').textContent)")
            equal(anna.run("document.querySelector('#text').value"), "Are you there?")
            anna.run("document.querySelector('#text').value = ''")
            server = stack.enter_context(Chat(ports=server.ports))
            for page in (anna, ben):
                page.state("connected")
                page.wait_people("Anna", "Ben")
            said = f"after {number.name}"
            anna.say(said)
            ben.wait_said("Anna", said)
            anna.wait("document.querySelector('#hint').textContent === ''")


@check
def it_waits_longer_after_each_failure_and_not_in_step():
    with Chat() as server, in_room(server) as page:
        # In the server's place sits something that hangs up on everybody.
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.stop(signal.SIGKILL)
            listener.bind(("127.0.0.1", server.web))
            listener.listen()
            listener.settimeout(PATIENCE)
            times = []
            while len(times) < 5:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    if connection.recv(4096).startswith(b"GET /room "):
                        times.append(time.monotonic())
            gaps = [after - before for before, after in zip(times, times[1:])]
            for number, gap in enumerate(gaps):
                most = 0.5 * 2 ** (number + 1)  # the wait before the first one is not seen
                assert most / 2 - 0.1 <= gap <= most + 1.5, gaps
            # Nobody need wait: the button tries at once.
            page.wait("!document.querySelector('#again').hidden && retryAt > performance.now() + 1000")
            page.run("document.querySelector('#again').focus()")
            before = time.monotonic()
            page.press("Enter")
            listener.accept()[0].close()
            assert time.monotonic() - before < 1.5, "the button did not try at once"


@check
def a_server_that_says_nothing_any_more_is_noticed():
    with Chat() as server, in_room(server) as page:
        page.wait("pings >= 1 && ping === null")
        server.process.send_signal(signal.SIGSTOP)
        try:
            page.state("reconnecting")
        finally:
            server.process.send_signal(signal.SIGCONT)
        page.state("connected")
        page.say("/who")
        page.wait_people(*page.people()[:1])


@check
def a_page_that_does_not_read_never_stalls_the_room():
    with Chat() as server, RawSocket(server.web, receive_buffer=4096):
        # Nor does somebody who reads nothing behind TLS.
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE)
        slow.connect(("127.0.0.1", server.tls))
        with trusting.wrap_socket(slow) as slow:
            assert slow.recv(100).startswith(b"* Welcome")
            with Person(server.lines) as a, Person(server.lines) as b:
                equal(a.line(), "* guest4 has joined")
                said, gone = 0, set()
                while len(gone) < 2:
                    a.say(f"{said} " + "x" * 1000)
                    line = b.line()
                    while line.startswith("* "):
                        gone.add(re.match(r"\* (guest\d) could not keep up", line).group(1))
                        line = b.line()
                    assert line.startswith(f"<guest3> {said} x"), line
                    said += 1
                    assert said < 20_000, "nobody was disconnected"
                equal(gone, {"guest1", "guest2"})


# ---- the page as a page ----


@check
def the_page_is_served_with_sensible_headers_and_nothing_else_is():
    with Chat() as server:

        def ask(method, path, **fields):
            connection = http.client.HTTPConnection("127.0.0.1", server.web, timeout=PATIENCE)
            connection.request(method, path, headers=fields)
            answer = connection.getresponse()
            return answer, answer.read()

        answer, page = ask("GET", "/")
        equal(answer.status, 200)
        equal(answer.getheader("Content-Type"), "text/html; charset=utf-8")
        equal(answer.getheader("Cache-Control"), "no-store")
        equal(answer.getheader("X-Content-Type-Options"), "nosniff")
        policy = answer.getheader("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy, policy
        for element in (b"script", b"style"):
            content = page.split(b"<%s>" % element)[1].split(b"</%s>" % element)[0]
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            assert f"{element.decode()}-src 'sha256-{digest}'" in policy, policy
        # Nothing comes from elsewhere.
        outside = re.findall(rb"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)(\w+:)?//[^\s\"')]+", page)
        equal(outside, [])
        equal(ask("GET", "/?from=bookmark")[0].status, 200)
        answer, body = ask("HEAD", "/")
        equal((answer.status, body), (200, b""))
        for path in ("/favicon.ico", "/room", "/../Cargo.toml", "//", "/index.html"):
            equal(ask("GET", path)[0].status, 404)
        answer, _ = ask("POST", "/")
        equal((answer.status, answer.getheader("Allow")), (405, "GET, HEAD"))


@check
def only_our_own_page_may_open_the_socket():
    with Chat() as server:

        def status(path="/room", **fields):
            with socket.create_connection(("127.0.0.1", server.web), timeout=PATIENCE) as s:
                s.sendall(upgrade_request(server.web, path, **fields).encode())
                return s.recv(12).decode()

        equal(status(), "HTTP/1.1 101")  # a program, not a browser
        equal(status(Origin=server.url.rstrip("/")), "HTTP/1.1 101")
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.web + 1}"):
            equal(status(Origin=origin), "HTTP/1.1 403")
        equal(status("/elsewhere"), "HTTP/1.1 404")
        # A real page from elsewhere, in a real browser.
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:

            def serve():
                while True:
                    try:
                        connection, _ = elsewhere.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n")

            threading.Thread(target=serve, daemon=True).start()
            foreign = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
            with BROWSER.page(foreign, chat=False) as page:
                page.wait(f"location.href === '{foreign}' && document.readyState === 'complete'")
                socket_of_ours = (
                    f"new Promise(done => {{ const s = new WebSocket('{server.url}room');"
                    "s.onopen = () => done('open'); s.onclose = () => done('refused') })"
                ).replace("'http:", "'ws:")
                equal(page.run(socket_of_ours), "refused")
            elsewhere.shutdown(socket.SHUT_RDWR)


@check
def everything_can_be_done_with_the_keyboard_alone():
    outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
    with Chat() as server, in_room(server) as page, nc(server.lines) as ben:
        ben.wait_for("Here now")
        equal(page.focused(), "text")  # one can write at once
        page.type("Typed, not clicked")
        page.press("Enter")
        ben.wait_for("<guest1> Typed, not clicked\n")
        equal(page.focused(), "text")
        # Around the page, backwards; each stop can be seen.
        stops = []
        for _ in range(5):
            page.press("Tab", shift=True)
            stops.append(page.focused())
            assert page.run(outlined), stops
        equal(stops, ["log", "SUMMARY", "BUTTON", "name", "SUMMARY"])
        # The list of names closes and opens.
        page.press("Enter")
        equal(page.run("document.querySelector('#people').open"), False)
        page.press("Enter")
        equal(page.run("document.querySelector('#people').open"), True)
        # Another name.
        page.press("Tab")
        equal(page.focused(), "name")
        page.type("Kim")  # replaces what was there: a field entered by Tab is selected
        page.press("Enter")
        page.wait_notice("You are now Kim.")
        ben.wait_for(r"\* guest1 is now Kim\n")
        equal(page.focused(), "text")
        page.press("Tab")
        equal(page.focused(), "BUTTON")
        page.press("Tab", shift=True)
        # The log scrolls, and stays where it is when news come.
        for number in range(60):
            ben.send(f"line {number}\n")
        page.wait_said("guest2", "line 59")
        page.wait("log.scrollHeight - log.scrollTop - log.clientHeight < 2")
        page.press("Tab", shift=True)
        equal(page.focused(), "log")
        page.press("Home")
        page.wait("log.scrollTop === 0")
        ben.send("news\n")
        page.wait("!document.querySelector('#newer').hidden")
        page.run("new Promise(requestAnimationFrame)")
        equal(page.run("log.scrollTop"), 0)
        page.press("Tab")
        equal(page.focused(), "newer")
        page.press("Enter")
        page.wait("log.scrollHeight - log.scrollTop - log.clientHeight < 2")
        equal(page.focused(), "text")
        # Leaving, and coming back.
        page.say("/quit")
        page.state("left")
        page.wait_notice("You have left.")
        ben.wait_for(r"\* Kim has left\n")
        for _ in range(6):
            page.press("Tab", shift=True)
            if page.focused() == "again":
                break
        equal(page.focused(), "again")
        page.press(" ")
        page.state("connected")
        page.wait_notice("You are Kim.")
        equal(page.focused(), "text")


@check
def it_says_what_it_is_to_a_screen_reader():
    with Chat() as server, in_room(server) as page:
        page.wait_people("guest1")
        nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
        found = {
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        }
        expected = {
            ("log", "Conversation"),
            ("textbox", "Message"),
            ("textbox", "Your name"),
            ("button", "Send"),
            ("button", "Change"),
            ("heading", "tidegate chat"),
            ("list", "Who is here"),
        }
        assert expected <= found, expected - found
        live = {node["role"]["value"] for node in nodes if any(
            p["name"] == "live" and p["value"]["value"] == "polite"
            for p in node.get("properties", []))}
        assert {"log", "status"} <= live, live
        equal(page.run("document.documentElement.lang"), "en")
        # The time, which changes every few seconds, is not in what is read out.
        assert page.run("!document.querySelector('#detail').closest('[role=status], [aria-live]')")


CONTRASTS = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.matches('input');
    if (!words || !e.checkVisibility()) continue;
    const pair = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
    const ratio = (pair[0] + .05) / (pair[1] + .05);
    if (ratio < 4.5) poor.push(`${e.localName}.${e.className}#${e.id} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


@check
def it_can_be_read_in_light_and_dark_and_without_motion():
    with Chat() as server, in_room(server) as page:
        with contextlib.ExitStack() as stack:
            # Every colour that a name may have.
            for number in range(40):
                person = stack.enter_context(Person(server.lines))
                person.say(f"I am number {number}")
            page.wait_said("guest41", "I am number 39")
            page.say("And I am me")
            equal(page.run("new Set([...document.querySelectorAll('li')].map(e => e.className)).size"), 8)
            grounds = []
            for dark in (False, True):
                page.media(dark=dark)
                equal(page.run(CONTRASTS), [])
                grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
            assert grounds[0] != grounds[1], "dark is as light"
        server.stop()
        page.state("reconnecting")
        assert page.run("document.getAnimations().length") > 0
        equal(page.run(CONTRASTS), [])
        page.media(calm=True)
        equal(page.run("document.getAnimations().length"), 0)
        equal(page.run(CONTRASTS), [])


@check
def it_fits_on_a_phone():
    inside = """[...document.querySelectorAll('#text, #say button:not([hidden]), #state, #people > summary, #log')]
        .every(e => { const r = e.getBoundingClientRect();
            return r.left >= 0 && r.right <= innerWidth && r.top >= 0 && r.bottom <= innerHeight })"""
    fits = "document.documentElement.scrollWidth <= innerWidth && scrollX === 0"
    large = """[...document.querySelectorAll('button, input, summary')].filter(e => e.checkVisibility())
        .every(e => e.getBoundingClientRect().height >= 35)"""
    for width, height in ((320, 568), (390, 844), (844, 390)):
        phone = {"width": width, "height": height, "phone": True, "scale": 2}
        with Chat() as server, in_room(server, **phone) as page, Person(server.lines) as person:
            person.say("/nick " + "W" * 20)
            for number in range(30):
                person.say(f"{number} " + "unbreakable" * 40)
            page.wait_said("W" * 20, "29 " + "unbreakable" * 40)
            page.say("w" * 900)
            page.call_oneself("M" * 20)
            for _ in range(2):
                assert page.run(fits), (width, page.run("document.documentElement.scrollWidth"))
                assert page.run(inside), (width, height)
                assert page.run(large), (width, height)
                assert page.run("log.scrollWidth <= log.clientWidth"), "the log scrolls sideways"
                # Fingers are not kept from the text by a list of names that is in the way.
                assert page.run("log.clientHeight") > height / 6, page.run("log.clientHeight")
                page.run("document.querySelector('summary').click()")
            # The keyboard comes up and takes half of the height: the end stays in view.
            page.run("toEnd()")
            page.ask(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=max(height // 2, 300),
                deviceScaleFactor=2,
                mobile=True,
            )
            page.wait(f"innerHeight < {max(height // 2, 300) + 1}")
            page.wait("log.scrollHeight - log.scrollTop - log.clientHeight < 2")
            assert page.run(inside), "something is off the screen while the keyboard is up"
            # Text of 16 pixels at least, or an iPhone zooms in when a field is touched.
            size = "Math.min(...[...document.querySelectorAll('input')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
            assert page.run(size) >= 16


@check
def a_long_log_is_cut_and_stays_quick():
    with Chat() as server, in_room(server) as page, Person(server.lines) as person:
        begin = time.monotonic()
        for number in range(2000):
            person.say(f"line {number}")
        page.wait_said("guest2", "line 1999")
        assert page.run("log.childElementCount") <= 500
        assert time.monotonic() - begin < PATIENCE
        page.state("connected")


# ---- certificates ----


@check
def the_certificate_of_the_run_has_the_fingerprint_that_is_printed():
    with Chat() as server:
        printed = server.wait_for(r"self-signed certificate, SHA-256 ([0-9A-F:]{95})\n").group(1)
        pem = ssl.get_server_certificate(("127.0.0.1", server.tls), timeout=PATIENCE)
        der = ssl.PEM_cert_to_DER_cert(pem)
        equal(printed.replace(":", "").lower(), hashlib.sha256(der).hexdigest())
        # Who has got it by another way can check it in full.
        context = ssl.create_default_context(cadata=pem)
        for name in ("localhost", "127.0.0.1"):
            with socket.create_connection(("127.0.0.1", server.tls), timeout=PATIENCE) as s:
                with context.wrap_socket(s, server_hostname=name) as s:
                    assert s.recv(100).startswith(b"* Welcome. You are guest")


@check
def ones_own_certificate_is_used():
    with tempfile.TemporaryDirectory() as directory:
        chain, key = (os.path.join(directory, name) for name in ("chain.pem", "key.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-keyout", key, "-out", chain, "-days", "2", "-subj", "/CN=chat.test"]
            + ["-addext", "subjectAltName=DNS:chat.test"],
            check=True,
            capture_output=True,
        )
        with Chat("--cert", chain, "--key", key) as server:
            assert "self-signed" not in server.out()
            options = ("-CAfile", chain, "-verify_return_error", "-verify_hostname", "chat.test")
            with openssl(server.tls, *options) as anna:
                anna.wait_for(r"\* Welcome\. You are guest1")
        with example("chat", "--cert", chain) as program:
            one_line(program, "^chat: expected --cert and --key, or neither", status=2)
        with example("chat", "--cert", key, "--key", key) as program:
            one_line(program, "^chat: .*key.pem: expected \"BEGIN CERTIFICATE\"")
    with example("chat", "--cert", "/nonexistent", "--key", "/nonexistent") as program:
        one_line(program, "^chat: .*/nonexistent")


@check
def an_address_in_use_is_told_for_each_door():
    free = "127.0.0.1:0"
    with Chat() as server:
        for door in ("--tls", "--web"):
            other = "--web" if door == "--tls" else "--tls"
            taken = f"127.0.0.1:{server.web}"
            with example("chat", free, other, free, door, taken) as program:
                one_line(program, rf"^chat: cannot listen on {taken}: .*in use")


# ---- the picture ----


@check
def a_picture_of_the_room():
    with Chat() as server, contextlib.ExitStack() as stack:
        anna = stack.enter_context(in_room(server, width=780, height=640))
        anna.call_oneself("Anna")
        ben = stack.enter_context(in_room(server, width=340, height=640, phone=True, dark=True))
        ben.call_oneself("Ben")
        carla = stack.enter_context(nc(server.lines))
        ida = stack.enter_context(openssl(server.tls))
        others = {"Carla": carla, "Ida": ida}
        for name, program in others.items():
            program.wait_for(r"\* Welcome\.")
            program.send(f"/nick {name}\n")
            anna.wait_notice(f"{name} has joined")
        pages = {"Anna": anna, "Ben": ben}
        conversation = [
            ("Carla", "Good morning! Plain nc here, on port 8888."),
            ("Ida", "And I came through openssl s_client. Same room?"),
            ("Anna", "Same room: a browser, over WebSocket."),
            ("Anna", "The handler is one type and knows none of that."),
            ("Ben", "From my phone, on the train. Tunnel ahead, it will reconnect by itself."),
            ("Carla", "<b>Does markup work?</b>"),
            ("Ben", "No, text stays text."),
        ]
        for name, words in conversation:
            if name in pages:
                pages[name].say(words)
            else:
                others[name].send(words + "\n")
            anna.wait_said(name, words)
            ben.wait_said(name, words)
        for page in pages.values():
            page.wait_people("Anna", "Ben", "Carla", "Ida")
            # Everything has just been laid out; an idle moment says more of the server.
            for _ in range(40):
                page.run("new Promise(done => { sendPing(); setTimeout(done, 50) })")
                if page.run("parseFloat(document.querySelector('#detail').textContent) < 2"):
                    break
        anna.type("Welcome, all of you!")
        with BROWSER.page("about:blank", chat=False, width=1200, height=704) as frame:
            pictures = [base64.b64encode(page.picture()).decode() for page in (anna, ben)]
            frame.run(
                "document.body.style = 'margin:0;padding:32px;display:flex;gap:32px;"
                "background:#b9cdd1;height:640px';"
                + "".join(
                    "document.body.append(Object.assign(new Image(), "
                    f"{{src: 'data:image/png;base64,{picture}', style: 'border-radius:14px'}}));"
                    for picture in pictures
                )
                + "Promise.all([...document.images].map(i => i.decode())).then(() => 1)"
            )
            picture = frame.picture()
        assert 10_000 < len(picture) < MOST_BYTES, len(picture)
        if SCREENSHOT:
            with open(SCREENSHOT, "wb") as file:
                file.write(picture)


# ---- the run ----


def main():
    global BROWSER
    path = chromium()
    missing = [
        what
        for what, there in (
            ("chromium (apt-get install chromium, or set CHROMIUM to one)", path),
            ("nc (apt-get install netcat-openbsd)", shutil.which("nc")),
            ("openssl (apt-get install openssl)", shutil.which("openssl")),
            ("redis-server (apt-get install redis-server)", shutil.which("redis-server")),
            (
                f"{DIRECTORY}/chat (cargo build --release --example chat)",
                os.path.exists(os.path.join(DIRECTORY, "chat")),
            ),
        )
        if not there
    ]
    if missing:
        print(f"FAILED   missing: {'; '.join(missing)}\n0 passed, {len(chosen())} failed", flush=True)
        sys.exit(1)
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
    print(version, flush=True)
    BROWSER = Browser(path)
    try:
        run()
    finally:
        BROWSER.close()


if __name__ == "__main__":
    main()
