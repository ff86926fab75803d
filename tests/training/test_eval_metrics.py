"""The protocol's numbers against closed forms, and the published evaluator's network against its description."""

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training.eval import motion_metrics as m
from comfyui_comovi.training.eval.matching_network import MatchingNetwork

RNG = np.random.default_rng(0)


def test_equal_sets_have_no_distance():
    rows = RNG.standard_normal((400, 16))
    assert m.frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)


def test_diagonal_gaussians_have_the_distance_of_their_means_and_deviations():
    rows = RNG.standard_normal((500, 6))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T  # exactly white
    one, two = np.array([1, 2, 3, 0.5, 1, 4]), np.array([2, 2, 1, 0.5, 3, 1])
    shift = np.array([1, 0, -2, 0, 0, 0.5])
    expected = (shift**2).sum() + ((one - two) ** 2).sum()
    assert m.frechet_distance(rows * one, rows * two + shift) == pytest.approx(expected, rel=1e-9)


def test_the_distance_is_that_of_the_general_matrix_root():
    one, two = RNG.standard_normal((300, 24)) @ RNG.standard_normal((24, 24)), RNG.standard_normal((300, 24)) + 0.3
    a, b = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    gap = one.mean(0) - two.mean(0)
    roots = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()  # the trace of a root is the sum of the roots
    expected = gap @ gap + np.trace(a) + np.trace(b) - 2 * roots
    assert m.frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ComoviError, match="at least two"):
        m.frechet_distance(one[:1], two)


def test_distances_are_euclidean():
    one, two = RNG.standard_normal((5, 3)), RNG.standard_normal((7, 3))
    expected = [[np.linalg.norm(a - b) for b in two] for a in one]
    np.testing.assert_allclose(m.distances(one, two), expected, atol=1e-7)


def test_random_embeddings_find_their_motion_as_often_as_chance():
    found = []
    for _ in range(300):
        texts, motions = RNG.standard_normal((2, m.POOL, 8))
        found.append(m.r_precision(texts, motions))
    np.testing.assert_allclose(np.mean(found, 0), np.arange(1, 4) / m.POOL, atol=0.012)


def test_equal_embeddings_share_their_places_and_own_ones_are_first():
    same = np.ones((m.POOL, 4))
    assert m.r_precision(same, same)[2] == 0  # a constant answer is worth nothing
    rows = RNG.standard_normal((m.POOL, 4))
    np.testing.assert_array_equal(m.r_precision(rows, rows), 1)
    assert m.matching_distance(rows, rows + np.array([3, 0, 4, 0])) == pytest.approx(5)


def test_the_interval_is_two_standard_errors_of_the_mean():
    values = list(RNG.standard_normal(20))
    mean, interval = m.estimate(values)
    assert mean == pytest.approx(np.mean(values))
    assert interval == pytest.approx(1.96 * np.std(values) / np.sqrt(20))


def test_pools_hold_every_clip_at_most_once():
    groups = m.pools(100, np.random.default_rng(1))
    assert [len(group) for group in groups] == [32, 32, 32]
    assert len(set(np.concatenate(groups))) == 96
    assert [len(group) for group in m.pools(5, np.random.default_rng(1))] == [5]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = MatchingNetwork().eval()
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.02 * torch.randn_like(part))
    return network


def test_keys_are_those_of_the_published_file(network):
    gru = [
        f"gru.{kind}_{side}_l0{way}" for kind in ("weight", "bias") for side in ("ih", "hh") for way in ("", "_reverse")
    ]
    linear = lambda *names: [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]  # noqa: E731
    encoder = ["hidden", *gru, *linear("input_emb", "output_net.0", "output_net.1", "output_net.3")]
    assert sorted(network.motion_encoder.state_dict()) == sorted(encoder)
    assert sorted(network.text_encoder.state_dict()) == sorted([*encoder, *linear("pos_emb")])
    assert sorted(network.movement_encoder.state_dict()) == sorted(linear("main.0", "main.3", "out_net"))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["movement_encoder.main.0.weight"] == (512, 259, 4)
    assert shapes["motion_encoder.gru.weight_ih_l0"] == (3072, 1024)
    assert shapes["text_encoder.pos_emb.weight"] == (300, 15)


def test_a_motion_is_embedded_alike_alone_and_among_longer_ones(network):
    motions = [torch.randn(length, 263) for length in (64, 41, 196, 100)]
    together = network.embed_motions(motions)
    assert together.shape == (4, 512)
    for motion, row in zip(motions, together, strict=True):
        np.testing.assert_allclose(network.embed_motions([motion])[0], row, atol=1e-5)
    np.testing.assert_allclose(network.embed_motions([motions[1][:40]])[0], together[1], atol=1e-5)  # 41 // 4 steps


def test_words_beyond_the_length_do_not_count(network):
    words, tags = torch.randn(2, 22, 300), torch.rand(2, 22, 15)
    first = network.embed_texts(words, tags, [5, 22])
    words[0, 5:], tags[0, 5:] = 7, 7
    np.testing.assert_allclose(network.embed_texts(words, tags, [5, 22]), first, atol=1e-6)
