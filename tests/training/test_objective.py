"""Sigmas, noise and the clean first frame: what the network is asked (acceptance tests 5, 9 and 10)."""

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training import objective
from comfyui_comovi.training.batch import Draw, TrainBatch
from comfyui_comovi.training.counters import generator, key
from comfyui_comovi.training.objective import SigmaLaw, ask_both, groups_of, pose_layers, sigma_table


def draw(step=0, micro=0, rank=0, world=1, quantile=None, seed=7):
    return Draw(seed, step, micro, rank, world, quantile)


def batch_of(count=2, frames=3):
    make = torch.Generator().manual_seed(1)
    video, motion = torch.randn(2, count, 48, frames, 4, 4, generator=make)
    first = video[:, :, :1] + 10, motion[:, :, :1] - 10  # unlike frame 0 of the clip, to see which one is used
    return TrainBatch(("clip",) * count, video, motion, *first, ("",) * count, None, None, None, None)


def test_the_table_has_the_released_mean_and_median():
    table = sigma_table(5.0)
    assert table.shape == (1000,) and table[0] == 1.0 and bool((table.diff() < 0).all())
    assert float(table.mean()) == pytest.approx(0.7476, abs=1e-4)
    assert float(table.median()) == pytest.approx(0.8336, abs=4e-4)
    assert float((table > 0.5).double().mean()) == pytest.approx(0.834, abs=1e-3)
    assert float((table > 0.9).double().mean()) == pytest.approx(0.358, abs=1e-3)


def test_ranks_divide_the_table_as_released():
    worlds = (1, 2, 4, 8, 16, 24, 32, 64)
    assert [groups_of(world) for world in worlds] == [1, 2, 4, 8, 8, 8, 8, 8]


