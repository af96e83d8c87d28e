"""The likelihood of given answers, for multiple choice without generation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX
from llava.data.tokenize import TokenizedSample
from llava.model.protocol import VisionLanguageModel


@torch.inference_mode()
def answer_losses(
    model: VisionLanguageModel, samples: Sequence[TokenizedSample], pixels: Tensor | None
) -> list[tuple[float, bool]]:
    """Mean negative log-likelihood of each sample's targets, and whether greedy decoding would give them.

    Args:
        model: A vision-language model in evaluation mode.
        samples: Tokenised conversations, each with at least one target.
        pixels: Pixel values ``[N, 3, H, W]`` of all images in reading order, or None.

    Returns:
        For each sample, the loss in nats per target token (including the end of turn), and whether every target is
        the most likely token at its position.
    """
    home = model.get_input_embeddings().weight
    # Any padding id will do: the mask comes from the lengths.
    ids = pad_sequence([sample.input_ids for sample in samples], batch_first=True)
    labels = pad_sequence([sample.labels for sample in samples], batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad_sequence([torch.ones_like(sample.input_ids) for sample in samples], batch_first=True)
    batch = model.splice_inputs(
        ids.to(home.device),
        mask.to(home.device),
        labels.to(home.device),
        images=None if pixels is None else pixels.to(home.device, home.dtype),
        padding_side="right",
    )
    hidden = model.model(
        inputs_embeds=batch.inputs_embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    targets = batch.labels[:, 1:]
    is_target = targets != IGNORE_INDEX
    logits = model.lm_head(hidden[:, :-1][is_target]).float()  # at targets only: all of [B, S, V] may not fit
    sizes = is_target.sum(dim=1).tolist()
    losses = cross_entropy(logits, targets[is_target], reduction="none").split(sizes)
    is_greedy = (logits.argmax(dim=-1) == targets[is_target]).split(sizes)
    return [(loss.mean().item(), bool(same.all())) for loss, same in zip(losses, is_greedy, strict=True)]
