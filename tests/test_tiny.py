"""The embedded backbone: its files, its vocabulary, its recipe in miniature."""

import json

import numpy as np
import pytest
import torch

from genaug import photographs, tiny
from genaug.datasets import load
from genaug.digits import DIGIT_WORDS
from genaug.messages import GenaugError

WORDS = list(DIGIT_WORDS)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tiny.tiny_folder() / "tokenizer")


def test_files_are_those_of_the_card():
    card = tiny.tiny_card()
    assert tiny.tiny_hash() == card["hash"] == tiny.folder_hash(tiny.tiny_folder())
    assert len(card["hash"]) == 64
    assert set(card["losses"]) == {"autoencoder", "denoiser"}
    assert card["losses"]["denoiser"][-1] < 0.2 * card["losses"]["denoiser"][0]


def test_small_safe_and_without_paths():
    paths = [path for path in tiny.tiny_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < 13e6
    assert {path.suffix for path in paths} <= {".json", ".safetensors", ".md"}
    for path in paths:
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert "/tmp/" not in text
            assert "/work" not in text
            assert "/root" not in text
            assert "/home" not in text


def test_half_precision_and_loads_as_a_plain_pipeline():
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from safetensors import safe_open

    for path in tiny.tiny_folder().rglob("*.safetensors"):
        with safe_open(path, "pt") as file:  # it has keys() and cannot be iterated
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.tiny_folder(), local_files_only=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert not pipeline.scheduler.config.clip_sample
    assert not pipeline.scheduler.config.set_alpha_to_one
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a photo of a seven on grass",
        num_inference_steps=2,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert image.shape == (32, 32, 3)


def test_every_word_of_a_caption_is_one_token(tokenizer):
    captions = tiny.corpus(400, seed=8).captions
    words = {word for caption in captions for word in caption.replace(",", " ").split()} | {
        word for word in tiny.SPARE_WORDS if "'" not in word
    }
    words |= {
        word for suffix in photographs.caption_words(reserved=True).values() for word in suffix.split()
    } | set(WORDS)
    assert [word for word in sorted(words) if len(tokenizer.tokenize(word)) != 1] == []
    assert max(len(tokenizer(caption).input_ids) for caption in captions) <= 32


def test_printable_text_has_no_unknown_token(tokenizer):
    text = "".join(chr(number) for number in range(33, 127))
    ids = tokenizer(text, truncation=False).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids[1:-1])


def test_corpus_is_a_function_of_seed_and_position():
    first, again, longer, other = tiny.corpus(6, 3), tiny.corpus(6, 3), tiny.corpus(9, 3), tiny.corpus(6, 4)
    assert np.array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert np.array_equal(longer.images[:6], first.images)
    assert not np.array_equal(other.images, first.images)


def test_corpus_draws_what_was_asked_for():
    letters, digits, clear = (
        tiny.corpus(60, 1, "letters", most=1),
        tiny.corpus(60, 1, "digits"),
        tiny.corpus(60, 1, clear=True),
    )
    assert all(len(glyphs) == 1 and glyphs in tiny.LETTERS for glyphs in letters.glyphs)
    assert all(set(glyphs) <= set(tiny.DIGITS) for glyphs in digits.glyphs)
    assert max(map(len, digits.glyphs)) > 1
    assert max(map(len, clear.glyphs)) == 1
    assert 15 < clear.words.count("plain") < 45
    for corpus in (letters, digits, clear):
        for glyphs, caption in zip(corpus.glyphs, corpus.captions):
            assert all(tiny.glyph_name(glyph) in caption for glyph in glyphs)
    with pytest.raises(GenaugError, match="letters"):
        tiny.corpus(3, 0, "greek")
    with pytest.raises(GenaugError, match="1 to 4"):
        tiny.corpus(3, 0, most=5)


def test_grey_captions_are_on_grey_images():
    drawn = tiny.corpus(300, seed=9)
    grey = np.array([np.ptp(image.astype(int), axis=2).max() == 0 for image in drawn.images])
    said = np.array(["grey" in caption for caption in drawn.captions])
    assert said.sum() > 10
    assert grey[said].all()
    assert grey[~said].mean() < 0.2


def test_round_trip_of_unseen_scenes():
    from genaug.stable_diffusion import load_backbone

    backbone, scenes = load_backbone("tiny"), load("digit-scenes")["test"][:64]
    with torch.no_grad():
        copies = backbone.decode(backbone.encode(scenes.batch()))
        latents = backbone.encode(scenes.batch())
    assert (copies - scenes.batch()).abs().mean() < 0.04
    assert 0.7 < latents.std() < 1.4


def test_caption_matters():
    """The noise of a drawn image is predicted better with its own caption than with another background or
    another digit."""
    from genaug.stable_diffusion import load_backbone

    backbone, drawn = load_backbone("tiny"), tiny.corpus(96, 555, "digits", most=1, clear=True)
    suffixes = {**photographs.caption_words(), "plain": "on a plain background"}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = backbone.encode(torch.from_numpy(drawn.images).permute(0, 3, 1, 2) / 255)
        noise, timesteps = torch.randn(latents.shape, generator=generator), torch.full((96,), 500)
        level = backbone.alphas_cumprod[500].float()
        noisy = level.sqrt() * latents + (1 - level).sqrt() * noise

        def loss(shift, swap):
            prompts = [
                f"a photo of a {WORDS[(int(glyph) + shift) % 10]} "
                f"{suffixes[word] if not swap else ('on coins' if word != 'coins' else 'on grass')}"
                for glyph, word in zip(drawn.glyphs, drawn.words)
            ]
            return (
                ((backbone.predict_noise(noisy, timesteps, backbone.embed(prompts)) - noise) ** 2)
                .mean()
                .item()
            )

        right, digit, background = loss(0, False), loss(3, False), loss(0, True)
    assert digit > 1.01 * right
    assert background > 1.1 * right


def test_recipe_in_miniature_resumes_and_loads(tmp_path):
    from diffusers import StableDiffusionPipeline

    settings = {
        "corpus_size": 32,
        "autoencoder_steps": 2,
        "denoiser_steps": 3,
        "clear_from": 1,
        "batch_size": 4,
        "progress": False,
    }
    made = tiny.train_tiny(tmp_path / "run", **settings)
    card = json.loads((made / "card.json").read_text())
    assert card["hash"] == tiny.folder_hash(made)
    assert len(card["losses"]["denoiser"]) == 3
    # everything is already there: nothing is trained again
    again = tiny.train_tiny(tmp_path / "run", **settings)
    assert json.loads((again / "card.json").read_text()) == card
    pipeline = StableDiffusionPipeline.from_pretrained(made, local_files_only=True)
    assert abs(pipeline.vae.config.scaling_factor - 1) < 20
    assert pipeline.unet.config.sample_size == 8


def test_thinned_keeps_the_mean():
    curve = list(np.linspace(1, 0, 1000))
    assert len(tiny.thinned(curve)) == 100
    assert np.mean(tiny.thinned(curve)) == pytest.approx(0.5, abs=1e-3)
    assert tiny.thinned([2.0]) == [2.0]
