"""What a failed model call means: whether to try again, when, whether the model may have been reached (and paid), and
what the server's words say of the request.

What servers' words mean stands in refusals.toml.
"""

import json
import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2

from harness.records import Json

LONGEST_DETAIL = 300
LONGEST_SAID = 8000
IN_STREAM = "the stream ended with an error"
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NOT_REACHED = frozenset({425, 429, 503, 521, 523, 529})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
_URL = re.compile(r"https?://\S+")  # Anthropic's manual has a page on the context window, named in other refusals
_TABLES: Json = tomllib.loads(Path(__file__).with_name("refusals.toml").read_text(encoding="utf-8"))
_SAYS = {what: re.compile("|".join(ways), re.IGNORECASE | re.DOTALL) for what, ways in _TABLES["says"].items()}
STATUS: Mapping[str, int] = _TABLES["status"]
"""The HTTP status that an error stands for which comes within an answer, by its code or type."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed. `what`: a short name ("429", "timeout"); `detail`: the server's words in one line, if any;
    `said`: all of the answer's text, to look for words in.

    `retry`: it may work later. `reached`: the model may have done the work. `retry_after`: seconds that the server asks
    to wait. `rate_limited`: too many calls at once. `status` 0: no HTTP answer. `too_long`: the conversation does not
    fit; `context`: the tokens that fit, where the server says so. `unparsed`: the server could not read the tool call
    that its own model wrote. `out_of_money`: the account has nothing left. `filtered`: the conversation's content is
    refused. `no_tools`: the model takes none there. `responses`: the model is to be had by the Responses API only."""

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


def says(what: str, words: str) -> bool:
    """Whether these are words of a refusal that means this, a key of `says` in refusals.toml."""
    return _SAYS[what].search(words) is not None


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
    return _of_connection(error) if isinstance(error, (httpx2.HTTPError, OSError)) else None


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110,
    10.2.3). None where it does not say, or says nothing that is a wait (zero, the past, no number)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds > 0:
            return seconds
    return None


def _of_unusable(error: Unusable) -> Failure:
    """Some gateways answer 200 and put the error, with its status as `code`, into the body."""
    told = error.error
    code = told.get("code") if isinstance(told, dict) else None
    try:
        status = STATUS.get(str(code)) or (int(code) if code is not None else 0)
    except (TypeError, ValueError, OverflowError):
        status = 0
    if 400 <= status < 600:
        return _of_answer(status, told, _words(told), str(told), None)
    detail = in_one_line(f"{error}: {_words(told)}" if told else str(error))
    return Failure("garbage", detail, retry=True, reached=True, too_long=bool(told) and says("too_long", detail))


def _of_answer(status: int, body: Any, words: str, said: str, wait: float | None) -> Failure:
    table = body if isinstance(body, dict) else {}
    table = table["error"] if isinstance(table.get("error"), dict) else table
    code = str(table.get("code"))
    out_of_money = status == 402 or code in _QUOTA or str(table.get("type")) in _QUOTA or says("no_money", words)
    said = said[:LONGEST_SAID]
    looked_for = "surely_too_long" if status in (429, 500) else "too_long"
    kind = f"{code} {table.get('type')}"
    too_long = status == 413 or "context_length" in kind or "exceed_context" in kind or (
        status in (400, 422, 429, 500) and says(looked_for, _URL.sub("", words))
    )  # fmt: skip
    unparsed = status in (400, 500) and not too_long and says("unparsed", words)
    no_tools = status in (400, 404, 422, 500) and says("no_tools", words)
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
        filtered=status in (400, 403, 422) and says("filtered", said),
        no_tools=no_tools,
        responses=status in (400, 403, 404, 422) and says("responses", words),
    )


def _context(table: dict[str, Any], words: str) -> int | None:
    """The tokens that a conversation may have, from a refusal of one that is too long."""
    told = table.get("n_ctx")
    if isinstance(told, int) and told > 0:
        return told
    found = next((match for way in _TABLES["context"] if (match := re.search(way, words, re.IGNORECASE))), None)
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
