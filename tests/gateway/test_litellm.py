"""A LiteLLM proxy's configuration becomes one that our own reader takes; nothing is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.gateway.litellm_configs import CONFIGS, SECRETS

from modelyard.gateway.checking import check_file
from modelyard.gateway.config import GatewayFile
from modelyard.gateway.litellm import Conversion, convert_file
from modelyard.gateway.litellm_writing import written
from modelyard.gateway.yamlfile import read_settings

ENVIRONMENT = {"REDIS_HOST": "redis.internal", "BASE": "http://from-environment:8000/v1"}


def convert(folder: Path, text: str, **environment: str) -> Conversion:
    file = folder / "config.yaml"
    file.write_text(text)
    return convert_file(file, environment)


def read_back(folder: Path, conversion: Conversion) -> GatewayFile:
    """What our own reader says of the file that is written."""
    file = folder / "gateway.yaml"
    file.write_text(written(conversion, "config.yaml"), encoding="ascii")
    checked = check_file(file, {}, secrets_needed=False)
    assert checked.mistakes == ()
    return read_settings(file, GatewayFile)


def notes_of(conversion: Conversion) -> dict[str, str]:
    return {note.path: note.why for note in conversion.notes}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_people_write_becomes_a_file_that_our_reader_takes(name: str, tmp_path: Path) -> None:
    text, models = CONFIGS[name]

    found = convert(tmp_path, text, **ENVIRONMENT)

    assert [model.name for model in read_back(tmp_path, found).models] == models
    everything = written(found, "config.yaml") + msgspec.json.encode(found).decode()
    assert [secret for secret in SECRETS if secret in everything] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_matters_or_is_noted(name: str, tmp_path: Path) -> None:
    """Of each value: there is a note on it, or another one in its place makes another file."""
    text, _ = CONFIGS[name]

    assert _silent(tmp_path, _without_aliases(yaml.safe_load(text))) == []


def _silent(folder: Path, source: Any) -> list[str]:
    """Values that make no difference, and are not noted."""
    before = convert(folder, yaml.safe_dump(source), **ENVIRONMENT)
    return [
        path
        for path, parent, key in _leaves(source)
        if not _is_noted(path, before) and not _changes(folder, source, parent, key, before)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, and where to change it."""
    items: Any = []
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), key) for key in value]
    elif isinstance(value, list):
        items = [(f"{path}[{number}]", number) for number in range(len(value))]
    for below, key in items:
        if isinstance(value[key], dict | list) and value[key]:
            yield from _leaves(value[key], below)
        elif value[key] is not None and value[key] != [] and value[key] != {}:
            yield below, value, key


def _is_noted(path: str, conversion: Conversion) -> bool:
    told = [note.path for note in conversion.notes] + [path for path, _ in conversion.origins]
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in told)


def _changes(folder: Path, source: Any, parent: Any, key: Any, before: Conversion) -> bool:
    kept = parent[key]
    parent[key] = _another(kept)
    try:
        after = convert(folder, yaml.safe_dump(source), **ENVIRONMENT)
    finally:
        parent[key] = kept
    return (after.settings, after.notes, after.origins, after.variables) != (
        before.settings, before.notes, before.origins, before.variables,
    )  # fmt: skip


def _another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}-2" if isinstance(value, str) else "other"


