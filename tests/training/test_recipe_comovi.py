"""The paper's two stages on tiny networks: what moves, what stays, where training begins (acceptance test 4)."""

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import load_checkpoint, save_checkpoint
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.attention import Parts
from comfyui_comovi.comovi_model.wan.branch import WanModel
from comfyui_comovi.comovi_model.wan.weights import write_weights
from comfyui_comovi.training.batch import Draw, TrainBatch
from comfyui_comovi.training.config import (
    AdapterConfig,
    BatchConfig,
    EngineConfig,
    ModelConfig,
    SmplConfig,
    SmplWeights,
    StageConfig,
    TrainConfig,
)
from comfyui_comovi.training.losses import body_losses, velocity_loss
from comfyui_comovi.training.recipe import build_recipe

SHAPE = {"dim": 24, "ffn_dim": 16, "num_heads": 2, "num_layers": 4, "in_channels": 4, "out_channels": 4, "text_dim": 8,
         "text_len": 6, "freq_dim": 8, "pose_layers": 2, "pose_ffn_dim": 16, "pose_tokens": 8}  # fmt: skip
POSE_ONLY = SmplWeights(pose=1.0, vertices=0.0, joints=0.0)
CONFIG = TrainConfig(
    model=ModelConfig(shape=SHAPE),
    stage=StageConfig(smpl=SmplConfig(layers_per_step=3, weights=POSE_ONLY)),
    engine=EngineConfig(precision="fp32", checkpointing=False),
)


def batch_of(count=1, seed=0):
    make = torch.Generator().manual_seed(seed)
    video, motion = torch.randn(2, count, 4, 3, 4, 4, generator=make)
    pose = torch.eye(3)[:2].reshape(1, 1, 1, 6) + 0.2 * torch.randn(count, 9, 24, 6, generator=make)
    text = torch.randn(count, 5, 8, generator=make)
    return TrainBatch(tuple("clip" for _ in range(count)), video, motion, video[:, :, :1], motion[:, :, :1],
                      ("a person walks",) * count, text, torch.full((count,), 5), pose,
                      torch.zeros(count, 10))  # fmt: skip


def draw(step=0, **more):
    return Draw(seed=3, step=step, micro=0, rank=0, world=1, **more)


