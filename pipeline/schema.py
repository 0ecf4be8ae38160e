"""The tables that cross stages: columns, types, grain and meaning, declared here once.

A stage names the tables it writes; the draft refuses a frame that breaks its schema. `user` and `item`
are dense integers, `user_id` and `item_id` the source's own ids. `Table.grain` says what one row is; the
warehouse and the Dagster UI show the same words.
"""

from typing import ClassVar

import dataframely as dy
import polars as pl

PARTS = ("train", "valid", "test")


class Table(dy.Schema):
    """A schema that knows what one of its rows stands for."""

    grain: ClassVar[str] = ""


class Interactions(Table):
    grain: ClassVar[str] = "one interaction of a user with an item"
    row = dy.UInt32(primary_key=True, description="position in (at, source row) order, from 0")
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    rating = dy.Float32(nullable=True, description="the source's rating, null where it has none")
    at = dy.Int64(description="unix seconds, or the source's order where it has no time")
    part = dy.String(nullable=True, description="train, valid or test where the source publishes its own split")


class Items(Table):
    grain: ClassVar[str] = "one item"
    item = dy.UInt32(primary_key=True, description="dense item")
    item_id = dy.String(description="the source's id")
    title = dy.String(description="cleaned title; the id where the source has none")
    categories = dy.List(dy.String(), nullable=True, description="genres or category path")
    text = dy.String(nullable=True, description="longer description, where the source has one")


class Users(Table):
    grain: ClassVar[str] = "one user"
    user = dy.UInt32(primary_key=True, description="dense user")
    user_id = dy.String(description="the source's id")
    profile = dy.String(nullable=True, description="profile fields as `name: value` pairs, where known")


class Reviews(Table):
    grain: ClassVar[str] = "one review text of a user on an item"
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    at = dy.Int64(description="unix seconds or order, as in interactions")
    text = dy.String(description="cleaned review text")


class Quarantine(Table):
    grain: ClassVar[str] = "one broken rule of one refused source row"
    table = dy.String(description="interactions, items, users or reviews")
    file = dy.String(description="file the row came from")
    source_row = dy.UInt64(description="row number in that file, from 1, header not counted")
    column = dy.String(description="column at fault")
    reason = dy.String(description="rule that the row broke")
    value = dy.String(nullable=True, description="the value at fault, as text")


class Examples(Table):
    """History holds only interactions strictly earlier than `at`, oldest first."""

    grain: ClassVar[str] = "one labelled user-item pair of the ctr track"
    row = dy.UInt32(primary_key=True, description="row of the interaction it was made of")
    part = dy.String(description="train, valid or test")
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    label = dy.UInt8(description="1 liked, 0 not")
    at = dy.Int64(description="unix seconds or order")
    history = dy.List(dy.UInt32(), description="the user's last items before `at`, oldest first")
    history_labels = dy.List(dy.UInt8(), description="their labels, aligned with history")
    user_seen = dy.UInt32(description="rows of this user in train")
    item_seen = dy.UInt32(description="rows of this item in train")


class Pairs(Table):
    grain: ClassVar[str] = "one scored example of a method, variant and seed"
    track = dy.String(description="evaluation task, here ctr")
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    row = dy.UInt32(description="row of the example")
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    label = dy.UInt8(description="1 liked, 0 not")
    score = dy.Float64(description="the higher the likelier; any scale")
    probability = dy.Float64(
        nullable=True, min=0, max=1, description="P(label = 1), null where a method gives only an order"
    )


class Events(Table):
    grain: ClassVar[str] = "one interaction that a track which ranks the catalogue looks at"
    row = dy.UInt32(primary_key=True, description="row of the interaction")
    part = dy.String(description="train, valid or test")
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    at = dy.Int64(description="unix seconds or order")


class Catalogue(Table):
    grain: ClassVar[str] = "one item that can be recommended"
    item = dy.UInt32(primary_key=True, description="dense item")
    place = dy.UInt32(
        nullable=True,
        description="place among the items with train rows, in order of item; null for the cold ones",
    )
    train_rows = dy.UInt32(description="rows of this item in train")


