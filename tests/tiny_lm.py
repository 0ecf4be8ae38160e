"""A language model of two layers with random weights, and a tokenizer learnt in milliseconds, for tests."""

import json
from pathlib import Path
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>")
CORPUS = (
    '#Question: A user has given high ratings to the following movies: "Toy Story (1995)". Leverage the',
    'information to predict whether the user would enjoy the movie titled "Heat (1995)"? Answer with "Yes" or',
    '"No". \n#Answer: Yes',
    "Below is an instruction that describes a task. #Answer: No No. Yes. features 172.16.254.1",
)


def make_tokenizer(opening: bool = False) -> Any:
    """Byte-level BPE over a few sentences, digits one by one; `opening` puts <|im_start|> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if opening:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    return tokenizer


def make_model(vocabulary: int = 512, seed: int = 0, width: int = 32, layers: int = 2) -> Any:
    """A random Llama in float32, ready to read from."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,  # at the usual 0.02 so small a model hardly tells one token from another
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def save(folder: Path, seed: int = 0, opening: bool = False) -> Path:
    """Write model and tokenizer in Hugging Face layout and return the folder."""
    from pipeline.llm.load import quiet

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(opening)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    with quiet():
        make_model(seed=seed).save_pretrained(folder)
    return folder
