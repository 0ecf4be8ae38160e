"""A stage that asks a chat model, from a study file: through Dagster, the command line and the graph."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from assets import cli
from assets.engine import declare
from assets.engine.build import code_versions
from pipeline import study as studies
from pipeline.graph import Graph
from pipeline.stage import Settings, stage
from pipeline.study import StudyError
from tests.assets.projects import Workshop
from tests.chat_endpoint import Heard, endpoint
from tests.toy_chat import KEY, describing


class Reading(Settings):
    """Nothing to set."""


@stage("told/scores", settings=Reading, section="methods", version=1, inputs={"described": "describing"})
def told(described, settings: Reading, out) -> None:
    """Read what was described."""
    out.metric(texts=described.table("knowledge")["text"].count())


STAGES = (describing, told)


@pytest.fixture
def heard() -> Iterator[Heard]:
    with endpoint() as listening:
        yield listening


@pytest.fixture
def shop(tmp_path: Path, memory: dg.DagsterInstance, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setenv("INTERLINGUA_ROOT", str(tmp_path))
    workshop = Workshop.at(tmp_path, STAGES, memory)
    workshop.write("toy", methods={"told": {}}, models={"chat": chat(heard.address)})
    monkeypatch.setattr(declare, "discover", lambda: workshop.declared)
    return workshop


def chat(address: str, **more) -> dict:
    return {"location": address, "model": "m", "key": "PLANTED_KEY", **more}


def ask(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["answers", *words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.usefixtures("no_warehouse")
def test_a_study_asks_once_and_its_key_reaches_no_file(shop: Workshop, heard: Heard) -> None:
    assert shop.computed() == ["describing", "told/scores"]
    assert heard.calls == 2
    assert heard.keys == {f"Bearer {KEY}"}
    assert shop.computed() == []
    written = [file for file in shop.project.root.rglob("*") if file.is_file()]
    assert not [file for file in written if KEY.encode() in file.read_bytes()]


@pytest.mark.usefixtures("no_warehouse")
def test_another_address_is_the_same_artefact_and_another_parameter_is_not(
    shop: Workshop, heard: Heard
) -> None:
    shop.computed()
    shop.write("toy", methods={"told": {}}, models={"chat": chat("http://127.0.0.1:9/v1", prices={"input": 1})})
    assert shop.computed() == []
    changed = chat(heard.address, parameters={"max_tokens": 9})
    shop.write("toy", methods={"told": {}}, models={"chat": changed})
    assert shop.computed() == ["describing", "told/scores"]


def test_dagster_marks_nothing_stale_for_another_address(shop: Workshop, heard: Heard) -> None:
    def versions() -> dict[str, str]:
        return code_versions(Graph(STAGES), [studies.load(studies.find(shop.project.root, "toy"))])

    before = versions()
    shop.write("toy", methods={"told": {}}, models={"chat": chat("http://127.0.0.1:9/v1")})
    assert versions() == before
    shop.write("toy", methods={"told": {}}, models={"chat": chat(heard.address, again=1)})
    assert versions() != before


@pytest.mark.usefixtures("no_warehouse")
def test_without_a_method_that_reads_it_nothing_is_asked(shop: Workshop, heard: Heard) -> None:
    shop.write("toy", methods={}, models={"chat": chat(heard.address)})
    assert shop.computed() == []
    assert heard.calls == 0


def test_a_misspelt_key_of_the_chat_model_is_named(shop: Workshop, heard: Heard) -> None:
    shop.write("toy", methods={"told": {}}, models={"chat": chat(heard.address, modell="x")})
    with pytest.raises(StudyError, match=r"unknown key 'chat\.modell'; did you mean 'model'"):
        Graph(STAGES).check(studies.load(studies.find(shop.project.root, "toy")))


def test_a_study_may_speak_of_the_chat_model_only_where_a_stage_asks_one(shop: Workshop) -> None:
    with pytest.raises(StudyError, match="unknown key 'chat'"):
        Graph(()).check(studies.load(studies.find(shop.project.root, "toy")))


def test_stages_that_ask_share_a_pool(shop: Workshop) -> None:
    pools = {
        one.key.to_user_string(): one.op.pool for one in shop.definitions.resolve_asset_graph().assets_defs
    }
    assert (pools["describing"], pools["told/scores"]) == ("chat", None)


@pytest.mark.usefixtures("no_warehouse")
def test_the_commands_price_count_export_and_import(shop: Workshop, heard: Heard, tmp_path: Path) -> None:
    assert "describing: 2 requests, 0 of them recorded, 2 to ask" in ask("price", "toy")
    assert ask("batch", "toy", str(tmp_path / "requests.jsonl")).startswith("2 requests written")
    assert heard.calls == 0
    shop.computed()
    assert ask("batch", "toy", str(tmp_path / "requests.jsonl")).startswith("0 requests written")
    assert "0 to ask" in ask("price", "toy")
    assert "films" in ask("costs")
    assert ask("export", str(tmp_path / "shared.jsonl")).startswith("2 answers written")
    assert ask("import", str(tmp_path / "shared.jsonl")) == "0 answers added, 2 known already, 0 refused"


def test_a_file_that_holds_no_answers_is_refused(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"answer": 1}\n')
    result = CliRunner().invoke(cli.app, ["answers", "import", str(tmp_path / "x.jsonl")])
    assert result.exit_code == 1
    assert "1 refused" in result.output
    assert CliRunner().invoke(cli.app, ["answers", "export", str(tmp_path / "x.csv")]).exit_code == 1
    assert CliRunner().invoke(cli.app, ["answers", "import", str(tmp_path / "none.jsonl")]).exit_code == 1


def test_a_study_that_asks_nobody_says_so(shop: Workshop) -> None:
    shop.write("toy", methods={})
    assert ask("price", "toy") == "study toy asks no chat model"
