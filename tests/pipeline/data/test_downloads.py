from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.data import downloads
from pipeline.data.archives import SourceError
from pipeline.data.sources import fetch

BODY = bytes(range(256)) * 20


class Server:
    """Serves BODY; breaks off after `breaks` bytes per answer, honours ranges, remembers what was asked."""

    def __init__(self, breaks: int | None = None, etag: str = '"one"', ranges: bool = True) -> None:
        self.breaks, self.etag, self.ranges = breaks, etag, ranges
        self.asked: list[str | None] = []

    def __call__(self, request: Request) -> Response:
        wanted, guard = request.headers.get("Range"), request.headers.get("If-Range")
        self.asked.append(wanted)
        resumed = bool(wanted) and self.ranges and guard == self.etag
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and resumed else 0
        rest = BODY[start:]
        response = Response(rest[: self.breaks], status=206 if resumed else 200)
        response.headers["Content-Length"] = str(len(rest))
        response.headers["ETag"] = self.etag
        if resumed:
            response.headers["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        return response


@pytest.fixture
def get(httpserver: HTTPServer, tmp_path: Path):
    def fetched(server, limit: int = 1 << 20) -> bytes:
        httpserver.clear_all_handlers()
        httpserver.expect_request("/set.bin").respond_with_handler(server)
        return fetch(httpserver.url_for("/set.bin"), None, tmp_path, limit=limit, loopback=True).read_bytes()

    return fetched


def test_a_download_is_kept_and_not_asked_for_again(get) -> None:
    server = Server()
    assert get(server) == BODY
    assert get(server) == BODY
    assert server.asked == [None]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(get) -> None:
    server = Server(breaks=2000)
    assert get(server) == BODY
    assert server.asked == [None, "bytes=2000-", "bytes=4000-"]


def test_what_came_before_an_interruption_is_kept_for_the_next_run(get, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with pytest.raises(
        SourceError, match=r"broke off after 2,000 of 5,120 bytes\. 2,000 bytes are kept; run again"
    ):
        get(Server(breaks=2000))
    assert [f.stat().st_size for f in tmp_path.rglob("*.part")] == [2000]
    server = Server()
    assert get(server) == BODY
    assert server.asked == ["bytes=2000-"]
    assert not list(tmp_path.rglob("*.part*"))


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(get, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with pytest.raises(SourceError):
        get(Server(breaks=2000, etag='"old"'))
    assert get(Server(etag='"new"')) == BODY


def test_a_server_without_ranges_is_fetched_from_the_start(get, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with pytest.raises(SourceError):
        get(Server(breaks=2000))
    assert get(Server(ranges=False)) == BODY


def test_a_weak_tag_is_not_trusted_to_resume(get, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with pytest.raises(SourceError):
        get(Server(breaks=2000, etag='W/"one"'))
    server = Server(etag='W/"one"')
    assert get(server) == BODY
    assert server.asked == [None]


def test_a_range_that_the_server_refuses_starts_again(get, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with pytest.raises(SourceError):
        get(Server(breaks=2000))
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    whole = Server()
    answers = iter([lambda _: Response(status=416), whole])
    assert get(lambda request: next(answers)(request)) == BODY
    assert whole.asked == [None]


def test_a_missing_file_is_not_asked_for_twice(get) -> None:
    asked = []
    with pytest.raises(SourceError, match="the server answers 404 NOT FOUND"):
        get(lambda request: asked.append(1) or Response(status=404))
    assert asked == [1]


def test_a_busy_server_is_asked_again(get) -> None:
    answers = iter([lambda _: Response(status=503), Server()])
    assert get(lambda request: next(answers)(request)) == BODY


def test_a_promised_size_over_the_limit_is_refused(get) -> None:
    with pytest.raises(SourceError, match="5,120 bytes or more, over the limit of 5,000"):
        get(Server(), limit=5000)


def test_a_stream_without_a_size_is_stopped_at_the_limit(get) -> None:
    with pytest.raises(SourceError, match="over the limit of 5,000"):
        get(lambda _: Response(iter([BODY, BODY])), limit=5000)


def test_plain_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="http is no kind of source; did you mean 'https'"):
        fetch("http://127.0.0.1/x", None, tmp_path)
    with pytest.raises(SourceError, match="http is no kind of source"):
        fetch("http://example.com/x", None, tmp_path, loopback=True)


def test_https_that_leads_to_http_is_refused(get, monkeypatch, tmp_path: Path) -> None:
    class Led:
        url, status, headers = "http://example.com/set.bin", 200, {}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *_, **__: Led())
    with pytest.raises(SourceError, match=r"redirects to http://example.com/set.bin, which is not https"):
        downloads.receive("https://example.com/set.bin", tmp_path / "set.bin.part", 100)
