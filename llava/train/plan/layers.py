"""Bytes per token held by the layers of a language model or a vision tower, as transformers runs them.

Counted from transformers' code and checked against the tensors that autograd saves
(tests/llava/train/test_plan_layers.py).
"""

from dataclasses import dataclass

from llava.train.plan.sizes import DecoderShape, TowerSize


@dataclass(frozen=True)
class Precision:
    """Precision of a model's computation.

    Attributes:
        number: Bytes per number in the output of a matrix product.
        autocast: Whether weights and the residual stream are in float32.
    """

    number: int
    autocast: bool = False

    @property
    def stream(self) -> int:
        """Bytes per number in the residual stream."""
        return 4 if self.autocast else self.number


def layer_kept(shape: DecoderShape, precision: Precision, trained: bool = True, masked: bool = False) -> float:
    """Bytes per token that one decoder layer saves for the backward pass.

    The two norms save their input in float32 and, if trained, the normalised input. Matrix products save their input if
    trained, five times under autocast, which casts it for each. Attention saves queries, keys, values and its output.
    The MLP saves its gate, the gate's activation, the other factor and, if trained, their product.

    Args:
        shape: Shape of the model.
        precision: Precision of the model.
        trained: Whether the layer's weights get gradients.
        masked: Whether attention has a mask.
    """
    number, hidden, queries = precision.number, shape.hidden, shape.queries
    keys = repeated_keys(shape) if masked else shape.keys
    kept = 4 * 2 * hidden + 8 + number * (2 * queries + 2 * keys) + 4 * shape.heads + 3 * number * shape.intermediate
    if trained:
        copies = 5 if precision.autocast else 2
        kept += precision.stream * 2 * hidden + number * (copies * hidden + shape.intermediate)
    if shape.norms_queries:
        kept += 4 * (shape.queries + shape.keys + shape.heads + shape.kv_heads)
        kept += number * (shape.queries + shape.keys) if trained else 0
    return kept


def repeated_keys(shape: DecoderShape) -> int:
    """Width of the keys in attention with a mask: repeated for every query head, unless there is one key head."""
    return shape.queries if shape.kv_heads > 1 else shape.keys


def adapters_kept(shape: DecoderShape, precision: Precision, rank: int, cuda: bool = True) -> float:
    """Bytes per token that the LoRA adapters of one layer save: the input of each after dropout, the dropout mask
    (bytes on CUDA, floating-point numbers on a CPU), and the rows between its two matrices."""
    inputs = 5 * shape.hidden + shape.queries + shape.intermediate
    return inputs * (precision.number + (1 if cuda else precision.stream)) + 7 * rank * precision.number


def layer_busy(shape: DecoderShape, precision: Precision) -> float:
    """Bytes per token that one decoder layer needs while it runs without a backward pass: the MLP with its
    residuals."""
    return 3 * precision.number * shape.intermediate + (2 * precision.stream + precision.number) * shape.hidden


def layer_grads(shape: DecoderShape, precision: Precision) -> float:
    """Bytes per token of the gradients in one decoder layer of the backward pass, beyond what the layer saved: the
    MLP's, whose three wide gradients replace the first wide tensor that is freed."""
    return precision.number * 2 * shape.intermediate + 2 * precision.stream * shape.hidden


def tower_busy(tower: TowerSize, number: int) -> float:
    """Bytes per image that the tower needs while it runs: pixels, and one layer's MLP with its residuals."""
    pixels = 3 * tower.image_size**2 * (4 + number)
    return pixels + tower.tokens * number * (3 * tower.width + 2 * tower.intermediate)
