"""Variable-length attention as FlashAttention computes it, written out: forward, and backward from out and lse."""

import torch

from align_ti.attention.varlen import Segments


class EmulatedVarlen:
    """A ``VarlenKernel`` on any device and in any precision. Counts the scores it computed."""

    def __init__(self):
        self.scores = 0

    def _segments(self, segments: Segments):
        for index in range(len(segments.cu_q) - 1):
            queries = slice(int(segments.cu_q[index]), int(segments.cu_q[index + 1]))
            keys = slice(int(segments.cu_k[index]), int(segments.cu_k[index + 1]))
            n, m = queries.stop - queries.start, keys.stop - keys.start
            assert n <= segments.max_q and m <= segments.max_k
            yield queries, keys, torch.ones(n, m, dtype=torch.bool).tril(m - n)

    def _scores(self, query, key, visible, scale):
        groups = query.shape[1] // key.shape[1]
        scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(groups, dim=1)) * scale
        self.scores += scores.numel()
        return scores.masked_fill(~visible, -torch.inf)

    def forward(self, query, key, value, segments, scale):
        assert query.shape[0] == int(segments.cu_q[-1]) and key.shape[0] == int(segments.cu_k[-1])
        groups = query.shape[1] // key.shape[1]
        out, lse = torch.zeros_like(query), query.new_full(query.shape[:2], -torch.inf)
        for queries, keys, visible in self._segments(segments):
            scores = self._scores(query[queries], key[keys], visible, scale)
            lse[queries] = scores.logsumexp(-1).T
            wide = value[keys].repeat_interleave(groups, dim=1)
            out[queries] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), wide)
        return out, lse

    def backward(self, grad, query, key, value, out, lse, segments, scale):
        """FlashAttention's backward: probabilities from the given lse, mean gradient from the given out."""
        groups = query.shape[1] // key.shape[1]
        gradients = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for queries, keys, visible in self._segments(segments):
            scores = self._scores(query[queries], key[keys], visible, scale)
            share = (scores - lse[queries].T[..., None]).exp()
            wide_key, wide_value = (tensor[keys].repeat_interleave(groups, dim=1) for tensor in (key, value))
            towards = torch.einsum("qhd,khd->hqk", grad[queries], wide_value)
            mean = (grad[queries] * out[queries]).sum(-1).T[..., None]
            slope = share * (towards - mean) * scale
            gradients[0][queries] = torch.einsum("hqk,khd->qhd", slope, wide_key)
            for target, source, other in ((1, slope, query), (2, share, grad)):
                wide = torch.einsum("hqk,qhd->khd", source, other[queries])
                gradients[target][keys] = wide.unflatten(1, (-1, groups)).sum(2)
        return gradients
