"""The usage that servers report, each in its own way, as Troop counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records import Usage


def chat_bill(response: Any) -> tuple[Usage | None, float | None]:
    """(usage in disjoint parts, USD) of a response in the form of Chat Completions; None for what the server does not
    tell in numbers.

    OpenAI and those who follow it count cached tokens within `prompt_tokens` (`prompt_tokens_details.cached_tokens`)
    and reasoning within `completion_tokens`; some count reasoning outside of it, which only `total_tokens` shows.
    DeepSeek tells the cached as `prompt_cache_hit_tokens`. OpenRouter tells what it charges as `cost`.
    """
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None, None
    cost = usage.get("cost")
    usd = float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None
    prompt, output = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    if prompt is None:
        return disjoint_usage(usage), usd
    if output is None and (total := count(usage, "total_tokens")) is not None:
        output = total - prompt
    if output is None:
        return None, usd
    output = max(output, (count(usage, "total_tokens") or 0) - prompt)
    details = usage.get("completion_tokens_details")
    reasoning = min(output, count(details, "reasoning_tokens") or count(usage, "reasoning_tokens") or 0)
    details = usage.get("prompt_tokens_details")
    read = count(details, "cached_tokens") or count(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens") or 0
    write = count(details, "cache_write_tokens", "cache_creation_tokens") or count(usage, "cache_creation_input_tokens")
    read = min(prompt, read)
    write = min(prompt - read, write or 0)
    return Usage(prompt - read - write, read, write, output - reasoning, reasoning), usd


def disjoint_usage(usage: Mapping[str, Any]) -> Usage | None:
    """The usage of Anthropic's API, whose parts are disjoint already; None where they are no numbers."""
    fresh, output = count(usage, "input_tokens"), count(usage, "output_tokens")
    if fresh is None or output is None:
        return None
    read, write = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    return Usage(fresh, read or 0, write or 0, output)


def count(table: Any, *names: str) -> int | None:
    """The first of these fields that holds a number of tokens; None where none does."""
    for name in names:
        value = table.get(name) if isinstance(table, Mapping) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None
