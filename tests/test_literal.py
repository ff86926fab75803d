"""The literal order of operations gives what ours gives, and the counter counts what is known by hand."""

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.benchmark import measure
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.comovi.literal import LiteralDualBranch
from comfyui_comovi.comovi_model.comovi.traffic import Counting, evaluate_traffic

SIZES = {"dim": 48, "ffn_dim": 96, "num_heads": 4, "num_layers": 4, "text_dim": 16, "text_len": 6, "freq_dim": 16}
POSE = {"pose_head": True, "pose_layers": 2, "pose_ffn_dim": 32, "pose_heads": 4, "pose_tokens": 8}


@pytest.mark.parametrize(
    "mode",
    [{"interaction": "single_m2v", **POSE}, {"interaction": "mutual", **POSE}, {"interaction": "single_v2m"},
     {"interaction": "dual", "interleave": 2}],
)  # fmt: skip
def test_both_orders_of_operations_agree(mode):
    torch.manual_seed(0)
    network = DualBranch(DualBranchConfig(**SIZES, in_channels=4, out_channels=4, **mode)).requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latents = [torch.randn(2, 4, 3, 4, 6) for _ in range(2)]
    time, text = torch.tensor([[0.0, 500.0, 500.0]] * 2), torch.randn(2, 5, 16)
    asked = {"init_pose": torch.randn(2, 144), "pose_from_layers": (-1,)} if "pose_head" in mode else {}
    ours = network(*latents, time, text, **asked)
    theirs = LiteralDualBranch(network)(*latents, time, text, **asked)
    for name, a, b in zip(("video", "motion", "pose"), ours, theirs, strict=True):
        if a is not None:
            scale = float(b.abs().max())
            assert float((a - b).abs().max()) < 2e-5 * max(1.0, scale), name


def test_one_step_of_the_released_size_moves_an_eighth():
    """Counted, not timed: at most an eighth of the literal order, products within 1 % of the least."""
    figures = evaluate_traffic()
    assert figures["ratio"] <= 1 / 8
    assert figures["elementwise_bytes_reference"] > 3e12
    assert figures["smpl_head_calls_per_video"] == 1
    assert figures["gemm_flops_least"] <= figures["gemm_flops"] <= 1.01 * figures["gemm_flops_least"]
    assert figures["gemm_flops_reference"] > 1.02 * figures["gemm_flops_least"]


def test_a_step_of_the_nano_model_needs_less_memory_than_the_literal_order():
    """Time is left to `python -m comfyui_comovi.comovi_model.comovi.benchmark`; a busy machine is no measure."""
    figures = measure(0)
    assert figures["memory_ratio"] >= 1.5


def test_the_counter_counts_what_is_known_by_hand():
    x, weight = torch.empty(8, 16, device="meta"), torch.empty(4, 16, device="meta")
    with Counting() as counting:
        y = torch.nn.functional.linear(x, weight)  # 2 * 8 * 4 * 16 FLOPs
        z = y.t() + torch.empty(8, device="meta").expand(4, 8)  # reads 32 and 8 numbers, writes 32
        z.t().reshape(32)  # a view, as the sum keeps the order of y.t()
        counting.attention(*(torch.empty(2, 3, 5, 7, device="meta") for _ in range(3)))
    assert counting.work.product_flops == 2 * 8 * 4 * 16
    assert counting.work.elementwise_bytes == 4 * (32 + 8 + 32)
    assert counting.work.attention_flops == 4 * 2 * 5 * 3 * 3 * 7
