"""What users of this field ask for in public threads, about learning and painting: a test each."""

import numpy as np
import pytest
import torch
from random_pipeline import random_pipeline
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName, FromPhotograph
from genaug.concepts.textual_inversion import TokenSettings, learn_tokens
from genaug.inversion import InversionSettings, invert
from genaug.messages import GenaugError
from genaug.methods.diff_ii import diff_ii
from genaug.plans import Budget
from genaug.recipe import Recipe
from genaug.sampling import SamplingSettings, denoise, start_step
from genaug.stable_diffusion import StableDiffusionBackbone, load_backbone
from genaug.synthesis import synthesize
from genaug.training import LoopSettings, train_loop


def small_backbone(**options):
    pipe = random_pipeline(**options)
    return StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


def photographs(shapes, seed=0):
    targets, shapes = np.arange(len(shapes)) % 2, [(*shape, 3) for shape in shapes]
    return noise_set(targets, ("square", "bar"), shapes=shapes, seed=seed)


# ---- diffusers#4450: of k vectors of one word only the first trained


THREE_VECTORS = TokenSettings(steps=4, tokens_per_class=3, initial="t", learning_rate=1e-2)


def test_all_vectors_of_a_learned_word_are_trained():
    backbone, real = small_backbone(), photographs([(16, 16)] * 4)
    before = learn_tokens(backbone, real, settings=TokenSettings(steps=0, tokens_per_class=3, initial="t"))
    after = learn_tokens(backbone, real, settings=THREE_VECTORS)
    for token, vectors in after.tokens.items():
        assert ((vectors - before.tokens[token]).abs().amax(1) > 1e-4).all(), token


def test_the_vectors_of_a_learned_word_become_different_from_one_another():
    after = learn_tokens(
        small_backbone(),
        photographs([(16, 16)] * 4),
        settings=THREE_VECTORS,
    )
    for vectors in after.tokens.values():
        assert len({tuple(row) for row in vectors.tolist()}) == 3


# ---- a finished concept continued for more steps


def learned(folder, steps, schedule="constant"):
    network = torch.nn.Linear(3, 3)
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(0.3)
    losses = train_loop(
        lambda step: (network(torch.ones(1, 3)) ** 2).sum(),
        {"network": network},
        LoopSettings(steps, 1e-2, schedule=schedule),
        folder,
    )
    return losses, network.weight.detach().clone()


def test_a_finished_run_continued_for_more_steps_equals_an_uninterrupted_one(tmp_path):
    learned(tmp_path / "run", 5)
    continued, whole = learned(tmp_path / "run", 9), learned(tmp_path / "whole", 9)
    assert continued[0] == whole[0]
    assert torch.equal(continued[1], whole[1])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "trapezoid", "stairs"])
def test_a_schedule_that_knows_its_end_is_not_continued_beyond_it(tmp_path, schedule):
    learned(tmp_path, 5, schedule)
    with pytest.raises(GenaugError, match="other learning rates from the start"):
        learned(tmp_path, 9, schedule)


def test_a_run_that_went_further_is_not_taken_for_a_shorter_one(tmp_path):
    learned(tmp_path, 9)
    with pytest.raises(GenaugError, match="further than the 5"):
        learned(tmp_path, 5)


def test_a_concept_of_more_steps_is_that_of_a_fresh_run(tmp_path):
    backbone, real = small_backbone(), photographs([(16, 16)] * 2)

    def learn(steps, folder):
        return learn_tokens(
            backbone, real, settings=TokenSettings(steps=steps, initial="t"), checkpoint=folder
        ).fingerprint()

    learn(2, tmp_path / "one")
    assert learn(4, tmp_path / "one") == learn(4, tmp_path / "two")


# ---- diffusers#7651: the strength that is recorded and the noise that was added


@pytest.mark.parametrize("steps", [1, 4, 10, 25, 50])
@pytest.mark.parametrize("strength", [0.01, 0.1, 0.25, 0.5, 0.99, 1.0])
def test_the_recorded_strength_is_the_noise_that_was_added(steps, strength):
    backbone, real = toy_backbone(), toy_photographs()
    method = Recipe(
        naming=ClassName(), start=FromPhotograph((strength,)), backbone=backbone, num_inference_steps=steps
    ).fit(real)
    row = method.plan(real, Budget(copies=1), 0)[0]
    latents, first = method.start.latents([row], real, method.context)
    clean = backbone.encode(real.batch([row.inputs[0][0]]))
    assert row.settings["strength"] == strength
    assert int(first) == start_step(strength, steps)
    if int(first) < steps:
        share = backbone.alpha_at(backbone.timesteps(steps)[int(first)].reshape(1)).float()
        noise = (latents - share.sqrt() * clean) / (1 - share).sqrt()
        assert 0.5 < float(noise.std()) < 1.5  # standard normal, as it must be at that level and at no other
        assert abs((steps - int(first)) / steps - strength) <= 1 / steps
    else:
        assert torch.equal(latents, clean)


# ---- MasaCtrl#34: inversion of models that predict v


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_inversion_and_reconstruction_are_as_exact_for_v_as_for_noise(prediction_type):
    backbone = small_backbone(prediction_type=prediction_type)
    clean = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    condition = backbone.embed(["a cat", "a dog"])
    noisy = invert(backbone, clean, condition, settings=InversionSettings(20, fixed_point_iterations=3))
    back = denoise(backbone, noisy, [condition], settings=SamplingSettings(20, guidance_scale=1.0))
    assert float((back - clean).norm() / clean.norm()) < 0.02


def test_inversions_under_v_prediction_do_not_collapse():
    backbone = small_backbone(prediction_type="v_prediction")
    clean = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    noisy = invert(backbone, clean, backbone.embed(["a cat"] * 2), settings=InversionSettings(25)).flatten(1)
    assert float(torch.nn.functional.cosine_similarity(noisy[0], noisy[1], dim=0).abs()) < 0.5
    assert (noisy.std(1) > 0.3).all()


# ---- diffusers#5595: sizes that eight does not divide


@pytest.mark.parametrize(
    "shapes",
    [[(13, 17)] * 4, [(17, 13), (5, 40), (1, 1), (64, 63)], [(16, 16), (13, 17), (3, 100), (100, 3)]],
)
def test_photographs_of_odd_sizes_give_pictures_of_one_size(tmp_path, shapes):
    real = photographs(shapes)
    method = diff_ii(naming=ClassName(), backbone=small_backbone(), num_inference_steps=4).fit(real)
    made = synthesize(method, real, tmp_path / "out", Budget(copies=1), 0, progress=False)
    assert {made.image(index).shape for index in range(len(made))} == {(16, 16, 3)}


# ---- ids that were deleted from the hub


def test_a_deleted_id_names_its_mirror():
    with pytest.raises(GenaugError, match="'stable-diffusion-v1-5/stable-diffusion-v1-5' is its mirror"):
        load_backbone("runwayml/stable-diffusion-v1-5")
