"""What servers' refusals mean, in the words of each."""

from __future__ import annotations

import httpx2
import openai
import pytest

from agent.models.dialect import Dialect
from agent.models.failures import Failure, explain, retry_after


def refused(status: int, body: object) -> Failure:
    request = httpx2.Request("POST", "http://127.0.0.1:1/v1/chat/completions")
    response = httpx2.Response(status, json=body, request=request)
    told = body.get("error", body) if isinstance(body, dict) else body
    failure = explain(openai.APIStatusError("refused", response=response, body=told), openai)
    assert failure is not None
    return failure


def said(status: int, words: str, **more: object) -> Failure:
    return refused(status, {"error": {"message": words, **more}})


@pytest.mark.parametrize(
    ("status", "words", "context"),
    [
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
            8192,
        ),
        (500, "Context size has been exceeded.", None),
        (400, "the request exceeds the available context size (4096 tokens), try increasing it", 4096),
        (500, "Requested tokens (5000) exceed context window of 4096", 4096),
        (400, "The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 8192),
        (400, "Input length (9000) exceeds model's maximum context length (8192).", 8192),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens).", 8192),
        (400, "prompt too long; exceeded max context length by 300 tokens", None),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576),
        (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens.", 131072),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", 200000),
        (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease", 200000),
        (400, "Invalid request: Your request exceeded model token limit: 262144", 262144),
        (400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length", 32768),
        (400, "Your input exceeds the context window of this model. Please adjust your input and try again.", None),
        (413, "Request Entity Too Large", None),
        (429, "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.", None),
        (400, "Input is too long for requested model.", None),
    ],
)
def test_a_conversation_that_is_too_long_is_known_in_every_servers_words(
    status: int, words: str, context: int | None
) -> None:
    failure = said(status, words)
    assert failure.too_long and not failure.retry and failure.context == context


def test_llama_cpp_says_its_context_as_a_number() -> None:
    failure = said(
        400, "request exceeds the context", type="exceed_context_size_error", n_prompt_tokens=5000, n_ctx=4096
    )
    assert failure.too_long and failure.context == 4096


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "invalid temperature: only 1 is allowed for this model"),
        (400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens."),
        (429, "Rate limit reached for requests"),
        (500, "internal server error"),
        (400, "Bad request"),
    ],
)
def test_other_refusals_are_not_taken_for_it(status: int, words: str) -> None:
    assert not said(status, words).too_long


@pytest.mark.parametrize(
    ("words", "learnt", "check"),
    [
        (
            "invalid temperature: only 1 is allowed for this model",
            "temperature left out",
            {"left_out": {"temperature"}},
        ),
        ("`temperature` is deprecated for this model.", "temperature left out", {"left_out": {"temperature"}}),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_completion_tokens in place of max_tokens",
            {"output_name": "max_completion_tokens"},
        ),
        (
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
            "max_tokens at most 16384",
            {"most_output": 16384},
        ),
        (
            "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens",
            "max_tokens at most 8192",
            {"most_output": 8192},
        ),
        ("parameter.enable_thinking must be set to false for non-streaming calls", "streamed", {"stream": True}),
        ("This model only supports stream mode, please set stream=true", "streamed", {"stream": True}),
        ("System role not supported", "system message goes into", {"system": False}),
        ("Conversation roles must alternate user/assistant/user/assistant/...", "system message", {"system": False}),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", "system message", {"system": False}),
        ("This model only supports single tool-calls at once!", "one tool call", {"one_call": True}),
        ("property 'reasoning_content' is unsupported", "reasoning_content of its", {"fields": {"reasoning_content"}}),
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "no tools",
            {"tools": False},
        ),
        ("registry/library/gemma:2b does not support tools", "no tools", {"tools": False}),
    ],
)
def test_what_a_server_refuses_is_learnt_from_its_words(words: str, learnt: str, check: dict[str, object]) -> None:
    dialect = Dialect()
    told = dialect.learn(said(400, words), {"temperature", "seed", "max_tokens"}, {"reasoning_content"})
    assert learnt in told
    assert {name: getattr(dialect, name) for name in check} == check


def test_a_server_that_wants_a_text_for_every_content_is_understood() -> None:
    dialect = Dialect()
    words = (
        "7 validation errors: {'type': 'string_type', 'loc': ('body','messages',1,"
        "'ChatCompletionRequestAssistantMessage','content'), 'msg': 'Input should be a valid string', 'input': None}"
    )
    failure = said(500, words)
    assert not failure.retry and not failure.reached
    assert dialect.learn(failure, {"seed"}, ()) and not dialect.null_content


def test_a_field_that_is_missed_is_not_left_out() -> None:
    dialect = Dialect()
    words = "The reasoning_content in the thinking mode must be passed back to the API."
    assert dialect.learn(said(400, words), {"seed"}, {"reasoning_content"}) == "" and not dialect.fields


def test_details_of_a_validating_server_and_of_a_gateways_upstream_are_read() -> None:
    loc = {"type": "extra_forbidden", "loc": ["body", "messages", 2, "assistant", "reasoning_content"]}
    dialect = Dialect()
    assert "reasoning_content" in dialect.learn(refused(422, {"detail": [loc]}), (), {"reasoning_content", "refusal"})
    assert dialect.fields == {"reasoning_content"}
    raw = '{"error": {"message": "invalid temperature: only 1 is allowed"}}'
    upstream = said(400, "Provider returned error", metadata={"raw": raw, "provider_name": "Kimi"})
    assert "only 1 is allowed" in upstream.detail
    assert Dialect().learn(upstream, {"temperature"}, ()) == "temperature left out"


@pytest.mark.parametrize(
    "words",
    [
        "error parsing tool call: raw='{\"path\": a}', err=invalid character 'a' looking for beginning of value",
        "Failed to parse input at pos 17: <tool_call>{",
        "The model produced an invalid tool call",
    ],
)
def test_a_call_that_the_server_itself_cannot_read_is_no_dead_server(words: str) -> None:
    failure = said(500, words)
    assert failure.unparsed and not failure.retry and failure.reached


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "This model is only supported in v1/responses and not in v1/chat/completions."),
        (
            400,
            "Function tools with reasoning_effort are not supported in /v1/chat/completions. Please use /v1/responses.",
        ),
    ],
)
def test_a_model_that_is_to_be_had_by_responses_only_is_known(status: int, words: str) -> None:
    assert said(status, words).responses


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("0", None), ("-5", None), ("nan", None), ("inf", float("inf")), ("soon", None)]
)
def test_only_a_positive_number_is_a_wait(header: str, seconds: float | None) -> None:
    assert retry_after(httpx2.Headers({"Retry-After": header})) == seconds


def test_text_that_cannot_be_encoded_is_our_defect() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "\udce9".encode()
    assert explain(caught.value, openai) is None
