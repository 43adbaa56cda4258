"""Pixel diffusion: exact limits of the sampler, the class table, resuming bit for bit, pretraining once, and
the contract's edges."""

import dataclasses
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from toy_sets import noise_set

from genaug.diffusion import ToyBackbone
from genaug.generators import pixel_diffusion
from genaug.generators.common import Pictures
from genaug.generators.pixel_diffusion import (
    PictureSettings,
    PixelDiffusion,
    PixelPainter,
    denoising_loss,
    learn_pictures,
    network_of,
    photograph_crops,
    reverse_step,
    sample_pictures,
    spread_levels,
)
from genaug.messages import GenaugError
from genaug.pixel_backbone import PixelBackbone
from genaug.plans import Budget
from genaug.sampling import SamplingSettings, denoise, row_noise

CHEAP = {
    "size": 8,
    "widths": (8, 8),
    "steps": 3,
    "batch_size": 4,
    "pretraining_steps": 2,
    "pretraining_batch": 2,
    "corpus": 6,
    "num_inference_steps": 3,
    "learning_rate": 1e-3,
    "ema_images": 8.0,
}


def photographs(task="single", channels=1, seed=0):
    "Eight pictures of three classes; the last class has one, and sizes differ."
    labels = [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]] * 2 if task == "multi" else [0, 0, 0, 0, 1, 1, 1, 2]
    shapes = [(8 + number % 3, 9, channels) for number in range(8)]
    return noise_set(labels, ["cyst", "hemangioma", "metastasis"], shapes=shapes, seed=seed, task=task)


def painter(classes=2, channels=1, seed=0):
    backbone = PixelBackbone.fresh([str(index) for index in range(classes)], 8, channels, (8, 8), seed)
    return PixelPainter(backbone.unet, backbone.classes)


def pictures(count=6, classes=2):
    return Pictures(
        torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
        torch.eye(classes)[torch.arange(count) % classes],
    )


def weights(method):
    return {
        (index, name): value
        for index, network in method.painters.items()
        for name, value in network.state_dict().items()
    }


def same(left, right):
    return set(left) == set(right) and all(torch.equal(value, right[name]) for name, value in left.items())


# sampling


@pytest.mark.parametrize("steps", [1, 7, 25])
def test_without_fresh_noise_it_is_the_librarys_ddim_sampler(steps):
    cloud = ToyBackbone(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5, 0.3)
    heard, seeds = cloud.embed(["class 0", "class 1", ""]), [4, 5, 6]
    expected = denoise(
        cloud,
        row_noise(cloud.latent_shape, seeds),
        [heard],
        settings=SamplingSettings(steps, guidance_scale=1),
    )
    assert torch.allclose(
        sample_pictures(cloud, heard, seeds, steps, eta=0.0, clip=False), expected, atol=1e-4
    )


def test_guidance_is_the_librarys():
    cloud = ToyBackbone(torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4), 0.4)
    heard, blank = cloud.embed(["class 1"] * 2), cloud.embed([""] * 2)
    expected = denoise(
        cloud,
        row_noise(cloud.latent_shape, [1, 2]),
        [heard],
        settings=SamplingSettings(9, guidance_scale=3.0),
        unconditional=blank,
    )
    assert torch.allclose(
        sample_pictures(cloud, heard, [1, 2], 9, 0.0, 3.0, blank, clip=False), expected, atol=1e-4
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_keeps_the_marginal_of_a_gaussian(eta):
    """With the exact noise of a standard normal x_0, x_t is standard normal at every level, and for eta 1 the
    spread is the posterior's."""
    generator = torch.Generator().manual_seed(0)
    share, lower = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.31, dtype=torch.float64)
    latents, fresh = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    stepped = reverse_step(latents, (1 - share).sqrt() * latents, share, lower, eta, fresh, clip=False)
    assert float(stepped.mean()) == pytest.approx(0, abs=0.01)
    assert float(stepped.var()) == pytest.approx(1, abs=0.02)
    if eta == 1.0:
        spread = ((1 - lower) / (1 - share) * (1 - share / lower)).sqrt()

        def known(noise):
            return reverse_step(
                torch.zeros(1, dtype=torch.float64),
                torch.zeros(1, dtype=torch.float64),
                share,
                lower,
                1.0,
                noise,
                clip=False,
            )

        assert float(
            known(torch.ones(1, dtype=torch.float64)) - known(torch.zeros(1, dtype=torch.float64))
        ) == pytest.approx(float(spread))


