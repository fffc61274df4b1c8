"""What every wire does to the messages of a conversation."""

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from harness.records import Json

T = TypeVar("T")
NO_UTF8 = re.compile("[\ud800-\udfff]")


def encodable(value: T) -> T:
    """The text or JSON value with U+FFFD for what UTF-8 cannot say: half a surrogate pair, a byte of a file that is
    not UTF-8."""
    said = json.dumps(value, ensure_ascii=False)
    return cast(T, json.loads(NO_UTF8.sub("\ufffd", said))) if NO_UTF8.search(said) else value


def dicts(value: Any) -> list[Json]:
    """The objects in a list; none in what is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def merged(had: Any, value: Any) -> Any:
    """A value that takes the place of another, or of two objects both."""
    return {**had, **value} if isinstance(had, dict) and isinstance(value, dict) else value


def native_of(message: Json, wire: str, field: str) -> list[Json]:
    """What the API of that wire alone knows of an answer, as it came; empty for a message without it."""
    native = message.get("native")
    return dicts(native.get(field)) if isinstance(native, dict) and native.get("wire") == wire else []


def system_merged(messages: Sequence[Json]) -> list[Json]:
    """The conversation without a system message: what it says begins the first message of the user."""
    system = "\n\n".join(str(m["content"]) for m in messages if m.get("role") == "system")
    rest = [dict(m) for m in messages if m.get("role") != "system"]
    if system and rest and rest[0].get("role") == "user":
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    elif system:
        rest.insert(0, {"role": "user", "content": system})
    return rest
