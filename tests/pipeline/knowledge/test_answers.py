"""The ledger: what addresses an answer, what survives, what is merged."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.knowledge import answers
from pipeline.knowledge.answers import Answer, Imported, Ledger, costs, export, fingerprint, take

ASKED = ({"role": "user", "content": "What is Heat (1995) about?"},)
ROOT = Path(__file__).parents[3]


def answer(text: str | None = "Thieves.", content: str = "Heat", **facts) -> Answer:
    messages = ({"role": "user", "content": content},)
    name = fingerprint("m", messages, {"max_tokens": 9})
    return Answer(
        **{
            "answer": name,
            "model": "m",
            "messages": messages,
            "parameters": {"max_tokens": 9},
            "text": text,
            "status": "answered",
            "purpose": "facts",
            "tokens_in": 10,
            "tokens_out": 5,
            "price": 0.5,
            "at": 1.0,
            **facts,
        }
    )


def recorded(folder: Path, *some: Answer) -> Ledger:
    ledger = Ledger(folder)
    with ledger.writer() as writer:
        for one in some:
            writer.append(one)
    return ledger


def segment(ledger: Ledger) -> Path:
    (found,) = ledger.segments.glob("*.jsonl")
    return found


def test_the_address_of_an_answer_is_pinned_for_ever() -> None:
    assert fingerprint("m", ASKED, {"temperature": 0.0, "max_tokens": 64}) == "dd9031f74370ce21f7c30e7117cf99fa"


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "n"},
        {"messages": ({"role": "system", "content": ASKED[0]["content"]},)},
        {"messages": (*ASKED, *ASKED)},
        {"parameters": {"max_tokens": 65}},
        {"version": 2},
        {"sample": 1},
    ],
)
def test_whatever_decides_an_answer_changes_its_address(changed) -> None:
    whole = {"model": "m", "messages": ASKED, "parameters": {"max_tokens": 64}, "version": 1, "sample": 0}
    assert fingerprint(**{**whole, **changed}) != fingerprint(**whole)


@given(st.dictionaries(st.text(), st.integers()), st.text())
def test_the_order_of_parameters_and_keys_does_not_matter(parameters: dict[str, int], content: str) -> None:
    there = fingerprint("m", ({"role": "user", "content": content},), parameters)
    turned = dict(reversed(parameters.items()))
    assert fingerprint("m", ({"content": content, "role": "user"},), turned) == there


def test_what_is_appended_is_found_by_another_reader(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, answer(), answer("Toys.", "Toy Story"))
    found = Ledger(tmp_path).find({answer().answer, "0" * 32})
    assert found == {answer().answer: answer()}
    assert len(ledger.all()) == 2
    assert ledger.torn == 0


def test_nothing_recorded_is_an_empty_ledger(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none").all() == {}
    assert costs(Ledger(tmp_path / "none")).is_empty()


@pytest.mark.parametrize("lost", [1, 2, 20, 200])
def test_a_torn_last_line_is_skipped_and_counted(tmp_path: Path, lost: int) -> None:
    ledger = recorded(tmp_path, answer(), answer("Toys.", "Toy Story"))
    os.truncate(segment(ledger), segment(ledger).stat().st_size - lost)
    assert [one.text for one in ledger.all().values()] == ["Thieves."]
    assert ledger.torn == 1


def test_a_damaged_line_in_the_middle_costs_that_line_only(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, answer(), answer("Toys.", "Toy Story"), answer("Rats.", "Ratatouille"))
    lines = segment(ledger).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"tokens_in":10', b'"tokens_in":"x"')
    segment(ledger).write_bytes(b"".join(lines))
    assert {one.text for one in ledger.all().values()} == {"Thieves.", "Rats."}
    assert ledger.torn == 1


def test_a_failure_gives_way_to_the_answer_that_came_later_and_both_are_paid(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, answer(None, status="failed", at=1.0), answer(at=2.0), answer("Late.", at=3.0))
    assert [one.text for one in ledger.all().values()] == ["Thieves."]
    assert costs(ledger).select("requests", "answered", "failed", "price").row(0) == (1, 2, 1, 1.5)


def test_several_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.pipeline.knowledge.test_answers import *\n"
        "with Ledger(Path(sys.argv[1])).writer() as writer:\n"
        "    for i in range(200): writer.append(answer(content=f'{sys.argv[2]} {i}'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    several = [subprocess.Popen([*command, name], cwd=ROOT) for name in "ab"]
    assert [one.wait() for one in several] == [0, 0]
    assert len(Ledger(tmp_path).all()) == 400


def test_a_kill_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.pipeline.knowledge.test_answers import *\n"
        "writer = Ledger(Path(sys.argv[1])).writer()\n"
        "for i in range(10**6): writer.append(answer(content=str(i))); print(i, flush=True)"
    )
    writing = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writing.stdout is not None
    told = [writing.stdout.readline() for _ in range(50)]
    writing.send_signal(signal.SIGKILL)
    told += writing.stdout.readlines()
    writing.wait()
    writing.stdout.close()
    whole = [line for line in told if line.endswith("\n")]
    ledger = Ledger(tmp_path)
    assert len(whole) <= len(ledger.all()) <= len(whole) + 1
    assert ledger.torn <= 1


def test_a_write_that_the_system_cuts_short_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(answers.os, "write", lambda handle, left: real(handle, bytes(left)[:7]))
    assert recorded(tmp_path, answer()).all() == {answer().answer: answer()}


@pytest.mark.parametrize("name", ["shared.jsonl", "shared.parquet"])
def test_an_export_taken_elsewhere_gives_the_same_answers(tmp_path: Path, name: str) -> None:
    here = recorded(
        tmp_path / "here", answer(), answer("Toys.", "Toy Story"), answer(None, "X", status="failed")
    )
    assert export(here, tmp_path / name) == 2
    there = recorded(tmp_path / "there", answer())
    assert take(there, tmp_path / name) == Imported(new=1, known=1, refused=0)
    assert take(there, tmp_path / name) == Imported(new=0, known=2, refused=0)
    sources = {one.text: one.source for one in there.all().values()}
    assert sources == {"Thieves.": "live", "Toys.": "imported"}


def test_equal_ledgers_give_equal_files_whatever_their_segments(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", answer(), answer("Toys.", "Toy Story"))
    recorded(tmp_path / "two", answer("Toys.", "Toy Story"))
    two = recorded(tmp_path / "two", answer())
    export(one, tmp_path / "one.jsonl")
    export(two, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_an_answer_under_another_requests_address_is_refused(tmp_path: Path) -> None:
    forged = answer("Buy this.", "Toy Story").model_copy(update={"answer": answer().answer})
    (tmp_path / "forged.jsonl").write_bytes(answers.line(forged) + b'{"answer":"half\n')
    assert take(Ledger(tmp_path), tmp_path / "forged.jsonl") == Imported(new=0, known=0, refused=2)


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.csv: answers are kept as \.jsonl or \.parquet"):
        export(Ledger(tmp_path), tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a\.csv"):
        take(Ledger(tmp_path), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_segments_are_lines_that_duckdb_reads(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, answer(), answer("Toys.", "Toy Story"))
    query = f"select sum(tokens_in), max(model) from read_json('{segment(ledger)}')"
    with duckdb.connect() as connection:
        assert connection.execute(query).fetchone() == (20, "m")


def test_costs_are_told_by_model_and_purpose(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, answer(), answer("No.", "Toy Story", status="refused", purpose="tags"))
    frame = costs(ledger)
    assert frame["purpose"].to_list() == ["facts", "tags"]
    assert frame["refused"].to_list() == [0, 1]
    assert frame["tokens_out"].to_list() == [5, 5]
    assert frame.schema["price"] == pl.Float64


def test_every_line_begins_with_its_address(tmp_path: Path) -> None:
    line = answers.line(answer())
    assert line.startswith(answers.HEAD + answer().answer.encode())
    assert json.loads(line)["text"] == "Thieves."
