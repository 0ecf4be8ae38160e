"""Secrets in addresses: found, so that a study with one is refused, and hidden where an error repeats one."""

import re

SECRETS = (
    re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]*://)[^/\s?#'\"]+@", re.IGNORECASE),  # user:password@
    re.compile(
        r"(?P<kept>[?&;](?:[^=&\s]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key)"
        r"[^=&\s]*|key|sig|auth|pwd)=)[^&\s#'\"]+",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<kept>\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-))[\w-]{16,}"),  # as hosts give them out
)


def redact(text: str) -> str:
    """The text with every password, token and signed parameter of an address as `***`."""
    for secret in SECRETS:
        text = secret.sub(lambda found: f"{found['kept']}***{'@' * found[0].endswith('@')}", text)
    return text


def holds_secret(text: str) -> bool:
    return redact(text) != text
