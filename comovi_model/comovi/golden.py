"""Our side of golden files of kind "comovi": single operations, whole evaluations, the scheduler, sampling loops.

Names of golden tensors: `weight.<official key>`, `case.<name>.in|out|mid.*`, `op.*`, `unipc.*`, `sample.<name>.*`. B
batch, F latent frames, S tokens of one frame, L = F*S, D width, N heads, d head size, P pose tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...kernels.dense_attention import dense_attention
from ...kernels.qk_norm_rope import norm_heads
from ..errors import ComoviError
from ..wan.flow import flow_schedule
from ..wan.sampling import StepDone, Stream, UniPC, classifier_free, sample
from .config import DualBranchConfig
from .dual_branch import DualBranch
from .golden_ops import run_operations
from .names import check_fit, count_layers, official_name, our_name
from .velocity import DualBranchVelocity

if TYPE_CHECKING:
    from ..verify import Golden

Ours = dict[str, Tensor]

# our configuration <- the official one's names
CONFIG_NAMES = {
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "in_channels": "in_dim",
    "out_channels": "out_dim",
    "text_dim": "text_dim",
    "text_len": "text_len",
    "freq_dim": "freq_dim",
    "patch_size": "patch_size",
    "eps": "eps",
    "pose_layers": "smpl_predictor_layers",
    "pose_ffn_dim": "smpl_ffn_dim",
    "pose_heads": "smpl_num_heads",
    "num_joints": "num_joints",
}


def run_cases(golden: Golden) -> Iterator[tuple[str, Ours | ComoviError]]:
    """(case, our tensors by their full golden names), in the order operations, scheduler, evaluations, samples."""
    if any(name.startswith("op.") for name in golden.tensors):
        yield from run_operations(golden, network_for(golden, operations_mode(golden)))
    yield from run_schedules(golden)
    for name, facts in golden.facts.get("cases", {}).items():
        yield from attempt(run_evaluation, golden, f"case.{name}", facts)
    for name, facts in golden.facts.get("samples", {}).items():
        yield from attempt(run_sample, golden, f"sample.{name}", facts)


def attempt(
    compute: Callable[[Golden, str, dict[str, Any]], Ours], golden: Golden, case: str, facts: dict[str, Any]
) -> Iterator[tuple[str, Ours | ComoviError]]:
    """Results and, on their own, intermediate values. A case that our code refuses is a failed case; the others run."""
    try:
        ours = compute(golden, case, facts)
    except ComoviError as error:
        yield case, error
        return
    inside = {name: tensor for name, tensor in ours.items() if ".mid." in name}
    yield case, {name: tensor for name, tensor in ours.items() if name not in inside}
    if inside:
        yield f"{case}.mid", inside


def operations_mode(golden: Golden) -> dict[str, Any]:
    """The smallest network that holds the parts under test: no exchange, a pose head if the file has one."""
    pairs = max(1, count_layers(golden.tensors.shapes(), "weight.motion_blocks"))
    interleave = golden.facts["config"]["num_layers"] // pairs
    has_head = any(name.startswith("weight.smpl_") for name in golden.tensors)
    return {"interaction": "none", "interleave": interleave, "predict_smpl": has_head and interleave == 1}


def network_for(golden: Golden, mode: dict[str, Any], attention: Callable[..., Tensor] | None = None) -> DualBranch:
    """The network of one mode, with its part of the file's weights."""
    given = golden.facts["config"]
    values = {ours: given[theirs] for ours, theirs in CONFIG_NAMES.items() if theirs in given}
    values |= {"interaction": mode["interaction"], "interleave": mode["interleave"], "pose_head": mode["predict_smpl"]}
    if "weight.smpl_pe" in golden.tensors:
        values["pose_tokens"] = golden.tensors.entries["weight.smpl_pe"].shape[1]
    network = DualBranch(DualBranchConfig.from_dict(values), attention=attention, device="meta")
    expected = {f"weight.{official_name(name)}": tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: shape for name, shape in golden.tensors.shapes().items() if name in expected}
    check_fit(found, expected, str(golden.path))
    state = {name: golden.tensors[f"weight.{official_name(name)}"] for name in network.state_dict()}
    network.load_state_dict(state, assign=True)
    return network