class Queries(Table):
    """History holds the user's events before the first target, in order of (at, row), of the parts that may be
    looked at, oldest first; in a random split all events of those parts, whatever their time."""

    grain: ClassVar[str] = "one user to recommend to at one moment"
    part = dy.String(primary_key=True, description="valid or test")
    user = dy.UInt32(primary_key=True, description="dense user")
    at = dy.Int64(description="moment of the first target")
    history = dy.List(dy.UInt32(), description="all items used before, oldest first")
    targets = dy.List(dy.UInt32(), description="items to be found, in order of time")


class Candidates(Table):
    grain: ClassVar[str] = "one item of one stored list of the rerank track"
    list = dy.String(primary_key=True, description="which lists: random_20, retrieved_50, random_10")
    part = dy.String(primary_key=True, description="valid or test")
    user = dy.UInt32(primary_key=True, description="dense user")
    place = dy.UInt32(primary_key=True, description="place in the list, from 1; the target's is drawn by seed")
    item = dy.UInt32(description="dense item")
    label = dy.UInt8(description="1 for a target, 0 for the others")


class Rankings(Table):
    """The first of each user's order of the catalogue, and the targets wherever in it they stand; or the order
    of a stored list, whole."""

    grain: ClassVar[str] = "one item in one user's order, by a method, variant and seed"
    track = dy.String(
        description="evaluation task: next_item, cold_item, or rerank and the stored list: rerank/random_20"
    )
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    user = dy.UInt32(description="dense user")
    rank = dy.UInt32(min=1, description="place in the whole order, from 1; equal scores stand in order of item")
    item = dy.UInt32(description="dense item")
    score = dy.Float64(
        nullable=True, description="the higher the earlier; null where the method cannot score the item"
    )
    target = dy.Bool(description="whether the item is to be found")


class Recommendations(Table):
    """By all that is known of a user: holds nothing the user ever used, and only what the model can score."""

    grain: ClassVar[str] = "one place in a user's list, by the model chosen to recommend"
    user = dy.UInt32(primary_key=True, description="dense user")
    user_id = dy.String(description="the source's id")
    rank = dy.UInt32(primary_key=True, min=1, description="place in the list, from 1")
    item = dy.UInt32(description="dense item")
    item_id = dy.String(description="the source's id")
    title = dy.String(description="cleaned title; the id where the source has none")
    score = dy.Float64(description="the higher the earlier; the model's own scale")
    method = dy.String(description="model that recommends")
    variant = dy.String(description="its named form, here `default`")
    seed = dy.UInt32(description="seed of its run; 0 where there is no chance in it")


class UserVectors(Table):
    grain: ClassVar[str] = "one user's learnt vector"
    user = dy.UInt32(primary_key=True, description="dense user")
    vector = dy.List(dy.Float32(), description="learnt vector; the mean vector for users without training rows")
    trained = dy.Bool(description="false where the mean vector stands in")


class ItemVectors(Table):
    grain: ClassVar[str] = "one item's learnt vector"
    item = dy.UInt32(primary_key=True, description="dense item")
    vector = dy.List(dy.Float32(), description="learnt vector; the mean vector for items without training rows")
    trained = dy.Bool(description="false where the mean vector stands in")


class ItemText(Table):
    grain: ClassVar[str] = "one item in a sentence or two, as text encoders and language models read it"
    item = dy.UInt32(primary_key=True, description="dense item")
    text = dy.String(description="the study's word, the title, categories and description, one line")


class ItemEmbeddings(Table):
    grain: ClassVar[str] = "one item as the vector of its text"
    item = dy.UInt32(primary_key=True, description="dense item")
    vector = dy.List(
        dy.Float32(), description="coordinates; the cosine of two vectors says how alike two texts are"
    )


class SimilarItems(Table):
    """In order of item and rank. A check of the stage finds a rank that stands twice, a piece at a time."""

    grain: ClassVar[str] = "one of an item's nearest items by their texts"
    item = dy.UInt32(description="dense item")
    rank = dy.UInt32(min=1, description="place among its neighbours, from 1, the most similar")
    neighbour = dy.UInt32(description="dense item, never the item itself")
    similarity = dy.Float32(min=-1, max=1, description="cosine of the two vectors, to six decimals")


