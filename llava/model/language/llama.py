"""Llama with vision."""

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlamaPreTrainedModel,
)

from llava.model.arch import LlavaForCausalLMMixin, LlavaModelMixin
from llava.model.config import LlavaConfigMixin
from llava.model.head import LanguageHead


class LlavaLlamaConfig(LlavaConfigMixin, LlamaConfig):
    """Llama's config with LLaVA's ``mm_*`` keys."""

    model_type = "llava_llama"


class LlavaLlamaModel(LlavaModelMixin, LlamaModel):
    """Llama's decoder with a vision tower and a projector."""

    config: LlavaLlamaConfig


class LlavaLlamaForCausalLM(LlavaForCausalLMMixin, LlamaForCausalLM):  # type: ignore[misc]
    """Llama with image input."""

    config: LlavaLlamaConfig

    def __init__(self, config: LlavaLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = LlavaLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = LanguageHead(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoConfig.register("llava_llama", LlavaLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(LlavaLlamaConfig, LlavaLlamaForCausalLM, exist_ok=True)
