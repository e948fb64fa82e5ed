"""What single settings of LiteLLM become, and what hostile files do."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.core.cost import Price
from modelyard.core.errors import InvalidConfig
from modelyard.gateway.filesource import read_config
from modelyard.gateway.litellm import Conversion, convert_file
from modelyard.gateway.litellm_notes import HIDDEN
from modelyard.gateway.litellm_writing import written

SERVED = {"model": "openai/a", "api_base": "http://a:8000/v1"}


@pytest.fixture
def convert(tmp_path: Path) -> Any:
    """Converts a file, given as text or as data."""

    def run(source: Any, **environment: str) -> Conversion:
        file = tmp_path / "config.yaml"
        file.write_text(source if isinstance(source, str) else yaml.safe_dump(source))
        return convert_file(file, environment)

    return run


def entry(name: str = "a", **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": SERVED | params}


def models(found: Conversion) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in found.settings["models"]}


def notes(found: Conversion) -> dict[str, str]:
    return {note.path: note.why for note in found.notes}


@pytest.mark.parametrize(
    ("params", "url", "name_there"),
    [
        ({"model": "gpt-4o"}, "https://api.openai.com", "gpt-4o"),
        ({"model": "groq/llama-3.1"}, "https://api.groq.com/openai", "llama-3.1"),
        ({"model": "openai/x", "api_base": "http://h:1/v1/"}, "http://h:1", "x"),
        ({"model": "openai/x", "api_base": "http://h:1"}, "http://h:1", "x"),
        ({"model": "openai/x", "base_url": "http://h:1/p/v1"}, "http://h:1/p", "x"),
        ({"model": "ollama/llama3"}, "http://localhost:11434", "llama3"),
        ({"model": "hosted_vllm/org/w", "api_base": "http://h/v1"}, "http://h", "org/w"),
        ({"model": "x", "custom_llm_provider": "openai", "api_base": "http://h"}, "http://h", "x"),
        (
            {"model": "fireworks_ai/w"},
            "https://api.fireworks.ai/inference",
            "accounts/fireworks/models/w",
        ),
        ({"model": "openai/x", "api_base": "os.environ/BASE"}, "http://of-environment:7", "x"),
    ],
)
def test_where_an_upstream_is(
    convert: Any, params: dict[str, Any], url: str, name_there: str
) -> None:
    source = {"model_list": [{"model_name": "public", "litellm_params": params}]}

    (upstream,) = models(convert(source, BASE="http://of-environment:7/v1"))["public"]["upstreams"]

    assert (upstream["url"], upstream["model"]) == (url, name_there)


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("os.environ/THEIR_KEY", "THEIR_KEY"),
        ("${THEIR_KEY}", "THEIR_KEY"),
        ("$THEIR_KEY", "THEIR_KEY"),
        ("sk-a-literal-one", "A_API_KEY"),
        (12345, "A_API_KEY"),
        ("none", None),
        ("EMPTY", None),
        ("", None),
        (["sk-x"], None),
        ("os.environ/not a name", None),
    ],
)
def test_a_key_becomes_a_variable(convert: Any, key: Any, variable: str | None) -> None:
    found = convert({"model_list": [entry(api_key=key)]})

    assert models(found)["a"]["upstreams"][0].get("api_key_env") == variable
    assert found.variables == (() if variable is None else (variable,))
    assert "a-literal-one" not in written(found, "config.yaml")


def test_equal_secrets_share_a_variable_and_others_get_their_own(convert: Any) -> None:
    found = convert(
        {
            "model_list": [
                entry(api_key="sk-first-secret"),
                entry(api_base="http://b", api_key="sk-second-secret"),
                entry(api_base="http://c", api_key="sk-first-secret"),
                entry("b", api_key="os.environ/A_API_KEY_2"),
            ]
        }
    )

    keys = [each["api_key_env"] for each in models(found)["a"]["upstreams"]]
    assert keys[0] == keys[2] == "A_API_KEY"
    assert keys[1] == "A_API_KEY_3"  # 2 is a name that the file itself speaks of


def test_the_key_that_a_provider_is_known_by_is_named(convert: Any) -> None:
    found = convert({"model_list": [{"model_name": "m", "litellm_params": {"model": "groq/x"}}]})

    assert models(found)["m"]["upstreams"][0]["api_key_env"] == "GROQ_API_KEY"


def test_no_key_of_a_provider_goes_to_another_address(convert: Any) -> None:
    found = convert({"model_list": [entry()]})

    assert "api_key_env" not in models(found)["a"]["upstreams"][0]
    assert "OPENAI_API_KEY" in notes(found)["model_list[0].litellm_params.api_key"]


@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ({"routing_strategy": "simple-shuffle"}, {"balancing": "round_robin"}),
        ({"routing_strategy": "least-busy"}, {"balancing": "least_in_flight"}),
        ({"routing_strategy": "latency-based-routing"}, {"balancing": "power_of_two"}),
        ({"routing_strategy": "something-new"}, {}),
        (
            {"optional_pre_call_checks": ["session_affinity"]},
            {"balancing": "session", "sticky_by": "session"},
        ),
        (
            {"optional_pre_call_checks": ["deployment_affinity"]},
            {"balancing": "session", "sticky_by": "key"},
        ),
        ({"optional_pre_call_checks": ["prompt_caching"]}, {"balancing": "prefix_affinity"}),
        ({"num_retries": 0}, {"retries": {"max_attempts": 1}}),
        ({"allowed_fails": 3}, {"breaking": {"failures": 4}}),
        ({"cooldown_time": 90}, {"breaking": {"open_s": 90, "max_open_s": 90}}),
        ({"cooldown_time": 0.5}, {"breaking": {"open_s": 0.5, "max_open_s": 60}}),
        (
            {"timeout": 30, "num_retries": 1},
            {
                "timeouts": {"first_token_s": 30, "gap_s": 30, "total_s": 60},
                "retries": {"max_attempts": 2},
            },
        ),
        (
            {"timeout": 30, "stream_timeout": 5},
            {"timeouts": {"first_token_s": 5, "gap_s": 5, "total_s": 90}},
        ),
        (
            {"timeout": 10**9},
            {"timeouts": {"first_token_s": 86400, "gap_s": 86400, "total_s": 86400}},
        ),
    ],
)
def test_what_the_router_says_holds_for_every_model(
    convert: Any, router: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = convert({"model_list": [entry("a"), entry("b")], "router_settings": router})

    for model in models(found).values():
        more = {name: value for name, value in model.items() if name not in ("name", "upstreams")}
        assert more == expected


def test_an_entry_goes_before_the_router(convert: Any) -> None:
    found = convert(
        {
            "model_list": [entry(timeout=5, max_retries=0), entry("b")],
            "router_settings": {"timeout": 100, "num_retries": 3},
            "litellm_settings": {"request_timeout": 7, "num_retries": 9},
        }
    )

    assert models(found)["a"]["timeouts"]["total_s"] == 5
    assert models(found)["b"]["timeouts"]["total_s"] == 400
    assert "goes before" in notes(found)["litellm_settings.request_timeout"]
    assert "goes before" in notes(found)["litellm_settings.num_retries"]


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ({"weight": 3}, {"weight": 1}, [3, 1]),
        ({"rpm": 600}, {"rpm": 200}, [600, 200]),
        ({"tpm": 1000}, {"tpm": 9000}, [1000, 9000]),
        ({"weight": 1, "rpm": 7}, {"rpm": 9}, [1, 0]),
        ({}, {}, [None, None]),
    ],
)
def test_requests_are_shared_as_litellm_shares_them(
    convert: Any, first: dict[str, Any], second: dict[str, Any], weights: list[Any]
) -> None:
    found = convert({"model_list": [entry(**first), entry(api_base="http://b", **second)]})

    model = models(found)["a"]
    assert [each.get("weight") for each in model["upstreams"]] == weights
    assert ("balancing" in model) is (weights[0] is not None)
    assert "limits" not in model  # LiteLLM refuses nobody by rpm unless it is told to


@pytest.mark.parametrize(
    "router",
    [
        {"enable_pre_call_checks": True},
        {"routing_strategy": "usage-based-routing-v2"},
        {"optional_pre_call_checks": ["enforce_model_rate_limits"]},
    ],
)
def test_rates_that_litellm_holds_become_limits_of_the_model(
    convert: Any, router: dict[str, Any]
) -> None:
    members = [entry(rpm=60, tpm=1000), entry(api_base="http://b", rpm=40)]

    found = convert({"model_list": members, "router_settings": router})

    assert models(found)["a"]["limits"] == {"requests_per_min": 100}


def test_an_entry_that_litellm_sends_nothing_is_told(convert: Any) -> None:
    found = convert({"model_list": [entry(rpm=6), entry(api_base="http://b")]})

    assert "weight: 0" in notes(found)["model_list[1].litellm_params.rpm"]


def test_a_later_order_is_a_fallback(convert: Any) -> None:
    found = convert(
        {
            "model_list": [
                entry(order=2, api_base="http://second"),
                entry(order=1, api_base="http://first"),
                entry(api_base="http://last"),
                entry("a-order-2", api_base="http://own"),
            ],
            "router_settings": {"fallbacks": [{"a": ["a-order-2"]}]},
        }
    )

    made = models(found)
    assert made["a"]["upstreams"][0]["url"] == "http://first"
    assert made["a"]["fallbacks"] == ["a-order-2-2", "a-order-3", "a-order-2"]
    assert made["a-order-2-2"]["upstreams"] == [{"url": "http://second", "model": "a"}]
    assert "fallbacks" not in made["a-order-3"]


def test_an_alias_has_the_upstreams_and_fallbacks_of_its_model(convert: Any) -> None:
    found = convert(
        {
            "model_list": [entry(), entry("b")],
            "router_settings": {
                "model_group_alias": {"gpt": "a", "b": "a", "lost": {"model": "x", "hidden": True}},
                "fallbacks": [{"a": ["b"]}],
            },
        }
    )

    made = models(found)
    assert list(made) == ["a", "b", "gpt"]
    assert made["gpt"]["upstreams"] == [{"url": "http://a:8000", "model": "a"}]
    assert made["gpt"]["fallbacks"] == ["b"]
    assert notes(found).keys() >= {
        "router_settings.model_group_alias.b", "router_settings.model_group_alias.lost",
    }  # fmt: skip


def test_general_fallbacks_are_for_models_without_their_own(convert: Any) -> None:
    found = convert(
        {
            "model_list": [entry("a"), entry("b"), entry("c")],
            "router_settings": {"fallbacks": [{"a": ["b"]}, {"*": ["c", "gone"]}]},
            "litellm_settings": {"default_fallbacks": ["b"], "fallbacks": [{"a": ["c"]}]},
        }
    )

    chains = {name: model.get("fallbacks") for name, model in models(found).items()}
    assert chains == {"a": ["b"], "b": ["c"], "c": ["b"]}
    assert "router_settings.fallbacks[1].*[1]" in notes(found)
    assert "litellm_settings.fallbacks[0].a" in notes(found)


@pytest.mark.parametrize(
    ("module", "caching"),
    [
        ({"cache": True}, {"mode": "all"}),
        (
            {"cache": True, "cache_params": {"ttl": 60, "type": "local"}},
            {"mode": "all", "ttl_s": 60},
        ),
        ({"cache": True, "cache_params": {"mode": "default_off"}}, {"mode": "off"}),
        ({"cache": False, "cache_params": {"ttl": 60}}, None),
        ({}, None),
    ],
)
def test_the_cache(convert: Any, module: dict[str, Any], caching: Any) -> None:
    found = convert({"model_list": [entry()], "litellm_settings": module})

    assert models(found)["a"].get("caching") == caching


def test_the_master_key_is_a_key(convert: Any) -> None:
    found = convert(
        {"model_list": [entry()], "general_settings": {"master_key": "sk-master-secret-1"}}
    )

    assert found.settings["keys"] == [{"id": "master", "secret_env": "LITELLM_MASTER_KEY"}]
    assert found.settings["listen"].startswith("127.0.0.1:")


def test_secrets_are_hidden_in_notes(convert: Any) -> None:
    found = convert(
        {
            "model_list": [entry(extra_headers={"x": "in-a-header"}, azure_password="in-a-name")],
            "environment_variables": {"DB_PASSWORD": "in-a-variable"},
            "general_settings": {"alert_to_webhook_url": {"budget": "https://h/in-a-hook"}},
        }
    )

    told = written(found, "config.yaml")
    assert "in-a-" not in told
    assert HIDDEN in told


def test_unfolded_text_stays_in_its_comment(convert: Any) -> None:
    found = convert(
        {
            "model_list": [entry("a\nlisten: 0.0.0.0:1", mock_response="x\nlisten: 1\x1b[2J")],
            "strange\nlisten: 2": "y",
        }
    )

    told = written(found, "con\nlisten: 3.yaml")
    assert yaml.safe_load(told)["listen"] == "127.0.0.1:4000"
    assert "\x1b" not in told
    assert [line for line in told.splitlines() if line.startswith("listen")] == [
        "listen: 127.0.0.1:4000"
    ]


def bomb(item: str) -> str:
    """Ten times ten times ten …"""
    lines, last = [f"a: &a {item}"], "a"
    for name in "bcdefghijk":
        parts = ", ".join([f"*{last}"] * 10)
        lines.append(f"{name}: &{name} " + (f"{{<<: [{parts}]}}" if "{" in item else f"[{parts}]"))
        last = name
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no settings"),
        ("- a\n- b\n", "holds no settings"),
        ("just text", "holds no settings"),
        ("model_list: [\n", "line 2 is not YAML"),
        ("a: &a [*a]\n", "line 1: what begins here leads back to itself"),
        ("a: " + "[" * 200_000, "nested more than 100 deep"),
        (bomb("[x, x]"), "unfolds to more than"),
        (bomb("{x: 1}"), "unfolds to more than"),
        ("a: " + "9" * 5000, "can't be read"),
        ("a: 2024-02-31", "can't be read"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
        ("a: \0", "is not YAML"),
        ("? [a, b]\n: 1\n", "is not YAML"),
    ],
)
def test_a_hostile_file_is_refused_in_a_line(convert: Any, text: str, told: str) -> None:
    with pytest.raises(InvalidConfig, match=r"config\.yaml") as refused:
        convert(text)

    assert told in refused.value.message
    assert refused.value.next_step


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00a")

    with pytest.raises(InvalidConfig, match="can't be read"):
        convert_file(tmp_path / "c.yaml", {})


def test_odd_values_of_yaml_are_taken_as_text(convert: Any) -> None:
    found = convert(
        textwrap.dedent("""
        model_list: [{model_name: a, litellm_params: {model: openai/a}}]
        when: 2026-01-01
        many: !!set {a, b}
        raw: !!binary aGVsbG8=
        nan: .nan
        1: one
        "1": another
        """)
    )

    assert notes(found).keys() >= {"when", "many", "raw", "nan", "1"}
    written(found, "config.yaml").encode("ascii")


def test_ten_thousand_models(convert: Any) -> None:
    found = convert(
        {
            "model_list": [
                entry(f"m{n}", api_base=f"http://h{n % 9}", rpm=n + 1) for n in range(10_000)
            ]
        }
    )

    assert len(found.settings["models"]) == 10_000
    told = written(found, "config.yaml")
    assert "model_list[7].litellm_params.rpm" in told
    assert "and 9992 more" in told


def test_a_placeholder_is_no_reason_to_speak_of_another_key(convert: Any) -> None:
    found = convert({"model_list": [entry(api_key="none")]})

    told = [note.why for note in found.notes if note.path.endswith("api_key")]
    assert len(told) == 1
    assert "placeholder" in told[0]


def test_prices_of_a_token_are_those_of_a_million(convert: Any, tmp_path: Path) -> None:
    priced = entry("a", input_cost_per_token=0.0000002, output_cost_per_token="nothing")
    beside = entry("b") | {
        "model_info": {"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5,
                       "cache_read_input_token_cost": 1.25e-6, "output_cost_per_second": 1}
    }  # fmt: skip
    wrong = entry("c", input_cost_per_token=-1)

    found = convert({"model_list": [priced, beside, wrong]})

    prices = {name: model["upstreams"][0].get("price") for name, model in models(found).items()}
    assert prices == {
        "a": {"input_per_million": 0.2},
        "b": {"input_per_million": 2.5, "cached_per_million": 1.25, "output_per_million": 10.0},
        "c": None,
    }
    said = notes(found)
    assert "model_list[0].litellm_params.output_cost_per_token" in said
    assert "prices are of tokens here" in said["model_list[1].model_info.output_cost_per_second"]
    assert "model_list[2].litellm_params.input_cost_per_token" in said
    file = tmp_path / "gateway.yaml"
    file.write_text(written(found, "config.yaml"))
    assert yaml.safe_load(file.read_text())["currency"] == "USD"
    slot = read_config(file, {}).snapshot.models[0].slots[0]
    assert slot.replicas[0].price == Price(input_per_million=0.2)
