"""What a failed model call means: whether to try again, when, and whether the model may have been reached (and
paid)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2
    import openai

LONGEST_DETAIL = 300
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NOT_REACHED = frozenset({425, 429, 503, 521, 523, 529})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TOO_LONG = re.compile(
    r"context.?length|maximum context|context window|context size|prompt is too long|input is too long"
    r"|too many (input )?tokens|reduce the length",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(r"unsupported|not support|unexpected|unknown|unrecognized|extra|not permitted", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed. `what`: a short name ("429", "timeout"); `detail`: the server's words, if any.

    `retry`: it may work later. `reached`: the model may have done the work. `retry_after`: seconds that the server asks
    to wait. `rate_limited`: too many calls at once. `too_long`: the conversation does not fit. `status` 0: no HTTP
    answer.
    """

    what: str
    detail: str
    retry: bool
    reached: bool = False
    status: int = 0
    retry_after: float | None = None
    rate_limited: bool = False
    too_long: bool = False
    body: Any = None

    def refused_parameter(self, names: frozenset[str]) -> str | None:
        """The one of `names` that the server does not take, if that is what it complains about."""
        if self.status not in (400, 422):
            return None
        told = self.body.get("param") if isinstance(self.body, dict) else None
        if told in names:
            return str(told)
        if not _UNSUPPORTED.search(self.detail):
            return None
        return next((name for name in sorted(names) if re.search(rf"\b{name}\b", self.detail)), None)


class Unusable(Exception):
    """An HTTP 200 whose body is no answer. `error`: the error object in it, if there is one."""

    def __init__(self, what: str, error: Any = None) -> None:
        super().__init__(what)
        self.error = error


def explain(error: Exception) -> Failure | None:
    """What the exception of a call means; None for one that is not the world's failure (a defect of ours)."""
    import httpx2
    import openai

    if isinstance(error, Unusable):
        return _of_unusable(error)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, TimeoutError):
        return Failure("timeout", "no answer within the time limit", retry=True, reached=True)
    if isinstance(error, openai.APIConnectionError):
        return _of_connection(error.__cause__ or error)
    if isinstance(error, (openai.APIResponseValidationError, ValueError)):
        return Failure("garbage", f"the body is no JSON answer: {_cut(str(error))}", retry=True, reached=True)
    if isinstance(error, (httpx2.HTTPError, OSError)):
        return _of_connection(error)
    return None


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110,
    10.2.3)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            continue
    return None


def _of_status(error: openai.APIStatusError) -> Failure:
    status, body = error.status_code, error.body
    detail = _cut(_words(body) or error.response.text)
    return _of_answer(status, body, detail, retry_after(error.response.headers))


def _of_unusable(error: Unusable) -> Failure:
    """Some gateways answer 200 and put the error, with its status as `code`, into the body."""
    told = error.error
    code = told.get("code") if isinstance(told, dict) else None
    try:
        status = int(code) if code is not None else 0
    except (TypeError, ValueError):
        status = 0
    if 400 <= status < 600:
        return _of_answer(status, told, _cut(_words(told)), None)
    detail = _cut(f"{error}: {_words(told)}" if told else str(error))
    return Failure("garbage", detail, retry=True, reached=True, too_long=bool(told) and bool(_TOO_LONG.search(detail)))


def _of_answer(status: int, body: Any, detail: str, wait: float | None) -> Failure:
    code = body.get("code") if isinstance(body, dict) else None
    out_of_money = code in _QUOTA or (isinstance(body, dict) and body.get("type") in _QUOTA)
    too_long = status in (400, 413, 422) and (code == "context_length_exceeded" or bool(_TOO_LONG.search(detail)))
    retry = status in _RETRY_STATUS and not out_of_money
    return Failure(
        what=str(status),
        detail=detail,
        retry=retry,
        reached=retry and status not in _NOT_REACHED,
        status=status,
        retry_after=wait,
        rate_limited=status == 429 and not out_of_money,
        too_long=too_long,
        body=body,
    )


def _of_connection(error: BaseException) -> Failure:
    import httpx2

    detail = _cut(str(error) or type(error).__name__)
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)):
        return Failure("connection", detail, retry=False)
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)):
        return Failure("connection", detail, retry=True)
    if isinstance(error, httpx2.TimeoutException):
        return Failure("timeout", f"no answer within the time limit ({type(error).__name__})", retry=True, reached=True)
    return Failure("connection", detail, retry=True, reached=True)


def _words(body: Any) -> str:
    """The message in an error body, whatever its nesting."""
    if isinstance(body, dict):
        for key in ("message", "error", "detail"):
            if body.get(key):
                return _words(body[key])
        return str(body) if body else ""
    return "" if body is None else str(body)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_DETAIL else line[: LONGEST_DETAIL - 1] + "…"
