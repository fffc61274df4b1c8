"""Names of models, troop.toml, keys, and the masking of secrets."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Alias, Config, config_paths, key_of, load_config, prices_of, resolve_model
from agent.secrets import masker
from tasks.errors import EndpointFailed, InputError

FULL = """
default_model = "qwen"

[models.qwen]
base_url = "http://127.0.0.1:8000/v1"
name = "Qwen/Qwen3-Coder"
usd_per_gpu_hour = 2
context = 65536
concurrency = 64
tools = false
[models.qwen.sampling]
temperature = 0.8
max_tokens = 4096

[models.cheap]
model = "deepseek/deepseek-chat"
requests_per_minute = 60
"""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without a configuration, and a user who has none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def configured(text: str) -> Config:
    Path("troop.toml").write_text(text, encoding="utf-8")
    return load_config()


def test_an_alias_says_all_about_a_model() -> None:
    config = configured(FULL)
    assert config.default_model == "qwen"
    qwen = resolve_model("qwen", config)
    assert (qwen.name, qwen.context, qwen.concurrency, qwen.tools) == ("Qwen/Qwen3-Coder", 65536, 64, False)
    assert qwen.sampling == {"temperature": 0.8, "max_tokens": 4096}
    assert qwen.key_env is None
    assert prices_of(qwen).gpu_hour == 2.0


def test_an_alias_can_stand_on_a_provider() -> None:
    cheap = resolve_model("cheap", configured(FULL))
    assert cheap.base_url == "https://api.deepseek.com/v1"
    assert (cheap.name, cheap.key_env, cheap.price_name) == (
        "deepseek-chat",
        "DEEPSEEK_API_KEY",
        "deepseek/deepseek-chat",
    )
    assert (cheap.alias, cheap.requests_per_minute) == ("cheap", 60.0)


def test_another_address_does_not_inherit_the_providers_prices() -> None:
    text = '[models.proxy]\nmodel = "openai/gpt-5"\nbase_url = "http://10.0.0.1/v1"\n'
    proxy = configured(text).aliases["proxy"]
    assert (proxy.base_url, proxy.name, proxy.price_name) == ("http://10.0.0.1/v1", "gpt-5", None)


def test_the_nearer_file_wins() -> None:
    near, far = config_paths()
    far.parent.mkdir(parents=True)
    far.write_text(
        'default_model = "a"\n[models.a]\nbase_url = "http://far/v1"\nname = "x"\n'
        '[models.b]\nbase_url = "http://far/v1"\nname = "y"\n'
    )
    config = configured('[models.a]\nbase_url = "http://near/v1"\nname = "x"\n')
    assert config.aliases["a"].base_url == "http://near/v1"
    assert config.aliases["b"].name == "y"
    assert config.default_model == "a"
    assert config.files == (near, far)


def test_the_users_configuration_is_found_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_paths() == (Path("troop.toml"), tmp_path / "troop" / "config.toml")


def test_no_file_is_an_empty_configuration() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown key colour"),
        ('[models.a]\nbase_url = "http://x/v1"\nname = "n"\ntemprature = 1', "unknown key models.a.temprature"),
        ('[models.a]\nname = "n"', "models.a.base_url is missing"),
        ('[models.a]\nbase_url = "http://x/v1"', "models.a.name is missing"),
        ('[models.a]\nbase_url = "x:8000"\nname = "n"', "models.a.base_url must begin with http"),
        (
            '[models.a]\nbase_url = "http://x/v1"\nname = "n"\ncontext = "big"',
            "models.a.context must be a whole number",
        ),
        ('[models.a]\nbase_url = "http://x/v1"\nname = "n"\ncontext = true', "models.a.context must be a whole number"),
        (
            '[models.a]\nbase_url = "http://x/v1"\nname = "n"\nconcurrency = 0',
            "models.a.concurrency must be a whole number, 1 or more",
        ),
        ('[models.a]\nbase_url = "http://x/v1"\nname = "n"\nusd_per_mtok_input = 1', "need both usd_per_mtok_input"),
        (
            '[models.a]\nmodel = "openai/x"\nusd_per_mtok_input = 1\nusd_per_mtok_output = 1\nusd_per_gpu_hour = 1',
            "not both",
        ),
        ('[models.a]\nmodel = "openai/x"\nusd_per_gpu_hour = -1', "must not be negative"),
        ('[models.a]\nmodel = "nobody/x"', "is not provider/name"),
        ('[models.repair]\nmodel = "openai/x"', "cannot have this name"),
        ("models = 3", "models must be a table"),
        ("default_model = 3", "default_model must be a text"),
        ("[models", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        configured(text)
    assert "troop.toml" in str(caught.value)
    assert words in str(caught.value)


def test_a_provider_name_needs_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    alias = resolve_model("openrouter/qwen/qwen3-coder", Config())
    assert alias.base_url == "https://openrouter.ai/api/v1"
    assert (alias.name, alias.key_env) == ("qwen/qwen3-coder", "OPENROUTER_API_KEY")
    assert resolve_model("openai/gpt-5-mini", Config()).price_name == "openai/gpt-5-mini"


def test_the_openai_variable_for_another_address_is_honoured_and_takes_the_price_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.0.0.1:8000/v1/")
    alias = resolve_model("openai/gpt-5-mini", Config())
    assert (alias.base_url, alias.price_name) == ("http://10.0.0.1:8000/v1", None)


def test_a_url_names_server_and_model() -> None:
    alias = resolve_model("http://127.0.0.1:8000/v1#Qwen/Qwen3#x", Config())
    assert (alias.base_url, alias.name, alias.key_env) == ("http://127.0.0.1:8000/v1", "Qwen/Qwen3#x", None)


@contextlib.contextmanager
def serving(*models: str) -> Iterator[str]:
    """The URL of a server that lists these models."""

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": model} for model in models]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_a_url_without_a_model_takes_the_only_one_served() -> None:
    with serving("only") as url:
        alias = resolve_model(url, Config())
    assert (alias.alias, alias.name) == (f"{url}#only", "only")


def test_a_url_without_a_model_and_many_served_asks_which() -> None:
    with serving("a", "b") as url, pytest.raises(InputError, match=f"{url}#a, {url}#b"):
        resolve_model(url, Config())


def test_a_server_that_is_down_is_named() -> None:
    with pytest.raises(EndpointFailed, match=r"127\.0\.0\.1:9/v1/models"):
        resolve_model("http://127.0.0.1:9/v1", Config())


@pytest.mark.parametrize(
    "name", ["gpt-5", "nobody/model", "openai/", "http://", "http://h:port/v1#x", "http://u:p@h/v1#x"]
)
def test_a_name_that_means_nothing_is_wrong_input(name: str) -> None:
    with pytest.raises(InputError):
        resolve_model(name, Config())


def test_an_unknown_name_lists_what_there_is() -> None:
    config = configured(FULL)
    with pytest.raises(InputError, match=r"qwne.*cheap, qwen.*openai.*http://"):
        resolve_model("qwne", config)


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    alias = resolve_model("openai/gpt-5-mini", Config())
    with pytest.raises(EndpointFailed, match="OPENAI_API_KEY"):
        key_of(alias)
    monkeypatch.setenv("OPENAI_API_KEY", " sk-x \n")
    assert key_of(alias) == "sk-x"
    assert key_of(Alias("a", "http://h/v1", "m")) is None


# Masking

ENVIRON = {
    "SERVICE_API_KEY": 'hunter"2\\größe/x',
    "MY_TOKEN": "tok-abcdefgh",
    "EDITOR": "vim-with-long-name",
    "X_KEY": "short",
}


def test_secrets_of_the_environment_are_masked_by_their_variables_names() -> None:
    mask = masker(environ=ENVIRON)
    assert mask("a tok-abcdefgh b vim-with-long-name short") == "a *** b vim-with-long-name short"


def test_a_named_variable_is_secret_whatever_its_name() -> None:
    assert masker(["EDITOR"], ENVIRON)("vim-with-long-name") == "***"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_secret_is_masked_within_json_and_the_json_stays_json(depth: int) -> None:
    secret = ENVIRON["SERVICE_API_KEY"]
    for ascii_only in (True, False):
        text = f"key={secret};"
        for _ in range(depth):
            text = json.dumps({"v": text}, ensure_ascii=ascii_only)
        masked = masker(environ=ENVIRON)(text)
        for _ in range(depth):
            masked = json.loads(masked)["v"]
        assert masked == "key=***;"


# Letters that JSON escapes begin with, backslashes, quotes, line ends, digits of \u escapes: all that can go wrong.
ALPHABET = 'nrtu\\"/\n\té0e9a'
TRICKY = st.text(alphabet=ALPHABET, max_size=8)
SECRETS = st.text(alphabet=ALPHABET, min_size=8, max_size=12).filter(lambda s: len(set(s)) > 4)


@given(SECRETS, TRICKY, TRICKY)
def test_a_masked_line_is_json_without_the_secret(secret: str, before: str, after: str) -> None:
    text = before + "<" + secret + ">" + after
    line = json.dumps({"text": text, "call": json.dumps({"command": text})})
    masked = json.loads(masker(environ={"A_SECRET": secret})(line))
    assert f"<{secret}>" not in masked["text"]
    assert f"<{secret}>" not in json.loads(masked["call"])["command"]


@given(SECRETS, TRICKY, TRICKY, st.sampled_from(["\n", "\t", '"', "\\", "é", "\x1b", "/"]))
def test_a_line_that_only_resembles_the_secret_stays_json(secret: str, before: str, after: str, between: str) -> None:
    """The secret's letters may stand there as a part of an escape and what follows it, or the other way round."""
    for letter in ("n", "t", "u", "u00e9", "9", "e9", "00e9", "u001b", '"', "\\"):
        key = letter + secret
        tail = secret + letter
        text = before + between + secret + between + after
        line = json.dumps({"text": text, "call": json.dumps({"command": text})})
        masked = json.loads(masker(environ={"A_SECRET": key, "B_SECRET": tail})(line))
        json.loads(masked["call"])


