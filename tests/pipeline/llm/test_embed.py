"""The stages that turn items into vectors, on a small world with tiny models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.graph import Graph
from pipeline.llm.embed import safe_ids
from pipeline.llm.load import encode, load_model, load_tokenizer
from pipeline.stage import run
from pipeline.store import Store
from pipeline.text.cleaning import special_ids
from pipeline.text.embed import text_embeddings
from pipeline.text.embeddings import as_array, principal, unit
from pipeline.text.encoder import sentence_vectors, text_encoder
from pipeline.text.item_text import item_text
from tests import tiny_encoder, tiny_lm, toy_ctr

READS = {"rella": {"variants": ["retrieved"]}}


def embedded(folder: Path, telling: bool = True):
    made = toy_ctr.make(folder, ("lm_embeddings",), data={"dataset": {"telling": telling}}, methods=READS)
    return made, made["lm_embeddings"]["default"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory):
    return embedded(tmp_path_factory.mktemp("lm"))


def test_an_items_vector_is_the_mean_of_its_states_in_principal_components(lm) -> None:
    made, artefact = lm
    folder = made["language_model"]["default"].file("model")
    texts = made["item_text"]["default"].table("item_text")["text"].to_list()
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    with torch.inference_mode():
        ids = [torch.tensor([one]) for one in encode(tokenizer, texts)]
        means = np.stack([model.base_model(input_ids=one).last_hidden_state[0].mean(0) for one in ids])
    ours, wanted = as_array(artefact.table("item_embeddings")), principal(means, 512).coordinates
    assert ours.shape == (toy_ctr.ITEMS, min(32, toy_ctr.ITEMS - 1))
    gaps = [unit(x) @ unit(x).T for x in (ours, wanted)]
    assert np.abs(gaps[0] - gaps[1]).max() < 0.05  # products are in bfloat16 where the processor has it
    assert toy_ctr.failed(artefact) == {}


def test_figures_tell_what_was_done(lm) -> None:
    _, artefact = lm
    figures = artefact.metrics
    assert (figures["items"], figures["width"], figures["dim"]) == (30, 32, 29)
    assert figures["variance_kept"] == pytest.approx(1, abs=1e-4)
    assert figures["mean_cosine"] < 0.2 < figures["mean_cosine_of_states"]
    assert figures["tokens_seen"] > 30


def test_titles_that_are_all_alike_are_told(tmp_path: Path) -> None:
    made, artefact = embedded(tmp_path, telling=False)
    assert set(toy_ctr.failed(artefact)) == {"not_collapsed"}
    assert set(toy_ctr.failed(made["item_text"]["default"])) == {"texts_differ"}


def test_a_text_is_cut_and_brings_no_special_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_lm.save(tmp_path / "model"))
    ids = safe_ids(["</s> Heat <|im_start|>", "a very long text " * 50], tokenizer, 20)
    assert [len(one) for one in ids][1] == 20
    assert not special_ids(tokenizer).intersection(ids[0], ids[1])


@pytest.mark.parametrize("dim", [None, 3])
def test_a_small_encoder_stands_in(tmp_path: Path, dim: int | None) -> None:
    tiny_encoder.save(tmp_path / "here")
    graph = Graph((toy_ctr.dataset, item_text, text_encoder, replace(text_embeddings, predicts="pairs")))
    models = {"text_encoder": {"location": "here"}, "text_embeddings": {"dim": dim}}
    facts = toy_ctr.study(data={"dataset": {"telling": True}}, models=models)
    made = {p.stage.name: run(p.spec)[0] for p in graph.plan(facts, Store(tmp_path / "store"), tmp_path)}
    found = as_array(made["text_embeddings"].table("item_embeddings"))
    texts = made["item_text"].table("item_text")["text"].to_list()
    whole = sentence_vectors(made["text_encoder"].file("model"), texts)
    wanted = whole if dim is None else principal(whole, dim).coordinates
    assert found == pytest.approx(wanted, abs=1e-4)
    assert ("variance_kept" in made["text_embeddings"].metrics) == (dim is not None)


def test_neighbours_are_found_in_the_stages_vectors(tmp_path: Path) -> None:
    made = toy_ctr.make(tmp_path, ("similar_items/lm",), data={"dataset": {"telling": True}}, methods=READS)
    artefact = made["similar_items/lm"]["default"]
    assert toy_ctr.failed(artefact) == {}
    table, rows = (
        artefact.table("similar_items"),
        unit(as_array(made["lm_embeddings"]["default"].table("item_embeddings"))),
    )
    assert table.height == 30 * 29
    nearest = table.filter(rank=1)
    cosines = rows @ rows.T - 2 * np.eye(30)
    assert nearest["similarity"].to_numpy() == pytest.approx(cosines.max(1), abs=1e-5)
    assert artefact.metrics["mean_nearest"] == pytest.approx(
        float(nearest.select(pl.col("similarity").mean()).item())
    )
