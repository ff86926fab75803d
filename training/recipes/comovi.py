"""The paper's two stages, and adapters, on the dual-branch network.

stage.kind "motion" (1): the motion branch alone learns to draw motion maps.
stage.kind "joint"  (2): both branches run; the motion branch, the exchange and the pose head learn, the video branch
                         stays (stage.train_video lets it move too).
adapter.kind "lora":     everything stays, low-rank adapters learn; the pose head's loss guides them where there is one.

B clips, C = 48 channels, F latent frames, h, w latent size, L words; poses (B, 4 (F - 1) + 1, 24, 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...comovi_model.body.smpl import BodyModel, load_body_model
from ...comovi_model.comovi.names import official_name
from ...comovi_model.errors import ComoviError
from ..batch import Draw, TrainBatch
from ..losses import body_losses, velocity_loss
from ..objective import SigmaLaw, ask_both, drop_sentences, pose_layers
from ..recipe import Recipe
from .network import TrainedNetwork
from .start import Start, start_network


@dataclass(frozen=True)
class Terms:
    """What the loss is made of; a weight of 0 leaves a term out."""

    video: float = 1.0
    motion: float = 1.0
    body: Mapping[str, float] | None = None  # pose, vertices, joints; None: the pose head plays no part
    layers_per_step: int = 3
    outlier: float = 0.0


class ComoviRecipe(Recipe):
    """Weights live below `network.`."""

    def __init__(
        self,
        start: Start,
        law: SigmaLaw,
        terms: Terms,
        *,
        joint: bool = True,
        body: BodyModel | None = None,
        text_dropout: float = 0.0,
        empty_text: Tensor | None = None,
        alpha: float = 0.0,
        precision: str = "fp32",
    ):
        super().__init__(precision)
        self.network: TrainedNetwork = start.network
        self.left_out = start.left_out
        self.law, self.terms, self.joint, self.alpha = law, terms, joint, alpha
        self.text_dropout, self.empty_text = text_dropout, empty_text
        self._body = body

    def blocks(self) -> list[nn.Module]:
        return [*self.network.blocks, *self.network.motion.blocks]

    def forward(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        """`motion`, and in stage 2 `video` and the body's terms; their weighted sum is `loss`."""
        video, motion = ask_both(batch, self.law, draw)
        text = self._text(batch, draw)
        layers = self._pose_layers(draw)
        with self.products(batch.video.device):
            out = self.network(
                video.noisy if self.joint else None,
                motion.noisy,
                video.time,
                text,
                motion_timestep=motion.time,
                init_pose=self._first_pose(batch) if layers else None,
                pose_from_layers=layers,
            )
            idle = self.network.touch(layers)
        losses = {"motion": velocity_loss(out.motion, motion.target, motion.sigma, self.terms.outlier)}
        loss = self.terms.motion * losses["motion"] + idle
        if out.video is not None:
            losses["video"] = velocity_loss(out.video, video.target, video.sigma, self.terms.outlier)
            loss = loss + self.terms.video * losses["video"]
        if out.pose is not None and batch.pose is not None:
            weights = self.terms.body or {}
            parts = body_losses(out.pose, batch.pose[:, 1:], batch.betas, self._body_on(out.pose.device), weights,
                                self.terms.outlier)  # fmt: skip
            loss = loss + sum(weights[name] * value for name, value in parts.items())
            losses |= parts
        return {**losses, "loss": loss}

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Official names; adapters are left out (export.py merges them), what stage 1 did not hold is added."""
        prefix = "network."
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        return {official_name(name): tensor for name, tensor in {**self.left_out, **inside}.items()}

    def _pose_layers(self, draw: Draw) -> tuple[int, ...]:
        if not self.joint or self.terms.body is None or self.network.pose_head is None:
            return ()
        layers = self.network.config.num_layers
        if draw.quantile is not None:
            return (layers - 1,)
        return pose_layers(layers, self.terms.layers_per_step, draw)

    def _first_pose(self, batch: TrainBatch) -> Tensor:
        expected = 4 * (batch.video.shape[2] - 1) + 1
        if batch.pose is None or batch.pose.shape[1] != expected:
            came = "none" if batch.pose is None else str(batch.pose.shape[1])
            raise ComoviError(
                f"clip {batch.names[0]} has {came} poses; its {batch.video.shape[2]} latent frames need {expected}. "
                "Prepare the clips with SMPL, or set stage.smpl.enabled = false."
            )
        return batch.pose[:, 0].flatten(1)

    def _text(self, batch: TrainBatch, draw: Draw) -> Tensor:
        if batch.text is None:
            raise ComoviError("the clips have no encoded sentences; cache them with `comovi-train cache`.")
        return drop_sentences(batch.text, batch.text_length, self.text_dropout, self.empty_text, draw)

    def _body_on(self, device: torch.device) -> BodyModel | None:
        if self._body is not None and self._body.v_template.device != device:
            self._body = self._body.to(device=device, dtype=torch.float32)
        return self._body


def build_comovi(config: Any, source: Any = None, device: torch.device | str | None = None) -> ComoviRecipe:
    """Network, what of it moves, and its losses, as the configuration says."""
    joint, smpl = config.stage.kind == "joint", config.stage.smpl
    start = start_network(config, None if device is None else str(device))
    start.network.recompute_blocks(config.engine.checkpointing, config.engine.keep_layers)
    weights = {name: getattr(smpl.weights, name) for name in ("pose", "vertices", "joints")}
    terms = Terms(
        config.loss.video,
        config.loss.motion,
        weights if joint and smpl.enabled and any(weights.values()) else None,
        smpl.layers_per_step,
        config.loss.outlier,
    )
    if terms.body and smpl.layers_per_step > start.network.config.num_layers:
        raise ComoviError(
            f"stage.smpl.layers_per_step is {smpl.layers_per_step}, but the network has "
            f"{start.network.config.num_layers} layers."
        )
    noise = config.noise
    law = SigmaLaw(noise.shift, noise.sampling, noise.location, noise.scale, noise.start, noise.shared, noise.clean)
    needs_body = terms.body is not None and bool(weights["vertices"] or weights["joints"])
    recipe = ComoviRecipe(
        start,
        law,
        terms,
        joint=joint,
        body=load_body_model(smpl.body or None) if needs_body else None,
        text_dropout=config.batch.text_dropout,
        empty_text=getattr(source, "empty_text", None),
        alpha=config.adapter.alpha,
        precision=config.engine.precision,
    )
    return recipe if device is None else recipe.to(device)
