"""Our network as ComfyUI calls it: one latent of 96 channels in, one velocity of 96 channels out.

B rows (conditions one after the other), F latent frames, h, w latent size. ComfyUI owns the weights: they may lie on
another device, be stored in 8 bits or carry low-rank patches. So every weight is reached through its own functions
(`operations`, `read_weight`), and every attention through the attention function that the user chose.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.common_dit
import comfy.ldm.modules.attention as comfy_attention
import comfy.model_management
import comfy.ops
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...comovi_model.comovi.config import DualBranchConfig
from ...comovi_model.comovi.dual_branch import DualBranch, DualBranchOutput, Step
from ...comovi_model.errors import ComoviError
from ...comovi_model.nano.first_frame import FirstFrameWrapper
from ...comovi_model.wan.config import WanConfig
from ...comovi_model.wan.rope import RopeTable, exact_device, rope_angles
from .latent_format import CHANNELS, HALF, motion_half, video_half

POSE_SIGMA = 0.0926  # the last of the 50 sigmas of the released schedule, at which its pipeline asks the head
NANO_POSE_SIGMA = 0.3  # it was trained on few cleaner latents
BRANCHES = ("both", "motion only", "video only")


@dataclass(frozen=True)
class Call:
    """What the layers of one evaluation need to know of the sampler; never kept on the network, which is shared."""

    options: dict[str, Any] = field(default_factory=dict)  # ComfyUI's transformer_options
    dtype: torch.dtype | None = None  # of matrix products


@dataclass
class PoseRequest:
    """Put into transformer_options under POSE_REQUEST: the pose head answers into `poses`."""

    init_pose: Tensor  # (1, 144), the first frame's pose as 24 six-number rotations
    poses: Tensor | None = None  # (B, P, 144)


POSE_REQUEST = "comovi_pose_request"
REFERENCE_TIME = "comovi_reference_time"  # transformer_options: round times as the released pipeline did

QUANTISED = getattr(comfy.ops, "QuantizedTensor", ())  # numbers with scales; an older ComfyUI has none

_call: ContextVar[Call] = ContextVar("comovi_call", default=Call())  # noqa: B039 (frozen, and never written to)


def read_weight(owner: nn.Module, name: str, like: Tensor) -> Tensor:
    """`owner.name` where and how `like` is, with the patches that ComfyUI applies on the way."""
    own = getattr(owner, "cast_bias_weight", None)  # layers of the GGUF pack unpack themselves
    if own is not None:
        weight, bias = own(like)
        return bias if name == "bias" else weight
    if hasattr(owner, "comfy_cast_weights"):
        weight, bias = comfy.ops.cast_bias_weight(owner, like)[:2]
        if isinstance(weight, QUANTISED):
            weight = weight.dequantize()
        return bias if name == "bias" else weight
    return comfy.model_management.cast_to(getattr(owner, name), dtype=like.dtype, device=like.device)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ComfyUI's attention, with whatever override the workflow set: (B, L, N, d), (B, M, N, d) x 2 -> (B, L, N, d)."""
    heads = q.shape[2]
    q, k, v = q.flatten(2), k.flatten(2), v.flatten(2)
    options = _call.get().options
    return comfy_attention.optimized_attention(q, k, v, heads, transformer_options=options).unflatten(2, (heads, -1))


