"""Progress: counted, silent off a terminal but for a line now and then."""

import logging

import pytest

from pipeline import progress


def test_track_yields_everything_in_order() -> None:
    assert list(progress.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]


def test_a_line_is_logged_when_the_work_is_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, logger="interlingua"), progress.meter("rows", 4) as meter:
        meter.advance(2, note="half")
    assert "rows: 2 of 4" in caplog.text
    assert "half" in caplog.text


def test_short_work_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="interlingua"), progress.meter("rows", 1) as meter:
        meter.advance()
    assert caplog.text == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.meter("rows", 2) as meter:
        assert isinstance(meter, progress.Bar)
        meter.advance(note="one")
        assert meter.bar.tasks[0].completed == 1