SECRET_MARK = "TOPSECRET"
_secrets = st.integers(0, 10**9).map(lambda n: f"{SECRET_MARK}{n}")
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(allow_nan=True),
    st.text(max_size=12), st.sampled_from(["os.environ/SOME", "http://h:1/v1", "openai/x", "*"]),
)  # fmt: skip
_any = st.recursive(
    _scalars,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9), below, max_size=3)
    ),
    max_leaves=5,
)
_NAMES = (
    "model", "api_base", "rpm", "tpm", "weight", "timeout", "stream_timeout", "max_retries",
    "num_retries", "order", "max_parallel_requests", "temperature", "base_url", "unknown_one",
    "custom_llm_provider", "cooldown_time", "litellm_credential_name", "input_cost_per_token",
)  # fmt: skip
_params = st.builds(
    lambda some, model, base, key: some | model | base | key,
    st.dictionaries(st.sampled_from(_NAMES), _any, max_size=4),
    st.fixed_dictionaries(
        {"model": st.sampled_from(["openai/a", "hosted_vllm/b", "azure/c", "gpt-4o", "zz/d"])}
    ),
    st.fixed_dictionaries({}, optional={"api_base": st.just("http://h:8000/v1") | _any}),
    st.fixed_dictionaries({}, optional={"api_key": _secrets | st.just("os.environ/A_KEY")}),
)
_names_of_models = st.sampled_from(["one", "two", 3, "one-order-2"]) | st.text(max_size=4)
_entries = st.builds(
    lambda name, params, info, more: {
        "model_name": name, "litellm_params": params, "model_info": info, **more,
    },
    _names_of_models, _params,
    st.dictionaries(st.sampled_from(["mode", "id", "rpm", "max_tokens"]), _scalars, max_size=2),
    st.dictionaries(st.sampled_from(["rpm", "tpm", "weight", "strange"]), _any, max_size=2),
)  # fmt: skip
_fallbacks = st.lists(
    st.dictionaries(
        st.sampled_from(["one", "two", "3", "*", "alias"]),
        st.lists(st.sampled_from(["one", "two", "alias", "none"]), max_size=3) | _any,
        max_size=2,
    )
    | _any,
    max_size=3,
)
_router = st.fixed_dictionaries(
    {},
    optional={
        "routing_strategy": st.sampled_from(["simple-shuffle", "least-busy", "usage-based-routing"])
        | _any,
        "num_retries": st.integers(0, 5) | _any,
        "timeout": st.integers(1, 10**6) | _any,
        "allowed_fails": st.integers(0, 9) | _any,
        "cooldown_time": st.floats(0.1, 100) | _any,
        "fallbacks": _fallbacks,
        "default_fallbacks": st.lists(st.sampled_from(["one", "two", "none"]) | _any, max_size=3),
        "model_group_alias": st.dictionaries(
            st.sampled_from(["alias", "two", "", "one-order-2"]),
            st.sampled_from(["one", "two"]) | _any,
            max_size=3,
        ),
        "optional_pre_call_checks": st.lists(
            st.sampled_from(["prompt_caching", "session_affinity", "enforce_model_rate_limits"])
            | _any,
            max_size=3,
        ),
        "enable_pre_call_checks": st.booleans() | _any,
        "default_max_parallel_requests": st.integers(0, 5) | _any,
        "redis_password": _secrets,
    },
)
_module = st.fixed_dictionaries(
    {},
    optional={
        "num_retries": st.integers(0, 5) | _any,
        "request_timeout": st.integers(1, 1000) | _any,
        "fallbacks": _fallbacks,
        "cache": st.booleans() | _any,
        "cache_params": st.fixed_dictionaries(
            {},
            optional={
                "ttl": st.integers(0, 9) | _any, "type": st.sampled_from(["local", "redis"]),
                "mode": st.sampled_from(["default_on", "default_off"]) | _any,
                "password": _secrets,
            },
        ),
        "drop_params": _any,
        "langfuse_secret": _secrets,
    },
)  # fmt: skip
_general = st.fixed_dictionaries(
    {},
    optional={
        "master_key": _secrets | st.just("os.environ/MASTER"),
        "database_url": _secrets.map(lambda secret: f"postgresql://u:{secret}@db/x"),
        "max_request_size_mb": st.integers(0, 99) | _any,
        "alerting": _any,
    },
)
_PLAIN = {"model_name": "a", "litellm_params": {"model": "openai/a", "api_base": "http://a/v1"}}
_CONTROLS = {
    "model_list": [{"model_name": "\b", "litellm_params": {"model": "openai/a"}}, _PLAIN],
    "router_settings": {"model_group_alias": {"\x7f": "a"}},
}
"""No model can have such names."""
_files = st.fixed_dictionaries(
    {"model_list": st.lists(_entries, max_size=4).map(lambda more: [*more, _PLAIN])},
    optional={
        "router_settings": _router | _any,
        "litellm_settings": _module | _any,
        "general_settings": _general | _any,
        "environment_variables": st.dictionaries(st.just("SOME_KEY"), _secrets),
        "credential_list": st.lists(
            st.fixed_dictionaries(
                {"credential_name": st.just("cred") | _any,
                 "credential_values": st.fixed_dictionaries({"api_key": _secrets})},
            ),
            max_size=2,
        ),
        "guardrails": _any,
    },
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(source=_files)
@example(source=_CONTROLS)
def test_whatever_a_file_holds(tmp_path: Path, source: dict[str, Any]) -> None:
    """It is converted, our reader takes it, no value is lost silently, and no secret is told."""
    text = yaml.safe_dump(source)
    source = yaml.safe_load(text)  # aliases, and whatever YAML makes of the rest

    found = convert(tmp_path, text)

    everything = written(found, "config.yaml") + msgspec.json.encode(found).decode()
    assert SECRET_MARK not in everything
    if found.settings["models"]:
        read_back(tmp_path, found)
    assert _silent(tmp_path, _without_aliases(source)) == []


def _without_aliases(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_aliases(below) for key, below in value.items()}
    return [_without_aliases(each) for each in value] if isinstance(value, list) else value
