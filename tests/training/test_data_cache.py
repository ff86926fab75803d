"""The cache: the same numbers as without it, what it refuses, what it survives."""

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.video import write_video
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.config import BatchConfig, DataConfig, EngineConfig, ModelConfig, TrainConfig
from comfyui_comovi.training.data import dataset
from comfyui_comovi.training.data.cache import build_cache, encode_clip, open_clips
from comfyui_comovi.training.data.cache_files import check_cache, read_shards
from comfyui_comovi.training.data.dataset import CachedClips, PreparedClips
from comfyui_comovi.training.data.encoders import load_encoders
from comfyui_comovi.training.data.manifest import write_manifest
from comfyui_comovi.training.data.prepare import LIST, prepare
from comfyui_comovi.training.data.sampler import SamplePlan
from comfyui_comovi.training.recipe import build_recipe, open_sources
from data_parts import SETTINGS, numbered_pictures, numbered_video
from safetensors.torch import load_file, save_file

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def encoders():
    torch.set_num_threads(1)
    return load_encoders("nano")


@pytest.fixture(scope="module")
def made(tmp_path_factory, encoders):
    """Five clips, prepared and cached in three shards."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "videos").mkdir()
    for number, name in enumerate(NAMES):
        numbered_video(folder / "videos", name, 20 + number, 2.0)
    prepare(folder / "videos", folder / "data", SETTINGS)
    build_cache(folder / "data", folder / "data" / "cache", encoders, shard_bytes=150_000)
    return folder / "data"


@pytest.fixture
def data(made, tmp_path):
    """A copy to break. Copies keep the times of files, by which the cache knows them."""
    shutil.copytree(made, tmp_path / "data", copy_function=shutil.copy2)
    return tmp_path / "data"


def draw(step=0, rank=0, quantile=None):
    return Draw(7, step, 0, rank, 1, quantile)


def test_the_cache_gives_the_numbers_of_the_prepared_clips_to_the_last_bit(made, encoders):
    cached, plain = CachedClips(made / "cache"), PreparedClips(made, encoders=encoders)
    assert len(cached) == len(plain) == 5 and cached.bucket_of(3) == plain.bucket_of(3) == (9, 4, 4)
    assert torch.equal(cached.empty_text, plain.empty_text)
    for indices in ([0, 4], [2]):
        one, two = cached.read(indices, draw()), plain.read(indices, draw())
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(two, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_a_training_step_has_the_same_loss_with_and_without_a_cache(made):
    shape = {"dim": 48, "ffn_dim": 32, "num_layers": 3, "pose_layers": 1, "pose_ffn_dim": 16}
    losses = []
    for kind, folder in (("cache", made / "cache"), ("prepared", made)):
        config = TrainConfig(
            model=ModelConfig(kind="nano", shape=shape),
            batch=BatchConfig(micro=2),
            engine=EngineConfig(precision="fp32", checkpointing=False),
            data=DataConfig(kind=kind, train=(str(folder),)),
        )
        source, _ = open_sources(config.data)
        recipe = build_recipe(config, source)
        found = recipe(source.read([1, 3], draw(step=5)), draw(step=5))
        found["loss"].backward()
        norm = sum(float(p.grad.double().square().sum()) for p in recipe.parameters() if p.grad is not None)
        losses.append({name: float(value.detach()) for name, value in found.items()} | {"gradient": norm})
    assert losses[0] == losses[1] and losses[0]["loss"] > 0


def test_latents_are_what_the_autoencoder_says_rounded_once(made, encoders):
    clip = open_clips(made)[0]
    exact, stored = (encode_clip(clip, encoders, dtype) for dtype in (torch.float32, torch.bfloat16))
    for name in ("video", "motion"):
        assert torch.equal(stored[name], exact[name].bfloat16())
        assert torch.equal(stored[f"first_{name}"], stored[name][:, :1])  # a causal autoencoder
    assert stored["pose"].shape == (33, 24, 6) and stored["pose"].dtype == torch.float32


def test_the_sentence_comes_from_the_draw(made):
    cached = CachedClips(made / "cache")
    chosen = {cached.read([0], draw(step=step)).sentences[0] for step in range(12)}
    assert chosen == {"a person waves", "a man is waving"}
    batch = cached.read([0], draw(quantile=0.5))
    assert batch.sentences == ("a person waves",) and batch.text_length.tolist() == [24]


def test_clips_are_shared_out_between_ranks_and_no_rank_matters(made, encoders, tmp_path):
    out = tmp_path / "cache"
    counts = [build_cache(made, out, encoders, rank=rank, world=2).encoded for rank in (1, 0)]
    assert counts == [2, 3]
    one, two = CachedClips(made / "cache"), CachedClips(out)
    a, b = (source.read([0, 1, 2, 3, 4], draw()) for source in (one, two))
    assert a.names == b.names and torch.equal(a.video, b.video) and torch.equal(a.text, b.text)
    with pytest.raises(ComoviError, match="rank must lie between"):
        build_cache(made, out, encoders, rank=2, world=2)


class Tripping:
    """Encoders that stop the process in the middle of the work, as Ctrl-C would."""

    def __init__(self, encoders, after):
        self.encoders, self.left = encoders, after
        self.fingerprint, self.embed = encoders.fingerprint, encoders.embed

    def encode(self, frames):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.encoders.encode(frames)


def test_a_stopped_run_goes_on_and_ends_with_the_same_numbers(made, encoders, tmp_path):
    out = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        build_cache(made, out, Tripping(encoders, 4 * 3 + 2), shard_bytes=1)
    with pytest.raises(ComoviError, match=r"lacks 2 of 5 clips \(d-00, e-00\).*run comovi-train cache again"):
        CachedClips(out)
    built = build_cache(made, out, encoders, shard_bytes=1)
    assert (built.encoded, built.there) == (2, 3)
    a, b = (CachedClips(folder).read(range(5), draw()) for folder in (made / "cache", out))
    assert torch.equal(a.video, b.video) and torch.equal(a.motion, b.motion)
    assert not list(out.glob("*.tmp*"))


def test_another_setting_is_refused_by_its_name(data, encoders):
    settings = json.loads((data / "prepare.json").read_text())
    for name, value, words in (
        ("smoothing", "paper", "smoothing = 'none', and now it is 'paper'"),
        ("fps", "24", "fps = '16', and now it is '24'"),
        ("renderer", 99, "renderer = 1, and now it is 99"),
    ):
        (data / "prepare.json").write_text(json.dumps({**settings, name: value}))
        with pytest.raises(ComoviError, match=words):
            build_cache(data, data / "cache", encoders)
    (data / "prepare.json").write_text(json.dumps(settings))
    with pytest.raises(ComoviError, match="dtype = 'bfloat16', and now it is 'float32'"):
        build_cache(data, data / "cache", encoders, dtype="float32")


def test_another_autoencoder_is_refused_by_its_name(data, encoders, tmp_path):
    for name in ("nano_autoencoder.safetensors", "nano_text.safetensors"):
        shutil.copy(encoders.folder / name, tmp_path / name)
    from safetensors import safe_open

    with safe_open(str(tmp_path / "nano_autoencoder.safetensors"), "pt") as file:
        weights, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    weights["to_latent.bias"] = weights["to_latent.bias"] + 0.01
    save_file(weights, str(tmp_path / "nano_autoencoder.safetensors"), metadata)
    other = load_encoders("nano", str(tmp_path))
    with pytest.raises(ComoviError, match="made with autoencoder = 'nano "):
        build_cache(data, data / "cache", other)


def test_a_vanished_shard_is_found_and_named_before_the_first_step(data, encoders):
    lost = read_shards(data / "cache")[1].path
    lost.unlink()
    with pytest.raises(ComoviError, match=f"{lost.name} has vanished; it held 2 clips"):
        CachedClips(data / "cache")
    assert build_cache(data, data / "cache", encoders).encoded == 2  # what it says to do
    assert len(CachedClips(data / "cache")) == 5


def test_a_shard_that_vanished_with_its_index_is_missed(data):
    lost = read_shards(data / "cache")[1].path
    lost.unlink()
    lost.with_suffix(".json").unlink()
    with pytest.raises(ComoviError, match=r"lacks 2 of 5 clips"):
        CachedClips(data / "cache")


@pytest.mark.parametrize("how", ["cut", "one bit", "foreign", "index"])
def test_a_damaged_shard_is_found_and_named(data, how):
    shard = read_shards(data / "cache")[1].path
    content = bytearray(shard.read_bytes())
    if how == "cut":
        shard.write_bytes(content[:-100])
    elif how == "one bit":
        content[-1000] ^= 4
        shard.write_bytes(content)
    elif how == "foreign":
        shard.write_bytes(b"x" * len(content))
    else:
        shard = shard.with_suffix(".json")
        shard.write_text("{}")
    with pytest.raises(ComoviError, match=shard.name):
        CachedClips(data / "cache")


def test_a_shard_that_vanishes_during_a_run_is_one_sentence(data):
    source = CachedClips(data / "cache")
    shard = source.entries[2][0].path
    shard.unlink()
    source._files.clear()
    with pytest.raises(ComoviError, match=f"{shard.name} cannot be read"):
        source.read([2], draw())


def test_a_clip_that_changed_is_encoded_again_and_one_that_left_the_list_is_not_read(data, encoders):
    clips = open_clips(data)
    changed = replace(clips[1], text=("someone jumps",))
    write_manifest(data / LIST, [clips[0], changed, clips[3]])
    assert build_cache(data, data / "cache", encoders).encoded == 1
    source = CachedClips(data / "cache")
    assert [entry.id for _, entry in source.entries] == ["a-00", "b-00", "d-00"]
    assert source.read([1], draw()).sentences == ("someone jumps",)


def test_clips_whose_files_are_gone_stay_in_the_cache(data, encoders):
    before = {clip.id for shard in check_cache(data / "cache") for clip in shard.clips}
    shutil.rmtree(data / "clips")
    built = build_cache(data, data / "cache", encoders)
    assert (built.encoded, built.refused) == (0, ())
    assert {clip.id for shard in check_cache(data / "cache") for clip in shard.clips} == before


def test_a_process_without_clips_has_not_failed(data, capsys):
    assert main(["cache", str(data), "--encoders", "nano", "--device", "cpu", "--rank", "7", "--world", "8"]) == 0
    assert "0 clips encoded" in capsys.readouterr().out


def test_a_clip_that_cannot_be_encoded_is_left_out_with_its_reason(data, encoders, tmp_path):
    (data / "clips" / "c-00" / "motion.mkv").write_bytes(b"nonsense")
    built = build_cache(data, tmp_path / "cache", encoders)
    assert built.encoded == 4 and [name for name, _ in built.refused] == ["c-00"]
    assert "c-00" in (tmp_path / "cache" / "quarantine-000.jsonl").read_text()
    assert len(CachedClips(tmp_path / "cache")) == 4


def test_more_shards_than_are_kept_open_are_read_all_the_same(made, monkeypatch):
    monkeypatch.setattr(dataset, "OPEN_SHARDS", 1)
    few, all_open = CachedClips(made / "cache"), CachedClips(made / "cache")
    order = [4, 0, 2, 1, 3, 0]
    a = torch.cat([few.read([index], draw()).video for index in order])
    assert len(few._files) == 1 and torch.equal(a, all_open.read(order, draw()).video)


def test_a_full_check_reads_every_byte(data):
    assert sum(len(shard.clips) for shard in check_cache(data / "cache", whole=True)) == 6  # and the empty sentence


def test_caches_of_two_autoencoders_are_not_mixed(data, made):
    head = json.loads((data / "cache" / "cache.json").read_text())
    head["fingerprint"]["autoencoder"] = "nano 0000"
    (data / "cache" / "cache.json").write_text(json.dumps(head))
    with pytest.raises(ComoviError, match="cannot be mixed: autoencoder"):
        CachedClips(made / "cache", data / "cache")
    assert len(CachedClips(made / "cache", made / "cache")) == 10


def test_shards_hold_plain_tensors(made):
    tensors = load_file(str(read_shards(made / "cache")[0].path))
    assert {name.split("/")[1] for name in tensors if name.startswith("a-00/")} == {
        "video", "motion", "first_video", "first_motion", "text.0", "text.1", "pose", "betas"
    }  # fmt: skip
    assert tensors["a-00/video"].dtype == torch.bfloat16


def test_a_folder_that_is_no_cache_says_so(tmp_path):
    with pytest.raises(ComoviError, match="is no cache"):
        CachedClips(tmp_path)
    with pytest.raises(ComoviError, match=r"data.train: .*nowhere does not exist"):
        open_sources(DataConfig(kind="cache", train=(str(tmp_path / "nowhere"),)))


def test_videos_of_two_shapes_make_two_buckets_and_no_batch_mixes_them(encoders, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("square_a", "square_b", "wide_a", "wide_b", "wide_c"):
        motion = numbered_video(folder, name, 24, 2.0)
        if name.startswith("wide"):
            pictures = np.pad(numbered_pictures(len(motion)), ((0, 0), (0, 0), (16, 16), (0, 0)))
            write_video(folder / f"{name}.mp4", pictures, 24)
            replace(motion, camera=Camera.from_focal(140.0, 96, 64)).save(folder / f"{name}.npz")
    prepare(folder, tmp_path / "data", replace(SETTINGS, sizes=("33x64x64", "33x64x96")))
    build_cache(tmp_path / "data", tmp_path / "cache", encoders)
    source = CachedClips(tmp_path / "cache")
    assert [source.bucket_of(index) for index in range(5)] == 2 * [(9, 4, 4)] + 3 * [(9, 4, 6)]
    plan = SamplePlan(source, micro=2, accumulate=1, world=1, seed=0)
    shapes = {tuple(source.read(plan.indices(step, 0, 0), draw()).video.shape) for step in range(plan.per_epoch)}
    assert plan.per_epoch == 3 and shapes == {(2, 48, 9, 4, 4), (2, 48, 9, 4, 6)}
