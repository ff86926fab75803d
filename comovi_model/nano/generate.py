"""The nano model at work: first frame + first pose + sentence -> video, motion map, poses.

Shapes: B clips, T = 33 pixel frames, F = 9 latent frames, H x W = 192 x 128. All clips of a call run together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..body.rotations import matrix_from_6d_rows, matrix_to_6d_rows
from ..comovi.dual_branch import DualBranch, DualTextCache
from ..wan.flow import FlowSchedule
from ..wan.sampling import Prediction, StepDone, Stream, classifier_free, sample
from .model import NanoModel
from .scene import NUM_FRAMES
from .text_encoder import tokenise

LATENT_FRAMES = (NUM_FRAMES - 1) // 4 + 1


@dataclass(frozen=True)
class NanoSettings:
    """How to sample. `motion_lead` > 0 lets the motion map run ahead of the video (its sigma is reached earlier).

    One step without guidance is the default because it measured best: first frame and sentence leave little open, the
    first step was trained most, and every further step adds grain where cells move (docs/nano.md has the table).
    """

    steps: int = 1
    guidance: float = 1.0
    shift: float = 5.0
    motion_lead: float = 0.0
    exchange: bool = True  # False: the branches do not see each other (for measuring what the exchange is worth)


@dataclass(frozen=True)
class NanoInput:
    """What clips start from. `video`, `motion_map`: first frames (B, H, W, 3) uint8; `pose`: joint rotations of the
    first frame in the camera frame (B, 24, 3, 3); `sentences`: B strings; `given`: clean latents (B, 48, F, h, w) of a
    half that is there already, "video" or "motion"; it stays as it is and the other half is made for it."""

    video: Tensor
    motion_map: Tensor
    pose: Tensor
    sentences: list[str]
    given: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NanoOutput:
    """`video`, `motion_map` (B, T, H, W, 3) uint8; `rotations` (B, T, 24, 3, 3), frame 0 as given; the latents."""

    video: Tensor
    motion_map: Tensor
    rotations: Tensor
    video_latent: Tensor
    motion_latent: Tensor


def schedules(settings: NanoSettings) -> tuple[FlowSchedule, FlowSchedule]:
    """Sigmas of video and of motion map, from 1 to 0."""
    u = torch.linspace(1, 0, settings.steps + 1, dtype=torch.float64)

    def shifted(u: Tensor) -> FlowSchedule:
        return FlowSchedule(tuple((settings.shift * u / (1 + (settings.shift - 1) * u)).tolist()))

    lead = (u * (1 + settings.motion_lead) - settings.motion_lead).clamp_min(0)
    return shifted(u), shifted(lead)


def encode_first(model: NanoModel, image: Tensor) -> Tensor:
    """First frames (B, H, W, 3) uint8 -> latents (B, 48, 1, h, w)."""
    return model.autoencoder.encode(image[:, None].float() / 127.5 - 1)


def to_pixels(model: NanoModel, latent: Tensor) -> Tensor:
    """Latents (B, 48, F, h, w) -> frames (B, T, H, W, 3) uint8."""
    frames = torch.cat([model.autoencoder.decode(row[None]) for row in latent])
    return ((frames.float().clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8)


@dataclass(frozen=True)
class NanoVelocity:
    """The nano model as the sampler sees it: streams "video" and "motion", conditions "positive" and "negative"."""

    model: NanoModel
    network: DualBranch
    first: dict[str, Tensor]  # clean first latents (B, 48, 1, h, w) by stream
    texts: dict[str, DualTextCache]  # by the conditions asked together: "both" or "positive"
    pose: Tensor  # (B, 144)

    def __call__(
        self, latents: Mapping[str, Tensor], sigmas: Mapping[str, float], conditions: Sequence[str], last: bool
    ) -> list[Prediction]:
        wraps = {"video": self.model.wrap_video, "motion": self.model.wrap_motion}
        batch, copies = len(latents["video"]), len(conditions)
        inputs, times = [], []
        for name, wrap in wraps.items():
            sigma = torch.full((batch,), sigmas[name])
            inputs.append(wrap.network_input(latents[name], sigma, self.first[name]))
            time = torch.full((batch, latents[name].shape[2]), 1000 * sigmas[name])
            time[:, 0] = 0
            times.append(time)
        out = self.network(
            *inputs,
            times[0],
            None,
            motion_timestep=times[1],
            text_cache=self.texts["+".join(conditions)],
            init_pose=self.pose if last else None,
            pose_from_layers=(self.network.config.num_layers - 1,) if last else (),
            copies=copies,
        )
        predictions = []
        for index in range(copies):
            rows = slice(index * batch, (index + 1) * batch)
            velocity = {
                name: wraps[name].velocity(
                    net[rows], latents[name], torch.full((batch,), sigmas[name]), self.first[name]
                )
                for name, net in (("video", out.video), ("motion", out.motion))
            }
            predictions.append(Prediction(velocity, {"pose": out.pose[rows, 0]} if last else {}))
        return predictions


@torch.no_grad()
def generate(
    model: NanoModel,
    start: NanoInput,
    settings: NanoSettings | None = None,
    seed: int = 0,
    on_step: Callable[[StepDone], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> NanoOutput:
    """Sample clips; the same seed gives the same clips on the same machine."""
    settings = settings or NanoSettings()
    generator = torch.Generator().manual_seed(seed)
    first = {"video": encode_first(model, start.video), "motion": encode_first(model, start.motion_map)}
    batch, _, _, height, width = first["video"].shape
    guidance = classifier_free(settings.guidance)
    conditions = [term.condition for term in guidance]
    ids, _ = tokenise(start.sentences)
    by_condition = {"positive": ids, "negative": torch.zeros_like(ids)}  # negative: all padding, as in training
    network = model.network if settings.exchange else without_exchange(model.network)
    text = model.text_encoder(torch.cat([by_condition[name] for name in conditions]))
    velocity = NanoVelocity(
        model,
        network,
        first,
        {"+".join(conditions): network.make_text_cache(text)},
        matrix_to_6d_rows(start.pose).flatten(1),
    )
    common, lead = schedules(settings)
    streams = {
        name: Stream(torch.randn((batch, 48, LATENT_FRAMES, height, width), generator=generator), first[name], schedule)
        for name, schedule in (("video", common), ("motion", lead))
    }
    for name, latent in start.given.items():
        streams[name] = Stream(latent, first[name], FlowSchedule((0.0,) * (settings.steps + 1)))
    samples = sample(
        velocity,
        streams,
        common,
        guidance,
        sampler="euler",
        on_step=on_step,
        interrupted=interrupted,
    )
    rotations = matrix_from_6d_rows(samples.extras["positive"]["pose"].unflatten(-1, (24, 6)))
    video, motion = samples.latents["video"], samples.latents["motion"]
    rotations = torch.cat([start.pose[:, None], rotations], 1)
    return NanoOutput(to_pixels(model, video), to_pixels(model, motion), rotations, video, motion)


def without_exchange(network: DualBranch) -> DualBranch:
    """A copy whose zero-linears are zero: the two branches run side by side, unseen by each other."""
    alone = copy.deepcopy(network)
    for layers in (alone.zero_linear_blocks, alone.zero_linear_blocks_v2m):
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
    return alone
