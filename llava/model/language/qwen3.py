"""Qwen3 with vision."""

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3PreTrainedModel,
)

from llava.model.arch import LlavaForCausalLMMixin, LlavaModelMixin
from llava.model.config import LlavaConfigMixin
from llava.model.head import LanguageHead


class LlavaQwen3Config(LlavaConfigMixin, Qwen3Config):
    """Qwen3's config with LLaVA's ``mm_*`` keys."""

    model_type = "llava_qwen3"


class LlavaQwen3Model(LlavaModelMixin, Qwen3Model):
    """Qwen3's decoder with a vision tower and a projector."""

    config: LlavaQwen3Config


class LlavaQwen3ForCausalLM(LlavaForCausalLMMixin, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen3 with image input."""

    config: LlavaQwen3Config

    def __init__(self, config: LlavaQwen3Config) -> None:
        Qwen3PreTrainedModel.__init__(self, config)
        self.model = LlavaQwen3Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = LanguageHead(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoConfig.register("llava_qwen3", LlavaQwen3Config, exist_ok=True)
AutoModelForCausalLM.register(LlavaQwen3Config, LlavaQwen3ForCausalLM, exist_ok=True)
