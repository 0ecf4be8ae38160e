"""KAR: no text tells the row that it is read for, controls do what they say, stored scores agree."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.ctr import baselines
from pipeline.graph import Graph
from pipeline.knowledge import reading
from pipeline.knowledge.questions import reasoning_prompts
from pipeline.knowledge.vectors import Vectors, vectors_of
from pipeline.methods import kar
from pipeline.schema import Examples, Interactions, Items, Users
from pipeline.stage import Settings, run, stage
from pipeline.store import Artefact, Store
from pipeline.study import Study, Words
from pipeline.text.cleaning import clean
from pipeline.text.item_text import item_text
from tests import tiny_encoder, toy_ctr_models, toy_pairs
from tests.chat_endpoint import Heard, endpoint
from tests.toy_chat import reach

FIT = {**toy_ctr_models.QUICK.model_dump(mode="json"), "epochs": 3, "shared": 1, "dedicated": 1, "hidden": 6}
FORMS = ("dcnv2", *(f"dcnv2_{form}" for form in kar.FORMS), "din_user_only")


def examples() -> pl.DataFrame:
    return toy_pairs.remembered(toy_pairs.taste())


@stage(
    "dataset",
    settings=Settings,
    section="data",
    version=1,
    tables={"interactions": Interactions, "items": Items, "users": Users},
)
def dataset(settings: Settings, out) -> None:
    """A planted taste, with profiles and categories."""
    rating = pl.when(pl.col("label") > 0).then(5.0).otherwise(2.0)
    rows = examples().select("row", "user", "item", "at", rating=rating, part=pl.lit(None, pl.String))
    out.table("interactions", rows.select(Interactions.column_names()))
    out.table("items", toy_ctr_models.items().with_columns(text=pl.lit(None, pl.String)))
    out.table("users", toy_ctr_models.users())


@stage(
    "ctr/split",
    settings=Settings,
    section="data",
    version=1,
    inputs={"dataset": "dataset"},
    tables={"examples": Examples},
)
def split(dataset, settings: Settings, out) -> None:
    """As drawn."""
    out.table("examples", examples())


@stage("text_encoder", settings=Settings, section="models", version=1)
def text_encoder(settings: Settings, out) -> None:
    """A tiny random one."""
    tiny_encoder.save(out.path / "model")


STAGES = (kar.texts, kar.facts, kar.reasoning, kar.raw_vectors, kar.vectors, kar.predictions)
PLAIN = (baselines.deepfm, baselines.dcnv2, baselines.fibinet, baselines.autoint)
GRAPH = Graph((dataset, split, item_text, text_encoder, *STAGES, *PLAIN))


def make(
    folder: Path, *variants: str, only: tuple[str, ...] = (), heard: Heard | None = None, **sections: Any
) -> Mapping[str, dict[str, Artefact]]:
    """Run the study, or some stages and what they read: stage -> variant -> artefact."""
    wanted = set(only or GRAPH.stages)
    for each in reversed(GRAPH.order):
        wanted |= set(GRAPH.parents(each)) if each.name in wanted else set()
    chat = {"location": heard.address, "model": "m", "pace": {"wait": 0.01}} if heard else {}
    plain = {name: FIT_PLAIN for name in ("deepfm", "dcnv2", "fibinet", "autoint")}
    study = Study(
        name="toy",
        title="Toy",
        words={"item": "film", "items": "films"},  # type: ignore[arg-type]
        methods={"kar": {"variants": list(variants), "predictions": FIT}},
        models={"chat": chat, "ctr": plain, "kar": {"vectors": {"components": 5}, **sections}},
    )
    made: dict[str, dict[str, Artefact]] = {}
    for planned in GRAPH.plan(study, Store(folder / "store"), folder):
        if planned.stage.name not in wanted:
            continue
        artefact, _ = run(planned.spec, reach(heard) if heard else None)
        made.setdefault(planned.stage.name, {})[artefact.variant] = artefact
    return made


FIT_PLAIN = {name: value for name, value in FIT.items() if name in toy_ctr_models.QUICK.model_dump()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Artefact]]:
    folder = tmp_path_factory.mktemp("kar")
    facts = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(20)],
            "text": [f"a man eats dinner {n % 5}" for n in range(19)] + ["As an AI, no"],
        }
    )
    facts.write_parquet(folder / "facts.parquet")
    pl.DataFrame({"user_id": ["0", "1"], "text": ["somebody is eating", "the orbit around mars"]}).write_csv(
        folder / "reasoning.csv"
    )
    return make(folder, *FORMS, facts={"location": "facts.parquet"}, reasoning={"location": "reasoning.csv"})


def scores(made: Mapping[str, dict[str, Artefact]], variant: str) -> np.ndarray:
    return made["kar/predictions"][variant].table("pairs")["score"].to_numpy()


def failed(artefact: Artefact) -> set[str]:
    return {name for name, verdict in artefact.manifest["checks"].items() if not verdict["passed"]}


# --- what is told ------------------------------------------------------------------------------------------


def test_texts_tell_the_first_half_and_the_guards_pass(made) -> None:
    told = made["kar/texts"]["default"]
    assert failed(told) == set()
    first = told.table("told").filter(user=0)["items"].item().to_list()
    train = examples().filter(part="train", user=0)
    assert first == train["item"].to_list()[: (train.height + 1) // 2]
    text = told.table("knowledge").filter(kind="user_history", owner=0)["text"].item()
    assert text.startswith("Given a female user who is aged 18-24, this user's movie viewing history")
    assert f'"Film {first[0]} (' in text
    assert text.count("stars") == len(first)


def guarded(made, check, settings: Any, **tables: pl.DataFrame) -> bool:
    """The verdict of a check of `kar/texts` on altered tables."""
    old = made["kar/texts"]["default"]
    draft = SimpleNamespace(read=lambda name: tables.get(name, old.table(name)))
    inputs = {"split": made["ctr/split"]["default"], "dataset": made["dataset"]["default"]}
    return check(draft, inputs, settings).passed


def test_a_told_item_of_later_or_of_another_part_is_caught(made) -> None:
    told, settings = made["kar/texts"]["default"].table("told"), kar.Told()
    assert guarded(made, kar.only_the_past_is_told, settings)
    early = told.with_columns(until=pl.col("until") - 1)
    assert not guarded(made, kar.only_the_past_is_told, settings, told=early)
    test = examples().filter(part="test", user=0)["item"][0]
    other = told.with_columns(
        items=pl.when(user=0).then(pl.concat_list("items", pl.lit(test, pl.UInt32))).otherwise("items")
    )
    assert not guarded(made, kar.only_the_past_is_told, settings, told=other)


def test_a_text_that_hangs_on_a_held_out_label_is_caught(made) -> None:
    artefact = made["kar/texts"]["default"]
    settings = kar.Told.model_validate(dict(artefact.settings))
    table = artefact.table("knowledge")
    assert guarded(made, kar.held_out_labels_tell_nothing, settings, knowledge=table)
    seen = examples().filter(part="test", user=0)["label"].to_list()
    leaking = pl.when(kind="user_history", owner=0).then(pl.col("text") + f" and then {seen}").otherwise("text")
    assert not guarded(
        made, kar.held_out_labels_tell_nothing, settings, knowledge=table.with_columns(text=leaking)
    )


# --- what is known -----------------------------------------------------------------------------------------


def test_answers_of_files_are_counted_and_refusals_are_no_answers(made) -> None:
    facts, reasoning = made["kar/facts"]["default"], made["kar/reasoning"]["default"]
    assert (facts.metrics["answered"], facts.metrics["refused"], facts.metrics["not_asked"]) == (19, 1, 4)
    assert reasoning.metrics["answered"] == 2
    assert failed(reasoning) == {"most_have_an_answer"}
    assert failed(facts) == set()


def test_a_chat_model_is_asked_of_each_owner_once_in_the_papers_words(tmp_path: Path) -> None:
    with endpoint() as heard:
        made = make(
            tmp_path,
            "dcnv2",
            only=("kar/facts", "kar/reasoning"),
            heard=heard,
            facts={"ask": True},
            reasoning={"ask": True},
        )
    facts, reasoning = (made[name]["default"] for name in ("kar/facts", "kar/reasoning"))
    assert heard.calls == 24 + 29
    assert failed(facts) == failed(reasoning) == set()
    assert (facts.metrics["answered"], reasoning.metrics["answered"]) == (24, 29)
    table = facts.table("knowledge")
    assert table["owner"].to_list() == list(range(24))
    assert table["answer"].null_count() == 0
    assert table["text"][3].startswith("about Introduce movie Film 3 (1991) and describe its attributes")
    told = made["kar/texts"]["default"].table("knowledge").filter(kind="user_history")
    prompts = reasoning_prompts(told, Words(item="film", items="films"))["prompt"]
    assert reasoning.table("knowledge")["text"].to_list() == ["about " + clean(one, 4000) for one in prompts]


def test_answers_are_asked_for_or_read_and_not_both() -> None:
    with pytest.raises(ValidationError, match="not both"):
        kar.Facts.model_validate({"ask": True, "location": "a.csv"})
    kar.Facts.model_validate({"location": "a.csv"})


def test_an_answer_stands_first_and_what_was_told_behind_it_or_in_its_place() -> None:
    told = pl.DataFrame({"kind": ["u", "u", "i"], "owner": [0, 1, 0], "text": ["told 0", "told 1", "item"]})
    answers = pl.DataFrame({"owner": [0, 1], "text": ["answer", None], "status": ["answered", "refused"]})
    both = kar.joined(told, "u", answers, keep_both=True)
    assert both.rows() == [(0, "answer told 0"), (1, "told 1")]
    assert kar.joined(told, "u", answers, keep_both=False)["text"].to_list() == ["answer", "told 1"]


def test_vectors_of_answers_differ_from_those_of_what_was_told(made) -> None:
    assert made["kar/raw_vectors"]["default"].settings["like"]["components"] == 5
    raw, known = vectors_of(made["kar/raw_vectors"]["default"]), vectors_of(made["kar/vectors"]["default"])
    assert raw.user.shape == known.user.shape == (29, 5)
    assert raw.item.shape == (24, 5)
    assert raw.user_owner.tolist() == list(range(29))
    assert not np.allclose(raw.item, known.item)
    assert np.array_equal(known.item[0], known.item[5])  # equal answers


# --- what is read ------------------------------------------------------------------------------------------


def test_a_users_text_is_read_for_later_rows_only() -> None:
    found = Vectors(np.zeros((2, 3)), np.zeros((1, 3)), np.array([4, 6]), np.array([9]))
    rows = pl.DataFrame({"user": [4, 4, 4, 6, 5], "item": [9, 9, 8, 9, 9], "at": [10, 11, 9, 99, 99]})
    users, items = reading.reads_of(found, rows, pl.DataFrame({"user": [4, 6], "until": [10, 20]}))
    assert users.tolist() == [2, 0, 2, 1, 2]
    assert items.tolist() == [0, 0, 1, 0, 0]


def test_a_shuffle_gives_another_owners_vector_and_noise_is_of_one_size() -> None:
    found = Vectors(np.eye(6, dtype=np.float32), np.eye(3, 6, dtype=np.float32), np.arange(6), np.arange(3))
    rows = pl.DataFrame({"user": [*range(6), 0], "item": [0, 1, 2] * 2 + [7], "at": [9] * 6 + [0]})
    pasts = pl.DataFrame({"user": range(6), "until": [1] * 6})
    plain, mixed = (reading.dense_of(found, rows, pasts, form, 1) for form in ("both", "shuffled"))
    assert (plain[0].of_example[:6] != mixed[0].of_example[:6]).all()
    assert (plain[1].of_example[:6] != mixed[1].of_example[:6]).all()
    assert sorted(mixed[0].of_example) == sorted(plain[0].of_example)
    assert mixed[0].of_example[6] == 6
    assert mixed[1].of_example[6] == 3
    noise = reading.dense_of(found, rows, pasts, "random", 1)
    assert noise[0].rows.shape == (6, 6)
    assert np.array_equal(noise[0].of_example, plain[0].of_example)
    assert not np.array_equal(noise[0].rows[:3], noise[1].rows)


@pytest.mark.parametrize(
    ("variant", "parts"),
    [
        ("dcnv2", ("dcnv2", "both")),
        ("din_user_only", ("din", "user_only")),
        ("autoint_random", ("autoint", "random")),
    ],
)
def test_a_variant_is_a_backbone_and_a_form(variant: str, parts: tuple[str, str]) -> None:
    assert kar.parts_of(variant) == parts
    assert variant in kar.VARIANTS


# --- what is learnt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", FORMS)
def test_every_form_scores_each_held_out_row_and_its_blocking_checks_pass(made, variant: str) -> None:
    artefact = made["kar/predictions"][variant]
    pairs = artefact.table("pairs")
    assert pairs["row"].to_list() == examples().filter(pl.col("part") != "train")["row"].to_list()
    assert set(pairs["variant"]) == {variant}
    assert failed(artefact) <= {"better_than_chance", "knowledge_moves_scores"}


def test_forms_score_differently(made) -> None:
    found = [scores(made, variant).tobytes() for variant in FORMS]
    assert len(set(found)) == len(FORMS)


def test_without_knowledge_is_the_plain_model(made) -> None:
    assert np.array_equal(
        scores(made, "dcnv2_without_knowledge"), made["ctr/dcnv2"]["default"].table("pairs")["score"]
    )
    assert not (made["kar/predictions"]["dcnv2_without_knowledge"].file("adapted.safetensors")).exists()


def test_the_stored_vectors_are_of_every_owner_and_one_for_none(made) -> None:
    held = made["kar/predictions"]["dcnv2"].tensors("adapted")
    assert held["user"].shape == (30, 4)
    assert held["item"].shape == (25, 4)
    assert (held["user_of_row"] < 29).float().mean() > 0.3
    cold = (examples()["user"] == 29).to_numpy()
    assert (held["user_of_row"].numpy()[cold] == 29).all()


def test_a_row_that_reads_a_text_too_early_is_caught(made, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    artefact = made["kar/predictions"]["dcnv2"]
    inputs = {"split": made["ctr/split"]["default"], "texts": made["kar/texts"]["default"]}
    held = artefact.tensors("adapted")
    first = int(np.flatnonzero((examples()["part"] == "train").to_numpy())[0])
    for planted, passed in ((None, True), (first, False)):
        if planted is not None:
            held["user_of_row"][planted] = 0
        save_file(held, tmp_path / "adapted.safetensors")
        draft = SimpleNamespace(file=lambda name: tmp_path / name)
        assert kar.no_text_tells_its_row(draft, inputs, None).passed is passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "metrics", "passed"),
    [
        (kar.stored_vectors_score_the_same, {"stored_gap": 1e-3}, False),
        (kar.stored_vectors_score_the_same, {"stored_gap": 1e-7}, True),
        (kar.stored_vectors_score_the_same, {}, True),
        (kar.knowledge_moves_scores, {"scores_moved_share": 0.1}, False),
        (kar.knowledge_moves_scores, {"scores_moved_share": 0.9}, True),
        (
            kar.few_texts_are_cut,
            {"user_texts": 4, "user_texts_cut": 3, "item_texts": 4, "item_texts_cut": 0},
            False,
        ),
        (
            kar.few_texts_are_cut,
            {"user_texts": 4, "user_texts_cut": 1, "item_texts": 4, "item_texts_cut": 0},
            True,
        ),
    ],
)
def test_checks_judge_by_the_metrics(check, metrics: dict[str, float], passed: bool) -> None:
    assert check(SimpleNamespace(metrics=metrics), {}, None).passed is passed


@pytest.mark.parametrize("name", ["deepfm", "dcnv2", "fibinet", "autoint"])
def test_plain_models_stand_on_the_board(made, name: str) -> None:
    artefact = made[f"ctr/{name}"]["default"]
    assert set(artefact.table("pairs")["method"]) == {name}
    assert failed(artefact) <= {"better_than_chance"}
    assert artefact.metrics["cold_item_rows"] == 1
    assert artefact.json("fields")[:2] == [["user", "user", 30], ["item", "item", 24]]


def test_every_setting_is_described_and_has_a_default() -> None:
    for one in (*STAGES, *PLAIN):
        for name, field in one.settings.model_fields.items():
            assert field.description, name
            assert not field.is_required(), name
