"""TagGPT: tags are asked for, merged, given to items and read as a field; controls do what they say."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipeline.graph import Graph
from pipeline.methods import taggpt
from pipeline.methods.taggpt import Tagging, with_tags
from pipeline.stage import run
from pipeline.store import Artefact, Store
from pipeline.study import Study
from pipeline.text.item_text import item_text
from tests import toy_ctr_models
from tests.chat_endpoint import asked, endpoint, says
from tests.pipeline.methods.test_kar import dataset, split, text_encoder
from tests.toy_chat import reach

VARIANTS = ("generative", "selective", "without_tags", "shuffled_tags")
GRAPH = Graph((dataset, split, item_text, text_encoder, taggpt.samples, taggpt.tags, taggpt.predictions))
FIT = {**toy_ctr_models.QUICK.model_dump(mode="json"), "epochs": 4}
ALIKE = {"merge_above": 0.9999, "near_above": 0.9999}  # the tiny encoder finds all words alike


def knows_parity(body: dict[str, Any], number: int) -> Any:
    """An endpoint that writes what only it knows: whether a film's number is even."""
    prompt = asked(body)
    item = int(prompt.split("Film ")[1].split(" ")[0])
    if "of this list" in prompt:
        return says("orbit" if item % 2 else "dinner, spacecraft, nothing of the list")
    return says(f"{'orbit, mars' if item % 2 else 'dinner, meal'}, only film {item}")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("taggpt")
    with endpoint(knows_parity) as heard:
        study = Study(
            name="toy",
            title="Toy",
            words={"item": "film", "items": "films"},  # type: ignore[arg-type]
            methods={
                "taggpt": {
                    "variants": list(VARIANTS),
                    "samples": {"samples": 2},
                    "tags": {"samples": 2, **ALIKE},
                    "predictions": FIT,
                }
            },
            models={"chat": {"location": heard.address, "model": "m", "pace": {"wait": 0.01}}},
        )
        made: dict[str, dict[str, Artefact]] = {}
        for planned in GRAPH.plan(study, Store(folder / "store"), folder):
            artefact, _ = run(planned.spec, reach(heard))
            made.setdefault(planned.stage.name, {})[artefact.variant] = artefact
        yield made, heard


Made = Mapping[str, Mapping[str, Artefact]]


def tags_of(made: Made, variant: str) -> dict[int, list[str]]:
    return dict(made["taggpt/tags"][variant].table("item_tags").iter_rows())


def test_the_vocabulary_holds_what_many_answers_hold(worlds) -> None:
    table = worlds[0]["taggpt/tags"]["generative"].table("tags")
    assert table.rows() == [(tag, 24) for tag in ("dinner", "mars", "meal", "orbit")]


def test_the_generative_tagger_gives_what_was_written_and_is_of_the_vocabulary(worlds) -> None:
    found = tags_of(worlds[0], "generative")
    assert set(found) == set(range(24))
    assert all(
        set(tags) == ({"orbit", "mars"} if item % 2 else {"dinner", "meal"}) for item, tags in found.items()
    )


def test_the_selective_tagger_counts_votes_for_what_was_offered_alone(worlds) -> None:
    found = tags_of(worlds[0], "selective")
    assert all(tags == (["orbit"] if item % 2 else ["dinner"]) for item, tags in found.items())


def test_samples_of_one_prompt_are_asked_apart_and_variants_share_them(worlds) -> None:
    _, heard = worlds
    told = [json.dumps(body["messages"]) for body in heard.bodies]
    assert len(told) == 24 * 2 * 2  # films, samples, and the selective tagger's own prompts
    assert {told.count(one) for one in set(told)} == {2}
    assert {body["temperature"] for body in heard.bodies} == {1.5}


def test_no_check_fails_but_better_than_chance(worlds) -> None:
    for stage, variants in worlds[0].items():
        for variant, artefact in variants.items():
            wrong = {n for n, verdict in artefact.manifest["checks"].items() if not verdict["passed"]}
            assert wrong <= {"better_than_chance", "answers_differ"}, (stage, variant)


def test_tags_move_the_scores_and_so_does_a_shuffle(worlds) -> None:
    pairs = {v: made.table("pairs")["score"].to_list() for v, made in worlds[0]["taggpt/predictions"].items()}
    assert len({tuple(scores) for scores in pairs.values()}) == len(VARIANTS)
    assert worlds[0]["taggpt/predictions"]["shuffled_tags"].metrics["share_changed"] > 0.9


def test_without_tags_nothing_is_asked_and_no_field_is_added(worlds) -> None:
    made = worlds[0]
    assert made["taggpt/samples"]["without_tags"].table("knowledge").is_empty()
    counts = {v: one.metrics["fields"] for v, one in made["taggpt/predictions"].items()}
    assert counts["generative"] == counts["without_tags"] + 1


def test_an_item_without_tags_has_a_value_of_its_own() -> None:
    held = toy_ctr_models.held()
    given = pl.DataFrame(
        {"item": [0, 1], "tags": [["war"], []]}, schema={"item": pl.UInt32, "tags": pl.List(pl.String)}
    )
    field = with_tags(held, given).fields.attributes[-1]
    assert field.name == "tags"
    assert field.codes[0].tolist() != field.codes[1].tolist() == field.codes[2].tolist()


def test_a_strange_or_doubled_tag_is_caught(worlds) -> None:
    old = worlds[0]["taggpt/tags"]["generative"]

    def passes(item_tags: pl.DataFrame) -> bool:
        draft = SimpleNamespace(read=lambda name: item_tags if name == "item_tags" else old.table(name))
        return taggpt.every_tag_is_of_the_vocabulary(draft, {}, Tagging.model_validate({"chat": None})).passed  # type: ignore

    good = old.table("item_tags")
    assert passes(good)
    assert not passes(good.with_columns(tags=pl.concat_list("tags", pl.lit("strange"))))
    assert not passes(good.with_columns(tags=pl.concat_list("tags", pl.col("tags").list.first())))
