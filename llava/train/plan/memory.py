"""Memory of one GPU at each phase of a step, by part. The peak is the phase with the most.

To the permanent memory (``llava.train.plan.standing``), a step adds what the teacher, the student, TPA's candidates,
the heads, the backward pass and the optimizer keep, and what they need while they run (``llava.train.plan.layers``).
Allocator fragmentation is not counted.
"""

import math
from typing import NamedTuple

from llava.model.loss import CHUNK
from llava.train.plan.deepspeed_json import read_zero
from llava.train.plan.layers import (
    Precision,
    adapters_kept,
    layer_busy,
    layer_grads,
    layer_kept,
    repeated_keys,
    tower_busy,
)
from llava.train.plan.method import Method
from llava.train.plan.run import Run
from llava.train.plan.sizes import DecoderShape
from llava.train.plan.standing import Parts, standing

MAP_ROWS = 256
"""Number of instruction tokens whose attention to a sample is computed at once (IVA)."""


class Moment(NamedTuple):
    """A phase of a step.

    Attributes:
        when: Name of the phase.
        parts: Allocated bytes, by part.
    """

    when: str
    parts: Parts

    @property
    def total(self) -> float:
        """Allocated bytes in total."""
        return sum(self.parts.values())


def peak(run: Run) -> Moment:
    """The phase with the most memory."""
    return max(moments(run), key=lambda moment: moment.total)


def moments(run: Run) -> list[Moment]:
    """All phases of a step that may be the peak.

    Raises:
        InputError: ``--deepspeed`` names no DeepSpeed JSON.
    """
    return _Moments(run).all()