class ComfyDualBranch(DualBranch):
    """`DualBranch` between ComfyUI's sampler and its weights. Keywords are those of DualBranchConfig.

    branches: which of the two is kept; the other's half of the latent gets velocity 0. spreads: the standard deviations
    of the nano model's first-frame wrapper, (48,) for video and for motion; None for every other model.
    """

    def __init__(
        self,
        *,
        operations: Any,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_model: str = "comovi",
        branches: str = "both",
        spreads: tuple[list[float], list[float]] | None = None,
        **config: Any,
    ):
        super().__init__(DualBranchConfig.from_dict(config), operations, attend, device, dtype, read_weight)
        self.dtype, self.branches = dtype, branches
        self.pose_sigma = NANO_POSE_SIGMA if spreads else POSE_SIGMA  # the noise under which the head reads a latent
        self.wrappers = spreads and tuple(FirstFrameWrapper(torch.tensor(values)) for values in spreads)
        if branches == "motion only":
            self._drop("patch_embedding", "head", "blocks")
        elif branches == "video only":
            self._drop("motion")
        if branches != "both":
            self._drop("zero_linear_blocks", "zero_linear_blocks_v2m", "pose_head")

        if dtype is not None and dtype.itemsize == 1:
            self._keep_small_parts_wide()

    def _keep_small_parts_wide(self) -> None:
        """Of weights stored in 8 bits, those that cost little memory and much quality stay in 16."""
        small = (self.time_embedding, self.time_projection, self.patch_embedding, self.head)
        parts = [part for part in (*small, getattr(self.motion, "head", None)) if part is not None]
        layers = {layer for part in parts for layer in part.modules()}
        for layer in self.modules():
            if layer in layers or not hasattr(layer, "comfy_cast_weights"):
                layer._apply(lambda t: t.to(torch.bfloat16) if t.dtype.itemsize == 1 else t, recurse=False)
                for planned in ("weight_comfy_model_dtype", "bias_comfy_model_dtype"):  # of weights that come later
                    if getattr(layer, planned, None) is self.dtype:
                        setattr(layer, planned, torch.bfloat16)

    def _drop(self, *names: str) -> None:
        for name in names:
            setattr(self, name, nn.ModuleList() if name.startswith("zero") else None)

    def forward(  # type: ignore[override]  # ComfyUI's own signature
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conditions: Any,
    ) -> Tensor:
        """Velocity (B, 96, F, h, w). x in the dtype of matrix products; timestep (B,) is 1000 sigma.

        denoise_mask: (B, 96, F, h, w), 0 where the latent is given; given_latent: (B, 96, F, h, w) when given frames
        are to be read clean and not at the noise of the step.
        """
        options = {} if transformer_options is None else transformer_options
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, options, **conditions)  # caches look for the options at the end

    def _forward(self, x: Tensor, timestep: Tensor, context: Tensor | None, options: dict[str, Any], **given: Any):
        if x.ndim != 5 or x.shape[1] != CHANNELS:
            raise ComoviError(
                f"CoMoVi samples latents of {CHANNELS} channels (48 video, 48 motion map) and got {tuple(x.shape)}; "
                "take the latent of the node 'CoMoVi Conditioning', or join two with 'Join CoMoVi Latents'."
            )
        if context is None:
            raise ComoviError("the model got no encoded sentence; connect a text encoder to 'positive' and 'negative'.")
        token = _call.set(Call(options, x.dtype))
        try:
            return self._velocity(x, timestep, context, options, **given)
        finally:
            _call.reset(token)

    def _velocity(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        options: dict[str, Any],
        denoise_mask: Tensor | None = None,
        given_latent: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        frames, height, width = x.shape[2:]
        if given_latent is not None and denoise_mask is not None:
            x = torch.where(denoise_mask == 0, given_latent.to(x), x)
        options["total_blocks"], options["block_type"] = self.config.num_layers, "double"
        weights = noisy_share(denoise_mask, x, all_frames=given_latent is not None)  # (2, B, F)
        if options.get(REFERENCE_TIME):
            timestep = timestep.trunc().to(torch.bfloat16).float() if denoise_mask is not None else timestep.trunc()
        times = weights * timestep.float()[None, :, None]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.config.patch_size)
        request = options.get(POSE_REQUEST)
        halves: list[Tensor | None] = [video_half(x), motion_half(x)]
        if self.branches == "motion only":
            halves[0] = None
        elif self.branches == "video only":
            halves[1] = None
        if self.wrappers:
            video, motion = self._nano(halves, times, context, denoise_mask, request)
        else:
            video, motion = self._both(halves, times, context, request)
        parts = [half if half is not None else torch.zeros_like(x[:, :HALF]) for half in (video, motion)]
        return torch.cat([part.to(x.dtype) for part in parts], dim=1)[:, :, :frames, :height, :width]

    def _both(
        self,
        halves: list[Tensor | None],
        times: Tensor,
        context: Tensor,
        request: PoseRequest | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Velocities of the halves that are there; times (2, B, F) of video and motion."""
        copies = conditions_alike(halves, times, _call.get().options)
        rows = len(context) // copies
        pose: dict[str, Any] = {}
        if request is not None:
            pose = {
                "init_pose": request.init_pose.to(context.device, torch.float32).expand(rows, -1),
                "pose_from_layers": (self.config.num_layers - 1,),
            }
        video, motion = (None if half is None else half[:rows] for half in halves)
        output: DualBranchOutput = super().forward(
            video, motion, times[0, :rows], context, motion_timestep=times[1, :rows], copies=copies, **pose
        )
        if request is not None and output.pose is not None:
            request.poses = output.pose[:, 0].float()
        return output.video, output.motion

    def _nano(
        self,
        halves: list[Tensor | None],
        times: Tensor,
        context: Tensor,
        mask: Tensor | None,
        request: PoseRequest | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """As `_both`, through the first-frame wrapper: the network also reads where it starts from."""
        parts = (slice(0, HALF), slice(HALF, CHANNELS))
        needed = [part for half, part in zip(halves, parts, strict=True) if half is not None]
        if mask is None or any(bool((mask[:, part, 0] != 0).any()) for part in needed):
            raise ComoviError(
                "the nano model starts from a first frame and its motion map; connect both to 'CoMoVi Conditioning' "
                "('Draw Nano Start' makes a first frame, 'Draw Motion Map' its map)."
            )
        assert self.wrappers
        sigmas = times[:, :, 1:].amax(-1) / 1000  # (2, B); frame 0 is clean
        firsts = [None if half is None else half[:, :, :1] for half in halves]
        wrapped = list(zip(self.wrappers, halves, sigmas, firsts, strict=True))
        inputs = [None if x is None else wrap.network_input(x, sigma, first) for wrap, x, sigma, first in wrapped]
        answers = self._both(inputs, times, context, request)
        video, motion = (
            None if net is None else wrap.velocity(net, x, sigma, first)
            for net, (wrap, x, sigma, first) in zip(answers, wrapped, strict=True)
        )
        return video, motion

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        """Layer i, with what other nodes put around it: replacements see the pair (video, motion) as one "img"."""
        options = _call.get().options
        options["block_index"] = i
        replace = options.get("patches_replace", {}).get("dit", {}).get(("double_block", i))
        if replace is None:
            x_v, x_m = super().layer(i, x_v, x_m, step)
        else:
            inner = super().layer

            def original(args: dict[str, Any]) -> dict[str, Any]:
                video, motion = args["img"]
                return {"img": inner(i, video, motion, step)}

            inputs = {"img": (x_v, x_m), "txt": step.embedded_text, "vec": step.video_time.e0, "pe": step.rope}
            x_v, x_m = replace({**inputs, "transformer_options": options}, {"original_block": original})["img"]
        for patch in options.get("patches", {}).get("double_block", ()):
            if x_v is None:
                break
            inputs = {"img": x_v.flatten(1, 2), "vec": step.video_time.e, "block_index": i, "img_offset": 0}
            x_v = patch({**inputs, "x": x_v, "transformer_options": options})["img"].unflatten(1, x_v.shape[1:3])
        return x_v, x_m

    def rope(self, grid: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> RopeTable:
        """Positions, stretched and moved as the node ScaleROPE asks."""
        asked = _call.get().options.get("rope_options")
        if not asked:
            return super().rope(grid, device, dtype)

        def places(count: int, axis: str) -> Tensor:
            whole = torch.arange(count, dtype=torch.float64, device=exact_device(device))
            return whole * asked.get(f"scale_{axis}", 1.0) + asked.get(f"shift_{axis}", 0.0)

        frames, rows, columns = grid
        angles = rope_angles(places(frames, "t"), places(rows, "y"), places(columns, "x"), self.config.head_dim)
        return RopeTable(angles.cos().to(dtype).to(device), angles.sin().to(dtype).to(device))

    def product_dtype(self, device: torch.device) -> torch.dtype:
        return _call.get().dtype or self.dtype

    def embed_text(self, text: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor:
        """Joined sentences may be longer than the network's own length; their rows are all read."""
        if isinstance(text, Tensor) and text.shape[1] > self.config.text_len:
            check_text_width(text, self.config)
            return self.text_embedding(text.to(dtype))
        return super().embed_text(text, dtype)


def conditions_alike(halves: list[Tensor | None], times: Tensor, options: dict[str, Any]) -> int:
    """How many conditions lie along the batch, when their latents and times are the same bit for bit; else 1.

    What comes before the sentence is read is then computed once. Patches that want to see the blocks see every row.
    """
    count = len(options.get("cond_or_uncond", ()))
    if count < 2 or times.shape[1] % count or options.get("patches") or options.get("patches_replace"):
        return 1
    parts = [x.chunk(count) for x in (*halves, times.transpose(0, 1)) if x is not None]
    return count if all(torch.equal(part[0], other) for part in parts for other in part[1:]) else 1


def check_text_width(text: Tensor, config: WanConfig) -> None:
    if text.shape[-1] != config.text_dim:
        raise ComoviError(
            f"the encoded sentence has {text.shape[-1]} numbers a token and this model reads {config.text_dim}; use "
            "the text encoder that belongs to it."
        )


def noisy_share(mask: Tensor | None, x: Tensor, all_frames: bool) -> Tensor:
    """How much of the step's noise each latent frame carries, (2, B, F) for video and motion.

    A given first frame is clean, so its time is 0. Other given frames are read at the noise of the step (they were
    trained so), unless they are given clean (`all_frames`).
    """
    shares = torch.ones(2, len(x), x.shape[2], device=x.device)
    if mask is None:
        return shares
    mean = torch.stack([half.float().mean(dim=(1, 3, 4)) for half in (video_half(mask), motion_half(mask))])
    shares[:, :, 0] = mean[:, :, 0]
    return mean if all_frames else shares
