"""Why settings of LiteLLM are left out, section by section, and what to do instead.

The names are those of LiteLLM 1.110 (its router's arguments, its module's settings, the fields of
its general settings) and of its documentation.
"""

from modelyard.gateway.litellm_notes import Reason

_NOTHING = "nothing is needed"
_PRICES = Reason(
    ("*_cost*", "*pricing*", "*budget*", "*spend*", "litellm_provider", "cost_*", "*_uplift_*"),
    "prices are of tokens here, or of an upstream's hours, and budgets are limits of money",
    "write `price` beside the model; bound money: limits.cost_per_day or cost_per_month",
)
_LOGS = Reason(
    (
        "*callback*", "*langfuse*", "*langsmith*", "*datadog*", "*prometheus*", "set_verbose",
        "json_logs", "debug_level", "*logging*", "*log_*", "otel*", "tracing", "service_*",
        "*_logger*", "redact_*", "suppress_debug_info", "*arize*", "*argilla*",
    ),
    "logs and metrics are not sent anywhere by themselves",
    "scrape /metrics (Prometheus); read requests.jsonl (see `records`)",
)  # fmt: skip
_GUARDS = Reason(
    ("*guardrail*", "*moderation*", "*presidio*", "*llamaguard*", "*banned*", "*blocked_user*",
     "*call_rules", "output_parse_pii", "llm_guard*"),
    "the gateway does not look into what is asked and answered",
    "put a guard before the gateway",
)  # fmt: skip
_REDIS = Reason(
    ("redis*", "*_redis*", "coordination_redis", "*valkey*"),
    "limits, cache and state are of one gateway process",
    "run one process, or give each its share of a limit",
)
_CLOUD = Reason(
    ("aws_*", "vertex_*", "azure_*", "watsonx_*", "s3_*", "gcs_*", "bucket_name", "region_name",
     "tenant_id", "client_id", "client_secret", "api_version", "bedrock_*", "anthropic_*",
     "token_exchange_*", "openai_identity_*", "openai_service_*", "databricks_*", "sap_*"),
    "belongs to a cloud's own way of proving who asks",
    "serve the model through something that takes a key, and add that as an upstream",
)  # fmt: skip
_REQUEST = Reason(
    ("temperature", "top_p", "top_k", "n", "stop", "seed", "presence_penalty", "max_completion_*",
     "frequency_penalty", "logit_bias", "response_format", "tools", "tool_choice", "stream",
     "reasoning_effort", "thinking", "extra_body", "user", "messages", "input_type", "dimensions",
     "encoding_format", "prompt*", "*_prompt*", "initial_prompt_value", "roles", "bos_token",
     "eos_token", "merge_*", "functions", "service_tier", "metadata", "stream_options"),
    "was added to each request; the gateway passes requests on as they are",
    "set it in the clients",
)  # fmt: skip
_HEADERS = Reason(
    ("*header*", "organization", "*forward_*"),
    "the gateway sends no headers of its own choice to an upstream",
    "put a proxy that adds it before the upstream",
)
_TLS = Reason(
    ("ssl_*", "*certificate*", "force_ipv4", "*aiohttp*", "http2", "proxy_auth"),
    "how upstreams are reached is set for all of them",
    "upstream_ca_file names the certificates that are trusted",
)
_TAGS = Reason(
    ("tags", "tag_*", "*tag_filtering*", "*_tags"),
    "requests are not routed by tags",
    "give each kind its own model name, and keys the models that they may ask",
)
_DROP = Reason(
    ("drop_params", "additional_drop_params", "modify_params", "allowed_openai_params",
     "supports_*", "fallback_on_unsupported_params"),
    "the gateway passes every parameter on, and the upstream says what it does not take",
    "leave out in the clients what an upstream refuses",
)  # fmt: skip

