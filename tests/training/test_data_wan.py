"""Wan's encoders through diffusers and transformers, on tiny random models of the same make."""

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training.data.encoders import load_encoders

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra [encode])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra [encode])")

MEAN, DEVIATION = np.linspace(-0.5, 0.5, 48), np.linspace(0.5, 2.0, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The layout of Wan2.2-TI2V-5B, its autoencoder with 48 latent channels and patches of 2, but narrow."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wan")
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 2, 2], num_res_blocks=1, is_residual=True,
        temperal_downsample=[False, True, True], in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, latents_mean=MEAN.tolist(), latents_std=DEVIATION.tolist(),
    )  # fmt: skip
    autoencoder.save_pretrained(folder / "vae")
    config = transformers.UMT5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "person": 4, "walks": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    wrapped.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def encoders(folder):
    return load_encoders("wan", str(folder))


def test_latents_are_normalised_means_with_wan_s_geometry(folder, encoders):
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), dtype=np.uint8)
    latent = encoders.encode(frames)
    assert latent.shape == (48, 3, 4, 6) and latent.dtype == torch.float32
    plain = diffusers.AutoencoderKLWan.from_pretrained(folder / "vae")
    with torch.no_grad():
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
        mean = plain.encode(pixels).latent_dist.mean[0]
    wanted = (mean - torch.tensor(MEAN).view(-1, 1, 1, 1)) / torch.tensor(DEVIATION).view(-1, 1, 1, 1)
    assert torch.allclose(latent, wanted.float(), atol=1e-4)
    assert torch.allclose(encoders.encode(frames[:1]), latent[:, :1], atol=1e-5)  # causal: the first picture alone


def test_sentences_are_embedded_as_a_padded_batch_would_be_and_cut(folder, encoders):
    sentences = ["a  person\nwalks", "a &amp; person a walks a", ""]
    rows = encoders.embed(sentences)
    assert [len(row) for row in rows] == [4, 7, 1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    model = transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    batch = tokenizer(
        ["a person walks", "a & person a walks a", ""], padding="max_length", max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        padded = model(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    for row, wide, mask in zip(rows, padded, batch.attention_mask, strict=True):
        assert torch.allclose(row, wide[: int(mask.sum())], atol=1e-5)


def test_the_fingerprint_names_the_files(folder, encoders, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "wan")
    config = tmp_path / "wan" / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.5", "0.25", 1))
    one, two = encoders.fingerprint(), load_encoders("wan", str(tmp_path / "wan")).fingerprint()
    assert one["text_encoder"] == two["text_encoder"] and one["autoencoder"] != two["autoencoder"]


def test_what_is_missing_is_said(tmp_path, folder):
    with pytest.raises(ComoviError, match="--wan FOLDER"):
        load_encoders("wan")
    with pytest.raises(ComoviError, match="has no folder vae"):
        load_encoders("wan", str(tmp_path))
    for part in ("vae", "text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    broken = load_encoders("wan", str(tmp_path))
    with pytest.raises(ComoviError, match="vae cannot be loaded"):
        broken.encode(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ComoviError, match="tokenizer cannot be loaded"):
        broken.embed(["a person"])


def test_a_missing_library_is_said(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    fresh = load_encoders("wan", str(folder))
    with pytest.raises(ComoviError, match=r"needs diffusers .*pip install 'comfyui-comovi\[encode\]'"):
        fresh.encode(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ComoviError, match=r"needs transformers .*pip install 'comfyui-comovi\[encode\]'"):
        fresh.embed(["a person"])
