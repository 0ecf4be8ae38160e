"""Text from outside, made harmless before it stands in a prompt: it stays data, whatever it says.

title -> no control or bidirectional characters, one line, no quotes, bounded length
      -> no text that the tokenizer would read as one of its own special tokens

The contract of source data has made titles one line already, for tables and pages. This is the door of prompts
and does not lean on it: quotes, length and format characters matter here only, and a chat model's answers never
pass the contract. It costs milliseconds per thousand titles.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

JOINERS = "\u200c\u200d"  # format characters that some scripts and emoji need
SOFT_TOKEN = "<|soft|>"  # reserved: it stands in a prompt where a language model reads a vector
TEMPLATE = re.compile(  # what the chat templates of common models mark turns with
    r"<\|[^<>|\n]{1,40}\|>|<\uff5c[^<>\n]{1,40}\uff5c>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|"
    r"\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<(?:bos|eos|pad|unk)>",
    re.IGNORECASE,
)
DROPPED = ("Cc", "Cf", "Cs", "Co", "Cn")
QUOTES = str.maketrans({'"': "'", "“": "'", "”": "'", "„": "'", "«": "'", "»": "'"})


def clean(text: str, longest: int) -> str:
    """One harmless line of at most `longest` characters; `untitled` where nothing is left."""
    head = text[: 4 * longest]  # a title of megabytes is not walked through
    spaced = re.sub(r"\s+", " ", head)
    kept = "".join(c for c in spaced if c in JOINERS or unicodedata.category(c) not in DROPPED)
    line = re.sub(r"\s+", " ", kept).strip().translate(QUOTES)
    return shorten(line, longest) or "untitled"


def shorten(line: str, longest: int) -> str:
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def without_turns(text: str) -> str:
    """Break every text that a chat template of any common model marks a turn with; the rest stays as it is.

    For texts on their way to a chat model whose tokenizer is not at hand, and for what it answers.
    """
    while TEMPLATE.search(text):
        text = TEMPLATE.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


def special_tokens(tokenizer: "Tokenizer") -> list[str]:
    """Texts that the tokenizer turns into one special id, the longest first."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.content.strip()}
    return sorted(added, key=lambda text: (-len(text), text))


def special_ids(tokenizer: "Tokenizer") -> set[int]:
    added = tokenizer.get_added_tokens_decoder()
    return {number for number, token in added.items() if token.content.strip()}


def reserved_id(tokenizer: "Tokenizer") -> int:
    """Id of the reserved token. Raises ValueError for a tokenizer that `load_tokenizer` has not prepared."""
    found = tokenizer.token_to_id(SOFT_TOKEN)
    if found is None:
        raise ValueError(f"the tokenizer has no {SOFT_TOKEN}")
    return found


def neutralise(texts: Sequence[str], tokenizer: "Tokenizer") -> list[str]:
    """Break every special token inside the texts, so that they tokenise to ordinary ids only.

    A space goes behind the token's first character. Where the tokenizer's own normalising still finds one
    (as in full-width forms), all but letters, digits and spaces is dropped. Raises ValueError if even
    that leaves one.
    """
    tokens = special_tokens(tokenizer)
    broken = [break_tokens(text, tokens) for text in texts]
    unsafe = smuggled(broken, tokenizer)
    plain = {i: re.sub(r"[^\w ]|_", " ", broken[i]) for i in unsafe}
    left = smuggled(list(plain.values()), tokenizer)
    if left:
        raise ValueError(f"a text still holds a special token: {list(plain.values())[left[0]]!r}")
    return [plain.get(i, text) for i, text in enumerate(broken)]


def break_tokens(text: str, tokens: Iterable[str]) -> str:
    """Put a space into each token's text, until none is left."""
    for token in tokens:
        while token in text and len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def smuggled(texts: Sequence[str], tokenizer: "Tokenizer") -> list[int]:
    """Places of the texts that tokenise to a special id."""
    special = special_ids(tokenizer)
    read = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [i for i, one in enumerate(read) if special.intersection(one.ids)]
