"""A batch's results stand in the ledger as if they had been asked one by one."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.knowledge import batch
from pipeline.knowledge.answers import Imported, Ledger
from pipeline.knowledge.asking import NotConnected, ask_all
from pipeline.knowledge.settings import Prices
from tests.chat_endpoint import fails, says
from tests.toy_chat import draft_of, requests, settings_of

CHAT = settings_of("http://127.0.0.1:9/v1")
PRICES = Prices(input=1.0, output=2.0)


def written(folder: Path, *films: str) -> Path:
    """The batch's requests for these films."""
    with pytest.raises(NotConnected) as found:
        ask_all(requests(*films), CHAT, draft_of(folder))
    batch.write(folder / "requests.jsonl", found.value.batch)
    return folder / "requests.jsonl"


def result(line: str, body: bytes = says("Thieves.").body, **changed: Any) -> str:
    named = {"custom_id": json.loads(line)["custom_id"], "response": {"body": json.loads(body)}}
    return json.dumps({**named, **changed})


def results(folder: Path, *lines: str) -> Path:
    (folder / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder / "results.jsonl"


def test_a_request_is_what_the_interface_takes(tmp_path: Path) -> None:
    (line,) = written(tmp_path, "Heat").read_text().splitlines()
    held = json.loads(line)
    assert (held["method"], held["url"], held["custom_id"][32:]) == (
        "POST",
        "/v1/chat/completions",
        "-1-0-films",
    )
    assert held["body"] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Heat"}],
        "temperature": 0.0,
        "max_tokens": 256,
    }


def test_a_stage_finds_the_results_as_if_it_had_asked(tmp_path: Path) -> None:
    asked = written(tmp_path, "Heat", "Alien")
    heat, alien = asked.read_text().splitlines()
    refused = says("I'm sorry, but I can't help with that.").body
    ledger = Ledger(tmp_path / "answers")
    came = results(tmp_path, result(heat), result(alien, refused))
    assert batch.take(ledger, asked, came, PRICES) == Imported(new=2, known=0, refused=0)
    assert batch.take(ledger, asked, came, PRICES) == Imported(new=0, known=2, refused=0)
    texts = ask_all(requests("Heat", "Alien"), CHAT, draft_of(tmp_path))
    assert texts["text"].to_list() == ["Thieves.", None]
    assert texts["status"].to_list() == ["answered", "refused"]
    (found,) = [one for one in ledger.all().values() if one.text == "Thieves."]
    assert (found.source, found.purpose, found.price) == ("batch", "films", (5 * 1.0 + 7 * 2.0) / 1e6)


def test_what_is_no_answer_or_was_not_asked_is_refused(tmp_path: Path) -> None:
    asked = written(tmp_path, "Heat")
    line = asked.read_text()
    came = results(
        tmp_path,
        "no JSON",
        "[]",
        result(line, custom_id="0" * 32 + "-1-0-films"),
        result(line, fails(500).body),
        result(line, response=None),
    )
    assert batch.take(Ledger(tmp_path / "answers"), asked, came, PRICES) == Imported(0, 0, 5)


def test_a_request_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    asked = written(tmp_path, "Heat")
    line = asked.read_text()
    asked.write_text(line.replace('"content": "Heat"', '"content": "Alien"'))
    came = results(tmp_path, result(line))
    assert batch.take(Ledger(tmp_path / "answers"), asked, came, PRICES) == Imported(0, 0, 1)
