"""Memory of the divergence between two heads: in chunks, compared with all logits at once."""

import torch
from torch.nn.functional import kl_div

from align_ti.losses.linear_heads import linear_divergence
from align_ti.studies.common.measure import peak_memory


def head_memory(
    device: torch.device,
    rows: int = 1000,
    vocabulary: int = 152064,
    student_hidden: int = 896,
    teacher_hidden: int = 3584,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Peak memory of forward KL and its gradients, without the inputs: ``plain`` and ``chunked`` in MiB, and ``ratio``.

    Both compute the gradients of the student's hidden states ``[rows, D_s]`` and of its head ``[vocabulary, D_s]``.
    """
    torch.manual_seed(0)
    hidden = torch.randn(rows, student_hidden, dtype=dtype, device=device).requires_grad_()
    head = (torch.randn(vocabulary, student_hidden, dtype=dtype, device=device) / 30).requires_grad_()
    taught = torch.randn(rows, teacher_hidden, dtype=dtype, device=device)
    teacher_head = torch.randn(vocabulary, teacher_hidden, dtype=dtype, device=device) / 60
    weights = torch.full((rows,), 1 / rows, device=device)
    inputs = torch.nn.ParameterList(
        [hidden, head, torch.nn.Parameter(taught, False), torch.nn.Parameter(teacher_head, False)]
    )

    def plain() -> None:
        with torch.no_grad():
            target = (taught @ teacher_head.T).float().log_softmax(-1)
        found = (hidden @ head.T).float().log_softmax(-1)
        loss = kl_div(found, target, reduction="sum", log_target=True) / rows
        torch.autograd.grad(loss, (hidden, head))

    def chunked() -> None:
        loss = linear_divergence(hidden, head, taught, teacher_head, weights=weights).loss
        torch.autograd.grad(loss, (hidden, head))

    given = sum(tensor.nbytes for tensor in inputs)
    used = {
        name: (peak_memory(run, (inputs,), device) - given) / 2**20
        for name, run in (("plain", plain), ("chunked", chunked))
    }
    return {**used, "ratio": used["chunked"] / used["plain"]}
