"""The providers of LiteLLM's model names: which of them speak OpenAI's API below `/v1`, and where.

Facts of LiteLLM 1.109 and of the providers' own documentation. A provider that is not in the table
is left out with a note: what its API asks for, the gateway does not speak.
"""

from collections.abc import Mapping

import msgspec

from modelyard.core.routes import Operation


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One that can be an upstream."""

    url: str | None = None
    """Where it is when no `api_base` is given, without `/v1`; None: an `api_base` is needed."""
    key_env: str | None = None
    """The variable that LiteLLM takes the key from when no `api_key` is given."""
    adds_v1: bool = False
    """LiteLLM itself goes below `/v1`, or to a path beside it, when `api_base` does not end so."""
    operations: tuple[Operation, ...] = ()
    """What it serves below `/v1`; empty: the defaults."""
    counts_messages: bool = False
    """It counts tokens of messages at `/tokenize`, as vLLM does."""
    model_prefix: str = ""
    """Stands before a model's name at the provider unless the name has it."""


def _hosted(url: str, key_env: str, *operations: Operation) -> Provider:
    return Provider(url=url, key_env=key_env, operations=operations)


_OPENAI = _hosted("https://api.openai.com", "OPENAI_API_KEY")
_OLLAMA = Provider(url="http://localhost:11434", adds_v1=True)
_VLLM = Provider(counts_messages=True)

PROVIDERS: Mapping[str, Provider] = {
    "openai": _OPENAI,
    "aiohttp_openai": _OPENAI,
    "text-completion-openai": _hosted("https://api.openai.com", "OPENAI_API_KEY", "completions"),
    "custom_openai": Provider(),
    "openai_like": Provider(),
    # Servers of one's own.
    "hosted_vllm": _VLLM,
    "vllm": _VLLM,
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "llamafile": Provider(url="http://127.0.0.1:8080"),
    "lm_studio": Provider(),
    "lemonade": Provider(url="http://localhost:8000/api"),
    "xinference": Provider(),
    "docker_model_runner": Provider(url="http://localhost:22088/engines/llama.cpp", adds_v1=True),
    "litellm_proxy": Provider(adds_v1=True),
    "huggingface": Provider(adds_v1=True),
    # Hosted ones.
    "groq": _hosted("https://api.groq.com/openai", "GROQ_API_KEY"),
    "mistral": Provider(url="https://api.mistral.ai", key_env="MISTRAL_API_KEY", adds_v1=True),
    "codestral": _hosted("https://codestral.mistral.ai", "CODESTRAL_API_KEY"),
    "deepseek": Provider(url="https://api.deepseek.com", key_env="DEEPSEEK_API_KEY", adds_v1=True),
    "openrouter": _hosted("https://openrouter.ai/api", "OPENROUTER_API_KEY"),
    "together_ai": _hosted("https://api.together.ai", "TOGETHER_API_KEY"),
    "fireworks_ai": Provider(
        url="https://api.fireworks.ai/inference",
        key_env="FIREWORKS_API_KEY",
        model_prefix="accounts/fireworks/models/",
    ),
    "xai": _hosted("https://api.x.ai", "XAI_API_KEY"),
    "perplexity": _hosted("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", "responses"),
    "nvidia_nim": _hosted("https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY"),
    "sambanova": _hosted("https://api.sambanova.ai", "SAMBANOVA_API_KEY"),
    "cerebras": _hosted("https://api.cerebras.ai", "CEREBRAS_API_KEY"),
    "baseten": _hosted("https://inference.baseten.co", "BASETEN_API_KEY"),
    "meta_llama": _hosted("https://api.llama.com/compat", "LLAMA_API_KEY"),
    "nebius": _hosted("https://api.studio.nebius.ai", "NEBIUS_API_KEY"),
    "hyperbolic": _hosted("https://api.hyperbolic.xyz", "HYPERBOLIC_API_KEY"),
    "lambda_ai": _hosted("https://api.lambda.ai", "LAMBDA_API_KEY"),
    "featherless_ai": _hosted("https://api.featherless.ai", "FEATHERLESS_AI_API_KEY"),
    "moonshot": _hosted("https://api.moonshot.ai", "MOONSHOT_API_KEY"),
    "nscale": _hosted("https://inference.api.nscale.com", "NSCALE_API_KEY"),
    "friendliai": _hosted("https://api.friendli.ai/serverless", "FRIENDLIAI_API_KEY"),
    "wandb": _hosted("https://api.inference.wandb.ai", "WANDB_API_KEY"),
    "v0": _hosted("https://api.v0.dev", "V0_API_KEY"),
    "inception": _hosted("https://api.inceptionlabs.ai", "INCEPTION_API_KEY"),
    "vercel_ai_gateway": _hosted("https://ai-gateway.vercel.sh", "VERCEL_AI_GATEWAY_API_KEY"),
    "aiml": _hosted("https://api.aimlapi.com", "AIML_API_KEY"),
    "ai21_chat": _hosted("https://api.ai21.com/studio", "AI21_API_KEY"),
    "jina_ai": _hosted("https://api.jina.ai", "JINA_AI_API_KEY", "embeddings"),
    "voyage": _hosted("https://api.voyageai.com", "VOYAGE_API_KEY", "embeddings"),
    "poe": _hosted("https://api.poe.com", "POE_API_KEY"),
    "publicai": _hosted("https://api.publicai.co", "PUBLICAI_API_KEY"),
    "scaleway": _hosted("https://api.scaleway.ai", "SCW_SECRET_KEY"),
    "veniceai": _hosted("https://api.venice.ai/api", "VENICE_AI_API_KEY"),
}

