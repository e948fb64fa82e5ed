"""Which engine runs a model."""

import pytest

from modelyard.core.errors import NotFound, Unsupported
from modelyard.core.facts import Format, ModelFacts
from modelyard.engines.catalogue import ENGINES, choose_engine


def facts(architecture: str, form: Format = "safetensors") -> ModelFacts:
    """A small model of that architecture."""
    return ModelFacts(
        format=form, architecture=architecture, parameters=1, dtype="BF16", size_bytes=2
    )


@pytest.mark.parametrize(
    "model", [facts("Qwen3ForCausalLM"), facts("LlamaForCausalLM"), facts("mamba", "gguf")]
)
def test_llamacpp_is_chosen_for_gguf_and_what_becomes_gguf(model: ModelFacts) -> None:
    assert choose_engine(model, None).name == "llamacpp"


def test_a_refusal_says_why_and_what_else_to_do() -> None:
    with pytest.raises(Unsupported, match=r"llamacpp: .*MambaForCausalLM.*convert_hf_to_gguf\.py"):
        choose_engine(facts("MambaForCausalLM"), None)
    with pytest.raises(Unsupported, match="MambaForCausalLM"):
        choose_engine(facts("MambaForCausalLM"), "llamacpp")


def test_an_unknown_name_gets_the_known_ones() -> None:
    with pytest.raises(NotFound, match="known: fake, llamacpp"):
        choose_engine(facts("Qwen3ForCausalLM"), "vlm")


def test_the_fake_one_is_used_by_name_only() -> None:
    assert choose_engine(facts("MambaForCausalLM"), "fake") is ENGINES["fake"]


def test_an_engine_is_listed_under_its_own_name() -> None:
    assert {name: engine.name for name, engine in ENGINES.items()} == {
        name: name for name in ENGINES
    }
