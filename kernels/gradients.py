"""Backward passes of the fused operators, as operators of their own, so that torch.compile sees them too.

Every gradient that a tensor does not need is not computed. Sums over tokens are made in a fixed order: the same inputs
give the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import library
from .pose_attention import pose_attention_formula


@torch.library.custom_op("comovi::norm_backward", mutates_args=())
def norm_backward(
    joined: Tensor, weight: Tensor, affine: bool, gate: Tensor | None, normed_grad: Tensor, joined_grad: Tensor | None,
    update_dtype: torch.dtype | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from .triton_impl import norm_bwd as fused

    return fused.norm_backward(joined, weight, affine, gate, normed_grad, joined_grad, update_dtype, eps)


@norm_backward.register_fake
def _(
    joined: Tensor, weight: Tensor, affine: bool, gate: Tensor | None, normed_grad: Tensor, joined_grad: Tensor | None,
    update_dtype: torch.dtype | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    kind = {"device": joined.device, "dtype": torch.float32}
    update = torch.empty(joined.shape if update_dtype else (0,), dtype=update_dtype, device=joined.device)
    mean, inverse = torch.empty(joined.shape[:3], **kind), torch.empty(joined.shape[:3], **kind)
    return torch.empty(joined.shape, dtype=joined.dtype, device=joined.device), update, mean, inverse


@torch.library.custom_op("comovi::frame_sums", mutates_args=())
def frame_sums(
    joined: Tensor, normed_grad: Tensor | None, mean: Tensor | None, inverse: Tensor | None, total: Tensor | None,
    update: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from .triton_impl import norm_bwd as fused

    return fused.frame_sums(joined, normed_grad, mean, inverse, total, update)


@frame_sums.register_fake
def _(
    joined: Tensor, normed_grad: Tensor | None, mean: Tensor | None, inverse: Tensor | None, total: Tensor | None,
    update: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    def rows(wanted: bool) -> Tensor:
        shape = (*joined.shape[:2], 1, joined.shape[3]) if wanted else (0,)
        return torch.empty(shape, dtype=torch.float32, device=joined.device)

    return rows(normed_grad is not None), rows(normed_grad is not None), rows(update is not None)


@torch.library.custom_op("comovi::qk_norm_rope_backward", mutates_args=())
def qk_norm_rope_backward(
    tensors: list[Tensor], weights: list[Tensor], grads: list[Tensor], cos: Tensor | None, sin: Tensor | None,
    num_heads: int, eps: float, want_weights: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    from .triton_impl import qk_norm_rope_bwd as fused

    return fused.qk_norm_rope_backward(tensors, weights, grads, cos, sin, num_heads, eps, want_weights)


@qk_norm_rope_backward.register_fake
def _(
    tensors: list[Tensor], weights: list[Tensor], grads: list[Tensor], cos: Tensor | None, sin: Tensor | None,
    num_heads: int, eps: float, want_weights: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    width = (tensors[0].shape[-1],) if want_weights else (0,)
    sums = [torch.empty(width, dtype=torch.float32, device=x.device) for x in tensors]
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in tensors], sums


@torch.library.custom_op("comovi::pose_attention_backward", mutates_args=())
def pose_attention_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, grad: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    from .triton_impl import pose_attention_bwd as fused

    return fused.pose_attention_backward(q, k, v, out, log_sums, grad, groups)


@pose_attention_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, grad: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    return made[0], made[1], made[2]


def to_shape(rows: Tensor, like: Tensor) -> Tensor:
    """Sums by frame, (B, F, 1, D), as the gradient of `like`: (D,), or rows of which one served several frames."""
    if like.dim() == 1:
        return rows.sum((0, 1, 2)).to(like.dtype)
    return rows.sum_to_size(like.shape).to(like.dtype)


def keep_norm_modulate(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, shift, scale, ctx.eps, _ = inputs
    ctx.save_for_backward(x, shift, scale)


def norm_modulate_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, shift, scale = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dx, _, mean, inverse = norm_backward(x, scale, False, None, grad, None, None, ctx.eps)
    dshift = dscale = None
    if needs[1] or needs[2]:
        by_scale, by_shift, _ = frame_sums(x, grad, mean, inverse, None, None)
        dshift, dscale = to_shape(by_shift, shift), to_shape(by_scale, scale)
    return dx, dshift, dscale, None, None


library.norm_modulate.register_autograd(norm_modulate_gradients, setup_context=keep_norm_modulate)


def keep_join(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, update, gate, addend = inputs
    ctx.kinds = update.dtype, None if addend is None else addend.dtype
    ctx.save_for_backward(update if ctx.needs_input_grad[2] else None, gate)


def join_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    update, gate = ctx.saved_tensors
    update_dtype, addend_dtype = ctx.kinds
    dupdate = (grad if gate is None else grad * gate).to(update_dtype) if ctx.needs_input_grad[1] else None
    dgate = None if update is None else to_shape(frame_sums(grad, None, None, None, grad, update)[2], gate)
    return grad, dupdate, dgate, grad.to(addend_dtype) if ctx.needs_input_grad[3] else None


library.join.register_autograd(join_gradients, setup_context=keep_join)


def keep_join_norm(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, update, gate, first, second, ctx.eps, _ = inputs
    ctx.update_dtype = update.dtype
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], update if ctx.needs_input_grad[2] else None, gate, first, second)


def join_norm_gradients(
    ctx: Any, affine: bool, joined_grad: Tensor | None, normed_grad: Tensor | None
) -> tuple[Tensor | None, ...]:
    joined, update, gate, first, second = ctx.saved_tensors
    needs = ctx.needs_input_grad
    weight, bias = (first, second) if affine else (second, first)  # modulated: shift, scale
    if normed_grad is None:  # only the sum was used
        normed_grad = torch.zeros_like(joined)
    total, dupdate, mean, inverse = norm_backward(
        joined, weight, affine, gate, normed_grad, joined_grad, ctx.update_dtype if needs[1] else None, ctx.eps
    )
    dgate = dweight = dbias = None
    wanted = needs[3] or needs[4]
    if wanted or update is not None:
        sums = frame_sums(joined, normed_grad if wanted else None, mean, inverse, total, update)
        if wanted:
            dweight, dbias = to_shape(sums[0], weight), to_shape(sums[1], bias)
        if update is not None:
            dgate = to_shape(sums[2], gate)
    pair = (dweight, dbias) if affine else (dbias, dweight)
    return total, dupdate if needs[1] else None, dgate, *pair, None, None


def _modulated(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return join_norm_gradients(ctx, False, *grads)


def _affine(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return join_norm_gradients(ctx, True, *grads)


library.join_norm_modulate.register_autograd(_modulated, setup_context=keep_join_norm)
library.join_norm_affine.register_autograd(_affine, setup_context=keep_join_norm)


def keep_qk(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.num_heads, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def qk_gradients(ctx: Any, q_grad: Tensor, k_grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, q_weight, k_weight, cos, sin = ctx.saved_tensors
    want = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
    found, sums = qk_norm_rope_backward(
        [q, k], [q_weight, k_weight], [q_grad, k_grad], cos, sin, ctx.num_heads, ctx.eps, want
    )
    weights = [total.to(w.dtype) if want else None for total, w in zip(sums, (q_weight, k_weight), strict=True)]
    return found[0], found[1], *weights, None, None, None, None  # angles are positions: nothing learns them


def norm_heads_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    want = ctx.needs_input_grad[1]
    found, sums = qk_norm_rope_backward([x], [weight], [grad], None, None, ctx.num_heads, ctx.eps, want)
    return found[0], sums[0].to(weight.dtype) if want else None, None, None


library.qk_norm_rope.register_autograd(qk_gradients, setup_context=keep_qk)
library.norm_heads.register_autograd(norm_heads_gradients, setup_context=keep_qk)


def keep_pose(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    q, k, v, ctx.groups = inputs
    ctx.save_for_backward(q, k, v, *output)


def pose_gradients(ctx: Any, grad: Tensor, log_sums_grad: Tensor | None) -> tuple[Tensor | None, ...]:
    del log_sums_grad  # nothing outside reads them
    saved = ctx.saved_tensors  # asked once: a checkpoint unpacks them for one use only
    q, k, v = saved[:3]
    if q.dtype == torch.float32:  # in float32 the kernel's sums do not fit into the registers
        with torch.enable_grad():
            q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
            return *torch.autograd.grad(pose_attention_formula(q, k, v, ctx.groups), (q, k, v), grad), None
    return *pose_attention_backward(*saved, grad, ctx.groups), None


library.pose_attention.register_autograd(pose_gradients, setup_context=keep_pose)
