"""The usage that servers report, each in its own way, as Troop counts it."""

from collections.abc import Mapping
from typing import Any

from harness.records import Json, Usage

Bill = tuple[Usage | None, float | None]
"""Usage in disjoint parts, and USD; None for what the server does not tell in numbers."""


def chat_bill(response: Any) -> Bill:
    """What a response in the form of Chat Completions says that it took.

    OpenAI and those who follow it count cached tokens within `prompt_tokens` (`prompt_tokens_details.cached_tokens`)
    and reasoning within `completion_tokens`; some count reasoning outside of it, which only `total_tokens` shows.
    DeepSeek tells the cached as `prompt_cache_hit_tokens`. OpenRouter tells what it charges as `cost`."""
    return _bill(response, "prompt_tokens", "completion_tokens") or (disjoint_usage(_told(response)), _usd(response))


def responses_bill(response: Any) -> Bill:
    """The same of a response of the Responses API: cached tokens are counted within `input_tokens`
    (`input_tokens_details.cached_tokens`), reasoning within `output_tokens`. Gateways tell `cost`, too."""
    return _bill(response, "input_tokens", "output_tokens") or chat_bill(response)


def _told(response: Any) -> Json:
    usage = response.get("usage") if isinstance(response, dict) else None
    return usage if isinstance(usage, dict) else {}


def _usd(response: Any) -> float | None:
    cost = _told(response).get("cost")
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None


def _bill(response: Any, prompts: str, answers: str) -> Bill | None:
    """Disjoint parts of counts that hold each other, which the server calls so; None where it does not say how long the
    prompt was. The usage is None where nothing says how long the answer was."""
    usage, usd = _told(response), _usd(response)
    prompt, output, total = count(usage, prompts), count(usage, answers), count(usage, "total_tokens")
    if prompt is None:
        return None
    if output is None and total is None:
        return None, usd
    details = usage.get(f"{prompts}_details")
    read = count(details, "cached_tokens") or count(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    write = count(details, "cache_write_tokens", "cache_creation_tokens") or count(usage, "cache_creation_input_tokens")
    thought = count(usage.get(f"{answers}_details"), "reasoning_tokens") or count(usage, "reasoning_tokens")
    output = max(output or 0, (total or 0) - prompt)
    read = min(prompt, read or 0)
    write = min(prompt - read, write or 0)
    thought = min(output, thought or 0)
    return Usage(prompt - read - write, read, write, output - thought, thought), usd


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
