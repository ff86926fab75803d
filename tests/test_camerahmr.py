"""CameraHMR: numbers and names of the official modules, safe reading of its files, and what comes out."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.rotations import matrix_from_6d_columns
from comfyui_comovi.comovi_model.camerahmr.checkpoint import check_kind, convert, fill, read_checkpoint
from comfyui_comovi.comovi_model.camerahmr.crop import Square, box_of_mask, crop, square_of, translation
from comfyui_comovi.comovi_model.camerahmr.decoder import DecoderConfig
from comfyui_comovi.comovi_model.camerahmr.estimator import BodyNet, CameraHMR, load_camerahmr
from comfyui_comovi.comovi_model.camerahmr.field_of_view import FieldOfViewNet, covered, letterbox
from comfyui_comovi.comovi_model.camerahmr.vit import VitConfig
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.verify import verify_file

GOLDEN = Path(__file__).parent / "golden"


def test_every_golden_number_agrees():
    results = verify_file(GOLDEN / "camerahmr_A.safetensors")
    assert [result.line() for result in results if not result.passed] == []
    assert sum(len(result.compared) for result in results) == 38


@pytest.mark.parametrize(
    ("part", "build", "unused"),
    [
        ("camerahmr", BodyNet, ("smpl_head.deckp.",)),
        ("flnet", FieldOfViewNet, ("fc2.", "backbone.final_layer.")),
    ],
)
def test_full_size_names_and_shapes_are_the_published_ones(part, build, unused):
    with torch.device("meta"):
        ours = {name: list(tensor.shape) for name, tensor in build().state_dict().items()}
    listed = json.loads((GOLDEN / "camerahmr_keys.json").read_text())[part]["keys"]
    theirs = {name: entry[0] for name, entry in listed.items() if not name.startswith(unused)}
    assert ours == theirs


def small_body() -> BodyNet:
    torch.manual_seed(3)
    network = BodyNet(VitConfig(32, 1, 2), DecoderConfig(24, 1, 2, 8, 24, 32))
    network.smpl_head.init_body_pose.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24)[None])
    network.smpl_head.init_cam.copy_(torch.tensor([[0.9, 0.0, 0.0]]))
    return network.eval().requires_grad_(False)


def test_a_person_stays_where_the_box_is():
    """The pelvis of a body without shift projects into the middle of its box, near the edge as in the middle."""
    for box in ((100, 50, 200, 350), (380, 100, 470, 300)):
        square = square_of(box, 480, 400)
        place = translation(torch.tensor([0.9, 0.0, 0.0]), square, 500.0, 480, 400)
        u, v = (500 * place[:2] / place[2]).tolist()
        assert (u + 240, v + 200) == pytest.approx(square.centre, abs=1e-3)
        assert float(place[2]) == pytest.approx(2 * 500 / (square.side * 0.9))


def test_estimate_gives_one_motion_per_box_whatever_the_chunk():
    model = CameraHMR(small_body())
    picture = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
    boxes = [(10, 20, 90, 220), (60, 40, 190, 290), (-20, -30, 80, 100)]
    together, apart = (model.estimate(picture, boxes, 400.0, chunk=chunk) for chunk in (8, 1))
    assert len(together) == 3
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one.rotations, other.rotations, atol=1e-5)
        assert torch.allclose(one.transl, other.transl, atol=1e-4)
        assert one.frame == "camera"
        assert one.camera.K[0, 0] == 400
        assert (one.camera.width, one.camera.height) == (200, 300)


def test_without_focal_length_and_network_the_error_says_what_to_give():
    with pytest.raises(ComoviError, match="give a focal length"):
        CameraHMR(small_body()).estimate(np.zeros((64, 64, 3), np.uint8), [(0, 0, 64, 64)])


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ((float("nan"), 0, 10, 10), "not finite"),
        ((10, 10, 10, 50), "is empty"),
        ((700, 10, 800, 50), "lies outside"),
    ],
)
def test_bad_boxes_get_a_sentence(box, sentence):
    with pytest.raises(ComoviError, match=sentence):
        square_of(box, 640, 480)


def test_a_mask_names_its_box():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 11:17] = True
    assert box_of_mask(mask) == (11, 4, 17, 9)
    with pytest.raises(ComoviError, match="names nobody"):
        box_of_mask(np.zeros((5, 5), bool))


def test_the_crop_shows_the_middle_of_the_box_and_black_outside():
    picture = np.full((40, 40, 3), 200, np.uint8)
    picture[20, 20] = (10, 20, 30)
    inside = crop(picture, Square((20, 20), 256))  # one to one
    assert inside[:, 128, 128].tolist() == [10, 20, 30]
    assert inside[:, 0, 0].tolist() == [0, 0, 0]


def test_the_letterbox_keeps_the_mean_and_the_shape():
    picture = np.random.default_rng(2).integers(0, 256, (601, 1203, 3), np.uint8)
    boxed = letterbox(picture)
    height = int(256 * 601 / 1203)
    top = (256 - height) // 2
    assert (boxed[:top] == 255).all()
    assert boxed[top : top + height].mean() == pytest.approx(picture.mean(), abs=0.5)


def test_columns_make_rotations():
    rotations = matrix_from_6d_columns(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(rotations.transpose(-1, -2) @ rotations, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(50), atol=1e-5)


# ---- files --------------------------------------------------------------------------------------------------------


class Settings:
    """Stands for the yacs object that a Lightning file may carry: a class that the reader must not import."""

    def __init__(self):
        self.secret = 1


class Attack:
    def __reduce__(self):
        return os.system, ("touch should_not_exist",)


def full_state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in small_body().state_dict().items()}


def test_a_file_with_settings_of_its_training_is_read_without_them(tmp_path):
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": full_state(), "hyper_parameters": Settings(), "epoch": 3}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    read = read_checkpoint(path)
    for name, tensor in full_state().items():
        assert torch.equal(read[name], tensor), name


def test_a_hostile_file_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": full_state(), "hook": Attack()}, tmp_path / "hostile.ckpt")
    read = read_checkpoint(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "should_not_exist").exists()
    assert set(read) == set(full_state())


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["smplx_head.decpose.weight"], "SMPL-X variant"),
        (["head.dec_kp.weight", "backbone.pos_embed"], "dense-keypoint"),
        (["something.weight"], "no smpl_head"),
    ],
)
def test_files_that_are_mistaken_for_it_are_refused_by_name(names, sentence):
    with pytest.raises(ComoviError, match=sentence):
        check_kind({name: torch.zeros(1) for name in names}, "file.ckpt", "body")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    state = full_state()
    state.pop("backbone.last_norm.weight")
    torch.save({"state_dict": state}, tmp_path / "short.ckpt")
    with pytest.raises(ComoviError, match="missing"):
        load_camerahmr(tmp_path / "short.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04 broken"])
def test_damaged_files_get_a_sentence(tmp_path, content):
    (tmp_path / "damaged.ckpt").write_bytes(content)
    with pytest.raises(ComoviError, match=r"checkpoint|empty"):
        read_checkpoint(tmp_path / "damaged.ckpt")


def test_conversion_keeps_the_head_in_full(tmp_path):
    torch.save({"state_dict": full_state()}, tmp_path / "body.ckpt")
    count = convert(tmp_path / "body.ckpt", tmp_path / "body.safetensors", torch.float16)
    read = read_checkpoint(tmp_path / "body.safetensors")
    assert count == len(full_state())
    assert read["backbone.blocks.0.mlp.fc1.weight"].dtype == torch.float16
    assert torch.equal(read["smpl_head.decpose.weight"], full_state()["smpl_head.decpose.weight"])


def test_the_crop_of_a_large_photo_is_that_of_its_part_and_takes_no_more_memory():
    """The picture is a photo of 12 megapixels: as 64-bit numbers it would be 288 MB. Rounding may differ by one."""
    large = np.random.default_rng(4).integers(0, 256, (3000, 4000, 3), np.uint8)
    part = np.ascontiguousarray(large[1000:1500, 2000:2600])
    with torch.profiler.profile(profile_memory=True) as watched:
        cut = crop(large, Square((2300.3, 1250.2), 300.0))
    assert int((cut.int() - crop(part, Square((300.3, 250.2), 300.0)).int()).abs().max()) <= 1
    assert max(event.self_cpu_memory_usage for event in watched.key_averages()) < 30e6
    for square in (Square((10.0, 20.0), 400.0), Square((3990.0, 2995.0), 77.7)):
        outside = crop(large, square)
        assert outside.shape == (3, 256, 256) and bool((outside == 0).any()) and bool((outside > 0).any())
    assert not bool(crop(large, Square((9000.0, 20.0), 400.0)).any())


def test_a_checkpoint_that_does_not_count_its_batches_is_filled_in():
    torch.manual_seed(5)
    given = {k: v for k, v in FieldOfViewNet(8, 16).state_dict().items() if not k.endswith("num_batches_tracked")}
    with torch.device("meta"):
        network = FieldOfViewNet(8, 16)
    fill(network, given, "flnet.ckpt")
    assert not any(tensor.is_meta for tensor in network.to("cpu").state_dict().values())
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 2)


def test_a_large_photo_is_shrunk_for_the_lens_in_bands():
    """12 megapixels as 64-bit numbers would be 288 MB; the picture in bands is that in one piece."""
    large = np.random.default_rng(6).integers(0, 256, (3000, 4000, 3), np.uint8)
    tracemalloc.start()
    try:
        boxed = letterbox(large)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80e6
    row = covered(3000, 192)[100] @ large[..., 1].astype(np.float64) @ covered(4000, 256).T
    assert np.abs(boxed[32 + 100, :, 1] - row).max() <= 0.5 + 1e-9
