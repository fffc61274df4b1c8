"""The usage that servers report, each in its own way, as Troop counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records import Usage


def usage_of(response: Any) -> Usage | None:
    """The usage of a response in disjoint parts; None where the server does not tell it.

    OpenAI and those who follow it count cached tokens within `prompt_tokens` (`prompt_tokens_details.cached_tokens`)
    and reasoning within `completion_tokens`. DeepSeek tells the cached as `prompt_cache_hit_tokens`. Anthropic's own
    names (`input_tokens`, `cache_read_input_tokens`, `cache_creation_input_tokens`) are disjoint already.
    """
    reported = getattr(response, "usage", None)
    if reported is None:
        return None
    usage: Mapping[str, Any] = reported if isinstance(reported, dict) else reported.to_dict(warnings=False)
    if "prompt_tokens" not in usage and "input_tokens" not in usage:
        return None
    output = _count(usage, "completion_tokens", "output_tokens")
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    reasoning = min(output, _count(details, "reasoning_tokens") or _count(usage, "reasoning_tokens"))
    read = _count(usage, "cache_read_input_tokens")
    write = _count(usage, "cache_creation_input_tokens")
    if "prompt_tokens" not in usage:
        return Usage(_count(usage, "input_tokens"), read, write, output - reasoning, reasoning)
    prompt = _count(usage, "prompt_tokens")
    details = usage.get("prompt_tokens_details") or {}
    read = min(prompt, _count(details, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens") or read)
    write = min(prompt - read, _count(details, "cache_write_tokens", "cache_creation_tokens") or write)
    return Usage(prompt - read - write, read, write, output - reasoning, reasoning)


def _count(table: Any, *names: str) -> int:
    for name in names:
        value = table.get(name) if isinstance(table, Mapping) else None
        if isinstance(value, int) and value > 0:
            return value
    return 0
