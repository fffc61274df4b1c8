"""What is found out about how a server wants to be spoken to: per alias, from its own refusals.

A server that refuses a parameter, a field or a role is asked again without it, and for the rest of the process. Nothing
is ever changed that the user wrote into the alias.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from agent.models.failures import Failure, says

_MOST = re.compile(r"(?:at most|maximum|less than or equal to|<=|> ?|up to)\D{0,30}(\d[\d,]*)", re.IGNORECASE)
OUTPUT_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(slots=True)
class Dialect:
    """`left_out`: parameters that the server does not take; `fields`: fields of assistant messages that it does not
    take back. `output_name`: what the limit on the answer's length is called; `most_output`: the highest limit it
    takes, in tokens. `system`: whether it takes a system message. `stream`: whether answers are streamed. `one_call`:
    it takes one tool call a message. `null_content`: it takes null for the content of a message with calls. `tools`: it
    takes tools. `context`: tokens that fit, where the server told."""

    output_name: str = "max_tokens"
    left_out: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    most_output: int | None = None
    system: bool = True
    stream: bool = False
    one_call: bool = False
    null_content: bool = True
    tools: bool = True
    context: int | None = None

    def learn(self, failure: Failure, ours: Collection[str], fields: Collection[str]) -> str:
        """Take from a refusal what to do otherwise; says it in words, or "" where there is nothing to be learnt.

        `ours`: parameters of the refused request that are not the user's; `fields`: fields of its assistant messages
        that a server may not know."""
        if failure.too_long:
            known, self.context = self.context, failure.context or self.context
            return f"its context has {self.context} tokens" if self.context != known else ""
        if not failure.of_request:
            return ""
        words = failure.said
        if failure.no_tools and self.tools:
            self.tools = False
            return "it takes no tools, so the text protocol is used"
        if not self.stream and says("stream_wanted", words):
            self.stream = True
            return "answers are streamed"
        if self.stream and says("stream_refused", words):
            self.stream = False
            return "answers are not streamed"
        if (name := next((n for n in OUTPUT_NAMES if n in ours and re.search(rf"\b{n}\b", words)), None)) is not None:
            return self._learn_output(name, words)
        if named := [name for name in ours if re.search(rf"\b{re.escape(name)}\b", words)]:
            self.left_out.update(named)
            return f"{', '.join(sorted(named))} left out"
        if self.system and says("no_system", words):
            self.system = False
            return "the system message goes into the first message of the user"
        if not self.one_call and says("one_call", words):
            self.one_call = True
            return "one tool call a message"
        if self.null_content and says("no_null", words):
            self.null_content = False
            return "an empty text stands for no content"
        if named := [] if says("wanted", words) else [f for f in fields if re.search(rf"\b{re.escape(f)}\b", words)]:
            self.fields.update(named)
            return f"{', '.join(sorted(named))} of its messages not sent back"
        return ""

    def _learn_output(self, name: str, words: str) -> str:
        other = next((n for n in OUTPUT_NAMES if n != name and re.search(rf"\b{n}\b", words)), None)
        if other is not None and other != self.output_name:
            self.output_name = other
            return f"{other} in place of {name}"
        most = _MOST.search(words)
        limit = int(most[1].replace(",", "")) if most else 0
        if limit and limit <= (self.most_output or limit):
            known, self.most_output = self.most_output, limit
            return f"{name} at most {limit}" if limit != known else ""
        self.left_out.add(name)
        return f"{name} left out"
