"""Configurations of LiteLLM proxies as people write them, and what must come of each."""

CONFIGS: dict[str, tuple[str, list[str]]] = {
    "one hosted model": (
        """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: os.environ/OPENAI_API_KEY
""",
        ["gpt-4o-mini"],
    ),
    "a bare name and no key": (
        "model_list: [{model_name: mini, litellm_params: {model: gpt-4o-mini}}]\n",
        ["mini"],
    ),
    "load balanced with limits": (
        """
model_list:
  - model_name: chat
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-8B
      api_base: http://gpu-1:8000/v1
      api_key: none
      rpm: 1200
      tpm: 4000000
  - model_name: chat
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-8B
      api_base: http://gpu-2:8000/v1/
      rpm: 600
    model_info: {id: second, mode: chat, max_input_tokens: 32768}
  - model_name: embed
    litellm_params: {model: openai/bge-m3, api_base: "http://gpu-3:8080"}
    model_info: {mode: embedding}
router_settings:
  routing_strategy: usage-based-routing-v2
  enable_pre_call_checks: true
  redis_host: os.environ/REDIS_HOST
  redis_port: 6379
""",
        ["chat", "embed"],
    ),
    "several keys of one provider": (
        """
model_list:
  - {model_name: gpt, litellm_params: {model: gpt-4o, api_key: os.environ/KEY_A}, rpm: 500}
  - {model_name: gpt, litellm_params: {model: gpt-4o, api_key: os.environ/KEY_B}, rpm: 500}
""",
        ["gpt"],
    ),
    "clouds beside what can be served": (
        """
model_list:
  - model_name: gpt-4
    litellm_params:
      model: azure/gpt-4
      api_base: https://mine.openai.azure.com
      api_version: "2024-02-01"
      api_key: os.environ/AZURE_API_KEY
  - model_name: claude
    litellm_params: {model: bedrock/anthropic.claude-v2, aws_region_name: eu-central-1}
  - model_name: gemini
    litellm_params: {model: vertex_ai/gemini-pro, vertex_project: p, vertex_location: l}
  - model_name: llama
    litellm_params: {model: groq/llama-3.1-8b-instant}
litellm_settings: {fallbacks: [{gpt-4: [claude]}, {llama: [gpt-4]}]}
""",
        ["llama"],
    ),
    "only wildcards but one": (
        """
model_list:
  - {model_name: "*", litellm_params: {model: "*"}}
  - {model_name: "openai/*", litellm_params: {model: "openai/*", api_key: os.environ/K}}
  - {model_name: local, litellm_params: {model: ollama/llama3, api_base: "http://ollama:11434"}}
""",
        ["local"],
    ),
    "fallbacks, aliases, order": (
        """
model_list:
  - model_name: large
    litellm_params: {model: openai/large, api_base: "http://a/v1", order: 1, timeout: 20}
  - model_name: large
    litellm_params: {model: openai/large, api_base: "http://b/v1", order: 2, stream_timeout: 5}
  - model_name: small
    litellm_params: {model: openai/small, api_base: "http://c/v1", max_retries: 4}
router_settings:
  model_group_alias:
    gpt-4: large
    gpt-3.5: {model: small, hidden: true}
    lost: nowhere
  fallbacks: [{large: [small, elsewhere]}]
  context_window_fallbacks: [{small: [large]}]
  num_retries: 2
  timeout: 30
  allowed_fails: 3
  cooldown_time: 30
  default_fallbacks: [small]
""",
        ["large", "large-order-2", "small", "gpt-4", "gpt-3.5"],
    ),
    "a whole production setup": (
        """
model_list:
  - &base
    model_name: assistant
    litellm_params: &params
      model: openai/org/assistant-70b
      api_base: https://inference.internal:8443/prefix/v1
      api_key: sk-live-0123456789abcdefghij
      max_parallel_requests: 32
      temperature: 0.2
      max_tokens: 800
      extra_headers: {x-team: blue}
      input_cost_per_token: 0.0000002
  - <<: *base
    litellm_params:
      <<: *params
      api_base: https://inference-2.internal:8443/prefix/v1
litellm_settings:
  drop_params: true
  set_verbose: false
  request_timeout: 120
  num_retries: 3
  cache: true
  cache_params: {type: redis, host: redis, port: 6379, password: hunter-2-hunter, ttl: 900}
  success_callback: [langfuse, prometheus]
  failure_callback: [sentry]
  callbacks: [otel]
  max_budget: 100
  budget_duration: 30d
  context_window_fallbacks: [{assistant: [other]}]
  default_team_settings: [{team_id: one, langfuse_secret: sk-lf-of-team}]
router_settings: {routing_strategy: least-busy, optional_pre_call_checks: [prompt_caching]}
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  database_url: postgresql://litellm:pass-word-1@db:5432/litellm
  store_model_in_db: true
  alerting: [slack]
  max_request_size_mb: 4
  background_health_checks: true
  health_check_interval: 300
environment_variables:
  LANGFUSE_SECRET_KEY: sk-lf-something-secret
  REDIS_PASSWORD: hunter-2-hunter
guardrails:
  - guardrail_name: pii
    litellm_params: {guardrail: presidio, mode: pre_call}
""",
        ["assistant"],
    ),
    "named credentials": (
        """
credential_list:
  - credential_name: team
    credential_values: {api_key: os.environ/TEAM_KEY, api_base: "http://team-host:9000/v1"}
    credential_info: {description: of the team}
  - credential_name: unused
    credential_values: {api_key: os.environ/OTHER}
model_list:
  - model_name: a
    litellm_params: {model: openai/a, litellm_credential_name: team}
""",
        ["a"],
    ),
    "names that are no text": (
        """
model_list:
  - {model_name: 4.1, litellm_params: {model: openai/gpt-4.1, api_key: os.environ/K}}
  - {model_name: 7, litellm_params: {model: openai/seven, api_base: "http://h/v1", api_key: 1234}}
  - {model_name: true, litellm_params: {model: openai/x}}
  - {model_name: [a], litellm_params: {model: openai/x}}
  - {model_name: null, litellm_params: {model: openai/x}}
""",
        ["4.1", "7"],
    ),
    "wrong types everywhere": (
        """
model_list:
  - just text
  - {model_name: a, litellm_params: [model, openai/a]}
  - model_name: b
    litellm_params:
      model: openai/b
      api_base: http://h:8000/v1
      rpm: many
      tpm: -3
      timeout: [1]
      weight: heavy
      max_retries: 99999999999999999999
      order: {a: 1}
      max_parallel_requests: 1.5
      api_key: {from: vault}
    model_info: chat
router_settings: [a, b]
litellm_settings: {num_retries: lots, cache: "yes", cache_params: 7, fallbacks: {b: [a]}}
general_settings: {master_key: [1, 2], max_request_size_mb: .inf}
environment_variables: none
""",
        ["b"],
    ),
    "addresses that are none": (
        """
model_list:
  - {model_name: a, litellm_params: {model: openai/a, api_base: "ftp://h/v1"}}
  - {model_name: b, litellm_params: {model: openai/b, api_base: "http://u:secret-pass@h/v1"}}
  - {model_name: c, litellm_params: {model: openai/c, api_base: "https://h/v1?key=abc-secret"}}
  - {model_name: d, litellm_params: {model: openai/d, api_base: "http://h:99999/v1"}}
  - {model_name: e, litellm_params: {model: openai/e, api_base: "http://h/v1beta/openai"}}
  - {model_name: f, litellm_params: {model: openai/f, api_base: os.environ/NOT_SET_ANYWHERE}}
  - {model_name: g, litellm_params: {model: openai/g, api_base: "http://[::1]:8000/v1"}}
""",
        ["g"],
    ),
    "one name twice in a mapping": (
        """
model_list:
  - model_name: a
    model_name: b
    litellm_params: {model: openai/b, api_base: "http://h/v1"}
""",
        ["b"],
    ),
    "modes that are not served": (
        """
model_list:
  - model_name: img
    litellm_params: {model: openai/dall-e-3}
    model_info: {mode: image_generation}
  - model_name: mix
    litellm_params: {model: openai/a, api_base: "http://h"}
    model_info: {mode: chat}
  - model_name: mix
    litellm_params: {model: openai/b, api_base: "http://h"}
    model_info: {mode: embedding}
  - {model_name: mix2, litellm_params: {model: jina_ai/e}}
  - {model_name: mix2, litellm_params: {model: openai/c}, model_info: {mode: completion}}
""",
        ["mix", "mix2"],
    ),
    "settings that nobody knows": (
        """
model_list:
  - model_name: a
    litellm_params: {model: openai/a, frobnicate: 1}
    model_info: {colour: red}
    x: 1
router_settings: {speed: fast}
litellm_settings: {mood: good}
general_settings: {weather: fine}
whatever: {deep: {deeper: 1}}
""",
        ["a"],
    ),
}  # fmt: skip
SECRETS = (
    "sk-live-0123456789abcdefghij", "hunter-2-hunter", "sk-lf-of-team", "pass-word-1",
    "sk-lf-something-secret", "secret-pass", "abc-secret",
)  # fmt: skip