def test_a_credential_at_the_begin_of_a_line_is_masked_within_json() -> None:
    line = json.dumps({"text": "key:\nsk-abcdefgh1234567890ijkl\n"})
    assert json.loads(masker(environ={})(line)) == {"text": "key:\n***\n"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abcdef1234567890abcd", "Authorization: Bearer ***"),
        ('{"Authorization":"Bearer abcdef1234567890abcd"}', '{"Authorization":"***"}'),
        ('{"Authorization":"Basic dXNlcjpwYXNzd29yZA=="}', '{"Authorization":"***"}'),
        ("headers={'Authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", "headers={'Authorization': 'Basic ***'}"),
        ("git clone https://me:s3cr3t-and-long-1@example.org/x", "git clone https://me:***@example.org/x"),
        ("key sk-proj-abcdefgh1234567890ijkl end", "key *** end"),
        ("ghp_" + "a1" * 18, "***"),
        ("github_pat_" + "a1" * 20, "***"),
        ("hf_" + "a1" * 17, "***"),
    ],
)
def test_shapes_of_credentials_are_masked(text: str, masked: str) -> None:
    assert masker(environ={})(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "http://user:pass@example.org/  # in somebody's test",
        "the bearer of bad news",
        "task-sk-learn and risk-averse-investments-of-theirs",
        "def test_auth(): assert header == 'Bearer token'",
        "scikit: sk-learn-contrib-something-long",
    ],
)
def test_ordinary_code_is_left_alone(text: str) -> None:
    assert masker(environ={})(text) == text


def test_a_path_to_a_secret_is_not_masked(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("x")
    assert masker(environ={"SSL_KEY": str(path)})(f"cannot read {path}") == f"cannot read {path}"


def test_masking_a_large_line_is_fast() -> None:
    line = json.dumps({"diff": "+    return value - 1  # a://b:c and sk-x\n" * 50_000})
    mask = masker(environ={f"KEY_{k}": f"value-of-key-{k}" for k in range(20)})
    started = time.perf_counter()
    assert mask(line) == line
    assert time.perf_counter() - started < 2.0


def test_debian_packages_of_both_files_are_for_every_set_up() -> None:
    user = config_paths()[1]
    user.parent.mkdir(parents=True)
    user.write_text('apt = ["libpq-dev", "cargo"]\n', encoding="utf-8")
    assert configured('apt = ["g++", "cargo"]\n').apt == ("g++", "cargo", "libpq-dev")
    with pytest.raises(InputError, match="apt must be an array of names of Debian packages"):
        configured('apt = ["a b"]\n')