@pytest.fixture(scope="module")
def plain_wan(tmp_path_factory):
    """A file of one branch with random weights under the names of plain Wan2.2, none of them zero."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wan") / "wan.safetensors"
    wan = {key: value for key, value in SHAPE.items() if not key.startswith("pose")}
    model = WanModel(DualBranchConfig(**wan), Parts())
    write_weights(path, model.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def from_wan(plain_wan):
    wanted = {key: SHAPE[key] for key in ("num_heads", "text_len", "pose_layers", "pose_ffn_dim", "pose_tokens")}
    return replace(CONFIG, model=ModelConfig(base=str(plain_wan), shape=wanted))


def train(recipe, steps, count=1):
    """A few steps of Adam without decay, so that what moves has got a gradient."""
    moving = [p for p in recipe.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(moving, lr=1e-2, weight_decay=0.0, eps=1e-10)
    for step in range(steps):
        optimiser.zero_grad()
        recipe(batch_of(count, step), draw(step))["loss"].backward()
        assert all(p.grad is not None for p in moving)
        optimiser.step()


def test_stage_two_begins_with_the_base_models_video(from_wan, plain_wan):
    recipe = build_recipe(from_wan)
    base, _ = load_checkpoint(plain_wan, interaction="none", num_heads=2, text_len=6)
    batch = batch_of(2)
    inputs = (batch.video, batch.motion, torch.tensor([500.0, 20.0]), batch.text)
    with torch.no_grad():
        found, wanted = recipe.network(*inputs), base(inputs[0], None, *inputs[2:])
    assert torch.equal(found.video, wanted.video)
    assert bool((found.motion != found.video).any())  # it answers to another input


def test_after_three_steps_all_that_should_have_moved_has_and_nothing_else(from_wan):
    everything = replace(from_wan, stage=StageConfig(smpl=SmplConfig(layers_per_step=4, weights=POSE_ONLY)))
    recipe = build_recipe(everything)
    before = {name: tensor.clone() for name, tensor in recipe.state_dict().items()}
    train(recipe, 3)
    after = recipe.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(recipe.trainable())
    parts = ("network.motion.", "network.zero_linear_blocks.", "network.pose_head.")
    assert moved == {name for name in before if name.startswith(parts)}


def test_the_head_of_the_released_code_would_not_have_moved(from_wan):
    """The test above catches a head that starts at zero altogether."""
    everything = replace(from_wan, stage=StageConfig(smpl=SmplConfig(layers_per_step=4, weights=POSE_ONLY)))
    recipe = build_recipe(everything)
    with torch.no_grad():
        for layer in recipe.network.pose_head.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
    before = recipe.network.pose_head.decoders[0].ca.q.weight.clone()
    train(recipe, 3)
    assert torch.equal(recipe.network.pose_head.decoders[0].ca.q.weight, before)


def test_stage_one_trains_the_motion_branch_alone_and_gives_a_whole_file(from_wan, plain_wan, tmp_path):
    stage1 = replace(from_wan, stage=StageConfig(kind="motion"))
    recipe = build_recipe(stage1)
    before = {name: tensor.clone() for name, tensor in recipe.state_dict().items()}
    losses = recipe(batch_of(), draw())
    assert set(losses) == {"motion", "loss"}
    assert torch.equal(losses["motion"], losses["loss"])
    train(recipe, 2)
    moved = {name for name, tensor in recipe.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == set(recipe.trainable()) == {name for name in before if name.startswith("network.motion.")}
    assert len(recipe.network.blocks) == 0

    official = recipe.export_state(recipe.state_dict())
    path = tmp_path / "stage1.safetensors"
    write_weights(path, official, {})
    second = build_recipe(replace(from_wan, model=ModelConfig(init=str(path), shape=dict(from_wan.model.shape))))
    found, trained = second.network.motion.state_dict(), recipe.network.motion.state_dict()
    assert all(torch.equal(found[name], trained[name]) for name in trained)
    base, _ = load_checkpoint(plain_wan, interaction="none", num_heads=2, text_len=6)
    assert torch.equal(second.network.blocks[3].ffn[0].weight, base.blocks[3].ffn[0].weight)

    # Only what was trained, over the base, is the same start.
    part = {name: tensor for name, tensor in official.items() if name.startswith("motion_")}
    write_weights(tmp_path / "part.safetensors", part, {})
    both = ModelConfig(base=str(plain_wan), init=str(tmp_path / "part.safetensors"), shape=dict(from_wan.model.shape))
    third = build_recipe(replace(from_wan, model=both)).state_dict()
    assert all(torch.equal(third[name], tensor) for name, tensor in second.state_dict().items())


def test_recomputing_blocks_changes_neither_losses_nor_gradients(from_wan):
    gradients = []
    for again, kept in ((False, 0), (True, 0), (True, 2)):
        engine = EngineConfig(precision="fp32", checkpointing=again, keep_layers=kept)
        recipe = build_recipe(replace(from_wan, engine=engine))
        train(recipe, 2)
        recipe.zero_grad()
        loss = recipe(batch_of(2, 5), draw(5))["loss"]
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in recipe.parameters() if p.requires_grad)])
    for plain, recomputed, partly in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
        assert torch.equal(plain, partly)


def test_layers_that_are_not_chosen_are_touched_with_exactly_zero(from_wan):
    one = StageConfig(smpl=SmplConfig(layers_per_step=1, weights=POSE_ONLY))
    recipe = build_recipe(replace(from_wan, stage=one))
    train(recipe, 3)
    recipe.zero_grad()
    recipe(batch_of(), draw())["loss"].backward()
    fusion = recipe.network.pose_head.fusion_layers
    assert [bool(layer.weight.grad.any()) for layer in fusion] == [False, False, False, True]
    assert all(layer.bias.grad is not None for layer in fusion)


def test_a_clean_branch_has_a_time_of_its_own_and_no_loss(from_wan):
    noise = replace(CONFIG.noise, shared=0.0, clean=1.0)
    recipe = build_recipe(replace(from_wan, noise=noise))
    seen = []
    recipe.network.register_forward_pre_hook(
        lambda module, inputs, named: seen.append((inputs[2], named["motion_timestep"])), with_kwargs=True
    )
    losses = {name: value.detach() for name, value in recipe(batch_of(8), draw()).items()}
    video, motion = seen[0]
    assert bool(((video[:, 1:] == 0).all(1) ^ (motion[:, 1:] == 0).all(1)).all())
    assert float(losses["video"]) > 0 and float(losses["motion"]) > 0
    only = velocity_loss(torch.ones(2, 1, 2, 1, 1), torch.zeros(2, 1, 1, 1, 1), torch.tensor([0.0, 0.5]))
    assert float(only) == 1.0


def test_outliers_can_be_left_out():
    prediction = torch.zeros(1, 1, 2, 1, 2)
    target = torch.tensor([3.0, 100.0]).view(1, 1, 1, 1, 2)
    sigma = torch.ones(1)
    assert float(velocity_loss(prediction, target, sigma)) == pytest.approx((9 + 1e4) / 2)
    assert float(velocity_loss(prediction, target, sigma, outlier=50)) == pytest.approx(9)


def test_bodies_are_compared_in_three_ways():
    from comfyui_comovi.comovi_model.body.toy import toy_body

    body = toy_body()
    still = torch.eye(3)[:2].flatten().expand(1, 2, 24, 6)
    turned = still.clone()
    turned[0, :, 0] = torch.tensor([0.0, 0, 1, 0, 1, 0])  # the whole person looks to the side
    guess = turned.flatten(2)[:, None].bfloat16()
    weights = {"pose": 1.0, "vertices": 1.0, "joints": 1.0}
    losses = body_losses(guess, still, None, body, weights)
    assert float(losses["pose"]) == pytest.approx(2 / 144)  # two of 144 numbers are off by 1
    posed = body_losses(guess.float(), still, None, body, weights)
    assert all(torch.equal(losses[name], posed[name]) for name in posed)  # in float32 whatever comes in
    assert float(losses["joints"]) > 0.01 and float(losses["vertices"]) > 0.01
    assert all(float(v) == 0 for v in body_losses(still.flatten(2)[:, None], still, None, body, weights).values())
    assert set(body_losses(guess, still, None, None, {"pose": 1.0, "vertices": 0.0, "joints": 0.0})) == {"pose"}
    with pytest.raises(ComoviError, match="need a body"):
        body_losses(guess, still, None, None, weights)


def test_the_three_terms_of_the_released_code_reach_the_head(from_wan):
    three = StageConfig(smpl=SmplConfig(layers_per_step=2))
    recipe = build_recipe(replace(from_wan, stage=three))
    losses = recipe(batch_of(), draw())
    values = {name: float(value.detach()) for name, value in losses.items()}
    assert set(values) == {"video", "motion", "pose", "vertices", "joints", "loss"}
    assert 2 * values["loss"] == pytest.approx(sum(values.values()), rel=1e-5)
    losses["vertices"].backward()
    assert bool(recipe.network.pose_head.proj_out.weight.grad.any())


def test_adapters_start_from_nothing_and_only_they_move(from_wan):
    quiet = StageConfig(smpl=SmplConfig(enabled=False))
    lora = AdapterConfig(kind="lora", rank=2, targets=("rgb", "motion", "exchange"))
    config = replace(from_wan, stage=quiet, adapter=lora)
    recipe, plain = build_recipe(config), build_recipe(replace(config, adapter=AdapterConfig()))
    batch = batch_of()
    assert torch.equal(recipe(batch, draw())["loss"], plain(batch, draw())["loss"])
    assert all(".lora_" in name for name in recipe.trainable())
    assert {name.split(".lora_")[0] for name in recipe.trainable()} >= {
        "network.blocks.0.self_attn.q", "network.motion.blocks.3.ffn.2", "network.zero_linear_blocks.1",
    }  # fmt: skip
    before = {name: tensor.clone() for name, tensor in recipe.state_dict().items()}
    train(recipe, 3)
    moved = {name for name, tensor in recipe.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == set(recipe.trainable())


def test_what_cannot_be_is_a_sentence(from_wan, tmp_path):
    no_pose = replace(batch_of(), pose=None)
    with pytest.raises(ComoviError, match="has none"):
        build_recipe(from_wan)(no_pose, draw())
    with pytest.raises(ComoviError, match="layers_per_step"):
        build_recipe(replace(from_wan, stage=StageConfig(smpl=SmplConfig(layers_per_step=9))))
    with pytest.raises(ComoviError, match="pose head"):
        build_recipe(replace(from_wan, adapter=AdapterConfig(kind="lora")))
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, DualBranch(DualBranchConfig(**{**SHAPE, "dim": 16})))
    with pytest.raises(ComoviError, match="does not fit over"):
        build_recipe(replace(from_wan, model=replace(from_wan.model, init=str(path))))
    with pytest.raises(ComoviError, match="names no layer"):
        quiet = StageConfig(smpl=SmplConfig(enabled=False))
        build_recipe(replace(CONFIG, stage=quiet, model=ModelConfig(shape=SHAPE, interaction="none"),
                             adapter=AdapterConfig(kind="lora", targets=("exchange",))))  # fmt: skip


def test_validation_reads_the_last_layer_and_drops_no_sentence(from_wan):
    recipe = build_recipe(replace(from_wan, batch=BatchConfig(text_dropout=1.0)))
    batch = batch_of()
    seen = []
    recipe.network.register_forward_pre_hook(
        lambda module, inputs, named: seen.append((inputs[3], named["pose_from_layers"])), with_kwargs=True
    )
    recipe(batch, draw(quantile=0.5))
    recipe(batch, draw())
    assert seen[0][1] == (3,) and torch.equal(seen[0][0], batch.text)
    assert len(seen[1][1]) == 3 and not seen[1][0].any()


def test_a_recipe_on_meta_has_the_same_names_and_shapes(from_wan):
    for config in (from_wan, replace(from_wan, stage=StageConfig(kind="motion")), CONFIG):
        found, wanted = build_recipe(config, device="meta").state_dict(), build_recipe(config).state_dict()
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
        assert all(tensor.is_meta for tensor in found.values())
