"""Two processes, each with one branch, against one process with both."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comfyui_comovi.comovi_model.comovi.branch_parallel import make_side
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.errors import ComoviError

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
    for _ in range(2):
        out = side(*((None, motion) if rank == 0 else (video, None)), time, text)
    kept = sum(p.numel() for p in side.parameters())
    torch.save((out.motion if rank == 0 else out.video, kept), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo with a file store is not available on Windows")
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    interleave = 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    root = sys.modules["comfyui_comovi"].__path__[0]
    (tmp_path / "comfyui_comovi").symlink_to(root, target_is_directory=True)  # spawned processes import it by its name
    (tmp_path / "side_of_test.py").symlink_to(__file__)
    monkeypatch.syspath_prepend(str(tmp_path))
    import side_of_test

    try:
        mp.spawn(side_of_test.one_side, args=(str(tmp_path), interleave), nprocs=2)
    finally:
        sys.modules.pop("side_of_test", None)
    whole = network(interleave)
    (video, motion), time, text = inputs()
    expected = whole(video, motion, time, text)
    (ours_motion, kept_motion), (ours_video, kept_video) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(ours_motion, expected.motion)
    assert torch.allclose(ours_video, expected.video, atol=1e-6)
    count = sum(p.numel() for p in whole.parameters())
    assert max(kept_motion, kept_video) < 0.75 * count, "each side holds about half"


def test_other_exchanges_are_refused():
    config = DualBranchConfig(**SIZES, interaction="mutual")
    with pytest.raises(ComoviError, match="goes one way"):
        make_side(config, 0)
