"""The usage that servers report, each in its own way, as Troop counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records import Json, Usage

Bill = tuple[Usage | None, float | None]
"""Usage in disjoint parts, and USD; None for what the server does not tell in numbers."""


def chat_bill(response: Any) -> Bill:
    """What a response in the form of Chat Completions says that it took.

    OpenAI and those who follow it count cached tokens within `prompt_tokens` (`prompt_tokens_details.cached_tokens`)
    and reasoning within `completion_tokens`; some count reasoning outside of it, which only `total_tokens` shows.
    DeepSeek tells the cached as `prompt_cache_hit_tokens`. OpenRouter tells what it charges as `cost`.
    """
    usage, usd = _told(response)
    if usage is None:
        return None, None
    prompt, output = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    if prompt is None:
        return disjoint_usage(usage), usd
    details = usage.get("prompt_tokens_details")
    read = count(details, "cached_tokens") or count(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    write = count(details, "cache_write_tokens", "cache_creation_tokens") or count(usage, "cache_creation_input_tokens")
    details = usage.get("completion_tokens_details")
    reasoning = count(details, "reasoning_tokens") or count(usage, "reasoning_tokens")
    return _parted(prompt, read, write, output, reasoning, count(usage, "total_tokens")), usd


def responses_bill(response: Any) -> Bill:
    """The same of a response of the Responses API: cached tokens are counted within `input_tokens`
    (`input_tokens_details.cached_tokens`), reasoning within `output_tokens`. Gateways tell `cost`, too."""
    usage, usd = _told(response)
    prompt = count(usage, "input_tokens")
    if usage is None or prompt is None:
        return chat_bill(response)
    details = usage.get("input_tokens_details")
    read, write = count(details, "cached_tokens"), count(details, "cache_write_tokens", "cache_creation_tokens")
    output, reasoning = count(usage, "output_tokens"), count(usage.get("output_tokens_details"), "reasoning_tokens")
    return _parted(prompt, read, write, output, reasoning, count(usage, "total_tokens")), usd


def _told(response: Any) -> tuple[Json | None, float | None]:
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None, None
    cost = usage.get("cost")
    usd = float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None
    return usage, usd


def _parted(
    prompt: int, read: int | None, write: int | None, output: int | None, reasoning: int | None, total: int | None
) -> Usage | None:
    """Disjoint parts of counts that hold each other; None where nothing says how long the answer was."""
    if output is None and total is None:
        return None
    output = max(output or 0, (total or 0) - prompt)
    read = min(prompt, read or 0)
    write = min(prompt - read, write or 0)
    reasoning = min(output, reasoning or 0)
    return Usage(prompt - read - write, read, write, output - reasoning, reasoning)


def disjoint_usage(usage: Mapping[str, Any]) -> Usage | None:
    """The usage of Anthropic's API, whose parts are disjoint but for thinking, which is within `output_tokens`; None
    where they are no numbers."""
    fresh, output = count(usage, "input_tokens"), count(usage, "output_tokens")
    if fresh is None or output is None:
        return None
    read, write = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    thinking = min(output, count(usage.get("output_tokens_details"), "thinking_tokens") or 0)
    return Usage(fresh, read or 0, write or 0, output - thinking, thinking)


def count(table: Any, *names: str) -> int | None:
    """The first of these fields that holds a number of tokens; None where none does."""
    for name in names:
        value = table.get(name) if isinstance(table, Mapping) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None
