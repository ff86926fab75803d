"""Training and sampling agree on signs, times and the first frame: what was learned by heart is drawn again."""

import torch
from comfyui_comovi.comovi_model.comovi.velocity import DualBranchVelocity
from comfyui_comovi.comovi_model.wan.flow import flow_schedule
from comfyui_comovi.comovi_model.wan.sampling import Stream, classifier_free, sample
from comfyui_comovi.training.batch import Draw, TrainBatch
from comfyui_comovi.training.config import EngineConfig, ModelConfig, SmplConfig, SmplWeights, StageConfig, TrainConfig
from comfyui_comovi.training.recipe import build_recipe

SHAPE = {"dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "in_channels": 4, "out_channels": 4,
         "text_dim": 8, "text_len": 6, "freq_dim": 16, "pose_layers": 1, "pose_ffn_dim": 16, "pose_tokens": 8,
         "pose_heads": 4}  # fmt: skip
SMPL = SmplConfig(layers_per_step=2, weights=SmplWeights(pose=1.0, vertices=0.0, joints=0.0))
COPIES = 4


def test_one_clip_learned_by_heart_comes_back_from_noise():
    torch.set_num_threads(1)
    make = torch.Generator().manual_seed(0)
    video, motion = torch.randn(2, 1, 4, 3, 4, 4, generator=make)
    pose = torch.eye(3)[:2].reshape(1, 1, 1, 6) + 0.3 * torch.randn(1, 9, 24, 6, generator=make)
    text = torch.randn(1, 5, 8, generator=make)
    clip = (video, motion, video[:, :, :1], motion[:, :, :1])
    batch = TrainBatch(
        ("clip",) * COPIES,
        *(latent.expand(COPIES, -1, -1, -1, -1) for latent in clip),
        ("",) * COPIES,
        text.expand(COPIES, -1, -1),
        None,
        pose.expand(COPIES, -1, -1, -1),
        None,
    )
    recipe = build_recipe(
        TrainConfig(
            model=ModelConfig(shape=SHAPE),
            stage=StageConfig(train_video=True, smpl=SMPL),
            engine=EngineConfig(precision="fp32", checkpointing=False),
        )
    )
    moving = [weight for weight in recipe.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(moving, lr=3e-3, weight_decay=0.0)
    for step in range(180):
        optimiser.zero_grad()
        recipe(batch, Draw(0, step, 0, 0, 1))["loss"].backward()
        optimiser.step()

    velocity = DualBranchVelocity(
        recipe.network, {"positive": text}, init_pose=pose[:, 0].flatten(1), timestep_rounding="exact"
    )
    noise = torch.Generator().manual_seed(5)
    streams = {
        name: Stream(torch.randn(1, 4, 3, 4, 4, generator=noise), first)
        for name, first in (("video", clip[2]), ("motion", clip[3]))
    }
    with torch.no_grad():
        out = sample(velocity, streams, flow_schedule(4), classifier_free(1.0))
    for name, clean in (("video", video), ("motion", motion)):
        assert float((out.latents[name] - clean)[:, :, 1:].square().mean()) < 0.25  # of a variance of 1
    wrong = float((pose[:, :1] - pose[:, 1:]).square().mean())
    assert float((out.extras["positive"]["pose"] - pose[:, 1:].flatten(2)).square().mean()) < 0.02 * wrong
