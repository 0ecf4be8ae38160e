"""Tokens a second of the embedded chat model, against a plain loop of transformers over the same weights.

    python -m benchmarks.chat_speed --prompts 32 --tokens 64

Both write so many tokens for each prompt, greedily, on the same cores. The embedded model is asked through the
whole path of a study: server, client, ledger; its start is told apart. The loop is what one writes first: one
prompt at a time, float32, `generate`.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from benchmarks.chat import benchmark
from pipeline.knowledge.asking import ask_all
from pipeline.knowledge.settings import ChatSettings
from pipeline.llm.load import LanguageModel, bring, load_model, load_tokenizer
from pipeline.stage import Draft, Spec
from resources.chat import reach

ROOT = Path(__file__).resolve().parents[1]


def prompts(count: int) -> list[str]:
    return [f"Describe film number {i} of a festival in three sentences." for i in range(count)]


def embedded(count: int, tokens: int, folder: Path) -> dict[str, float]:
    """Ask the embedded model through ledger and client."""
    chat = ChatSettings.model_validate({"parameters": {"max_tokens": tokens}, "context": 1024})
    began: list[float] = []

    @contextmanager
    def connect(settings: ChatSettings):
        with reach(ROOT)(settings) as endpoint:
            began.append(time.perf_counter())
            yield endpoint

    messages = [[{"role": "user", "content": prompt}] for prompt in prompts(count)]
    frame = pl.DataFrame({"owner": range(count), "purpose": "speed", "messages": messages})
    draft = Draft(
        folder / "draft", benchmark, Spec("", "", "", {}, {}, {}, "f", str(folder), ""), folder, connect
    )
    start = time.perf_counter()
    ask_all(frame, chat, draft)
    seconds = time.perf_counter() - began[0]
    written = draft.metrics["answer_tokens_out"]
    return {
        "started in": round(began[0] - start, 2),
        "tokens": written,
        "tokens a second": round(written / seconds, 1),
    }


def plain_loop(count: int, tokens: int, folder: Path) -> dict[str, float]:
    """One prompt after the other through `generate`."""
    import torch

    model_folder = folder / "model"
    model_folder.mkdir()
    bring(LanguageModel.model_validate({}), ROOT, model_folder)
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    written, began = 0, time.perf_counter()
    for prompt in prompts(count):
        turn = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([tokenizer.encode(turn).ids])
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        written += out.shape[1] - ids.shape[1]
    return {"tokens": written, "tokens a second": round(written / (time.perf_counter() - began), 1)}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--prompts", type=int, default=32)
    given.add_argument("--tokens", type=int, default=64)
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory(prefix="interlingua-chat-") as folder:
        (Path(folder) / "loop").mkdir()
        served = embedded(chosen.prompts, chosen.tokens, Path(folder))
        loop = plain_loop(max(2, chosen.prompts // 8), chosen.tokens, Path(folder) / "loop")
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "embedded": served, "plain loop": loop}, indent=1))
    print(f"{served['tokens a second'] / loop['tokens a second']:.1f} times the plain loop")


if __name__ == "__main__":
    main()