OF_DEPLOYMENT = (
    Reason(
        ("max_tokens",),
        "was a default for requests that name none; the gateway's bound is one for all requests",
        "set max_completion_tokens of the model if it is meant as a bound",
    ),
    Reason(
        ("*_router_*", "switchyard_*"),
        "the gateway does not choose a model by what is asked",
        "let clients name the model",
    ),
    Reason(
        ("itpm", "otpm", "tpd", "rpd", "daily_reset_time", "default_api_key_*"),
        "is a limit of another kind than there are",
        "limits of the model: requests_per_min, tokens_per_min, tokens_per_day, tokens_per_month",
    ),
    Reason(
        ("configurable_clientside_*", "use_in_pass_through", "use_litellm_proxy", "passthrough"),
        "clients can't choose where the gateway sends them",
        "add each upstream by hand",
    ),
    Reason(
        ("mock_response", "mock_*"),
        "the gateway makes no answers up",
        "run `modelyard fake-engine` as an upstream",
    ),
    Reason(
        ("*keepalive*", "max_file_size_mb", "vector_*", "milvus_*", "litellm_trace_id",
         "cache_control_*", "timeout_by_*", "stream_timeout_by_*", "provider_affinity_header"),
        "the gateway has nothing of the kind",
        "see whether it is needed",
    ),
    _TAGS, _PRICES, _CLOUD, _REQUEST, _HEADERS, _TLS, _DROP, _GUARDS, _LOGS,
)  # fmt: skip

OF_MODEL_INFO = (
    Reason(
        ("id", "db_model", "base_model", "description", "created_*", "updated_*", "key", "version",
         "health_check_*", "disable_background_*", "my_custom_*", "discoverable"),
        "describes the model; the gateway has no place for it",
        _NOTHING,
    ),
    Reason(
        ("max_tokens", "max_input_tokens", "max_output_tokens", "context_window*"),
        "tells about the model; the gateway's context_length is that of prompt and answer together",
        "set context_length of the model, and context_overflow, if requests are to be checked",
    ),
    Reason(
        ("team_*", "access_*", "blocked", "*_router_*", "enforce_*", "member_*", "tier",
         "internal_*"),
        "who may ask a model is said by the keys",
        "list models in `keys` of the file: models: [...]",
    ),
    Reason(
        ("supports_*", "supported_*", "uses_*", "use_*", "output_vector_size", "regional_*"),
        "tells about the model; the gateway passes on what is asked",
        _NOTHING,
    ),
    _PRICES, _TAGS, _REQUEST,
)  # fmt: skip

OF_MODEL = (
    Reason(
        ("max_parallel_requests", "tags", "aliases"),
        "LiteLLM does not read it beside litellm_params",
        "see whether it was meant to be in litellm_params",
    ),
    _TAGS, _PRICES,
)  # fmt: skip

OF_ROUTER = (
    Reason(
        ("context_window_fallbacks",),
        "a prompt that is too long is no failure that leads to another model",
        "context_length with context_overflow: reject, clamp or truncate_oldest",
    ),
    Reason(
        ("content_policy_fallbacks",),
        "the gateway does not see why an upstream refuses to answer",
        "see whether fallbacks do",
    ),
    Reason(
        ("*retry_policy", "allowed_fails_policy", "retry_after"),
        "retries and failures are not told apart by their kind",
        "retries.max_attempts and backoff_base_s, breaking.failures",
    ),
    Reason(
        ("disable_cooldowns",),
        "an upstream that fails is always left alone for a while",
        "set breaking.failures high",
    ),
    Reason(
        ("max_fallbacks",),
        "all fallbacks of a model are tried, within timeouts.total_s",
        "shorten the lists in fallbacks",
    ),
    Reason(
        ("routing_strategy_args", "routing_groups", "weights", "model_group_affinity_config",
         "*affinity*", "enable_weighted_failover", "plugins"),
        "has no counterpart; balancing is set for each model",
        "set balancing and weight in the new file",
    ),
    Reason(
        ("*health_check*",),
        "upstreams are probed by a path",
        "set probing.path of the model, such as /health",
    ),
    Reason(
        ("default_priority", "polling_interval"),
        "who is served first is said by the keys",
        "set priority of a key, and queueing of the model",
    ),
    Reason(
        ("client_ttl", "cache_kwargs", "caching_groups", "ignore_invalid_*", "assistants_config",
         "search_tools", "router_general_settings", "alerting_config", "auto_router_*",
         "enable_mid_stream_*", "default_litellm_params", "max_retries"),
        "the gateway has nothing of the kind",
        "see whether it is needed",
    ),
    _REDIS, _TAGS, _PRICES, _LOGS, _DROP, _GUARDS,
)  # fmt: skip

