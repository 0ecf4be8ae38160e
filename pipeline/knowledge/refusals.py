"""Texts in which a language model says that it will not, or cannot, write the text that it was asked for.

Judged by the first 300 characters. A plot may hold an apology or an AI as well, so an apology counts only where
the text begins with it, and "as an AI" only where it is the writer's name for itself.
"""

import re

LOOKED_AT = 300  # characters
REFUSAL = re.compile(
    r"^\W*(?:i'?m (?:very )?sorry|i am sorry|sorry,? (?:but )?(?:i\b|as an?\b)|i apologi[sz]e"
    r"|(?:my )?apologies\b|unfortunately, (?:i\b|as an?\b)|i'?m afraid)"
    r"|\bas an? (?:(?:ai|artificial intelligence)(?:,| i\b| (?:language )?(?:model|assistant))"
    r"|(?:large )?language model)"
    r"|\bi(?: can ?not| can'?t|(?: am|'?m) (?:not able|unable)(?: to)?| do not have| don'?t have)"
    r" (?:help|assist|comply|fulfil|provide|access|find|any (?:information|knowledge|data)|information|enough"
    r"|describe|introduce|personal)",
    re.IGNORECASE,
)


def refused(text: str) -> bool:
    """Whether a text is a refusal."""
    return REFUSAL.search(text.replace("\u2019", "'")[:LOOKED_AT]) is not None
