"""The one exception hierarchy. Every message is a sentence for a person: what was wrong, where, what to do.

`exit_code` is inherited: 2 for an InputError, 3 for a BudgetExceeded, 4 for all others. The module lives in the lowest
layer because all three packages raise from it.
"""

import errno
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, Self


class TroopError(Exception):
    """Base of all errors that Troop explains in one sentence; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 4


class InputError(TroopError):
    """Wrong usage or input: the message names the flag, file, line or field. Nothing was started."""

    exit_code = 2


class RunLocked(InputError):
    """Another process holds the lock of this run directory; the message names it."""


class BudgetExceeded(TroopError):
    """A cap would be passed; inside an attempt it becomes a status, never a lost attempt. `limit` says which: "usd",
    "tokens", "turns", "seconds"; `scope`: "run", "attempt" or "judge"."""

    exit_code = 3

    def __init__(self, message: str, *, limit: str, scope: str) -> None:
        super().__init__(message)
        self.limit = limit
        self.scope = scope

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), str(self), limit=self.limit, scope=self.scope), ()


class PatchNotTaken(TroopError):
    """No patch can be taken out of a sandbox that still answers, by the attempt's own doing; the attempt ends
    without one. Not the world's failure."""


class EnvironmentFailed(TroopError):
    """The environment of the task does not work; nothing about the model is said by it."""


class SourceUnavailable(EnvironmentFailed):
    """A repository, an issue or a package cannot be fetched at the moment (network, rate limit)."""


class DiskFull(EnvironmentFailed):
    """A file system that the run needs is full, read-only or broken: no attempt's fault, and none goes on without. The
    run stops, and goes on once there is room."""


REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Numbers of the OSErrors that a DiskFull is made of."""


class SetupFailed(EnvironmentFailed):
    """A set-up command or the base test run failed; the message holds the command and the end of its output."""


class SandboxFailed(EnvironmentFailed):
    """No sandbox could be made, or a running one died. Retried on the infrastructure allowance."""


class EndpointFailed(EnvironmentFailed):
    """The model's server cannot be used: unreachable, refused the key, or kept failing after all retries."""


class CallRefused(EndpointFailed):
    """The server refused this one call, which says nothing about calls of other conversations."""


class ContextTooLong(CallRefused):
    """The conversation is longer than the model's context; asking again helps only with a shorter one."""


class ReplyUnreadable(CallRefused):
    """The server could not read the tool call that its own model wrote, whatever the seed."""


class ToolsRefused(CallRefused):
    """The server takes no tools for this model; the text protocol does without."""


@contextmanager
def Explained(what: str, *kinds: type[Exception], kind: type[TroopError] = InputError) -> Iterator[None]:
    """A block whose failures of these kinds are raised as a TroopError, an InputError unless told: what cannot be done,
    and why, in the first line of the failure's own words."""
    try:
        yield
    except kinds as error:
        words = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            words = f"byte {error.start} is not UTF-8 text"
        elif isinstance(error, OSError) and error.strerror:
            words = error.strerror
        raise kind(f"{what}: {words}") from error


def words_of(error: Exception) -> str:
    """What is noted of an error that costs one instance and not the others: a TroopError's own sentence; of a file its
    name; of any other its kind, and the line that it comes from. Raises a DiskFull itself: it costs all."""
    if isinstance(error, DiskFull):
        raise error
    if isinstance(error, TroopError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"the file system refuses: {error.filename}: {error.strerror}"
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({at.filename.rpartition('/')[2]}:{at.lineno})"