ELSEWHERE = (
    "serve it through something that speaks OpenAI's API, and add that as an upstream by hand"
)

LEFT_OUT: Mapping[str, tuple[str, str]] = {
    "anthropic": (
        "Anthropic's own API wants other headers than the gateway sends",
        (
            "for trying out, https://api.anthropic.com takes OpenAI's chat form with its key: add "
            "it as an upstream by hand, with operations: [chat]"
        ),
    ),
    "azure": (
        "Azure's deployments have the api-version in each request's query",
        (
            "its own v1 API speaks OpenAI's: add https://RESOURCE.openai.azure.com/openai "
            "as an upstream by hand, with the deployment's name as model"
        ),
    ),
    "azure_ai": ("Azure AI's addresses carry an api-version", ELSEWHERE),
    "bedrock": ("AWS wants every request signed, in a form of its own", ELSEWHERE),
    "sagemaker": ("AWS wants every request signed, in a form of its own", ELSEWHERE),
    "vertex_ai": ("Google Cloud wants tokens that change every hour", ELSEWHERE),
    "gemini": ("Gemini's OpenAI form is below /v1beta/openai, not below /v1", ELSEWHERE),
    "cohere": (
        "Cohere's own API is not OpenAI's",
        "https://api.cohere.ai/compatibility speaks OpenAI's: add it as an upstream by hand",
    ),
    "deepinfra": ("DeepInfra's OpenAI form is below /v1/openai, not below /v1", ELSEWHERE),
    "volcengine": ("its API is below /api/v3, not below /v1", ELSEWHERE),
    "zai": ("its API is below /api/paas/v4, not below /v1", ELSEWHERE),
    "novita": ("its API is below /v3/openai, not below /v1", ELSEWHERE),
    "auto_router": (
        "LiteLLM chooses a model by what a request is about; this gateway does not",
        "let clients name the model",
    ),
}

_FAMILIES: Mapping[str, str] = {
    "azure_text": "azure",
    "anthropic_text": "anthropic",
    "bedrock_converse": "bedrock",
    "bedrock_mantle": "bedrock",
    "sagemaker_chat": "sagemaker",
    "sagemaker_nova": "sagemaker",
    "vertex_ai_beta": "vertex_ai",
    "cohere_chat": "cohere",
}

_KNOWN_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "gpt-",
            "chatgpt-",
            "o1",
            "o3",
            "o4",
            "text-embedding-",
            "ft:gpt-",
            "davinci-",
            "babbage-",
        ),
        "openai",
    ),
    (("claude",), "anthropic"),
    (("gemini",), "vertex_ai"),
    (("command", "embed-", "rerank-"), "cohere"),
)


def provider_of(model: str, named: str | None) -> tuple[str, str]:
    """Provider and its own model name of LiteLLM's `PROVIDER/MODEL`; no provider: an empty name.

    `named` is `custom_llm_provider`, which goes before the prefix.
    """
    prefix, slash, rest = model.partition("/")
    if named:
        return named, rest if slash and prefix == named else model
    if slash and (prefix in PROVIDERS or family(prefix) in LEFT_OUT):
        return prefix, rest
    if not slash:
        for beginnings, provider in _KNOWN_NAMES:
            if model.startswith(beginnings):
                return provider, model
    return "", model


def family(provider: str) -> str:
    """The name under which `LEFT_OUT` speaks of a provider."""
    return _FAMILIES.get(provider, provider)
