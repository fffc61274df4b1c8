"""What a failed model call means: whether to try again, when, whether the model may have been reached (and paid), and
what the server's words say of the request.

Servers word the same refusal in many ways; the expressions here name what their texts have in common.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

import httpx2

LONGEST_DETAIL = 300
LONGEST_SAID = 8000
IN_STREAM = "the stream ended with an error"
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NOT_REACHED = frozenset({425, 429, 503, 521, 523, 529})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
_MONEY = re.compile(r"credit balance|insufficient (balance|funds|credits)", re.IGNORECASE)
_ANY = re.IGNORECASE | re.DOTALL
_TOO_LONG = re.compile(
    r"context.?(length|window|size|limit)|maximum (context|model length|prompt length)|max_model_len|model token limit"
    r"|(prompt|input|request|conversation|messages)\b(?!\[).{0,30}\btoo (long|large)|too many (input |prompt )?tokens"
    r"|reduce (the|your) (length|prompt|message|input)|input token count|must have less than \d+ tokens",
    _ANY,
)
_URL = re.compile(r"https?://\S+")  # Anthropic's manual has a page on the context window, named in other refusals
_SURELY_TOO_LONG = re.compile(r"context (size|length|window)|request too large", _ANY)
_CONTEXT = (
    re.compile(r"> *(\d[\d,]{2,})"),
    re.compile(r"(\d[\d,]{2,}) (?:tokens? )?maximum"),
    re.compile(
        r"(?:context.?(?:length|window|size|limit)|model length|prompt length|token limit|tokens allowed|maximum)"
        r"(?:(?! by )\D){0,30}(\d[\d,]{2,})",
        re.IGNORECASE,
    ),
)
_UNPARSED = re.compile(
    r"(error parsing|failed to parse|(could|can)( ?not|n't) (be )?parsed?|invalid|malformed)"
    r".{0,60}(tool|function).?call"
    r"|(tool|function).?call.{0,40}(not be parsed|parse error|parsing fail)|failed to parse (input|the model)",
    _ANY,
)
_FILTERED = re.compile(r"content.?(filter|management|policy)|moderation|flagged|safety|data_inspection", _ANY)
_NO_TOOLS = re.compile(
    r"does(n't| not) support (tool|function)|(tools?|function|tool.?call(s|ing)?|tool use|tool choice)[^.]{0,30}"
    r"(is|are)? ?(not|un) ?(be )?(supported|available|enabled)|requires --enable-auto-tool-choice|support tool use",
    _ANY,
)
_RESPONSES = re.compile(r"/responses\b|responses api|not a chat model", _ANY)
_STATUS_OF = {
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
}
"""What the Responses API answers with where it finds out before the answer has begun."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed. `what`: a short name ("429", "timeout"); `detail`: the server's words in one line, if any;
    `said`: all of the answer's text, to look for words in.

    `retry`: it may work later. `reached`: the model may have done the work. `retry_after`: seconds that the server asks
    to wait. `rate_limited`: too many calls at once. `status` 0: no HTTP answer. `too_long`: the conversation does not
    fit; `context`: the tokens that fit, where the server says so. `unparsed`: the server could not read the tool call
    that its own model wrote. `out_of_money`: the account has nothing left. `filtered`: the conversation's content is
    refused. `no_tools`: the model takes none there. `responses`: the model is to be had by the Responses API only.
    """

    what: str
    detail: str
    retry: bool
    said: str = ""
    reached: bool = False
    status: int = 0
    retry_after: float | None = None
    rate_limited: bool = False
    too_long: bool = False
    context: int | None = None
    unparsed: bool = False
    out_of_money: bool = False
    filtered: bool = False
    no_tools: bool = False
    responses: bool = False

    @property
    def of_request(self) -> bool:
        """Whether it is something about the request that the server does not take."""
        return self.status in (400, 413, 422, 500) and not (self.too_long or self.unparsed or self.filtered)


class Unusable(Exception):
    """An HTTP 200 whose body is no answer. `error`: the error object in it, if there is one."""

    def __init__(self, what: str, error: Any = None) -> None:
        super().__init__(what)
        self.error = error


def explain(error: Exception, sdk: ModuleType) -> Failure | None:
    """What the exception of a call means; None for one that is not the world's failure (a defect of ours). `sdk`: the
    package that made the call, `openai` or `anthropic`."""
    if isinstance(error, Unusable):
        return _of_unusable(error)
    if isinstance(error, sdk.APIStatusError) and error.status_code >= 400:
        text, wait = error.response.text, retry_after(error.response.headers)
        return _of_answer(error.status_code, error.body, _words(error.body) or text, text, wait)
    if isinstance(error, TimeoutError):
        return Failure("timeout", "no answer within the time limit", retry=True, reached=True)
    if isinstance(error, sdk.APIConnectionError):
        return _of_connection(error.__cause__ or error)
    if isinstance(error, sdk.APIError) and getattr(error, "body", None):  # within a stream
        return _of_unusable(Unusable(IN_STREAM, error.body))
    if isinstance(error, UnicodeEncodeError):
        return None
    if isinstance(error, (sdk.APIError, ValueError)):
        return Failure("garbage", f"the body is no JSON answer: {in_one_line(str(error))}", retry=True, reached=True)
    if isinstance(error, (httpx2.HTTPError, OSError)):
        return _of_connection(error)
    return None


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110,
    10.2.3). None where it does not say, or says nothing that is a wait (zero, the past, no number)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (value := headers.get(name)) is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds > 0 and not math.isnan(seconds):
            return seconds
    return None


def _of_unusable(error: Unusable) -> Failure:
    """Some gateways answer 200 and put the error, with its status as `code`, into the body."""
    told = error.error
    code = told.get("code") if isinstance(told, dict) else None
    try:
        status = _STATUS_OF.get(str(code)) or (int(code) if code is not None else 0)
    except (TypeError, ValueError, OverflowError):
        status = 0
    if 400 <= status < 600:
        return _of_answer(status, told, _words(told), str(told), None)
    detail = in_one_line(f"{error}: {_words(told)}" if told else str(error))
    return Failure("garbage", detail, retry=True, reached=True, too_long=bool(told) and bool(_TOO_LONG.search(detail)))


def _of_answer(status: int, body: Any, words: str, said: str, wait: float | None) -> Failure:
    table = body if isinstance(body, dict) else {}
    table = table["error"] if isinstance(table.get("error"), dict) else table
    code = str(table.get("code"))
    out_of_money = status == 402 or code in _QUOTA or str(table.get("type")) in _QUOTA or bool(_MONEY.search(words))
    said = said[:LONGEST_SAID]
    looked_for = _SURELY_TOO_LONG if status in (429, 500) else _TOO_LONG
    kind = f"{code} {table.get('type')}"
    too_long = status == 413 or "context_length" in kind or "exceed_context" in kind or (
        status in (400, 422, 429, 500) and bool(looked_for.search(_URL.sub("", words)))
    )  # fmt: skip
    unparsed = status in (400, 500) and not too_long and bool(_UNPARSED.search(words))
    no_tools = status in (400, 404, 422, 500) and bool(_NO_TOOLS.search(words))
    invalid = status == 500 and "validation error" in words  # of the request, by a server that lets it fall through
    retry = status in _RETRY_STATUS and not (out_of_money or too_long or unparsed or no_tools or invalid)
    return Failure(
        what=str(status),
        detail=in_one_line(words),
        said=said,
        retry=retry,
        reached=status in _RETRY_STATUS and status not in _NOT_REACHED and not (too_long or invalid),
        status=status,
        retry_after=wait,
        rate_limited=status == 429 and retry,
        too_long=too_long,
        context=_context(table, words) if too_long else None,
        unparsed=unparsed,
        out_of_money=out_of_money,
        filtered=status in (400, 403, 422) and bool(_FILTERED.search(said)),
        no_tools=no_tools,
        responses=status in (400, 403, 404, 422) and bool(_RESPONSES.search(words)),
    )


def _context(table: dict[str, Any], words: str) -> int | None:
    """The tokens that a conversation may have, from a refusal of one that is too long."""
    told = table.get("n_ctx")
    if isinstance(told, int) and told > 0:
        return told
    found = next((match for pattern in _CONTEXT if (match := pattern.search(words))), None)
    return int(found[1].replace(",", "")) if found else None


def _of_connection(error: BaseException) -> Failure:
    detail = in_one_line(str(error) or type(error).__name__)
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)):
        return Failure("connection", detail, retry=False)
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)):
        return Failure("connection", detail, retry=True)
    if isinstance(error, httpx2.TimeoutException):
        return Failure("timeout", f"no answer within the time limit ({type(error).__name__})", retry=True, reached=True)
    return Failure("connection", detail, retry=True, reached=True)


def _words(body: Any) -> str:
    """The message in an error body, whatever its nesting; with what a gateway's upstream said, if it holds that."""
    if isinstance(body, dict):
        upstream = body.get("metadata")
        raw = f" {_words(upstream['raw'])}" if isinstance(upstream, dict) and upstream.get("raw") else ""
        for key in ("error", "message", "detail"):
            if body.get(key):
                return _words(body[key]) + raw
        return json.dumps(body) if body else ""
    return "" if body is None else str(body)


def in_one_line(text: str, most: int = LONGEST_DETAIL) -> str:
    """The text in one line of that many characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