def test_the_last_step_returns_the_estimated_picture_and_clipping_bounds_it():
    latents, noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share, clean_end = torch.tensor(0.1, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    clean = (latents - 0.9**0.5 * noise) / 0.1**0.5
    assert torch.allclose(reverse_step(latents, noise, share, clean_end, 0.0, clip=False), clean)
    assert clean.abs().max() > 1
    assert torch.allclose(reverse_step(latents, noise, share, clean_end, 0.0), clean.clamp(-1, 1))
    unclipped = reverse_step(latents, noise, share, torch.tensor(0.5, dtype=torch.float64), 0.0, clip=False)
    inside = clean.abs() < 1
    assert torch.allclose(
        reverse_step(latents, noise, share, torch.tensor(0.5, dtype=torch.float64), 0.0)[inside],
        unclipped[inside],
    )


def test_a_picture_depends_on_its_own_seed_only():
    network = painter()
    heard = network.condition(torch.eye(2))
    both = sample_pictures(network.backbone(), heard, [7, 8], 4)
    assert torch.allclose(both[1:], sample_pictures(network.backbone(), heard[1:], [8], 4), atol=1e-5)
    assert not torch.allclose(both[:1], sample_pictures(network.backbone(), heard[:1], [9], 4), atol=1e-2)


# classes and loss


def test_the_table_gives_the_mean_of_the_named_rows():
    network = painter(3)
    with torch.no_grad():
        network.classes.weight.copy_(torch.arange(4.0)[:, None].expand_as(network.classes.weight))
    actual = network.condition(torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 0], [0.25, 0.75, 0]]))[:, 0, 0]
    assert actual.tolist() == [1.0, 1.0, 3.0, 0.75]
    alone = painter(0)
    assert torch.equal(alone.condition(torch.zeros(2, 0)), alone.classes.weight.repeat(2, 1)[:, None])


def test_new_classes_begin_alike_and_the_old_network_is_untouched():
    old = painter(3)
    with torch.no_grad():
        old.classes.weight.normal_(generator=torch.Generator().manual_seed(0))
    new = old.with_classes(2)
    assert new.classes.weight.shape[0] == 3
    assert all(torch.equal(row, old.classes.weight[-1]) for row in new.classes.weight)
    with torch.no_grad():
        new.unet.conv_in.weight.zero_()
    assert old.unet.conv_in.weight.abs().sum() > 0
    learned = learn_pictures(old.with_classes(2), pictures(), PictureSettings(3, 1e-3, 4, table_rate=10.0))
    assert not torch.equal(learned.classes.weight[0], learned.classes.weight[1])


