"""A text encoder of two layers with random weights, in Hugging Face layout, for tests."""

import json
from pathlib import Path

WORDS = [
    "a",
    "man",
    "is",
    "eating",
    "meal",
    "somebody",
    "eats",
    "his",
    "dinner",
    "the",
    "spacecraft",
    "left",
    "its",
    "orbit",
    "around",
    "mars",
    "here",
    "film",
    "title",
    ".",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def save(folder: Path, seed: int = 0) -> Path:
    """Write model and tokenizer and return the folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    from pipeline.llm.load import quiet

    folder.mkdir(parents=True, exist_ok=True)
    letters = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    alone = [c for c in "abcdefghijklmnopqrstuvwxyz0123456789<>|()[]"]
    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *dict.fromkeys([*WORDS, *alone, *letters])])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.5, **shape)
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder
