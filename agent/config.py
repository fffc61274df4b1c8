"""Settings of a run, and what a model's name stands for."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.defaults import BY_NAME, MODEL_VARIABLE, READS, Setting, from_table, from_variables, nearest
from harness.money.ledger import Prices
from harness.records import Budget, Ranker
from harness.sandbox.base import Limits
from harness.sandbox.choice import AUTO
from tasks.errors import EndpointFailed, Explained, InputError
from tasks.places import expanded
from tasks.task import PACKAGE

REPAIR = "repair"
"""The model name that stands for the policy without a model."""


MODEL_ATTEMPTS = 32
"""Attempts at a time with models, unless set; each waits for its model most of the time."""
CONTEXT = 128_000
"""Tokens that a model bears where neither the alias nor the server says how many."""

WIRES: Mapping[str, str] = {
    "chat": "agent.models.wires.chat:ChatWire",
    "responses": "agent.models.wires.responses:ResponsesWire",
    "anthropic": "agent.models.wires.anthropic:AnthropicWire",
}
"""The APIs that models are spoken to by, and what speaks each."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A model as the client uses it. `name` is what the server calls it, `alias` what the user typed.

    Prices in USD per million tokens (None: ask genai-prices under `price_name`, else unknown); `usd_per_gpu_hour` for a
    local GPU: a call costs its share of the GPU's time. `context` in tokens (None: as the server says, else `CONTEXT`).
    `concurrency`: calls at once at most (None: as many as attempts go on at a time). `requests_per_minute`,
    `tokens_per_minute`: rate limits (None: none). `timeout`: seconds for one call; `longest_wait`: seconds that a
    server may ask to wait. `wire`: one of `WIRES` (None: Chat Completions, or Responses where the server takes the
    model there only). `tools` False: the text protocol is used; `stream` True: answers are streamed; `system_role`
    False: the system message goes into the user's first. `sampling`: parameters sent with every call (temperature,
    top_p, max_tokens, extra ones as the server knows them).
    `key_env`: the environment variable that holds the key (None: no key is sent)."""

    alias: str
    base_url: str
    name: str
    key_env: str | None = None
    price_name: str | None = None
    usd_per_mtok_input: float | None = None
    usd_per_mtok_cache_read: float | None = None
    usd_per_mtok_cache_write: float | None = None
    usd_per_mtok_output: float | None = None
    usd_per_gpu_hour: float | None = None
    context: int | None = None
    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 600.0
    longest_wait: float = 60.0
    wire: str | None = None
    tools: bool = True
    stream: bool = False
    system_role: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)


WORTH = 10.0
"""USD that a solved task is worth, unless set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is done. Times in seconds.

    `models`: as the user named them; attempts rotate over them; empty: the configured default, else `repair`.
    `judge`: how it works (see `agent.choice.judge`), or "none"; `judge_model`: None means the first model that is not
    `repair`; "none" means no judge. `tie_witnesses`: attempts that only write tests, made where finalists tie (None:
    none). `concurrency`: attempts at a
    time (None: one per CPU for `repair`, 32 for models). `out`: the directory that gets the run directory.
    `verify_seconds`: time for the regression tests of one candidate. `base_runs`: how often the base's tests run to
    find flaky ones. `infrastructure_retries`: per attempt, apart from its turns. `ranker`: what orders candidates
    (None: see `orders_by`). `threshold`: nothing is selected whose probability is lower, or, where it is a word
    ("likely"), that is shown less (see `harness.evidence.strength`). `adaptive`: an attempt is made only while it is
    worth its price, a solved task being worth `worth` USD; the budget's attempts are then the most.
    `until`: no attempt is made, and none goes on, once a candidate is that good (see `harness.evidence.strength`);
    None: "proved" for a run of `repair` alone that is no part of an evaluation, else "never".
    `executor`: "local", or "ray" for the machines of a cluster; `registry`: HOST/PREFIX in an image registry that
    docker environments are pushed to and pulled from.
    `guide`: attempts see the repository's AGENTS.md and the like. `with_tests`: witness tests are part of the patch.
    `yes`: the run goes on whatever the base's tests say; `strict`: it ends also where they say little."""

    budget: Budget = field(default_factory=Budget)
    models: tuple[str, ...] = ()
    judge: str = "quick"
    judge_model: str | None = None
    tie_witnesses: int | None = None
    sandbox: str = AUTO
    executor: str = "local"
    registry: str | None = None
    concurrency: int | None = None
    seed: int = 0
    out: Path = Path("runs")
    limits: Limits = field(default_factory=Limits)
    command_timeout: float = 120.0
    test_timeout: float = 600.0
    setup_timeout: float = 1200.0
    verify_seconds: float = 300.0
    base_runs: int = 2
    infrastructure_retries: int = 3
    malformed_limit: int = 3
    allow_unknown_price: bool = False
    temperature: float | None = None
    ranker: Ranker | None = None
    threshold: float | str = 0.0
    adaptive: bool = False
    worth: float = WORTH
    until: str | None = None
    guide: bool = True
    with_tests: bool = False
    yes: bool = False
    strict: bool = False

    @property
    def orders_by(self) -> Ranker:
        """The ranker, which was fitted on patches of models; for `repair` alone, on whose patches it is no better, the
        rules."""
        return self.ranker or ("rules" if set(self.models) == {REPAIR} else "evidence")


@dataclass(frozen=True, slots=True)
class Config:
    """What the configuration files and the variables say. `default_model`: what stands for a missing `--model`;
    `apt`: Debian packages that every set-up gets;
    `defaults`: by name in `agent.defaults.SETTINGS`, (value, where it is from); `files`: those read."""

    aliases: Mapping[str, Alias] = field(default_factory=dict)
    default_model: str | None = None
    apt: tuple[str, ...] = ()
    defaults: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """A vendor's endpoint. `prices`: its name in genai-prices; `elsewhere`: the variable by which every client of the
    vendor's API is pointed to another address."""

    base_url: str
    key_env: str
    prices: str
    wire: str | None = None
    elsewhere: str = ""


_VENDORS = tomllib.loads(Path(__file__).with_name("providers.toml").read_text(encoding="utf-8"))
PROVIDERS: Mapping[str, Provider] = {name: Provider(**facts) for name, facts in _VENDORS.items()}

RESERVED = frozenset({REPAIR, "none", "auto"})
"""Names that an alias cannot have: they mean something already where a model is named."""


def config_paths() -> tuple[Path, ...]:
    """Where configuration is looked for, the first winning: ./troop.toml, then the user's."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return (Path("troop.toml"), expanded(home) / "troop" / "config.toml")


def load_config() -> Config:
    """Reads the `TROOP_…` variables and the files of `config_paths` that exist; what an earlier one says wins.

    Raises InputError naming variable, or file and key, for anything that it does not understand."""
    aliases: dict[str, Alias] = {}
    default = os.environ.get(MODEL_VARIABLE, "").strip() or None
    defaults = {name: (value, BY_NAME[name].variable) for name, value in from_variables().items()}
    apt: list[str] = []
    read: list[Path] = []
    for path in config_paths():
        with Explained(f"cannot read the configuration {path}", OSError, UnicodeDecodeError):
            if not path.exists():
                continue
            text = path.read_text(encoding="utf-8")
        read.append(path)
        own_default, own, own_defaults, own_apt = _parse(path, text)
        apt += own_apt
        default = default or own_default
        aliases = {**own, **aliases}
        defaults = {**{name: (value, str(path)) for name, value in own_defaults.items()}, **defaults}
    return Config(aliases, default, tuple(dict.fromkeys(apt)), defaults, tuple(read))


def resolve_model(name: str, config: Config) -> Alias:
    """What the user's name for a model means: an alias, `provider/model`, or `http://host:port/v1#model`.

    A URL without `#model` takes the only model that the server has. "repair" is no model and is not resolved here.
    Raises InputError for a name that means nothing, EndpointFailed for a server that does not answer. Keys are not
    looked at: see `key_of`."""
    if name in config.aliases:
        return config.aliases[name]
    if name.startswith(("http://", "https://")):
        return _from_url(name)
    if found := _from_provider(name, name):
        return found
    _, slash, model = name.partition("/")
    likely = [*config.aliases, REPAIR, *(f"{each}{slash}{model}" for each in PROVIDERS if slash)]
    meant = nearest(name, likely, 0.75) or "."
    known = ", ".join(sorted(config.aliases)) or "none"
    raise InputError(
        f"unknown model {name!r}{meant} It is no alias (aliases: {known}), no provider/model "
        f"({', '.join(PROVIDERS)}) and no URL such as http://127.0.0.1:8000/v1#name"
    )


def key_of(alias: Alias) -> str | None:
    """The key from the environment; None where the endpoint takes none. Raises EndpointFailed naming the variable."""
    if alias.key_env is None:
        return None
    key = os.environ.get(alias.key_env, "").strip()
    if not key:
        raise EndpointFailed(
            f"The model {alias.alias} needs a key in the environment variable {alias.key_env}, which is not set: "
            f"export {alias.key_env}=... and try again."
        )
    # Looked at here, because a client's own complaint about an illegal header would quote the key.
    if not (key.isascii() and key.isprintable()):
        raise EndpointFailed(
            f"The key in the environment variable {alias.key_env} holds characters that no key has: set it again."
        )
    return key


def prices_of(alias: Alias) -> Prices:
    """The alias's prices as the ledger takes them."""
    return Prices(
        model=alias.name,
        base_url=alias.base_url,
        lookup=alias.price_name,
        input=alias.usd_per_mtok_input,
        cache_read=alias.usd_per_mtok_cache_read,
        cache_write=alias.usd_per_mtok_cache_write,
        output=alias.usd_per_mtok_output,
        gpu_hour=alias.usd_per_gpu_hour,
    )


def served_models(base_url: str) -> list[str]:
    """The names that the server at `base_url` gives to its models. Raises EndpointFailed where it does not answer."""
    import httpx2

    url = base_url.rstrip("/") + "/models"
    why = f"No list of models at {url} (is the server up, and is the URL its /v1?)"
    with Explained(why, httpx2.HTTPError, ValueError, KeyError, TypeError, kind=EndpointFailed):
        with httpx2.Client(timeout=5.0, trust_env=not is_loopback(base_url)) as client:
            answer = client.get(url).raise_for_status().json()
        return [str(model["id"]) for model in answer["data"]]


def is_loopback(url: str) -> bool:
    """Whether the server is this machine, so that no proxy may stand in between."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _from_url(name: str) -> Alias:
    base_url, _, model = name.partition("#")
    with Explained(f"--model {name}: not a URL", ValueError):
        parts = urlsplit(base_url)
        _ = parts.port  # raises for a port that is no number
    if not parts.hostname:
        raise InputError(f"--model {name}: the URL names no host")
    if parts.username or parts.password:
        raise InputError("--model: no user or password in a URL; make an alias with key_env in troop.toml instead")
    if not model:
        served = served_models(base_url)
        if len(served) != 1:
            offered = ", ".join(f"{base_url}#{each}" for each in served[:8]) or "none"
            raise InputError(f"--model {name}: say which model, after a #; the server has: {offered}")
        model = served[0]
    return Alias(alias=f"{base_url}#{model}", base_url=base_url.rstrip("/"), name=model)


def _from_provider(alias: str, name: str) -> Alias | None:
    vendor, _, model = name.partition("/")
    provider = PROVIDERS.get(vendor)
    if provider is None or not model:
        return None
    elsewhere = os.environ.get(provider.elsewhere, "").rstrip("/")
    price_name = None if elsewhere else f"{provider.prices}/{model}"  # elsewhere the price is another one
    return Alias(alias, elsewhere or provider.base_url, model, provider.key_env, price_name, wire=provider.wire)


_ALIAS_KEYS = {
    name: Setting(name, float if name.startswith("usd_") else READS[kind.removesuffix(" | None")], "", "", "")
    for name, kind in (("model", "str"), *((each.name, str(each.type)) for each in fields(Alias)))
    if name not in ("alias", "sampling", "wire")
} | {"wire": Setting("wire", str, "", "", "", choices=tuple(WIRES))}
"""What an alias's keys in a file must be, but for `sampling`, which is a table."""


def _parse(path: Path, text: str) -> tuple[str | None, dict[str, Alias], dict[str, Any], list[str]]:
    """(default_model, aliases, defaults, apt) of a file."""
    with Explained(f"{path} is not TOML", ValueError, RecursionError):
        toml = tomllib.loads(text)
    _refuse_unknown(path, toml, {"apt", "default_model", "defaults", "models"}, "")
    default = toml.get("default_model")
    if default is not None and not isinstance(default, str):
        raise InputError(f"{path}: default_model must be a text")
    models = toml.get("models", {})
    if not isinstance(models, dict):
        raise InputError(f"{path}: models must be a table: one [models.NAME] for each alias")
    aliases = {name: _alias(path, name, table) for name, table in models.items()}
    apt = toml.get("apt", [])
    if not isinstance(apt, list) or not all(isinstance(name, str) and PACKAGE.fullmatch(name) for name in apt):
        raise InputError(f"{path}: apt must be an array of names of Debian packages")
    return default, aliases, from_table(path, toml.get("defaults", {})), apt


def _alias(path: Path, name: str, table: Any) -> Alias:
    where = f"{path}: models.{name}"
    if name in RESERVED or "/" in name or "#" in name:
        raise InputError(f"{where}: an alias cannot have this name (reserved, or with / or #)")
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table")
    _refuse_unknown(path, table, {"sampling", *_ALIAS_KEYS}, f"models.{name}.")
    known = [key for key in table if key in _ALIAS_KEYS]
    given = {key: _ALIAS_KEYS[key].parsed(f"{where}.{key}", table[key], toml=True) for key in known}
    given["sampling"] = table.get("sampling", {})
    if not isinstance(given["sampling"], dict):
        raise InputError(f"{where}.sampling must be a table")
    if not given.get("base_url", "http://").startswith(("http://", "https://")):
        raise InputError(f"{where}.base_url must begin with http:// or https://")
    for key, value in given.items():
        if key.startswith("usd_") and value < 0:
            raise InputError(f"{where}.{key} must not be negative")
    by_token = {key for key in given if key.startswith("usd_per_mtok_")}
    if by_token and "usd_per_gpu_hour" in given:
        raise InputError(f"{where}: give prices per token or usd_per_gpu_hour, not both")
    if by_token and not by_token >= {"usd_per_mtok_input", "usd_per_mtok_output"}:
        raise InputError(f"{where}: prices need both usd_per_mtok_input and usd_per_mtok_output")
    return Alias(alias=name, **{**_base(where, given.pop("model", None), given), **given})


def _base(where: str, model: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `model = "provider/name"` stands for; else base_url and name must be given."""
    if model is None:
        if missing := next((key for key in ("base_url", "name") if key not in given), ""):
            raise InputError(f'{where}.{missing} is missing (or say model = "provider/name")')
        return {}
    known = _from_provider("", model)
    if known is None:
        raise InputError(f"{where}.model: {model!r} is not provider/name; providers: {', '.join(PROVIDERS)}")
    # Another address has other prices, unless price_name says whose hold.
    keys = ("name", "key_env", "wire", *(() if "base_url" in given else ("base_url", "price_name")))
    return {key: getattr(known, key) for key in keys}


def _refuse_unknown(path: Path, table: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key in table:
        if key not in known:
            meant = nearest(key, known) or f"; known: {', '.join(sorted(known))}"
            raise InputError(f"{path}: unknown key {prefix}{key}{meant}")
