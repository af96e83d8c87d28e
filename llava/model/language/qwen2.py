"""Qwen2 with vision."""

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen2PreTrainedModel,
)

from llava.model.arch import LlavaForCausalLMMixin, LlavaModelMixin
from llava.model.config import LlavaConfigMixin
from llava.model.head import LanguageHead


class LlavaQwen2Config(LlavaConfigMixin, Qwen2Config):
    """Qwen2's config with LLaVA's ``mm_*`` keys."""

    model_type = "llava_qwen2"


class LlavaQwen2Model(LlavaModelMixin, Qwen2Model):
    """Qwen2's decoder with a vision tower and a projector."""

    config: LlavaQwen2Config


class LlavaQwen2ForCausalLM(LlavaForCausalLMMixin, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen2 with image input."""

    config: LlavaQwen2Config

    def __init__(self, config: LlavaQwen2Config) -> None:
        Qwen2PreTrainedModel.__init__(self, config)
        self.model = LlavaQwen2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = LanguageHead(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoConfig.register("llava_qwen2", LlavaQwen2Config, exist_ok=True)
AutoModelForCausalLM.register(LlavaQwen2Config, LlavaQwen2ForCausalLM, exist_ok=True)
