"""Fetching a stranger's URL: from real servers with real certificates, who do their worst."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from aiohttp import web

from pipeline.addresses import is_public
from pipeline.errors import ProtocolError
from pipeline.fetch import FetchLimits, Network, fetch
from tests.certificates import Authority

HERE = "127.0.0.1"
"""Where the test's server is: what it alone takes for a public address."""
BODY = bytes(range(256)) * 1000
TEST_LIMIT_S = 20.0

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Names:
    """A name server whose answers are written down, one after the other, the last one again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): list(each) for name, each in answers.items()}

    async def look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host, [()])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return authority.server(tmp_path_factory.mktemp("tls"), "sample.test", HERE)


class World:
    """One server that answers as it is told, and a network that leads to it."""

    def __init__(self, tls: ssl.SSLContext | None, trusted: ssl.SSLContext) -> None:
        self.requests: list[web.Request] = []
        self.answer: Answer = plain
        self.names = Names(sample_test=[[HERE]])
        self.limits = FetchLimits()
        self.trusted: ssl.SSLContext | bool = trusted
        self.port = 0
        self._tls = tls

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._respond)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, HERE, 0, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    async def fetch(self, url: str, *, allow_http: bool = False) -> bytes:
        """Fetch; ``PORT`` in a URL is the server's."""
        limits = replace(self.limits, ports=self.limits.ports | {self.port})
        network = Network(self.names.look_up, lambda address: address == HERE or is_public(address), self.trusted)
        return await fetch(url.replace("PORT", str(self.port)), limits, allow_http=allow_http, network=network)

    def run(self, url: str, *, allow_http: bool = False) -> bytes:
        async def main() -> bytes:
            async with asyncio.timeout(TEST_LIMIT_S), self.served():
                return await self.fetch(url, allow_http=allow_http)

        return asyncio.run(main())

    def refusal(self, url: str = "https://sample.test:PORT/") -> tuple[int, str]:
        with pytest.raises(ProtocolError) as refused:
            self.run(url)
        assert refused.value.param == "voiceSampleUrl"
        return refused.value.status, str(refused.value)


async def plain(_: web.Request) -> web.StreamResponse:
    return web.Response(body=BODY)


@pytest.fixture
def world(tls: ssl.SSLContext, authority: Authority) -> World:
    return World(tls, authority.trusted())


def test_a_body_arrives_whole(world: World) -> None:
    assert world.run("https://sample.test:PORT/voice.wav?token=1") == BODY
    (request,) = world.requests
    assert (request.path_qs, request.host) == ("/voice.wav?token=1", f"sample.test:{world.port}")
    assert request.headers["Accept-Encoding"] == "identity"
    assert {"Authorization", "Cookie", "Referer"}.isdisjoint(request.headers)


def test_an_address_may_stand_in_the_url(world: World) -> None:
    assert world.run(f"https://{HERE}:PORT/") == BODY
    assert world.names.asked == []


def test_http_only_where_it_is_allowed(authority: Authority) -> None:
    world = World(None, authority.trusted())
    assert world.run("http://sample.test:PORT/", allow_http=True) == BODY
    assert world.refusal("http://sample.test:PORT/")[0] == 400


def test_a_proxy_of_this_machine_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert world.run("https://sample.test:PORT/") == BODY


@pytest.mark.parametrize(
    "url",
    [
        *("", "voice.wav", "https://", "https:///voice.wav", "https://[::1", "https://sample.test:99999/"),
        *("ftp://sample.test/", "file:///etc/passwd", "data:audio/wav;base64,", "http://sample.test/"),
        *("https://user:secret@sample.test/", "https://user@sample.test/", "https://:@sample.test/"),
        *("https://sample.test:22/", "https://sample.test:0/", "https://sample.test/" + "a" * 3000),
    ],
)
def test_a_url_that_is_none_or_not_of_the_kind_is_refused(url: str, world: World) -> None:
    status, message = world.refusal(url)
    assert status == 400
    assert "secret" not in message and len(message) < 200
    assert world.names.asked == []