OF_MODULE = (
    Reason(
        ("context_window_fallbacks", "content_policy_fallbacks"),
        OF_ROUTER[0].why,
        OF_ROUTER[0].instead,
    ),
    Reason(
        ("default_team_*", "default_internal_*", "default_key_*", "*key_generat*", "max_internal_*",
         "internal_user_*", "*end_user*", "default_max_*", "max_ui_*", "upperbound_*",
         "public_*", "personal_*", "*_ui_*"),
        "teams, users and keys are not made by clients",
        "`modelyard keys create --offline` makes the lines of a key",
    ),
    Reason(
        ("ttl", "default_in_memory_ttl", "disk_cache_*", "qdrant_*", "*semantic*", "caching*"),
        "the cache knows only whole requests that are equal, in memory",
        "caching.mode, caching.ttl_s of a model",
    ),
    Reason(
        ("*mcp*", "*vector*", "*agent*", "*skill*", "*batch*", "*file*", "*search*", "*tool*",
         "*interpreter*"),
        "the gateway serves chat, completions, embeddings, responses and messages",
        "serve it from elsewhere",
    ),
    Reason(
        ("secret_manager*", "key_management_*", "*_key", "*_kms*"),
        "secrets come from variables and files",
        "set the variables where the gateway is started",
    ),
    Reason(
        ("custom_provider_map", "custom_*", "api_base", "model_alias_map", "pre_*", "post_*"),
        "code of one's own does not run in the gateway",
        "serve it as an upstream that speaks OpenAI's API",
    ),
    Reason(
        ("telemetry", "model_cost_map_url", "enable_json_schema_validation", "return_response_*",
         "include_*", "enable_preview_*", "disable_*", "enable_*", "suppress_*", "use_*",
         "max_tokens", "*_budget*", "num_workers", "request_correlation*", "route_all_*",
         "store_audit_logs", "turn_off_*", "sse_*", "max_fallbacks", "priority_reservation*",
         "allow_*", "model_group_settings"),
        "the gateway has nothing of the kind",
        "see whether it is needed",
    ),
    Reason(
        ("require_auth_*",),
        "/metrics asks for no key",
        "keep others from it by a proxy before the gateway, if they are not to see it",
    ),
    _LOGS, _GUARDS, _PRICES, _REDIS, _HEADERS, _TLS, _TAGS, _DROP, _REQUEST,
)  # fmt: skip

OF_CACHE = (
    Reason(
        ("host", "port", "password", "username", "url", "ssl*", "db", "namespace", "redis_*",
         "gcp_*", "sentinel_*", "service_name", "s3_*", "gcs_*", "azure_*", "disk_cache_dir",
         "startup_nodes", "max_connections", "socket_*"),
        "the cache is in the memory of the gateway's process",
        "cache.max_bytes says how much of it",
    ),
    Reason(
        ("similarity_threshold", "*semantic*", "qdrant_*", "*embedding*", "max_messages"),
        "only equal requests are answered from the cache",
        _NOTHING,
    ),
    Reason(
        ("default_in_memory_ttl", "default_in_redis_ttl", "*flush*", "supported_call_types"),
        "has no counterpart",
        "caching.mode and caching.ttl_s are set for each model",
    ),
)  # fmt: skip