class ToldPasts(Table):
    grain: ClassVar[str] = "one user whose text tells a past, what it tells, and until when"
    user = dy.UInt32(primary_key=True, description="dense user")
    items = dy.List(dy.UInt32(), description="items that the text tells, oldest first")
    until = dy.Int64(description="moment of the last of them; the text may be read for what comes later only")


class Codes(Table):
    grain: ClassVar[str] = "one user's or item's binary code"
    entity = dy.String(description="user or item")
    id = dy.UInt32(description="dense user or item")
    bits = dy.String(description="the code as 0 and 1, most significant first")
    dotted = dy.String(description="the code a byte at a time as decimals, like 172.16.254.1")
    trained = dy.Bool(description="false where the code is the defined cold code")


class SemanticIds(Table):
    grain: ClassVar[str] = "one item's semantic id"
    item = dy.UInt32(primary_key=True, description="dense item")
    codes = dy.List(
        dy.UInt16(),
        description="a code of each level, from 0, the coarsest first; last the digit that tells apart items "
        "that share them",
    )


class Prompts(Table):
    grain: ClassVar[str] = "one prompt: what a language model reads of one example, in one form of the question"
    row = dy.UInt32(description="row of the example")
    part = dy.String(description="train, valid or test")
    user = dy.UInt32(description="dense user")
    item = dy.UInt32(description="dense item")
    label = dy.UInt8(description="1 liked, 0 not; never part of the prompt")
    form = dy.UInt8(description="1; 2 where a train row is asked a second time, in another form")
    prompt = dy.String(description="the text, up to and without the answer")
    tokens = dy.UInt32(description="length in tokens of the study's language model")
    shown = dy.List(dy.UInt32(), description="the history items that it shows, oldest first")
    items_shown = dy.UInt32(description="history items that fitted")
    items_dropped = dy.UInt32(description="history items cut to stay inside the token budget")
    slots = dy.List(dy.UInt32(), description="characters where its reserved tokens begin; none in words alone")
    vectors = dy.List(dy.UInt32(), description="for each of them the row of the soft vectors that it shows")


class ListPrompts(Table):
    """Rows to learn and choose from are of train events alone; candidates of the others are a stored list's."""

    grain: ClassVar[str] = "one prompt that asks for a list of titles"
    row = dy.UInt32(primary_key=True, description="number of the prompt")
    role = dy.String(description="learn: tuned on; choose: chooses the best step; ask: to be answered")
    task = dy.String(description="recommend: from the history alone; recommend_retrieval: from candidates")
    part = dy.String(description="train, valid or test")
    user = dy.UInt32(description="dense user")
    prompt = dy.String(description="the text, up to and without the answer")
    answer = dy.String(description="what is to be written after it; empty where it is asked")
    tokens = dy.UInt32(description="length of the prompt in tokens of the study's language model")
    shown = dy.List(dy.UInt32(), description="the history items that it shows, oldest first")
    items_dropped = dy.UInt32(description="history items cut to stay inside the token budget")
    profile = dy.List(dy.String(), description="keywords of the user's past, the weightiest first")
    targets = dy.List(dy.UInt32(), description="items that the answer names; none where it is asked")
    candidates = dy.List(dy.UInt32(), description="the items to choose from, as told")


class WrittenLists(Table):
    grain: ClassVar[str] = "one list that a language model wrote, by a method, variant and seed"
    method = dy.String(description="method")
    variant = dy.String(description="named form of the method or control")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    user = dy.UInt32(description="dense user")
    text = dy.String(description="what was written, as it stands")
    named = dy.UInt32(description="different candidates that it names")
    again = dy.UInt32(description="how often it names a candidate once more")
    outside = dy.UInt32(description="names that are of no candidate")


class ChoicePrompts(Prompts):
    grain: ClassVar[str] = "one prompt of one list: rows number lists, not examples, and item is the target"


class Knowledge(Table):
    """Rows of one owner stand together, in the order in which they were asked."""

    grain: ClassVar[str] = "one text that a chat model was asked for, of one user or item"
    kind = dy.String(description="what was asked: user_reasoning, item_facts, item_description or the like")
    owner = dy.UInt32(description="dense user or item that it is about")
    text = dy.String(nullable=True, description="the answer, cleaned; null where there is none")
    status = dy.String(description="answered, refused, truncated, failed or not_asked")
    answer = dy.String(nullable=True, description="fingerprint of the recorded answer; null without one")