def sentences(given: dict[str, Tensor]) -> list[Tensor]:
    """in.context.0, in.context.1, ...: one sentence per sample, of different lengths."""
    return [given[f"in.context.{b}"] for b in range(sum(name.startswith("in.context.") for name in given))]


def run_evaluation(golden: Golden, case: str, facts: dict[str, Any]) -> Ours:
    """One call of the network, and what happened inside if the file recorded it."""
    given = golden.under(f"{case}.")
    attention = FirstAttention()
    network = network_for(golden, facts["mode"], attention)
    probes = Probes(network)
    # What is recorded inside is from before the exchange; cases without records test the sum as it is made otherwise.
    network.fuse_exchange = not any(name.startswith("mid.") for name in given)
    wants_pose = facts["mode"]["predict_smpl"]
    output = network(
        given["in.rgb"],
        given["in.motion"],
        given["in.t"],
        sentences(given),
        init_pose=given["in.init_pose"] if wants_pose else None,
        pose_from_layers=(-1,) if wants_pose else (),
    )
    ours = {"out.rgb": output.video, "out.motion": output.motion, "out.smpl": output.pose}
    for wanted in given:
        if wanted.startswith("mid."):
            ours[wanted] = probes.value(wanted[len("mid.") :], given["in.t"], given["in.rgb"], attention)
    return {f"{case}.{key}": tensor for key, tensor in ours.items() if tensor is not None and key in given}