OF_GENERAL = (
    Reason(
        ("database_*", "store_model_in_db", "store_prompts_*", "*prisma*", "supported_db_objects",
         "use_redis_transaction_buffer", "*_db_*", "proxy_batch_write_at", "proxy_config_reload_*"),
        "the gateway needs no database; keys and models that are kept there are not in this file",
        "write them into the file: `modelyard keys create --offline` makes the lines of a key",
    ),
    Reason(
        ("max_parallel_requests", "global_max_parallel_requests", "max_in_flight_*"),
        "is a bound of each key, or of the process",
        "limits.concurrent_requests of a key, tenant or model",
    ),
    Reason(
        ("max_queued_*", "admission_queue_*"),
        "requests wait for a model",
        "queueing.max_waiting and queueing.deadline_s of the model",
    ),
    Reason(
        ("*health_check*", "model_list_healthy_only"),
        "upstreams are probed by a path",
        "set probing.path of the model, such as /health",
    ),
    Reason(
        ("custom_*", "*jwt*", "*oauth*", "*sso*", "*login*", "*rbac*", "role_*", "allowed_*",
         "public_routes", "*_ips", "litellm_key_header_name", "enforce*", "allow_*", "user_*",
         "*password*", "*ui_*", "admin_*", "disable_*", "default_team_*", "*_access_*",
         "*control_plane*", "hide_*", "key_management_*", "use_google_kms", "use_azure_key_vault",
         "dangerously_*", "block_*", "reject_*", "self_serve_*", "auto_redirect_*",
         "trusted_proxy_*", "use_x_forwarded_for", "provider_url_*", "blocked_*"),
        "who may ask is said by the keys in the file, and by nothing else",
        "keys: [...] in the new file; its secrets come from variables or files",
    ),
    Reason(
        ("pass_through_*", "*passthrough*", "*mcp*", "*batch*", "*file_*", "*vector*", "*search*",
         "*agent*", "plugins", "*websocket*", "*claude_code*", "skill_*", "transcribe_*"),
        "the gateway serves chat, completions, embeddings, responses and messages",
        "serve it from elsewhere",
    ),
    Reason(
        ("*alert*",),
        "the gateway sends no messages",
        "let your Prometheus alert on /metrics",
    ),
    Reason(
        ("completion_model",),
        "requests go to the model that they name",
        "default: true on a model serves the simple API",
    ),
    Reason(
        ("infer_model_from_keys", "return_wildcard_routes", "*_tag_*", "cancel_on_disconnect",
         "include_*", "max_response_size_mb", "missing_session_id", "always_include_*",
         "store_*", "maximum_*", "drain_*", "enable_*", "token_rate_limit_type", "expose_*",
         "fail_closed_*", "scheduled_*", "request_tag_*", "apply_*", "use_*", "password_*",
         "forward_*", "team_*", "require_*", "num_workers", "health_*"),
        "the gateway has nothing of the kind, or does it always",
        "see whether it is needed",
    ),
    _REDIS, _LOGS, _PRICES, _HEADERS,
)  # fmt: skip

OF_FILE = (
    Reason(
        ("include",),
        "settings in other files are not looked for",
        "put them into this file, and convert again",
    ),
    Reason(
        ("guardrails", "policies", "policy_*", "prompts"),
        _GUARDS.why,
        _GUARDS.instead,
    ),
    Reason(
        ("mcp_*", "agent*", "vector_store*", "*_tools", "files_settings", "finetune_settings",
         "assistant_settings", "tool*", "batch_*", "pass_through*", "worker_registry"),
        "the gateway serves chat, completions, embeddings, responses and messages",
        "serve it from elsewhere",
    ),
    _LOGS,
)  # fmt: skip

OF_VARIABLES = Reason(
    ("*",),
    "LiteLLM set this variable itself; the gateway takes variables from where it is started",
    "set it there if the new file names it",
)