class _Moments:
    def __init__(self, run: Run) -> None:
        arguments = run.arguments
        self.run, self.arguments, self.batch = run, arguments, run.batch
        self.student, self.teacher, self.method = run.student, run.teacher, run.method
        self.shape = run.student.shape
        self.zero = read_zero(arguments.deepspeed, self.shape.hidden)
        self.precision = Precision(arguments.number, arguments.autocast)
        self.teacher_precision = Precision(arguments.number)
        self.prefix = self.method is not None and self.method.candidates > 0 and not self.method.interleaved
        self.interleaved = self.method is not None and self.method.candidates > 0 and self.method.interleaved
        self.masked = self.interleaved or self.batch.padded
        self.head = self.shape.vocabulary * self.shape.hidden if run.trains_language else 0
        self.standing = standing(run, self.zero)

    def all(self) -> list[Moment]:
        found = []
        if self.method is not None:
            found += self.distillation(self.method)
        else:
            kept = self.student_kept()
            loss = 12.0 * min(CHUNK, self.batch.supervised) * self.shape.vocabulary
            found.append(self.moment("the loss of the responses", kept, self.hidden_states(), {"logits": loss}))
            found.append(self.moment("the backward", kept, self.backward(self.batch.places)))
        found.append(self.moment("the end of the backward", {"gradients": self.gradients()}, self.last_gradients()))
        found.append(self.moment("the optimizer's step", {"gradients": self.gradients()}, self.step()))
        tower = self.batch.samples * tower_busy(self.student.tower, self.precision.number)
        return [*found, self.moment("the vision tower", {"vision tower, while it runs": tower})]

    def moment(self, when: str, *parts: Parts) -> Moment:
        """A phase with the permanent memory and ``parts``; for parts of the same name the last counts."""
        together = dict(self.standing)
        for part in parts:
            together |= part
        return Moment(when, {name: float(value) for name, value in together.items() if value})

    # ---- the moments of a distillation ----

    def distillation(self, method: Method) -> list[Moment]:
        assert self.teacher is not None
        batch, theirs = self.batch, self.teacher.shape
        inputs = batch.places * theirs.hidden * self.teacher_precision.number
        embeds = {"student activations": self.embeds_kept()}
        busy = layer_busy(theirs, self.teacher_precision)
        places = batch.places + (batch.candidates if self.interleaved else 0)
        keys = self.keys_kept(theirs.layers, theirs.keys) if self.prefix else 0.0
        running = inputs + busy * places + self.mask_busy(theirs) + self.map_busy(method)
        found = [
            self.moment(
                "the teacher's pass", embeds, {"teacher activations": running, "teacher's keys and values": keys}
            )
        ]
        kept = self.student_kept()
        hidden = {"teacher activations": inputs + places * theirs.hidden * self.teacher_precision.number}
        if self.prefix:
            copies = self.copies(method) * self.keys_kept(1, theirs.keys) + self.ribbon_masks(method, theirs)
            run = {"teacher activations": hidden["teacher activations"] + busy * batch.candidates + copies}
            found.append(self.moment("the teacher's candidates", kept, {"teacher's keys and values": keys}, run))
            kept |= self.candidates_kept(method)
        heads = self.heads(method)
        found.append(self.moment("the losses", kept, self.hidden_states(), hidden, heads))
        row_grads = {"heads": self.head * self.arguments.weight + self.used_rows() * self.shape.hidden * self.stream}
        if self.prefix:  # candidates go first and leave a gradient for every kept key and value
            found.append(self.moment("the candidates' backward", kept, row_grads, self.backward(batch.candidates)))
            grads = {"candidates": self.keys_kept(self.shape.layers, self.shape.keys)}
            found.append(self.moment("the backward", kept, row_grads, grads, self.backward(batch.places)))
        else:
            found.append(self.moment("the backward", kept, row_grads, self.backward(places)))
        if method.on_policy:
            found.append(self.moment("the student's responses", self.generation(method)))
        return found

    @property
    def stream(self) -> int:
        return self.precision.stream

    def embeds_kept(self) -> float:
        """The projector's inputs and outputs, and the spliced sequence."""
        tower, hidden = self.student.tower, self.shape.hidden
        projector = self.batch.pictures * (tower.width + 3 * hidden) * self.precision.number
        return projector + self.batch.places * (hidden * self.stream + hidden)

    def student_kept(self) -> Parts:
        """What the student's pass saves for the backward pass."""
        shape, batch = self.shape, self.batch
        places = batch.places + (batch.candidates if self.interleaved else 0)
        kept = self.embeds_kept() + self.final_norm(places) + self.layers_kept(places, self.masked)
        if self.masked:
            kept += batch.samples * self.longest**2
            if not self.arguments.gradient_checkpointing:
                kept += shape.layers * self.mask_numbers()
        parts = {"student activations": kept}
        if self.arguments.autocast:
            parts["half-precision copies of weights"] = 2.0 * (self.student.layers + self.student.projector)
        repeated = self.masked and repeated_keys(shape) > shape.keys  # attention then keeps others than the prefix
        if self.prefix and (self.arguments.gradient_checkpointing or repeated):
            parts["student's keys and values"] = self.keys_kept(shape.layers, shape.keys)
        return parts

    def hidden_states(self) -> Parts:
        """The student's last hidden states, until the losses have used them; with Algorithm 1 they exist twice, because
        they are split."""
        rows = self.batch.places + self.batch.candidates
        return {"student hidden states": rows * self.shape.hidden * self.stream * (2 if self.interleaved else 1)}

    def layers_kept(self, places: float, masked: bool = False) -> float:
        """What all layers save for a number of rows."""
        if self.arguments.gradient_checkpointing:
            return places * self.shape.layers * self.shape.hidden * self.stream
        return places * self.shape.layers * self.layer_kept(masked)

    def layer_kept(self, masked: bool = False) -> float:
        kept = layer_kept(self.shape, self.precision, self.run.trains_language, masked)
        if self.arguments.lora_enable:
            kept += adapters_kept(self.shape, self.precision, self.arguments.lora_r, cuda=not self.arguments.use_cpu)
        return kept

    def final_norm(self, places: float) -> float:
        return places * self.shape.hidden * (4 + self.stream)

    def candidates_kept(self, method: Method) -> Parts:
        """What the student's candidate pass saves: its rows, and in each layer the keys they read."""
        rows = self.batch.candidates
        kept = self.layers_kept(rows) + self.final_norm(rows) + rows * self.shape.hidden * self.stream
        if not self.arguments.gradient_checkpointing:
            kept += self.copies(method) * self.keys_kept(self.shape.layers, self.shape.keys)
        return {"candidates": kept + self.ribbon_masks(method, self.shape)}

    def ribbon_masks(self, method: Method, shape: DecoderShape) -> float:
        """Attention masks of the candidate blocks, built once for all layers."""
        if method.ribbon_block is None:
            return 0.0
        groups = shape.heads // shape.kv_heads
        return self.batch.candidates * groups * (self.batch.tokens + method.ribbon_block) * self.precision.number

    def copies(self, method: Method) -> int:
        """Number of copies of a sample's keys that the candidate pass makes in each layer."""
        if method.ribbon_block is None:
            return 1
        return max(1, math.ceil(self.batch.response * self.batch.rows / method.ribbon_block))

    def keys_kept(self, layers: int, width: int) -> float:
        """Keys and values of all tokens in a number of layers."""
        return 2.0 * layers * width * self.batch.places * self.precision.number

    @property
    def longest(self) -> float:
        """Length of a sample; with Algorithm 1, including its candidates."""
        return self.batch.tokens + (self.batch.response * self.batch.rows if self.interleaved else 0)

    def mask_numbers(self) -> float:
        """Bytes of an additive mask; PyTorch builds it again in each layer."""
        return self.batch.samples * self.longest**2 * self.precision.number

    def mask_busy(self, shape: DecoderShape) -> float:
        """Bytes of a mask, and of keys and values repeated for every query head, in one layer."""
        if not self.masked:
            return 0.0
        repeated = 2 * repeated_keys(shape) * self.precision.number * self.batch.samples * self.longest
        return self.batch.samples * self.longest**2 + self.mask_numbers() + repeated

    def map_busy(self, method: Method) -> float:
        """Bytes of the attention of one sample's instruction tokens, in float32: scores, masked scores, softmax."""
        if not method.attention_map or self.teacher is None:
            return 0.0
        rows = min(MAP_ROWS, max(0.0, self.batch.tokens - self.batch.visual - self.batch.response))
        return self.batch.tokens * 4 * (3 * rows * self.teacher.shape.heads + self.teacher.shape.keys)

    def used_rows(self) -> float:
        """Rows that go through the heads."""
        assert self.method is not None
        rows = self.batch.candidates
        rows += self.batch.supervised if self.method.response_rows else 0
        return rows + self.batch.pictures * self.method.visual_share(self.student.visual_tokens)

    def heads(self, method: Method) -> Parts:
        """The losses: rows of both models, the gradients of the student's, one chunk of logits, the head's gradient."""
        assert self.teacher is not None
        shape, theirs, number = self.shape, self.teacher.shape, self.precision.number
        rows = self.used_rows()
        held = rows * (2 * shape.hidden * self.stream + theirs.hidden * self.teacher_precision.number)
        if method.relations:
            held += 5 * 4 * self.batch.samples * self.batch.visual**2 + 4 * (shape.hidden**2 + theirs.hidden**2)
        chunk = min(rows, method.chunk_rows(shape.vocabulary)) * shape.vocabulary * (3 * number + 16)
        cast = shape.vocabulary * shape.hidden * 2 if self.arguments.autocast else 0
        after = self.head * self.arguments.weight if self.arguments.weight < 4 else 0
        return {"heads": held + 4 * self.head + max(chunk + cast, after)}

    def generation(self, method: Method) -> Parts:
        """The student's pass over the prompts, and its keys and values of prompts and responses."""
        width = 2 * self.shape.layers * self.shape.keys * self.precision.number
        cache = width * (self.batch.places + self.batch.samples * method.new_tokens)
        busy = self.batch.places * (layer_busy(self.shape, self.precision) + self.shape.hidden * self.stream)
        return {"student's keys and values": cache, "student activations": busy}

    # ---- backward and optimizer ----

    def backward(self, rows: float) -> Parts:
        """Memory of one layer's backward pass for a number of rows; with checkpointing the layer is first run again."""
        passing = rows * layer_grads(self.shape, self.precision)
        if self.arguments.gradient_checkpointing:
            passing += rows * self.layer_kept(self.masked) + (self.mask_numbers() if self.masked else 0)
        return {"backward, one layer": passing}

    def gradients(self) -> float:
        """Gradients at the end of the backward pass."""
        return self.run.trained * self.arguments.weight / (self.arguments.plan_gpus if self.zero.stage >= 2 else 1)

    def last_gradients(self) -> Parts:
        """Gradients of a tied head and the embedding, which come last."""
        return {"heads": self.head * self.arguments.weight * (2 if self.shape.tied else 1)}

    def step(self) -> Parts:
        """DeepSpeed casts the gradients of its share to float32."""
        if not self.arguments.deepspeed or self.zero.offloads_optimizer:
            return {}
        return {"optimizer's gradients": 4 * self.run.trained / (self.arguments.plan_gpus if self.zero.stage else 1)}
