"""`comovi verify`: the official numbers are reproduced, and a wrong one is found whatever file it stands in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_comovi.comovi_model import verify
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.comovi.names import official_name
from comfyui_comovi.comovi_model.comovi.velocity import DualBranchVelocity
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.flow import flow_schedule
from comfyui_comovi.comovi_model.wan.sampling import Stream, classifier_free, sample
from comfyui_comovi.comovi_model.wan.weights import open_weights, write_weights

GOLDEN = Path(__file__).parent / "golden" / "comovi_tiny_A.safetensors"


@pytest.fixture(scope="module")
def results():
    return {result.name: result for result in verify.verify_file(GOLDEN)}


def test_every_official_number_is_reproduced(results):
    failed = [result.line() for result in results.values() if not result.passed]
    assert failed == []


def test_every_case_operation_and_sample_of_the_file_is_compared(results):
    facts = json.loads(GOLDEN.with_suffix(".json").read_text())
    assert {f"case.{name}" for name in facts["cases"]} <= results.keys()
    assert {f"sample.{name}" for name in facts["samples"]} <= results.keys()
    compared = {name for result in results.values() for name in result.compared}
    left = [name for name in open_weights(GOLDEN) if verify.is_result(name) and name not in compared]
    assert left == []
    assert sum(name.startswith("op.") for name in results) == 26
    assert sum(name.startswith("op.small.") for name in results) == 8
    assert sum(name.startswith("unipc.") for name in results) == 6


def test_float32_errors_are_far_below_the_tolerances(results):
    """Measured on one core: results 5.4e-6, operations 2e-6, UniPC 7e-7, samples 1.7e-5, inside 5e-7 relative."""
    limits = {"case.": 1e-5, "op.": 5e-6, "unipc.": 2e-6, "sample.": 5e-5}
    for result in results.values():
        if result.name.endswith(".mid"):
            assert result.relative_l2 < 2e-6
        else:
            assert result.max_abs < next(limit for prefix, limit in limits.items() if result.name.startswith(prefix))


def altered(folder, change=None, facts=None):
    """A copy of the golden file with some tensors or some of its JSON replaced."""
    tensors = dict(open_weights(GOLDEN))
    write_weights(folder / "g.safetensors", {**tensors, **(change(tensors) if change else {})}, {})
    old = json.loads(GOLDEN.with_suffix(".json").read_text())
    (folder / "g.json").write_text(json.dumps({**old, **(facts or {})}))
    return folder / "g.safetensors"


@pytest.mark.parametrize("value", [1e-4, float("nan")])
def test_one_wrong_number_fails_its_case_only_and_gives_status_1(tmp_path, capsys, value):
    def change(tensors):
        wrong = tensors["case.m2v_scalar_b2.out.motion"].clone()
        wrong[0, 0, 0, 0, 0] += value
        return {"case.m2v_scalar_b2.out.motion": wrong}

    assert verify.run(altered(tmp_path, change)) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "case.m2v_scalar_b2.out.motion: abs" in failed[0]
    assert "55 of 56 cases" in lines[-1]


def test_a_wrong_weight_is_found_inside_too(tmp_path):
    def change(tensors):
        return {"weight.rgb_blocks.0.ffn.0.bias": tensors["weight.rgb_blocks.0.ffn.0.bias"] + 1e-3}

    names = {result.name for result in verify.verify_file(altered(tmp_path, change)) if not result.passed}
    assert {"op.ffn.out", "case.m2v_token_b2", "case.m2v_token_b2.mid", "sample.ti2v_cfg6"} <= names
    assert "op.self_attn.out" not in names


def test_the_longest_matching_entry_gives_the_tolerance():
    golden = verify.open_golden(GOLDEN)
    golden.facts["tolerances"] = {"case.": {"abs": 1}, "case.x.out": {"rel": 2}, "out": {"abs": 3}}
    assert golden.tolerance("case.x.out.rgb") == {"rel": 2}
    assert golden.tolerance("case.y.rgb") == {"abs": 1}
    with pytest.raises(ComoviError, match="no tolerance for op.rms"):
        golden.tolerance("op.rms")


def test_files_that_are_no_golden_files_are_refused_in_one_sentence(tmp_path):
    unknown = altered(tmp_path, facts={"kind": "camera"})
    with pytest.raises(ComoviError, match="of kind 'camera'; this version verifies comovi"):
        verify.run(unknown)
    (tmp_path / "g.json").write_text("{")
    with pytest.raises(ComoviError, match="not valid JSON"):
        verify.run(unknown)
    (tmp_path / "g.json").unlink()
    with pytest.raises(ComoviError, match=r"no g\.json beside it"):
        verify.run(unknown)
    with pytest.raises(ComoviError, match="does not exist"):
        verify.run(tmp_path / "missing.safetensors")


def test_a_case_of_which_nothing_is_compared_has_failed(tmp_path):
    tensors = {
        name.replace("case.m2v_scalar_b2.out.", "case.m2v_scalar_b2.kept.out."): tensor
        for name, tensor in open_weights(GOLDEN).items()
    }
    write_weights(tmp_path / "g.safetensors", tensors, {})
    shutil.copy(GOLDEN.with_suffix(".json"), tmp_path / "g.json")
    found = {result.name: result for result in verify.verify_file(tmp_path / "g.safetensors")}
    assert not found["case.m2v_scalar_b2"].passed
    assert "holds no result of this case" in found["case.m2v_scalar_b2"].line()


@pytest.mark.parametrize("tolerance", [{}, {"absolute": 1.0}, None, 1e-5])
def test_a_tolerance_that_limits_nothing_is_refused(tmp_path, tolerance):
    stated = json.loads(GOLDEN.with_suffix(".json").read_text())["tolerances"]
    with pytest.raises(ComoviError, match="as the tolerance for case"):
        verify.run(altered(tmp_path, facts={"tolerances": {**stated, "case.": tolerance}}))


def test_odd_names_and_kinds_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ComoviError, match="of kind"):
        verify.run(altered(tmp_path, facts={"kind": ["comovi"]}))
    odd = altered(tmp_path, lambda tensors: {"unipc.5_shift1.2.3.timesteps": tensors["case.m2v_scalar_b2.in.t"]})
    with pytest.raises(ComoviError, match="golden file"):
        verify.run(odd)


def test_a_golden_file_that_lacks_something_is_refused_in_one_sentence(tmp_path):
    tensors = {name: tensor for name, tensor in open_weights(GOLDEN).items() if name != "case.m2v_scalar_b2.in.t"}
    write_weights(tmp_path / "g.safetensors", tensors, {})
    shutil.copy(GOLDEN.with_suffix(".json"), tmp_path / "g.json")
    with pytest.raises(ComoviError, match="incomplete golden file: KeyError"):
        verify.verify_file(tmp_path / "g.safetensors")


def golden_of_ours(folder):
    """A golden file of quite another configuration, made by our own network in float64."""
    torch.manual_seed(3)
    sizes = {"dim": 72, "ffn_dim": 40, "num_heads": 6, "num_layers": 6, "text_dim": 10, "text_len": 7, "freq_dim": 18}
    pose = {"pose_layers": 1, "pose_ffn_dim": 30, "pose_heads": 4}
    tensors, cases = {}, {}
    modes = [("dual", 3, False), ("single_v2m", 2, False), ("none", 6, False), ("single_m2v", 1, True)]
    official = {"in_dim": 48, "out_dim": 48, "eps": 1e-6, "patch_size": [1, 2, 2], "num_joints": 24}
    official |= {**sizes, "smpl_predictor_layers": 1, "smpl_ffn_dim": 30, "smpl_num_heads": 4}
    full = DualBranch(DualBranchConfig(**sizes, **pose, pose_head=True)).state_dict()
    for name in full:
        tensors[f"weight.{official_name(name)}"] = full[name]
    for interaction, interleave, head in modes:
        name = f"{interaction}_i{interleave}"
        config = DualBranchConfig(**sizes, **pose, interaction=interaction, interleave=interleave, pose_head=head)
        network = DualBranch(config)
        network.load_state_dict({key: full[key] for key in network.state_dict()})
        shape = (2, 48, 21, 2, 2) if head else (2, 48, 2, 6, 2)
        given = {"rgb": torch.randn(shape), "motion": torch.randn(shape), "t": torch.tensor([3.0, 950.0])}
        given |= {"context.0": torch.randn(7, 10), "context.1": torch.randn(2, 10)}
        if head:
            given["init_pose"] = torch.randn(2, 144)
        with torch.no_grad():
            output = network.double()(
                given["rgb"].double(),
                given["motion"].double(),
                given["t"],
                [given["context.0"].double(), given["context.1"].double()],
                init_pose=given["init_pose"].double() if head else None,
                pose_from_layers=(-1,) if head else (),
            )
        tensors |= {f"case.{name}.in.{key}": value for key, value in given.items()}
        tensors |= {f"case.{name}.out.rgb": output.video.float(), f"case.{name}.out.motion": output.motion.float()}
        if head:
            tensors[f"case.{name}.out.smpl"] = output.pose.float()
        cases[name] = {"mode": {"interaction": interaction, "interleave": interleave, "predict_smpl": head}}
    facts = {"kind": "comovi", "config": official, "cases": cases, "tolerances": {"": {"abs": 2e-5, "rel": 1e-5}}}
    write_weights(folder / "b.safetensors", tensors, {})
    (folder / "b.json").write_text(json.dumps(facts))
    return folder / "b.safetensors"


def test_another_configuration_needs_no_other_code(tmp_path):
    found = verify.verify_file(golden_of_ours(tmp_path))
    assert [result.name for result in found] == [
        "case.dual_i3", "case.single_v2m_i2", "case.none_i6", "case.single_m2v_i1"
    ]  # fmt: skip
    assert all(result.passed for result in found), [result.line() for result in found]


def test_a_mode_that_cannot_be_built_is_a_failed_case_among_others(tmp_path):
    path = golden_of_ours(tmp_path)
    facts = json.loads(path.with_suffix(".json").read_text())
    facts["cases"]["dual_i3"]["mode"]["interleave"] = 1
    path.with_suffix(".json").write_text(json.dumps(facts))
    found = verify.verify_file(path)
    assert [result.passed for result in found] == [False, True, True, True]
    assert "needs interleave 2 or more" in found[0].line()


def test_the_sampling_golden_would_notice_unrounded_times():
    """The released pipeline rounds its times to bfloat16; the golden file says that matters by 3.45."""
    golden = verify.open_golden(GOLDEN)
    from comfyui_comovi.comovi_model.comovi.golden import network_for

    facts, given = golden.facts["samples"]["ti2v_cfg6"], golden.under("sample.ti2v_cfg6.")
    texts = {side: [given[f"in.context_{side}"]] for side in ("negative", "positive")}
    model = DualBranchVelocity(network_for(golden, facts["mode"]), texts, timestep_rounding="exact")
    streams = {
        "video": Stream(given["in.noise"][:, :48], given["in.clean_rgb"]),
        "motion": Stream(given["in.noise"][:, 48:], given["in.clean_motion"]),
    }
    samples = sample(model, streams, flow_schedule(3, 5.0), classifier_free(6.0))
    difference = float((samples.latents["video"] - given["out.rgb"]).abs().max())
    assert difference > 1
