"""Collaborative models: what a method with a language model has to beat."""

from assets.engine.declare import asset
from pipeline.collab import (
    als,
    bpr,
    caser,
    cold_floors,
    content_knn,
    din,
    ease,
    gru4rec,
    item_knn,
    labelled_lightgcn,
    labelled_sasrec,
    lightgcn,
    markov,
    means,
    mf,
    popularity,
    ranked_mf,
    ranked_popularity,
    reranked,
    sasrec,
)

mean_labels = asset(means.means, group="collaborative", kinds={"polars"})
popular_items = asset(popularity.popularity, group="collaborative", kinds={"polars"})
factors = asset(mf.mf, group="collaborative", kinds={"pytorch"})
liked_graph = asset(labelled_lightgcn.labelled_lightgcn, group="collaborative", kinds={"pytorch"})
liked_states = asset(labelled_sasrec.labelled_sasrec, group="collaborative", kinds={"pytorch"})
interests = asset(din.din, group="collaborative", kinds={"pytorch"})

next_popularity = asset(ranked_popularity.ranked_popularity, group="collaborative", kinds={"polars"})
transitions = asset(markov.markov, group="collaborative", kinds={"scipy"})
neighbours = asset(item_knn.item_knn, group="collaborative", kinds={"scipy"})
linear = asset(ease.ease, group="collaborative", kinds={"scipy"})
least_squares = asset(als.als, group="collaborative", kinds={"implicit"})
pairwise = asset(bpr.bpr, group="collaborative", kinds={"implicit"})
next_factors = asset(ranked_mf.ranked_mf, group="collaborative", kinds={"pytorch"})
graph_vectors = asset(lightgcn.lightgcn, group="collaborative", kinds={"pytorch"})
attention = asset(sasrec.sasrec, group="collaborative", kinds={"pytorch"})
recurrence = asset(gru4rec.gru4rec, group="collaborative", kinds={"pytorch"})
convolution = asset(caser.caser, group="collaborative", kinds={"pytorch"})
alike_texts = asset(content_knn.content_knn, group="collaborative", kinds={"numpy"})

chance = asset(cold_floors.random_order, group="collaborative", kinds={"numpy"})
cold_attention = asset(cold_floors.cold_sasrec, group="collaborative", kinds={"pytorch"})
cold_texts = asset(content_knn.cold_content_knn, group="collaborative", kinds={"numpy"})

first_stage = asset(reranked.retrieved, group="collaborative", kinds={"polars"})
list_orders = asset(reranked.orders, group="collaborative", kinds={"pytorch"})