class Neighbours(Table):
    grain: ClassVar[str] = "one item"
    item = dy.UInt32(primary_key=True, description="dense item")
    neighbours = dy.List(dy.UInt32(), description="dense items near it, the nearest first")


class Tags(Table):
    """The most frequent first."""

    grain: ClassVar[str] = "one tag of the vocabulary"
    tag = dy.String(primary_key=True, description="the tag, in lower case")
    answers = dy.UInt32(description="answers of a chat model that hold it")


class ItemTags(Table):
    grain: ClassVar[str] = "one item that was asked about"
    item = dy.UInt32(primary_key=True, description="dense item")
    tags = dy.List(dy.String(), description="its tags, the first ones count most")


class Curve(Table):
    grain: ClassVar[str] = "one point of a learning curve"
    phase = dy.String(description="name of the training phase")
    step = dy.UInt32(description="optimiser steps (or epochs, see the stage) so far")
    metric = dy.String(description="what was measured, e.g. train_loss, valid_auc")
    value = dy.Float64(description="what it was then")


class FewShot(Table):
    grain: ClassVar[str] = "one number of training examples, and what a part says of the model tuned on them"
    method = dy.String(description="method that was tuned")
    variant = dy.String(description="its variant")
    seed = dy.Int64(description="seed of the draw of examples, and of tuning")
    shots = dy.UInt32(description="training examples; those of fewer are among those of more")
    part = dy.String(description="valid, which chose the step, or test")
    rows = dy.UInt32(description="rows scored")
    users = dy.UInt32(description="their users, which the interval draws")
    auc = dy.Float64(description="area under the ROC curve over all rows; NaN for one class")
    low = dy.Float64(description="lower end of its 95 % interval")
    high = dy.Float64(description="upper end")


class Search(Table):
    grain: ClassVar[str] = "one setting that was tried, judged on validation"
    method = dy.String(description="method or baseline the setting is for")
    candidate = dy.String(description="the setting, as name=value pairs")
    valid_auc = dy.Float64(description="AUC on the validation rows")
    epochs = dy.UInt32(nullable=True, description="passes over the training rows up to that AUC; null without")
    chosen = dy.Bool(description="true for the one that was kept")


class Trials(Table):
    grain: ClassVar[str] = "one setting that was tried on the next_item track, judged on validation"
    candidate = dy.String(description="the setting, as name=value pairs")
    valid_ndcg_10 = dy.Float64(description="NDCG@10 on the validation queries")
    chosen = dy.Bool(description="true for the one that was kept")


class UserMetrics(Table):
    grain: ClassVar[str] = "one user's figures for a method, variant, seed and part"
    track = dy.String(description="evaluation task, here ctr")
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    user = dy.UInt32(description="dense user")
    rows = dy.UInt32(description="scored examples of this user")
    positives = dy.UInt32(description="of them liked")
    auc = dy.Float64(nullable=True, description="null where the user has one class only")
    log_loss = dy.Float64(nullable=True, description="mean over the user's rows; null without probabilities")
    accuracy = dy.Float64(nullable=True, description="at probability 0.5; null without probabilities")