class FirstAttention:
    """The default attention, remembering the rotated queries and keys of its first call: those of motion block 0."""

    def __init__(self) -> None:
        self.first: tuple[Tensor, Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.first = self.first or (q, k)
        return dense_attention(q, k, v)


class Probes:
    """Inputs and outputs of the modules of a network during its next call."""

    def __init__(self, network: DualBranch):
        self.network = network
        self.seen: dict[str, tuple[tuple[Any, ...], Any]] = {}
        for name, module in network.named_modules():
            module.register_forward_hook(lambda _, inputs, output, name=name: self.keep(name, inputs, output))

    def keep(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        self.seen.setdefault(name, (inputs, output))

    def value(self, official: str, t: Tensor, latent: Tensor, attention: FirstAttention) -> Tensor:
        """What the file calls mid.<official>; token axes joined to (B, L, D)."""
        if official in ("time_embedding", "time_projection"):
            return self.time(official, t, latent)
        if official.startswith("rope."):
            return self.rotary(official[len("rope.") :], attention)
        part, side = (official, "out") if official == "text_embedding" else official.rsplit(".", 1)
        if side == "fused_in":  # the decoder of ours takes it normed; compare it as it was made
            assert self.network.pose_head is not None
            layer, video, motion = self.seen["pose_head"][0][:3]
            return (motion + self.network.pose_head.fusion_layers[layer](video)).flatten(1, 2)
        inputs, output = self.seen[our_name(part + ".").removesuffix(".")]
        value = output if side == "out" else inputs[0]
        return value.flatten(1, 2) if value.ndim == 4 else value

    def time(self, official: str, t: Tensor, latent: Tensor) -> Tensor:
        """e or the flat e0, (B, ...) or, for a time per token, (B, L, ...)."""
        grid = self.network.token_grid(latent)
        time = self.network.embed_time(t, grid, latent.shape[0], torch.float32)
        rows = time.e if official == "time_embedding" else time.e0.flatten(-2)
        if t.ndim == 1:
            return rows.flatten(0, -2)
        return time.spread(rows).expand(-1, grid[0], grid[1] * grid[2], -1).flatten(1, 2)

    def rotary(self, which: str, attention: FirstAttention) -> Tensor:
        """q_before, q_after, k_before or k_after: (B, L, N, d) of motion block 0."""
        letter, side = which.split("_")
        if side == "after":
            assert attention.first is not None
            return attention.first[0 if letter == "q" else 1]
        owner = self.network.motion.blocks[0].self_attn
        projected = self.seen[f"motion.blocks.0.self_attn.{letter}"][1]
        weight = getattr(owner, f"norm_{letter}").weight
        return norm_heads(projected, weight, owner.num_heads, owner.eps)


def run_schedules(golden: Golden) -> Iterator[tuple[str, Ours]]:
    """Sigmas and times, and UniPC on a velocity field given as a formula."""
    for name in golden.tensors:
        match = re.fullmatch(r"unipc\.((\d+)_shift([\d.]+))\.timesteps", name)
        if not match:
            continue
        label, steps, shift = match[1], int(match[2]), float(match[3])
        schedule = flow_schedule(steps, shift)
        ours = {
            f"unipc.{label}.timesteps": torch.tensor(schedule.timesteps),
            f"unipc.{label}.sigmas": torch.tensor(schedule.sigmas, dtype=torch.float32),
        }
        states = f"unipc.trajectory.{label}.states"
        if states in golden.tensors:
            x, sampler, made = golden.tensors["unipc.trajectory.start"], UniPC(schedule.sigmas), []
            for k, t in enumerate(schedule.timesteps):
                x = sampler.step(k, x, 0.3 * x + math.sin(t / 1000))
                made.append(x)
            ours[states] = torch.stack(made)
        yield f"unipc.{label}", {key: tensor for key, tensor in ours.items() if key in golden.tensors}


def run_sample(golden: Golden, case: str, facts: dict[str, Any]) -> Ours:
    """A whole sampling loop: every state on the way, the first velocities, the times, the result."""
    given = golden.under(f"{case}.")
    network = network_for(golden, facts["mode"])
    channels, clean = network.config.in_channels, facts["first_frame_clean"]
    model = DualBranchVelocity(
        network,
        {side: [given[f"in.context_{side}"]] for side in ("negative", "positive") if f"in.context_{side}" in given},
        init_pose=given["in.init_pose"] if facts["mode"]["predict_smpl"] else None,
        first_frame_clean=clean,
        timestep_rounding="reference",
    )
    noise = given["in.noise"].split(channels, dim=1)
    firsts = (given["in.clean_rgb"], given["in.clean_motion"]) if clean else (None, None)
    streams = {key: Stream(noise[i], firsts[i]) for i, key in enumerate(("video", "motion"))}
    schedule = flow_schedule(facts["steps"], facts["shift"])
    steps: list[StepDone] = []
    samples = sample(model, streams, schedule, classifier_free(facts["guidance"]), on_step=steps.append)

    frames, rows, columns = network.token_grid(noise[0])
    times = [model.times(sigma, frames) for sigma in schedule.sigmas[:-1]]  # (1, F) or (1, 1)
    first = [prediction.velocity for prediction in steps[0].predictions.values()]  # negative, then positive
    ours = {
        "schedule.sigmas": torch.tensor(schedule.sigmas, dtype=torch.float32),
        "schedule.timesteps": torch.tensor(schedule.timesteps),
        "steps.t_passed": torch.cat([t.repeat_interleave(rows * columns, 1) if clean else t for t in times]),
        "steps.velocity_0": torch.cat([torch.cat((v["video"], v["motion"]), dim=1) for v in first]),
        "steps.latents": torch.stack([torch.cat((s.latents["video"], s.latents["motion"]), dim=1) for s in steps]),
        "out.rgb": samples.latents["video"],
        "out.motion": samples.latents["motion"],
    }
    if "out.smpl" in given:
        poses = [extras["pose"] for extras in samples.extras.values()]
        ours["out.smpl"] = torch.cat(poses)[:, None]  # (K, 1, P, 144)
    return {f"{case}.{key}": tensor for key, tensor in ours.items() if key in given}