def test_levels_are_spread_evenly():
    levels = spread_levels(10, 1000, torch.Generator().manual_seed(3))
    assert sorted((levels // 100).tolist()) == list(range(10))
    assert levels.tolist() != sorted(levels.tolist())
    assert spread_levels(1, 1000, torch.Generator().manual_seed(3)).shape == (1,)


@pytest.mark.parametrize("velocity", [True, False])
def test_what_the_network_says_becomes_the_noise(velocity):
    "A network that says the exact target has loss zero, and its noise is the noise that was added."
    network = painter()
    network.velocity = velocity
    backbone, shown = network.backbone(), {}

    class Oracle(torch.nn.Module):
        config = network.unet.config

        def forward(self, latents, timesteps, class_labels):
            share = backbone.alpha_at(timesteps).to(latents)
            noise = (latents - share.sqrt() * shown["clean"]) / (1 - share).sqrt()
            said = share.sqrt() * noise - (1 - share).sqrt() * shown["clean"] if velocity else noise
            return type("Said", (), {"sample": said})

    backbone.unet = Oracle()
    clean = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shown["clean"], noise, levels = (
        clean,
        torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([5, 300, 700, 980]),
    )
    noisy = (
        backbone.alpha_at(levels).to(clean).sqrt() * clean
        + (1 - backbone.alpha_at(levels).to(clean)).sqrt() * noise
    )
    assert torch.allclose(
        backbone.predict_noise(noisy, levels, network.condition(torch.zeros(4, 2))), noise, atol=1e-3
    )
    shown["clean"] = pictures(1).images.float() / 127.5 - 1
    left = Pictures(pictures(1).images, torch.eye(2)[:1])
    assert float(denoising_loss(network, backbone, left, 0, 4, 0, flip=False)) < 1e-4
    shown["clean"] = -shown["clean"]
    assert float(denoising_loss(network, backbone, left, 0, 4, 0, flip=False)) > 0.1


def test_hidden_labels_teach_the_row_for_no_class():
    network = painter()
    backbone = network.backbone()
    network.requires_grad_(True)

    def touched(share):
        return (
            torch.autograd.grad(
                denoising_loss(network, backbone, pictures(), 0, 4, 0, label_dropout=share),
                network.classes.weight,
            )[0]
            .abs()
            .sum(1)
            > 0
        )

    assert touched(0.0).tolist() == [True, True, False]
    assert touched(1.0).tolist() == [False, False, True]


# learning


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    how = PictureSettings(
        6,
        learning_rate=1e-3,
        table_rate=5.0,
        batch_size=4,
        seed=3,
        schedule="cosine",
        ema_images=10.0,
        checkpoint_every=2,
    )
    whole = learn_pictures(painter(), pictures(), how, tmp_path / "whole")

    def killed(step, average):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_pictures(painter(), pictures(), how, tmp_path / "killed", watch=killed)
    continued = learn_pictures(
        painter(seed=9), pictures(), how, tmp_path / "killed"
    )  # other first weights: they are read from the checkpoint
    assert same(whole.state_dict(), continued.state_dict())
    assert not same(
        whole.state_dict(),
        learn_pictures(painter(), pictures(), dataclasses.replace(how, seed=4)).state_dict(),
    )


def test_learning_leaves_the_global_random_state_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    learn_pictures(painter(), pictures(), PictureSettings(2, 1e-3))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_pretraining_is_done_once_and_shared(tmp_path, monkeypatch):
    runs = []
    original = pixel_diffusion.photograph_crops
    monkeypatch.setattr(
        pixel_diffusion, "photograph_crops", lambda *given: runs.append(given) or original(*given)
    )
    first = PixelDiffusion(**CHEAP).fit(photographs(), tmp_path)
    second = PixelDiffusion(**CHEAP).fit(photographs(seed=1), tmp_path)
    assert len(runs) == 1
    assert runs[0] == (6, 1, 8, 1)
    assert not same(weights(first), weights(second))
    shutil.rmtree(tmp_path / "generators")
    assert same(weights(first), weights(PixelDiffusion(**CHEAP).fit(photographs(), tmp_path)))
    assert len(runs) == 2
    PixelDiffusion(**{**CHEAP, "pretrained": None}).fit(photographs(), tmp_path)
    assert len(runs) == 2


def test_a_fitted_one_is_read_and_settings_of_the_painting_do_not_train(tmp_path, monkeypatch):
    method = PixelDiffusion(**CHEAP).fit(photographs(), tmp_path)
    monkeypatch.setattr(pixel_diffusion, "learn_pictures", None)
    again = PixelDiffusion(**{**CHEAP, "num_inference_steps": 5, "eta": 0.0, "guidance_scale": 2.0}).fit(
        photographs(), tmp_path
    )
    assert same(weights(method), weights(again))
    assert list(again.evolution) == [1, 3]
    assert len(again.evolution[3]) == 24
    rows = again.plan(photographs(), Budget(copies=1), 0)
    assert all(image.shape == (8, 8, 1) for image in again.paint(rows[:3], photographs()))
    with pytest.raises(TypeError):
        PixelDiffusion(**{**CHEAP, "steps": 4}).fit(
            photographs(), tmp_path
        )  # other weights: would have to be trained


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_paints_what_the_plan_says(per_class, channels, tmp_path):
    real = photographs(channels=channels)
    method = PixelDiffusion(**{**CHEAP, "pretrained": None, "per_class": per_class}).fit(real)
    rows = method.plan(real, Budget(copies=2), 0)
    images = method.paint(rows, real)
    assert len(rows) == 16
    assert all(row.inputs == () for row in rows)
    assert {image.shape for image in images} == {(8, 8, channels)}
    assert len({image.tobytes() for image in images}) == 16
    assert sorted(method.painters, key=str) == ([0, 1, 2] if per_class else [None])
    method.save(tmp_path / "saved")
    loaded = PixelDiffusion(**{**CHEAP, "pretrained": None, "per_class": per_class}).load(tmp_path / "saved")
    assert all(np.array_equal(image, other) for image, other in zip(images[:3], loaded.paint(rows[:3], real)))


def test_several_labels_and_none():
    real = photographs("multi")
    method = PixelDiffusion(**{**CHEAP, "pretrained": None}).fit(real)
    rows = method.plan(real, Budget(copies=1), 0)
    assert {row.label for row in rows} == {tuple(label) for label in real.labels.tolist()}
    assert len(method.paint(rows, real)) == 8
    with pytest.raises(GenaugError, match="per_class=false"):
        PixelDiffusion(**{**CHEAP, "per_class": True}).fit(real)


# beginnings and errors


def test_a_folder_of_diffusers_is_a_beginning(tmp_path):
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=16,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        )
    unet.save_pretrained(tmp_path / "model" / "unet", safe_serialization=True)
    begun = network_of(tmp_path / "model", 8, 1)
    latents, level = (
        torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([3, 700]),
    )
    with torch.no_grad():
        assert torch.allclose(
            begun.unet(latents, level, class_labels=begun.condition(torch.zeros(2, 0))[:, 0]).sample,
            unet(latents, level).sample,
            atol=1e-6,
        )
    method = PixelDiffusion(**{**CHEAP, "pretrained": str(tmp_path / "model")})
    before = method.settings()["pretrained"]
    method.fit(photographs(), tmp_path / "work").save(tmp_path / "saved")
    assert same(weights(method), weights(dataclasses.replace(method).load(tmp_path / "saved")))
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    state["conv_in.bias"] += 1
    safetensors.torch.save_file(
        state, tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"}
    )
    assert method.settings()["pretrained"] != before
    assert "model" not in before
    with pytest.raises(GenaugError, match="has 1 channels in"):
        PixelDiffusion(**{**CHEAP, "pretrained": str(tmp_path / "model"), "channels": 3}).fit(photographs())
    with pytest.raises(GenaugError, match="no network to begin with"):
        PixelDiffusion(**{**CHEAP, "pretrained": str(tmp_path / "nowhere")}).fit(photographs())


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (12,)},
        {"widths": ()},
        {"widths": (8,) * 4},
        {"eta": 1.5},
        {"size": 24},
        {"steps": 0},
        {"pretraining_steps": 0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(GenaugError, match="needs|it must be"):
        PixelDiffusion(**{**CHEAP, **wrong})


def test_one_width_may_be_a_number():
    assert PixelDiffusion(**{**CHEAP, "widths": 16}).widths == (16,)


def test_the_corpus_is_photographs_of_training_halves(monkeypatch):
    asked = []
    original = pixel_diffusion.photographs
    monkeypatch.setattr(pixel_diffusion, "photographs", lambda part: asked.append(part) or original(part))
    grey, colour = photograph_crops(30, 0, 16, 1), photograph_crops(30, 0, 16, 3)
    assert asked == ["train", "train"]
    assert grey.ids == colour.ids
    assert grey.image(0).shape == (16, 16, 1)
    assert colour.image(0).shape == (16, 16, 3)
    luma = colour.image(4).astype(float) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - grey.image(4)[..., 0]).max() <= 1


def test_the_cost_is_stated_without_pretraining_for_it(monkeypatch, tmp_path):
    from genaug.generators.common import generator_time

    method = PixelDiffusion(
        size=8,
        widths=(8, 8),
        steps=100,
        batch_size=4,
        pretraining_steps=400,
        pretraining_batch=8,
        corpus=20,
        num_inference_steps=50,
        guidance_scale=2.0,
    )
    real = photographs()
    with monkeypatch.context() as watched:
        watched.setattr(pixel_diffusion, "photograph_crops", None)  # whoever pretrains calls it
        spent = generator_time(method, real, trial=3)
    assert method.evaluations_per_image == 100 == method.evaluations([None])
    assert spent.fit > 0
    assert np.isclose(spent.once / spent.fit, 400 * 8 / (100 * 4))
    assert 0 < spent.picture < 60
    small = dataclasses.replace(method, steps=1, pretraining_steps=1, num_inference_steps=1).fit(
        real, tmp_path
    )
    assert small.preparation(real, tmp_path) == 0 < small.preparation(real)
    assert dataclasses.replace(method, pretrained=None).preparation(real) == 0