class UserRanks(Table):
    """`pipeline.evaluate.ranking` defines the metrics."""

    grain: ClassVar[str] = "one user's figures for a method, variant, seed and part, of its orders"
    track = dy.String(description="evaluation task")
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    user = dy.UInt32(description="dense user")
    targets = dy.UInt32(min=1, description="items to be found")
    first = dy.UInt32(nullable=True, description="rank of the first target; null where the list holds none")
    hr_1 = dy.Float64(description="1 where a target stands first")
    hr_5 = dy.Float64(description="1 where any target is among the first 5")
    hr_10 = dy.Float64(description="the same of the first 10")
    hr_20 = dy.Float64(description="the same of the first 20")
    ndcg_1 = dy.Float64(description="discounted gain of the first place: 1 where it is a target")
    ndcg_5 = dy.Float64(description="discounted gain of the first 5 over that of the best possible list")
    ndcg_10 = dy.Float64(description="the same of the first 10")
    ndcg_20 = dy.Float64(description="the same of the first 20")
    mrr_1 = dy.Float64(description="1 where a target stands first")
    mrr_5 = dy.Float64(description="one over the rank of the first target, 0 beyond the first 5")
    mrr_10 = dy.Float64(description="the same of the first 10")
    mrr_20 = dy.Float64(description="the same of the first 20")
    map_1 = dy.Float64(description="1 over all targets where one stands first")
    map_5 = dy.Float64(description="precision at each target among the first 5, summed, over all targets")
    map_10 = dy.Float64(description="the same of the first 10")
    map_20 = dy.Float64(description="the same of the first 20")
    precision_1 = dy.Float64(description="1 where a target stands first")
    precision_5 = dy.Float64(description="targets among the first 5, over 5")
    precision_10 = dy.Float64(description="the same of the first 10")
    precision_20 = dy.Float64(description="the same of the first 20")
    recall_1 = dy.Float64(description="1 over all targets where one stands first")
    recall_5 = dy.Float64(description="targets among the first 5, over all targets")
    recall_10 = dy.Float64(description="the same of the first 10")
    recall_20 = dy.Float64(description="the same of the first 20")


class Exposure(Table):
    grain: ClassVar[str] = "one figure of what a run's lists of all users together show, on one part"
    track = dy.String(description="evaluation task")
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    metric = dy.String(description="coverage, popularity or novelty, and how many first places: coverage_10")
    value = dy.Float64(nullable=True, description="null where nobody's list holds anything")


class ColdShares(Table):
    grain: ClassVar[str] = (
        "one figure of a method's lists on one part, at one share of items without training rows"
    )
    method = dy.String(description="method")
    variant = dy.String(description="named form of the method or control")
    seed = dy.UInt32(description="seed of the run")
    part = dy.String(description="valid or test")
    share = dy.Float64(min=0, max=1, description="largest share of a list that such items may take")
    metric = dy.String(description="hr_5, hr_10, hr_20 or ndcg_10")
    value = dy.Float64(description="mean over users")


class Leaderboard(Table):
    grain: ClassVar[str] = "one metric of a method and variant on one part"
    track = dy.String(
        description="evaluation task: ctr, next_item, cold_item, rerank/random_20 and other lists"
    )
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    part = dy.String(description="valid or test")
    metric = dy.String(
        description="ctr: auc, uauc, uauc_weighted, log_loss, accuracy; next_item: those of user_ranks"
    )
    value = dy.Float64(description="mean over seeds")
    low = dy.Float64(description="2.5 % bootstrap bound over users")
    high = dy.Float64(description="97.5 % bootstrap bound over users")
    seed_deviation = dy.Float64(nullable=True, description="standard deviation over seeds; null for one seed")
    seeds = dy.UInt32(description="number of seeds")
    users = dy.UInt32(description="users that count in this metric")
    users_skipped = dy.UInt32(description="users left out: one class only (uauc)")
    rows = dy.UInt32(description="scored examples; targets to be found, where a catalogue is ranked")


class Comparisons(Table):
    grain: ClassVar[str] = "one paired test between two methods on one metric, test part"
    track = dy.String(description="evaluation task, here ctr")
    question = dy.String(
        description="baseline: against the best baseline by validation; control: against own control"
    )
    method = dy.String(description="method or baseline")
    variant = dy.String(description="named form of the method or control; `default` where it has one form")
    versus_method = dy.String(description="what it is compared with")
    versus_variant = dy.String(description="its variant")
    metric = dy.String(description="auc, uauc, uauc_weighted, log_loss or accuracy")
    difference = dy.Float64(description="method minus versus")
    low = dy.Float64(description="2.5 % bound of the paired bootstrap over users")
    high = dy.Float64(description="97.5 % bound")
    p = dy.Float64(description="two-sided p-value of the paired test")
    p_holm = dy.Float64(description="after Holm's correction over one question and metric")
    effect = dy.Float64(nullable=True, description="mean over standard deviation of the per-user differences")
    users = dy.UInt32(description="users that count in this metric")


def empty(schema: type[dy.Schema]) -> pl.DataFrame:
    """A frame of no rows with the schema's columns and types."""
    return schema.create_empty()