PRIVATE = [
    *("127.0.0.2", "169.254.169.254", "[::1]", "[::ffff:127.0.0.2]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]"),
    *("10.0.0.1", "0.0.0.0", "100.100.100.200", "[fe80::1%25eth0]", "[::]", "224.0.0.1", "localhost", "2130706434"),
    *("0x7f.2", "private.test", "both.test", "nobody.test", "①②⑦.⓪.⓪.②"),
]
NAMES = {"private_test": [["10.1.2.3"]], "both_test": [[HERE, "10.1.2.3"]], "localhost": [["127.0.0.2"]]}


@pytest.mark.parametrize("host", PRIVATE)
def test_what_is_not_public_is_refused_and_not_described(host: str, world: World) -> None:
    world.names = Names(**NAMES)
    status, message = world.refusal(f"https://{host}/")
    assert (status, message) == (403, "voiceSampleUrl leads to a host that has no public address")
    assert world.requests == []


@pytest.mark.parametrize("host", PRIVATE)
def test_a_redirect_there_is_refused_as_well(host: str, world: World) -> None:
    world.names = Names(sample_test=[[HERE]], **NAMES)
    world.answer = redirected(f"https://{host}/")
    assert world.refusal()[0] == 403
    assert len(world.requests) == 1


def redirected(*where: str, status: int = 302) -> Answer:
    """Lead to each place in turn, then answer."""
    left = list(where)

    async def answer(request: web.Request) -> web.StreamResponse:
        if not left:
            return await plain(request)
        location = left.pop(0).replace("PORT", str(request.url.port))
        return web.Response(status=status, headers={"Location": location})

    return answer


@pytest.mark.parametrize(
    "where", ["http://sample.test:PORT/", "ftp://sample.test/", "file:///etc/passwd", "https://u:p@sample.test:PORT/"]
)
def test_a_redirect_is_a_url_like_any_other(where: str, world: World) -> None:
    world.answer = redirected(where)
    assert world.refusal()[0] == 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, world: World) -> None:
    world.answer = redirected("/a", "b?c=1", "//sample.test:PORT/d", status=status)
    assert world.run("https://sample.test:PORT/") == BODY
    assert [request.path_qs for request in world.requests] == ["/", "/a", "/b?c=1", "/d"]


def test_but_not_for_ever(world: World) -> None:
    world.answer = redirected(*["/"] * 9)
    assert world.refusal() == (422, "voiceSampleUrl is redirected more than 3 times")
    assert len(world.requests) == 4


def test_a_redirect_to_nowhere_is_refused(world: World) -> None:
    async def nowhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302)

    world.answer = nowhere
    assert world.refusal()[0] == 422


def test_a_name_that_changes_its_mind_leads_nowhere_else(world: World) -> None:
    world.names = Names(sample_test=[[HERE], ["127.0.0.2"]])
    assert world.run("https://sample.test:PORT/") == BODY
    assert world.names.asked == ["sample.test"]


def test_nor_between_two_redirects(world: World) -> None:
    world.names = Names(sample_test=[[HERE], ["127.0.0.2"]])
    world.answer = redirected("/again")
    assert world.refusal()[0] == 403
    assert len(world.requests) == 1


# --- certificates


def test_a_certificate_for_another_name_is_refused(world: World) -> None:
    world.names = Names(other_test=[[HERE]])
    status, message = world.refusal("https://other.test:PORT/")
    assert (status, "certificate" in message) == (422, True)
    assert world.requests == []


def test_a_certificate_nobody_vouches_for_is_refused(world: World) -> None:
    world.trusted = True
    status, message = world.refusal()
    assert (status, "certificate" in message) == (422, True)


# --- servers that do their worst