def test_a_rank_draws_from_its_own_part_of_the_table():
    table, law = sigma_table(5.0), SigmaLaw()
    for rank in (0, 5, 23):
        drawn = torch.cat([law.sample(64, draw(step=s, rank=rank, world=24))[0] for s in range(20)])
        part = table[125 * (rank // 3) : 125 * (rank // 3) + 125]
        assert bool((drawn[:, None] == part).any(1).all())
        assert len(drawn.unique()) > 100


@pytest.mark.parametrize("sampling", ["uniform", "stratified", "logit_normal"])
def test_quantiles_are_those_of_what_is_drawn(sampling):
    law = SigmaLaw(shift=3.0, sampling=sampling, location=0.3, scale=0.8)
    drawn = torch.cat([law.sample(2000, draw(step=s))[0] for s in range(5)])
    for q in (0.1, 0.5, 0.9):
        assert float((drawn <= law.quantile(q)).double().mean()) == pytest.approx(q, abs=0.02)
    assert law.sample(3, draw(quantile=0.5))[1].tolist() == [float(law.quantile(0.5))] * 3


def test_branches_share_their_sigma_unless_told_otherwise():
    video, motion = SigmaLaw().sample(500, draw())
    assert torch.equal(video, motion)
    video, motion = SigmaLaw(shared=0.4, clean=0.25, start=0.5).sample(4000, draw())
    assert float((video == motion).double().mean()) == pytest.approx(0.4, abs=0.03)
    assert float((video == 0).double().mean()) == pytest.approx(0.6 * 0.5 * 0.25, abs=0.02)
    assert float((motion == 0).double().mean()) == pytest.approx(0.6 * 0.5 * 0.25, abs=0.02)
    assert float(((video == 1) | (motion == 1)).double().mean()) > 0.45


def test_the_first_frame_is_clean_untimed_and_not_asked_for():
    batch = batch_of()
    video, motion = ask_both(batch, SigmaLaw(), draw())
    for question, clean, first in (
        (video, batch.video, batch.first_video),
        (motion, batch.motion, batch.first_motion),
    ):
        assert torch.equal(question.noisy[:, :, :1], first)
        assert question.time[:, 0].tolist() == [0, 0]
        assert torch.allclose(question.time[:, 1:], 1000 * question.sigma[:, None].expand(-1, 2))
        assert question.target.shape[2] == clean.shape[2] - 1
        # noisy = clean + sigma * target, which ties input, sigma and answer together
        step = question.sigma.view(-1, 1, 1, 1, 1) * question.target
        assert torch.allclose(question.noisy[:, :, 1:] - step, clean[:, :, 1:], atol=1e-5)
    assert torch.equal(video.sigma, motion.sigma)
    correlation = torch.corrcoef(
        torch.stack([(q.target + c[:, :, 1:]).flatten() for q, c in ((video, batch.video), (motion, batch.motion))])
    )
    assert abs(float(correlation[0, 1])) < 0.1  # the noises are independent
    assert objective.token_times(video.time, 4).shape == (2, 12)
    assert bool((objective.token_times(video.time, 4)[:, :4] == 0).all())


def test_numbers_depend_on_the_name_of_the_draw_alone():
    same = [torch.randn(3, generator=generator(1, "noise", 2, 3, 4)) for _ in range(2)]
    assert torch.equal(*same)
    keys = {key(*name) for name in [(1, "noise", 2, 3, 4), (1, "noise", 2, 3), (2, "noise", 2, 3, 4),
            (1, "layers", 2, 3, 4), (1, "noise", 3, 2, 4), (1, "noise", 23, 4), (1, "noise", 2, 34)]}  # fmt: skip
    assert len(keys) == 7
    one, two = (
        ask_both(batch_of(), SigmaLaw(), draw(rank=0, world=2)),
        ask_both(batch_of(), SigmaLaw(), draw(rank=1, world=2)),
    )
    assert not torch.equal(one[0].target, two[0].target)


def test_pose_layers_agree_on_every_rank_and_come_up_equally_often():
    layers, count = 30, 3
    by_rank = [
        [pose_layers(layers, count, draw(s, m, rank, 4)) for s in range(20) for m in (0, 1)] for rank in range(4)
    ]
    assert by_rank[0] == by_rank[1] == by_rank[2] == by_rank[3]
    assert len(set(by_rank[0])) > 30
    chosen = torch.zeros(layers)
    draws = 6000
    for step in range(draws):
        some = pose_layers(layers, count, draw(step))
        assert len(set(some)) == count and some[-1] == layers - 1 and list(some) == sorted(some)
        chosen[list(some)] += 1
    assert chosen[-1] == draws
    expected = draws * (count - 1) / (layers - 1)
    chi_square = float(((chosen[:-1] - expected) ** 2 / expected).sum()) / (1 - (count - 1) / (layers - 1))
    assert chi_square < 58.3  # 28 degrees of freedom: exceeded once in 1500 by chance, and the draws are fixed
    assert pose_layers(4, 1, draw()) == (3,)
    assert pose_layers(4, 4, draw()) == (0, 1, 2, 3)
    with pytest.raises(ComoviError, match="layers_per_step"):
        pose_layers(4, 5, draw())


def test_sentences_are_dropped_as_often_as_asked_and_never_in_validation():
    text, lengths = torch.ones(400, 5, 3), torch.full((400,), 4)
    empty = torch.full((1, 3), 2.0)
    dropped = objective.drop_sentences(text, lengths, 0.25, empty, draw())
    assert bool((dropped[:, 4] == 0).all())  # what lies beyond the sentence is padding
    silent = dropped[:, 0, 0] == 2
    assert float(silent.double().mean()) == pytest.approx(0.25, abs=0.06)
    assert bool((dropped[silent][:, 1:] == 0).all())
    assert not bool((objective.drop_sentences(text, lengths, 0.25, empty, draw(quantile=0.5))[:, 0] == 2).any())
    assert bool((text == 1).all())
    assert float(objective.drop_sentences(text, None, 1.0, None, draw()).abs().sum()) == 0


def test_a_law_that_cannot_be_is_a_sentence():
    with pytest.raises(ComoviError, match=r"noise\.shift"):
        SigmaLaw(shift=0.0)
    with pytest.raises(ComoviError, match=r"noise\.sampling"):
        SigmaLaw(sampling="cosine")
