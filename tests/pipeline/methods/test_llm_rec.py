"""LLM-Rec: what is asked, what is read, what is learnt, on circles of two tastes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.collab.fitted import scores_of
from pipeline.collab.ranked import order
from pipeline.methods import llm_rec
from pipeline.methods.llm_rec import (
    KINDS,
    PROMPTS,
    Descriptions,
    asked_of,
    enriched,
    neighbours,
    requests,
    shuffled,
)
from pipeline.stage import Artefact, Source, Spec, Stage, run
from pipeline.store import Store
from resources.chat import reach
from tests import tiny_encoder, toy_next
from tests.chat_endpoint import Heard, asked, endpoint, says
from tests.specs import spec_from

TEXTS, ENCODER = "7" * 32, "8" * 32
TOY = toy_next.circles()
ITEM_TEXT = pl.DataFrame(
    {"item": range(toy_next.ITEMS), "text": [f"film {item}" for item in range(toy_next.ITEMS)]},
    schema={"item": pl.UInt32, "text": pl.String},
)
ASK = Descriptions.model_validate({"chat": None})
QUICK = {"dim": 16, "hidden": 16, "lr": 0.02, "batch": 64, "epochs": 60, "patience": 60, "negatives": 4}


def test_every_prompt_is_asked_of_every_item_and_neighbours_are_of_training() -> None:
    near = neighbours(TOY.trained, ASK)
    found = requests(ITEM_TEXT, near, [0, 3], KINDS["all"])
    assert found.select("owner", "kind").rows() == [(item, kind) for item in (0, 3) for kind in PROMPTS]
    told = {kind: messages[0]["content"] for _, kind, _, messages in found.rows()[:8]}
    assert told["tags"] == "The description of an item is as follows: 'film 0', summarize it with tags."
    listed = near["neighbours"][0].to_list()
    assert len(listed) == 3
    assert all(item % 2 == 0 for item in listed)  # of the same circle
    others = "; ".join(f"film {item}" for item in listed)
    assert told["in_common"] == (
        f"Summarize the commonalities among the following descriptions: 'film 0'; '{others}'."
    )


def test_an_item_that_nobody_used_is_not_asked_what_it_has_in_common() -> None:
    near = neighbours(TOY.trained, ASK)
    found = requests(ITEM_TEXT, near, [toy_next.COLD_ITEM], KINDS["all"])
    assert set(PROMPTS) - set(found["kind"]) == {"in_common", "in_common_to_recommend"}


def test_the_most_used_items_are_asked_about_first() -> None:
    counts = TOY.trained.popularity
    few = asked_of(ITEM_TEXT, TOY.trained, 5)
    assert len(few) == 5
    assert min(counts[few]) >= max(np.delete(counts, few))
    assert asked_of(ITEM_TEXT, TOY.trained, None) == list(range(toy_next.ITEMS))


def test_braces_in_a_text_are_text() -> None:
    assert llm_rec.filled("tags", "{others} {0}", "") == PROMPTS["tags"].replace(
        "{description}", "{others} {0}"
    )


def test_an_item_without_an_answer_has_its_own_text() -> None:
    knowledge = pl.DataFrame({"kind": ["tags", "tags"], "owner": [1, 2], "text": ["new", None]})
    own, tags = enriched(ITEM_TEXT.head(3), knowledge, ["infer", "tags"])
    assert own == ["film 0", "film 1", "film 2"]
    assert tags == ["film 0", "new", "film 2"]


def test_a_shuffle_moves_every_enriched_text_and_no_own_one() -> None:
    blocks = np.arange(30, dtype=np.float32).reshape(5, 3, 2)
    found = shuffled(blocks, 1)
    assert np.array_equal(found[:, 0], blocks[:, 0])
    assert (found[:, 1:] != blocks[:, 1:]).all()
    assert sorted(found[:, 1:].ravel()) == sorted(blocks[:, 1:].ravel())


# --- the stages --------------------------------------------------------------------------------------------


def commit(store: Store, stage: str, key: str, **tables: pl.DataFrame) -> Path:
    draft = store.draft(store.root / "work" / key)
    for name, frame in tables.items():
        frame.write_parquet(draft / f"{name}.parquet")
    if stage == "text_encoder":
        tiny_encoder.save(draft / "model")
    facts = {"stage": stage, "fingerprint": key, "files": {}, "cell": {}, "measured": {}, "metrics": {}}
    return store.commit(draft, facts).path


class World:
    """A store with a split, texts and an encoder; stages of the method are run on it as the graph would."""

    def __init__(self, folder: Path) -> None:
        self.store = toy_next.store_with(TOY, folder)
        commit(self.store, "item_text", TEXTS, item_text=ITEM_TEXT)
        commit(self.store, "text_encoder", ENCODER)
        self.inputs = {
            "split": Source("next_item/split", toy_next.SPLIT),
            "item_text": Source("item_text", TEXTS),
            "text_encoder": Source("text_encoder", ENCODER),
        }

    def spec(self, stage: Stage, variant: str, **settings: Any) -> Spec:
        inputs = {name: self.inputs[name] for name in stage.inputs}
        cell = {"variant": variant} | ({"seed": 1} if stage.seeded else {})
        return spec_from(stage, self.store, inputs, cell, settings)

    def made(self, variant: str, heard: Heard) -> Mapping[str, Artefact]:
        """All three artefacts of a variant."""
        chat = {"location": heard.address, "model": "m"}
        found = {}
        for stage, settings in (
            (llm_rec.descriptions, {"chat": chat}),
            (llm_rec.vectors, {}),
            (llm_rec.predictions, QUICK),
        ):
            artefact, _ = run(self.spec(stage, variant, **settings), reach(self.store.root, {}))
            found[stage.name] = artefact
            self.inputs[stage.name.split("/")[1]] = Source(stage.name, artefact.fingerprint)
        return found


def tells_the_circle(body: dict[str, Any], number: int) -> Any:
    """An endpoint that knows what the texts do not say: which circle an item is of."""
    item = int(asked(body).split("film ")[1].split("'")[0].split(";")[0])
    return says("the spacecraft left its orbit around mars" if item % 2 else "a man is eating his dinner")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory):
    world = World(tmp_path_factory.mktemp("llm_rec"))
    with endpoint(tells_the_circle) as heard:
        found = {
            variant: world.made(variant, heard) for variant in ("basic", "all", "repeated", "shuffled_texts")
        }
        yield found, heard


def failed(made: Artefact) -> list[str]:
    return [name for name, verdict in made.manifest["checks"].items() if not verdict["passed"]]


def test_each_prompt_is_asked_once_over_all_variants(worlds) -> None:
    _, heard = worlds
    told = [json.dumps(body["messages"]) for body in heard.bodies]
    assert len(told) == len(set(told))
    assert len(told) == toy_next.ITEMS * 8 - 2 * 2  # the two items that nobody used have no neighbours


def test_no_blocking_check_fails(worlds) -> None:
    for made in worlds[0].values():
        for artefact in made.values():
            blocking = [n for n in failed(artefact) if artefact.manifest["checks"][n]["blocking"]]
            assert blocking == []


def test_widths_are_equal_where_a_control_needs_it(worlds) -> None:
    widths = {variant: made["llm_rec/vectors"].metrics["width"] for variant, made in worlds[0].items()}
    assert widths["all"] == widths["repeated"] == widths["shuffled_texts"] == 9 / 4 * widths["basic"]


def own_circle(made: Artefact) -> float:
    """Share of test users whose first item is of their own circle."""
    rows = made.table("rankings").filter(pl.col("rank") == 1, pl.col("user") < toy_next.LEARNT, part="test")
    return float((rows["item"] % 2 == rows["user"] % 2).mean())  # type: ignore[arg-type]


def test_what_the_chat_model_knows_is_found_and_lost_when_shuffled(worlds) -> None:
    found = {variant: own_circle(made["llm_rec/predictions"]) for variant, made in worlds[0].items()}
    assert found["all"] == 1
    assert found["shuffled_texts"] < 0.9


def test_neighbours_of_all_events_are_caught(worlds) -> None:
    made = worlds[0]["all"]["llm_rec/descriptions"]
    everything = TOY._replace(
        events=TOY.events.with_columns(part=pl.lit("train").cast(TOY.events["part"].dtype))
    )
    leaky = neighbours(everything.trained, ASK)
    assert not leaky.equals(made.table("neighbours"))
    split = Store(made.path.parents[3]).get("next_item/split", toy_next.SPLIT)

    class Drawn:
        def read(self, name: str) -> pl.DataFrame:
            return leaky

    assert not llm_rec.neighbours_are_of_train(Drawn(), {"split": split}, ASK).passed  # type: ignore[arg-type]
    assert made.manifest["checks"]["neighbours_are_of_train"]["passed"]


def test_the_finished_artefact_is_asked_again_and_orders_to_the_bit(worlds) -> None:
    made = worlds[0]["all"]["llm_rec/predictions"]
    split = Store(made.path.parents[3]).get("next_item/split", toy_next.SPLIT)
    again = order(scores_of(made, split), split.table("queries"), toy_next.ITEMS)
    assert again.equals(made.table("rankings").select(again.columns))
