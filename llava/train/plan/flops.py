"""Floating-point operations of a micro-batch by part, and the duration of a run at an assumed speed.

A matrix product of ``[n, k]`` and ``[k, m]`` counts as ``2 n k m``; a backward pass as twice its forward pass, or once
through frozen weights. Causal attention counts only the half that it needs.
"""

from dataclasses import dataclass

from llava.train.plan.batch import Batch
from llava.train.plan.run import Run
from llava.train.plan.sizes import DecoderShape, TowerSize, shares_tower

SECONDS_A_TOKEN = 0.025
"""Seconds to generate one token of the student's responses, for all samples of a micro-batch and any model size.
Assumed."""

Flops = dict[str, float]


@dataclass(frozen=True)
class Pass:
    """FLOPs of a forward pass of a decoder.

    Attributes:
        products: Matrix products of hidden states and weights.
        attention: Scores, and the weighted sum of values.
    """

    products: float
    attention: float

    @property
    def forward(self) -> float:
        """Both."""
        return self.products + self.attention

    def backward(self, trained: bool = True) -> float:
        """Gradients of the inputs and, if trained, of the weights; attention recomputes its scores."""
        return self.products * (2 if trained else 1) + 2.5 * self.attention


def main_pass(shape: DecoderShape, batch: Batch) -> Pass:
    """A decoder over all tokens of a micro-batch; each attends to itself and to those before it."""
    attended = batch.tokens * (batch.tokens + 1) / 2
    scores = 4 * shape.layers * shape.queries * batch.samples * attended
    return Pass(2 * shape.layers * shape.products * batch.places, scores)


def candidate_pass(shape: DecoderShape, batch: Batch) -> Pass:
    """The candidates alone, each over its sample's cached keys."""
    seen = batch.tokens - batch.response / 2
    scores = 4 * shape.layers * shape.queries * seen * batch.candidates
    return Pass(2 * shape.layers * shape.products * batch.candidates, scores)


def interleaved_pass(shape: DecoderShape, batch: Batch) -> Pass:
    """Algorithm 1's sequence under its dense mask."""
    length = batch.tokens + batch.response * batch.rows
    scores = 4 * shape.layers * shape.queries * batch.samples * length**2
    return Pass(2 * shape.layers * shape.products * (batch.places + batch.candidates), scores)


def tower_flops(tower: TowerSize, pictures: float) -> float:
    """The vision tower for a number of images."""
    products = tower.width * (4 * tower.width + 2 * tower.intermediate)
    return pictures * tower.layers * (2 * products * tower.tokens + 4 * tower.tokens**2 * tower.width)


def responses_flops(shape: DecoderShape, batch: Batch, tokens: float) -> float:
    """The student's own responses: a pass over the prompts, then one token at a time with a KV cache."""
    prompt = batch.tokens - batch.response
    products = 2 * shape.layers * shape.products * batch.samples * (prompt + tokens)
    scores = 4 * shape.layers * shape.queries * batch.samples * (prompt**2 / 2 + tokens * (prompt + tokens / 2))
    return products + scores + 2 * shape.vocabulary * shape.hidden * batch.samples * tokens


def micro_batch_flops(run: Run) -> Flops:
    """Operations of one micro-batch of one GPU by part."""
    student, batch, method, teacher = run.student, run.batch, run.method, run.teacher
    shape, checkpointing = student.shape, run.arguments.gradient_checkpointing
    pictures = batch.pictures / student.visual_tokens if student.visual_tokens else 0.0
    parts: Flops = {"tower": tower_flops(student.tower, pictures)}
    if teacher is not None and not shares_tower(student, teacher):
        parts["teacher's tower"] = tower_flops(teacher.tower, pictures)
    parts["projector"] = 2 * batch.pictures * (3 * student.projector + (teacher.projector if teacher else 0))
    interleaved = method is not None and method.candidates > 0 and method.interleaved
    main = interleaved_pass(shape, batch) if interleaved else main_pass(shape, batch)
    if method is not None and teacher is not None:
        whole = main_pass(teacher.shape, batch)
        parts["teacher forward"] = whole.forward
        if interleaved:
            drawing = whole.forward if method.attention_map or method.drawn_by_teacher else 0.0
            parts["teacher forward"] = drawing + interleaved_pass(teacher.shape, batch).forward
            parts["student forward, to draw"] = main_pass(shape, batch).forward
    parts["student forward"] = main.forward
    parts["student backward"] = main.backward(run.trains_language)
    again = main.forward if checkpointing else 0.0
    if method is not None and teacher is not None and method.candidates and not interleaved:
        candidates = candidate_pass(shape, batch)
        parts["teacher candidates"] = candidate_pass(teacher.shape, batch).forward
        parts["student candidates"] = candidates.forward + candidates.backward(run.trains_language)
        again += candidates.forward if checkpointing else 0.0
    if again:
        parts["recomputation"] = again
    if method is not None and method.on_policy:
        tokens = min(method.new_tokens, batch.response)
        parts["student's responses"] = method.on_policy * responses_flops(shape, batch, tokens)
    return {name: value for name, value in (parts | head_flops(run)).items() if value}


def head_flops(run: Run) -> Flops:
    """FLOPs of both heads, by the rows that go through them."""
    batch, method, teacher = run.batch, run.method, run.teacher
    student_head = 2 * run.student.shape.vocabulary * run.student.shape.hidden
    trained_head = student_head * (3 if run.trains_language else 2)
    if method is None or teacher is None:
        return {"head": trained_head * batch.supervised}
    teacher_head = 2 * teacher.shape.vocabulary * teacher.shape.hidden
    both = trained_head + teacher_head
    drawing = teacher_head if method.drawn_by_teacher else student_head
    return {
        "heads, responses": batch.supervised * (both if method.divergence else trained_head) * method.response_rows,
        "heads, candidates": batch.candidates * both + batch.supervised * drawing * bool(method.candidates),
        "heads, visual tokens": batch.pictures * both * method.visual_share(run.student.visual_tokens),
    }


def step_seconds(run: Run) -> tuple[float, float]:
    """Seconds of one optimizer step: for matrix products and attention, and for generating responses (mean over the
    steps)."""
    arguments, method = run.arguments, run.method
    micro = sum(micro_batch_flops(run).values()) / (arguments.plan_tflops * 1e12 * arguments.plan_mfu)
    sampled = 0.0
    if method is not None and method.on_policy:
        sampled = method.on_policy * min(method.new_tokens, run.batch.response) * SECONDS_A_TOKEN
    samples = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    number = samples / run.batch.samples
    return micro * number, sampled * number
