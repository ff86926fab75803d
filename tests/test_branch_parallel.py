"""Two processes against one: each with one branch, and each with one sentence."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comfyui_comovi.comovi_model.comovi.branch_parallel import make_side
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.comovi.guidance_parallel import GuidanceParallel
from comfyui_comovi.comovi_model.comovi.velocity import DualBranchVelocity
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.flow import flow_schedule
from comfyui_comovi.comovi_model.wan.sampling import Stream, classifier_free, sample

SIZES = {"dim": 48, "ffn_dim": 96, "num_heads": 4, "num_layers": 4, "text_dim": 16, "text_len": 6, "freq_dim": 16}


def network(interleave: int = 1) -> DualBranch:
    torch.manual_seed(0)
    config = DualBranchConfig(**SIZES, in_channels=4, out_channels=4, interaction="single_m2v", interleave=interleave)
    made = DualBranch(config).requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def inputs():
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(2, 4, 3, 4, 6, generator=generator) for _ in range(2)]
    return latents, torch.tensor([[0.0, 500.0, 500.0]] * 2), torch.randn(2, 5, 16, generator=generator)


def one_side(rank: int, folder: str, interleave: int) -> None:
    """What a process does: join, take its half of the weights, run two steps, write what it got."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{interleave}", rank=rank, world_size=2)
    whole = network(interleave)
    side = make_side(whole.config, rank)
    side.take(whole.state_dict())
    (video, motion), time, text = inputs()
    for copies in (2, 1):  # with guidance what does not read the sentence is computed once
        first = slice(None, 2 // copies)
        halves = (None, motion[first]) if rank == 0 else (video[first], None)
        out = side(*halves, time[first], text, copies=copies)
    kept = sum(p.numel() for p in side.parameters())
    torch.save((out.motion if rank == 0 else out.video, kept), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def one_sentence(rank: int, folder: str, _: int) -> None:
    """What a process does: join, sample with everything but its share of the sentences, write what it got."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = guided(lambda velocity: GuidanceParallel(velocity))
    torch.save((made.latents, made.extras), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def guided(share):
    """Two steps of a network with a pose head under guidance."""
    torch.manual_seed(0)
    sizes = {**SIZES, "pose_head": True, "pose_layers": 1, "pose_ffn_dim": 32, "pose_heads": 4, "pose_tokens": 8}
    net = DualBranch(DualBranchConfig(**sizes, in_channels=4, out_channels=4)).requires_grad_(False)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    (video, motion), _, text = inputs()
    texts = {"negative": text[:1], "positive": text[1:]}
    velocity = share(DualBranchVelocity(net, texts, init_pose=torch.ones(1, 144)))
    streams = {"video": Stream(video[:1]), "motion": Stream(motion[:1])}
    return sample(velocity, streams, flow_schedule(2), classifier_free(3.0))


NO_GLOO = pytest.mark.skipif(sys.platform == "win32", reason="gloo with a file store is not available on Windows")


def spawn(work, folder, monkeypatch, argument=0):
    """Run a function of this file in two processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    root = sys.modules["comfyui_comovi"].__path__[0]
    (folder / "comfyui_comovi").symlink_to(root, target_is_directory=True)  # spawned processes import it by its name
    (folder / "side_of_test.py").symlink_to(__file__)
    monkeypatch.syspath_prepend(str(folder))
    import side_of_test

    try:
        mp.spawn(getattr(side_of_test, work), args=(str(folder), argument), nprocs=2)
    finally:
        sys.modules.pop("side_of_test", None)


@NO_GLOO
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    interleave = 2
    spawn("one_side", tmp_path, monkeypatch, interleave)
    whole = network(interleave)
    (video, motion), time, text = inputs()
    expected = whole(video, motion, time, text)
    (ours_motion, kept_motion), (ours_video, kept_video) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(ours_motion, expected.motion)
    assert torch.allclose(ours_video, expected.video, atol=1e-6)
    count = sum(p.numel() for p in whole.parameters())
    assert max(kept_motion, kept_video) < 0.75 * count, "each side holds about half"


@NO_GLOO
def test_a_sentence_for_each_process_gives_what_one_process_gives(tmp_path, monkeypatch):
    spawn("one_sentence", tmp_path, monkeypatch)
    expected = guided(lambda velocity: velocity)
    (latents, extras), (others, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, latent in expected.latents.items():
        assert torch.allclose(latents[name], latent, atol=1e-5)
        assert torch.equal(latents[name], others[name]), "every process ends with the same"
    assert torch.allclose(extras["positive"]["pose"], expected.extras["positive"]["pose"], atol=1e-5)


def test_conditions_that_cannot_be_shared_out_are_refused(monkeypatch):
    monkeypatch.setattr(dist, "get_rank", lambda group: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    with pytest.raises(ComoviError, match="as many processes as there are conditions"):
        GuidanceParallel(lambda *_: [])({}, {}, ["positive"], False)


def test_other_exchanges_are_refused():
    config = DualBranchConfig(**SIZES, interaction="mutual")
    with pytest.raises(ComoviError, match="goes one way"):
        make_side(config, 0)