def chunks(piece: bytes, pause_s: float, headers: dict[str, str] | None = None) -> Answer:
    """Send the same piece for ever."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(pause_s)

    return answer


def test_an_endless_body_is_cut_off(world: World) -> None:
    world.limits = FetchLimits(size_bytes=100_000)
    world.answer = chunks(BODY, 0)
    status, message = world.refusal()
    assert (status, "at most 100000 bytes" in message) == (413, True)


def test_a_body_announced_as_too_long_is_not_read(world: World) -> None:
    world.limits = FetchLimits(size_bytes=100_000)
    world.answer = chunks(b"", 0.01, {"Content-Length": "100001"})
    assert world.refusal()[0] == 413


def test_the_longest_body_is_taken(world: World) -> None:
    world.limits = FetchLimits(size_bytes=len(BODY))
    assert world.run("https://sample.test:PORT/") == BODY


def test_a_drip_does_not_hold_us(world: World) -> None:
    world.limits = FetchLimits(total_s=0.3)
    world.answer = chunks(b"x", 0.01)
    status, message = world.refusal()
    assert (status, "within 0.3 s" in message) == (422, True)


def test_nor_does_silence(world: World) -> None:
    world.limits = FetchLimits(silence_s=0.1)
    world.answer = chunks(b"", 60.0)
    assert world.refusal()[0] == 422


def test_nor_does_a_server_that_never_shakes_hands(authority: Authority) -> None:
    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    status, message = refusal_of(wait, authority, FetchLimits(total_s=0.3))
    assert (status, "within 0.3 s" in message) == (422, True)


def test_nothing_is_decompressed(world: World) -> None:
    bomb = gzip.compress(bytes(10_000_000))

    async def compressed(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    world.answer = compressed
    status, message = world.refusal()
    assert (status, "compressed" in message) == (422, True)


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
def test_another_answer_than_200_is_told(status: int, world: World) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    world.answer = answer
    assert world.refusal() == (422, f"voiceSampleUrl is answered with status {status}")


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    ],
)
def test_a_server_that_breaks_off_or_speaks_no_http_is_told(
    words: bytes, authority: Authority, tls: ssl.SSLContext
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(words)

    status, message = refusal_of(say, authority, FetchLimits(), tls)
    assert (status, HERE in message) == (422, False)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def refusal_of(
    talk: Talk, authority: Authority, limits: FetchLimits, tls: ssl.SSLContext | None = None
) -> tuple[int, str]:
    """Fetch from a server below HTTP."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def main() -> None:
        async with asyncio.timeout(TEST_LIMIT_S), asyncio.TaskGroup() as serving:
            server = await asyncio.start_server(
                lambda reader, writer: void(serving.create_task(serve(reader, writer))), HERE, 0, ssl=tls
            )
            async with server:
                port = server.sockets[0].getsockname()[1]
                network = Network(Names(sample_test=[[HERE]]).look_up, lambda _: True, authority.trusted())
                bounds = replace(limits, ports=frozenset({port}))
                with pytest.raises(ProtocolError) as refused:
                    await fetch(f"https://sample.test:{port}/", bounds, network=network)
        told.append((refused.value.status, str(refused.value)))

    told: list[tuple[int, str]] = []
    asyncio.run(main())
    return told[0]


def void(_: object) -> None:
    """Return nothing: what asyncio wants of a plain callback."""


def test_nobody_at_home_is_told(world: World) -> None:
    async def main() -> None:
        async with world.served():
            pass
        with pytest.raises(ProtocolError, match="cannot be reached"):
            await world.fetch("https://sample.test:PORT/")

    asyncio.run(main())


def test_canceling_closes_the_connection(world: World) -> None:
    gone = asyncio.Event()

    async def hold(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()
        return web.Response()

    async def main() -> None:
        async with asyncio.timeout(TEST_LIMIT_S), world.served():
            task = asyncio.create_task(world.fetch("https://sample.test:PORT/"))
            while not world.requests:  # noqa: ASYNC110 - a request is nothing to wait for
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()

    world.answer = hold
    asyncio.run(main())
