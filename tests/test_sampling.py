"""Flow matching and the samplers: exact where the answer is known, and the promises of the loop."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.flow import (
    FlowSchedule,
    add_noise,
    clean_from_velocity,
    flow_schedule,
    model_time,
    velocity,
)
from comfyui_comovi.comovi_model.wan.sampling import (
    GuidanceTerm,
    Prediction,
    SamplingInterrupted,
    Stream,
    UniPC,
    classifier_free,
    sample,
)

SHAPE = (1, 2, 3, 2, 2)


def randn(*shape):
    return torch.randn(shape or SHAPE, dtype=torch.float64)


class Field:
    """A velocity model given by a formula of (x, sigma); remembers what it was asked."""

    def __init__(self, formula):
        self.formula, self.asked = formula, []

    def __call__(self, latents, sigmas, conditions, last):
        self.asked.append((dict(sigmas), tuple(conditions), last))
        return [
            Prediction({name: self.formula(x, sigmas[name], condition) for name, x in latents.items()}, {"n": last})
            for condition in conditions
        ]


# --- flow -----------------------------------------------------------------------------------------------------------


def test_the_clean_latent_comes_back_from_the_velocity():
    clean, noise = randn(), randn()
    for sigma in (0.0, 0.3, 1.0):
        x = add_noise(clean, noise, sigma)
        torch.testing.assert_close(clean_from_velocity(x, velocity(clean, noise), sigma), clean)


def test_the_schedule_is_the_released_one():
    schedule = flow_schedule(50, 5.0)
    assert schedule.timesteps[:5] == (999, 995, 991, 987, 982)
    assert schedule.timesteps[-3:] == (241, 172, 92)
    assert flow_schedule(3, 5.0).timesteps == (999, 908, 713)
    assert schedule.sigmas[-1] == 0
    # In float32 this one truncates to 979; the schedule is kept in float64, as the released code computes it.
    assert 978 in flow_schedule(198, 5.0).timesteps
    assert len(set(flow_schedule(251, 5.0).timesteps[:2])) == 1  # so steps are counted, never looked up by time


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
def test_sigmas_fall_and_a_larger_shift_keeps_them_higher(shift):
    sigmas = flow_schedule(20, shift).sigmas
    assert all(a > b for a, b in pairwise(sigmas))
    assert all(s >= u for s, u in zip(sigmas, flow_schedule(20, 1.0).sigmas, strict=True))


def test_times_are_rounded_as_the_released_pipeline_does_or_not_at_all():
    sigmas = flow_schedule(3, 5.0).sigmas
    assert [model_time(s, "reference", True) for s in sigmas[:3]] == [1000, 908, 712]
    assert [model_time(s, "reference", False) for s in sigmas[:3]] == [999, 908, 713]
    assert [model_time(s, "exact", True) for s in sigmas[:3]] == [1000 * s for s in sigmas[:3]]
    assert model_time(0.996, "reference", True) == 996
    assert model_time(0.995, "reference", True) == 996


# --- the samplers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_straight_path_is_followed_exactly_in_any_number_of_steps(sampler, steps):
    clean, noise = randn(), randn()
    schedule = FlowSchedule((1.0, *flow_schedule(steps).sigmas[1:]))
    result = sample(Field(lambda x, s, c: noise - clean), {"video": Stream(noise)}, schedule, sampler=sampler)
    torch.testing.assert_close(result.latents["video"], clean)


def gaussian_error(sampler, steps):
    """Sampling N(mean, spread^2) has a closed answer: x ends at mean + spread * noise."""
    mean, spread, noise = 0.7, 0.5, torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(SHAPE)

    def formula(x, s, _):
        variance = (1 - s) ** 2 * spread**2 + s**2
        expected_clean = mean + (1 - s) * spread**2 / variance * (x - (1 - s) * mean)
        expected_noise = s / variance * (x - (1 - s) * mean)
        return expected_noise - expected_clean

    schedule = FlowSchedule((1.0, *flow_schedule(steps, 3.0).sigmas[1:]))
    result = sample(Field(formula), {"video": Stream(noise)}, schedule, sampler=sampler)
    return float((result.latents["video"] - (mean + spread * noise)).abs().max())


def test_errors_shrink_with_the_order_of_the_sampler():
    """Measured: Euler 0.17, 0.090, 0.046; UniPC 0.042, 0.0083, 0.0016 at 8, 16, 32 steps."""
    euler = [gaussian_error("euler", steps) for steps in (8, 16, 32)]
    unipc = [gaussian_error("unipc", steps) for steps in (8, 16, 32)]
    assert 1.7 < euler[0] / euler[1] < 2.4
    assert 1.7 < euler[1] / euler[2] < 2.4
    assert unipc[0] / unipc[1] > 3
    assert unipc[1] / unipc[2] > 3
    assert unipc[2] < euler[2] / 10


def test_unipc_needs_sigmas_that_fall_and_euler_does_not():
    with pytest.raises(ComoviError, match="use the Euler sampler"):
        UniPC((1.0, 0.5, 0.5, 0.0))
    noise = randn()
    schedule = FlowSchedule((1.0, 0.5, 0.5, 0.0))
    result = sample(Field(lambda x, s, c: noise), {"video": Stream(noise)}, schedule, sampler="euler")
    torch.testing.assert_close(result.latents["video"], torch.zeros_like(noise))


# --- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
def test_the_clean_first_frame_is_there_at_every_step_and_does_not_leak(sampler):
    noise, first = randn(), randn(1, 2, 1, 2, 2)
    seen = []

    def formula(x, s, _):
        seen.append(torch.equal(x[:, :, :1], first))
        return torch.sin(x) + s

    schedule = flow_schedule(6)
    result = sample(Field(formula), {"video": Stream(noise, first)}, schedule, sampler=sampler)
    other = sample(Field(formula), {"video": Stream(noise, 5 * first)}, schedule, sampler=sampler)
    assert all(seen[:6])
    assert torch.equal(result.latents["video"][:, :, :1], first)
    assert torch.equal(result.latents["video"][:, :, 1:], other.latents["video"][:, :, 1:])


def test_streams_may_run_on_different_schedules_and_a_given_one_stays_untouched():
    noise, given = randn(), randn()
    field = Field(lambda x, s, c: x if s > 0 else torch.full_like(x, math.nan))
    streams = {
        "video": Stream(noise),
        "motion": Stream(noise, schedule=FlowSchedule((0.9, 0.3, 0.0, 0.0))),
        "map": Stream(given, schedule=FlowSchedule((0.0, 0.0, 0.0, 0.0))),
    }
    result = sample(field, streams, FlowSchedule((0.9, 0.6, 0.3, 0.0)), sampler="euler")
    assert [asked[0]["motion"] for asked in field.asked] == [0.9, 0.3, 0.0]
    assert [asked[0]["video"] for asked in field.asked] == [0.9, 0.6, 0.3]
    assert torch.equal(result.latents["map"], given)
    torch.testing.assert_close(result.latents["motion"], noise * 0.4 * 0.7)


def test_guidance_is_a_sum_over_conditions_and_one_means_none():
    noise = randn()
    field = Field(lambda x, s, c: {"positive": 2.0, "negative": 0.5}[c] * x)
    result = sample(field, {"video": Stream(noise)}, FlowSchedule((1.0, 0.0)), classifier_free(3.0), sampler="euler")
    torch.testing.assert_close(result.latents["video"], noise - (0.5 + 3 * 1.5) * noise)
    assert field.asked[0][1] == ("negative", "positive")
    assert [term.condition for term in classifier_free(1.0)] == ["positive"]


def test_guidance_may_differ_between_streams():
    noise = randn()
    field = Field(lambda x, s, c: x)
    terms = (GuidanceTerm("positive", {"video": 1.0, "motion": 0.25}),)
    streams = {"video": Stream(noise), "motion": Stream(noise)}
    result = sample(field, streams, FlowSchedule((1.0, 0.0)), terms, sampler="euler")
    torch.testing.assert_close(result.latents["motion"], 0.75 * noise)


def test_every_step_is_told_and_extras_come_from_the_last():
    steps, field = [], Field(lambda x, s, c: x)
    result = sample(field, {"video": Stream(randn())}, flow_schedule(4), classifier_free(2.0), on_step=steps.append)
    assert [(step.index, step.count) for step in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [asked[2] for asked in field.asked] == [False, False, False, True]
    assert result.extras == {"negative": {"n": True}, "positive": {"n": True}}
    assert torch.equal(steps[-1].latents["video"], result.latents["video"])


def test_an_interrupt_stops_before_the_next_step():
    field, answers = Field(lambda x, s, c: x), iter([False, False, True])
    with pytest.raises(SamplingInterrupted, match="before step 3 of 8"):
        sample(field, {"video": Stream(randn())}, flow_schedule(8), interrupted=lambda: next(answers))
    assert len(field.asked) == 2


def test_half_precision_noise_is_denoised_in_float32():
    result = sample(Field(lambda x, s, c: x.bfloat16()), {"video": Stream(randn().bfloat16())}, flow_schedule(2))
    assert result.latents["video"].dtype == torch.float32


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (lambda: flow_schedule(0), "steps is 0"),
        (lambda: flow_schedule(5, 0.0), "shift is 0"),
        (lambda: flow_schedule(5, math.nan), "shift is nan"),
        (lambda: FlowSchedule((0.5,)), "at least one step"),
        (lambda: FlowSchedule((0.5, 0.7)), "must not rise"),
        (lambda: FlowSchedule((1.5, 0.7)), "between 0 and 1"),
        (lambda: classifier_free(math.nan), "guidance is nan"),
        (lambda: model_time(0.5, "round", True), "choose one of reference, exact"),
        (lambda: sample(Field(None), {"video": Stream(randn())}, flow_schedule(2), sampler="ddim"), "unipc, euler"),
        (
            lambda: sample(Field(None), {"video": Stream(randn(), schedule=flow_schedule(3))}, flow_schedule(2)),
            "has 3 steps but the schedule 2",
        ),
        (
            lambda: sample(Field(None), {"video": Stream(randn(), randn(1, 2, 2, 2, 2))}, flow_schedule(2)),
            r"expected \(1, 2, 1, 2, 2\)",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_in_one_sentence(problem, sentence):
    with pytest.raises(ComoviError, match=sentence):
        problem()
