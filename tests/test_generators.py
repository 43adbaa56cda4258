"""Generators from noise: the contract's edges, resuming after a kill, both networks' turns, seeds, what is
kept, and that a GAN learns both of two colours."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from toy_sets import noise_set

from genaug.core import LabeledImages
from genaug.generators.common import (
    AdversarialAugmenter,
    AdversarialTraining,
    Album,
    Views,
    cut_out,
    decay_at,
    generator_time,
    moments,
    move_average,
    pictures_of,
    shuffled_positions,
)
from genaug.generators.dcgan import DCGAN, DCDiscriminator, DCGenerator, edges, settle
from genaug.generators.stylegan import (
    AdaptiveViews,
    StyleDiscriminator,
    StyleGAN,
    StyleGenerator,
    affine_chain,
    channels_at,
    colour_chain,
    gradient_penalty,
    group_deviation,
    modulated,
)
from genaug.messages import GenaugError
from genaug.plans import Budget, PlanRow
from genaug.training import generator_at, make_optimizer, newest_checkpoint, one_update

CHEAP = {
    DCGAN: {"size": 8, "steps": 3, "batch_size": 4, "width": 2, "latent_dim": 5},
    StyleGAN: {"size": 8, "steps": 3, "batch_size": 4, "width": 4, "latent_dim": 4, "r1_every": 2},
}
GANS = pytest.mark.parametrize("kind", [DCGAN, StyleGAN], ids=["dcgan", "stylegan"])


def photographs(task="single", channels=3, seed=0):
    "Nine photographs of three classes; the last class has one, and sizes differ."
    labels = [[1, 1, 0], [1, 0, 0], [0, 1, 1]] * 3 if task == "multi" else [0, 0, 0, 0, 1, 1, 1, 1, 2]
    shapes = [(8 + number % 3, 9, channels) for number in range(9)]
    return noise_set(labels, ["wren", "tit", "owl"], shapes=shapes, seed=seed, task=task)


def cheap(kind, **changes):
    return kind(**{**CHEAP[kind], **changes})


def weights(method):
    return {
        (index, name): value
        for index, painter in method.painters.items()
        for name, value in painter.state_dict().items()
    }


def same(left, right):
    return set(left) == set(right) and all(torch.equal(value, right[name]) for name, value in left.items())


# the augmenter


@GANS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_class", [True, False])
def test_it_paints_what_the_plan_says(kind, channels, per_class):
    real = photographs(channels=channels)
    method = cheap(kind, per_class=per_class).fit(real)
    rows = method.plan(real, Budget(copies=1), 0)
    images = method.paint(rows, real)
    assert [row.label for row in rows] == [tuple(np.eye(3)[target]) for target in real.targets]
    assert all(row.inputs == () and row.fitted_on == real.fingerprint() for row in rows)
    assert {image.shape for image in images} == {(8, 8, channels)}
    assert all(image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images[:4]}) == 4
    assert sorted(method.painters, key=str) == ([0, 1, 2] if per_class else [None])
    assert method.effort(real) == (9 if per_class else 3, 4)


@GANS
def test_no_picture_depends_on_its_batch_or_on_the_order(kind):
    real = photographs()
    method = cheap(kind).fit(real)
    rows = method.plan(real, Budget(copies=9), 0)
    together = method.paint(rows, real)
    singly = [method.paint([row], real)[0] for row in rows[::-1]][::-1]
    assert len(rows) == 81
    assert (
        max(int(np.abs(left.astype(int) - right.astype(int)).max()) for left, right in zip(together, singly))
        <= 1
    )


@GANS
def test_seeds_decide_and_nothing_outside_is_touched(kind):
    real = photographs()
    before = torch.get_rng_state(), str(np.random.get_state())
    first, again, other = cheap(kind).fit(real), cheap(kind).fit(real), cheap(kind, seed=1).fit(real)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    rows = first.plan(real, Budget(copies=1), 0)
    assert rows != first.plan(real, Budget(copies=1), 1)
    assert first.plan(real, Budget(copies=2), 0)[:9] == rows
    assert rows == [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]


def test_several_labels_need_one_generator_that_is_told_them():
    real = photographs("multi")
    with pytest.raises(GenaugError, match="per_class=false"):
        cheap(DCGAN).fit(real)
    method = cheap(DCGAN, per_class=False).fit(real)
    rows = method.plan(real, Budget(copies=1), 0)
    assert [row.label for row in rows] == [tuple(label) for label in real.labels.tolist()]
    assert len(method.paint(rows, real)) == 9
    aimed = method.plan(real, Budget(per_class={"owl": 2}), 0)
    assert len(aimed) == 2
    assert all(row.label[2] == 1 for row in aimed)


def test_one_class_and_one_photograph_are_enough():
    lone = photographs()[[8]]
    method = cheap(DCGAN, batch_size=5).fit(lone)
    assert list(method.painters) == [2]
    assert len(method.paint(method.plan(lone, Budget(copies=3), 0), lone)) == 3


def test_a_label_is_listened_to_in_both_networks():
    numbers, labels, images = (
        torch.randn(2, 5),
        torch.eye(3)[:2],
        torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1),
    )
    painter, judge = DCGenerator(8, 1, 3, 5, 4).eval(), DCDiscriminator(8, 1, 3, 4).eval()
    assert not torch.equal(*painter(numbers[:1].expand(2, -1), labels))
    assert not torch.equal(*judge(images, labels))
    styled, critic = StyleGenerator(8, 1, 3, 4, 4), StyleDiscriminator(8, 1, 3, 4)
    assert not torch.equal(*styled(torch.randn(1, styled.numbers).expand(2, -1), labels))
    assert not torch.equal(*critic(images, labels))


def test_what_is_wrong_is_said_in_one_sentence():
    real = photographs()
    with pytest.raises(GenaugError, match="power of two"):
        DCGAN(size=48)
    with pytest.raises(GenaugError, match="1 or 3 channels"):
        DCGAN(channels=2)
    with pytest.raises(GenaugError, match="learning_rate=0.0: it must be a finite number above 0"):
        StyleGAN(learning_rate=0.0)
    with pytest.raises(GenaugError, match="color, translation, cutout"):
        DCGAN(diff_augment=("blur",))
    with pytest.raises(
        GenaugError, match="ada_target=1.0: it must be a finite number at least 0 and below 1"
    ):
        StyleGAN(ada_target=1.0)
    with pytest.raises(GenaugError, match="not been fitted"):
        cheap(DCGAN).plan(real, Budget(), 0)
    method = cheap(DCGAN).fit(real)
    with pytest.raises(GenaugError, match="fitted on other photographs"):
        method.plan(photographs(seed=1), Budget(), 0)
    without = dataclasses.replace(method).fit(real[:8])
    with pytest.raises(GenaugError, match="class 'owl' had no photograph"):
        without.paint([PlanRow("a", "dcgan", (0.0, 0.0, 1.0), (), (), 0)], real)
    with pytest.raises(GenaugError, match="no GPU|no device"):
        cheap(DCGAN, device="cuda" if not torch.cuda.is_available() else "nowhere").fit(real)


def test_words_of_an_arm_reach_the_fields():
    assert DCGAN(diff_augment="none").diff_augment == ()
    assert DCGAN(diff_augment="color").diff_augment == ("color",)
    assert dataclasses.replace(StyleGAN(), diff_augment=("translation", "cutout")).diff_augment == (
        "translation",
        "cutout",
    )


# what is kept


@GANS
def test_saved_loaded_and_read_from_the_work_folder(kind, tmp_path):
    real = photographs()
    method = cheap(kind).fit(real, tmp_path)
    homes = sorted((tmp_path / "generators").iterdir())
    stamps = [(home / "painter.json").stat().st_mtime_ns for home in homes]
    again = cheap(kind, name="other-name").fit(real, tmp_path)
    method.save(tmp_path / "saved")
    loaded = cheap(kind).load(tmp_path / "saved")
    assert same(weights(method), weights(again))
    assert same(weights(method), weights(loaded))
    assert loaded.class_names == method.class_names
    assert len(homes) == 3
    assert stamps == [(home / "painter.json").stat().st_mtime_ns for home in homes]
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("checkpoint"))
    assert all(
        np.array_equal(left, right)
        for step in method.evolution
        for left, right in zip(method.evolution[step], again.evolution[step])
    )
    assert list(again.evolution) == list(moments(3))


def test_the_work_folder_knows_pictures_and_settings_apart(tmp_path):
    real = photographs()

    def count():
        return len(list((tmp_path / "generators").iterdir()))

    cheap(DCGAN).fit(real, tmp_path)
    renamed = LabeledImages(
        real.pixels, real.targets, real.class_names, [f"x{number}" for number in range(9)]
    )
    cheap(DCGAN).fit(renamed, tmp_path)
    assert count() == 3  # the pictures count, not their names
    cheap(DCGAN).fit(real[[*range(7), 8]], tmp_path)
    assert count() == 4  # one class has another set of photographs
    cheap(DCGAN, width=3).fit(real[[8]], tmp_path)
    assert count() == 5


def test_truncation_trains_nothing_anew_and_moves_to_the_middle(tmp_path):
    real = photographs()[:4]
    painted = [cheap(StyleGAN, truncation=value).fit(real, tmp_path) for value in (1.0, 0.3)]
    assert len(list((tmp_path / "generators").iterdir())) == 1
    assert same(weights(painted[0]), weights(painted[1]))
    assert painted[0].fingerprint() != painted[1].fingerprint()


def test_a_damaged_painter_is_refused(tmp_path):
    real = photographs()[:4]
    cheap(DCGAN).fit(real, tmp_path)
    (home,) = (tmp_path / "generators").iterdir()
    state = safetensors.torch.load_file(home / "painter.safetensors")
    safetensors.torch.save_file(
        {name: value + 1 for name, value in state.items()}, home / "painter.safetensors"
    )
    with pytest.raises(GenaugError, match="no whole painter"):
        cheap(DCGAN).fit(real, tmp_path)
    with pytest.raises(GenaugError, match="no saved painters"):
        cheap(DCGAN).fit(real).save(tmp_path / "saved") or (
            tmp_path / "saved/painters/painters.json"
        ).unlink() or cheap(DCGAN).load(tmp_path / "saved")
    with pytest.raises(GenaugError, match="not by 'stylegan'"):
        cheap(StyleGAN).load(tmp_path / "saved")


# training


@GANS
def test_an_interrupted_training_ends_with_the_same_bits(kind, tmp_path):
    real = photographs()[:4]
    method = cheap(
        kind,
        steps=7,
        checkpoint_every=2,
        ema_images=20.0,
        **({"ada_images": 30.0, "diff_augment": ("cutout",)} if kind is StyleGAN else {}),
    )
    pictures = method.parts(real)[0]

    class Stop(Exception):
        pass

    class Interrupted(Album):
        def wants(self, step):
            if step == 5:
                raise Stop
            return False

    with pytest.raises(Stop):
        method.learn(pictures, tmp_path, Interrupted(method, pictures), False)
    assert newest_checkpoint(tmp_path).name == "step-00000008"  # two updates per step
    resumed = method.learn(pictures, tmp_path, Album(method, pictures), False).state_dict()
    whole = method.learn(pictures, None, Album(method, pictures), False).state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_killed_process_ends_with_the_same_bits(tmp_path):
    script = (
        "import sys, torch; torch.set_num_threads(1); sys.path.insert(0, 'tests'); from "
        "test_generators import *; "
        "cheap(DCGAN, steps=400, checkpoint_every=5).fit(photographs()[:4], sys.argv[1])"
    )
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=root, env=environment)
    deadline = time.time() + 60
    while (
        not any(newest_checkpoint(path) for path in tmp_path.glob("generators/*/checkpoint"))
        and process.poll() is None
        and time.time() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (home,) = (tmp_path / "generators").iterdir()
    assert not (home / "painter.json").exists()
    assert newest_checkpoint(home / "checkpoint") is not None
    resumed = cheap(DCGAN, steps=400, checkpoint_every=5).fit(photographs()[:4], tmp_path)
    whole = cheap(DCGAN, steps=400).fit(photographs()[:4])
    assert same(weights(resumed), weights(whole))
    assert list(resumed.evolution) == list(moments(400))
    assert all(
        np.array_equal(left, right)
        for step in moments(400)
        for left, right in zip(resumed.evolution[step], whole.evolution[step])
    )


@GANS
def test_the_networks_take_turns(kind):
    method = cheap(kind)
    training = AdversarialTraining(method, method.parts(photographs())[0])
    for update in range(4):
        learner, other = (
            (training.generator, training.discriminator)
            if update % 2
            else (training.discriminator, training.generator)
        )
        training.generator.zero_grad(), training.discriminator.zero_grad()
        training.loss_at(update).backward()
        assert any(value.grad is not None and value.grad.abs().max() > 0 for value in learner.parameters())
        assert all(value.grad is None for value in other.parameters())
    assert all(not value.requires_grad for value in training.average.parameters())


def test_one_adam_in_turns_is_two_adams():
    "The loop of one optimiser against two optimisers written out."
    method = cheap(DCGAN, steps=4)
    pictures = method.parts(photographs())[0]
    painter = method.learn(pictures, None, Album(method, pictures), False)
    training = AdversarialTraining(method, pictures)
    judge, writer = (
        torch.optim.Adam(network.parameters(), lr=method.learning_rate, betas=method.betas)
        for network in (training.discriminator, training.generator)
    )
    for update in range(8):
        turn = writer if update % 2 else judge
        loss = training.loss_at(update)
        judge.zero_grad(), writer.zero_grad()
        loss.backward()
        turn.step()
    expected = settle(training.generator, method.seed).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in painter.state_dict().items())


def test_several_processes_leave_the_resting_network_alone():
    """Gradients are averaged over processes for the network that learns; a zero gradient for the other would
    let Adam's momentum move it."""

    class Two:
        num_processes, process_index = 2, 0

        def backward(self, loss):
            loss.backward()

        def reduce(self, gradient, reduction):
            return gradient

    method = cheap(DCGAN)
    training = AdversarialTraining(method, method.parts(photographs())[0])
    trained = {
        f"{name}.{key}": value
        for name in ("generator", "discriminator")
        for key, value in training.parts()[name].named_parameters()
    }
    adam = make_optimizer(trained, 1e-3, lambda groups: torch.optim.Adam(groups))
    for update in range(4):
        before = [value.detach().clone() for value in trained.values()]
        one_update(training.loss_at, update, trained, adam, 1.0, 0, 0.0, Two())
        changed = {
            name.split(".")[0]
            for (name, value), old in zip(trained.items(), before)
            if not torch.equal(value, old)
        }
        assert changed == {"generator" if update % 2 else "discriminator"}


def test_small_classes_fill_a_batch_and_are_seen_evenly():
    assert sorted(shuffled_positions(2, 8, 0, 0).tolist()) == [0] * 4 + [1] * 4
    seen = torch.cat([shuffled_positions(7, 4, step, 3) for step in range(14)])
    assert torch.bincount(seen).tolist() == [8] * 7
    assert not torch.equal(shuffled_positions(50, 50, 0, 0), shuffled_positions(50, 50, 1, 0))


def test_mirrored_views_and_sizes():
    ramp = LabeledImages([np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))], [0], ["a"], ["a.png"])
    pictures = pictures_of(ramp, 16, 3)
    plain, mixed = pictures.batch(0, 64, 0)[0], pictures.batch(0, 64, 0, True)[0]
    assert pictures.channels == 3
    assert (plain == plain[0]).all()
    assert 15 < (mixed != plain).flatten(1).any(1).sum() < 49
    assert torch.equal(plain[0].add(1).mul(127.5).round().to(torch.uint8), pictures.images[0])


def test_the_average_forgets_its_beginning_and_keeps_buffers():
    left, right = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    right.weight.data.fill_(5.0), right.running_mean.fill_(3.0)
    move_average(left, right, 0.25)
    assert torch.allclose(left.weight, torch.full((2,), 0.25 * 1 + 0.75 * 5))
    assert (left.running_mean == 3).all()
    assert decay_at(0, 8, 100) == 0
    assert decay_at(1, 8, 1e9) == 0.5**20
    assert abs(decay_at(10**9, 8, 100) - 0.5**0.08) < 1e-12


def test_an_estimate_of_the_cost_is_a_positive_number_of_seconds():
    spent = generator_time(cheap(DCGAN, steps=10), photographs(), trial=3)
    assert 0 < spent.fit < 60
    assert spent.once == 0
    assert 0 < spent.picture < 10
    assert cheap(DCGAN).evaluations_per_image == 0


@dataclasses.dataclass(kw_only=True)
class Colours(AdversarialAugmenter):
    "One colour from two random numbers."

    def build(self, channels, classes):
        def layer(*widths):
            return nn.Sequential(
                *[step for pair in zip(widths, widths[1:]) for step in (nn.Linear(*pair), nn.LeakyReLU(0.2))][
                    :-1
                ]
            )

        return Painted(layer(2 + classes, 32, 32, channels)), Seen(layer(channels + classes, 64, 64, 1))


class Painted(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.numbers = net, 2

    def forward(self, numbers, labels):
        return torch.tanh(self.net(torch.cat([numbers, 2 * labels], 1)))[:, :, None, None].expand(
            -1, -1, 8, 8
        )


class Seen(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images, labels):
        return self.net(torch.cat([images.mean((2, 3)), labels], 1))[:, 0]


def patches(count=64):
    draw = np.random.default_rng(0)
    colours = np.array([[200, 120, 60], [60, 90, 180]])[np.arange(count) % 2] + draw.integers(
        -20, 21, (count, 3)
    )
    return LabeledImages(
        [colour.astype(np.uint8) * np.ones((8, 8, 1), np.uint8) for colour in colours],
        np.arange(count) % 2,
        ["orange", "blue"],
        [str(number) for number in range(count)],
    )


def nearest(images):
    colours = np.stack([image[0, 0] for image in images]).astype(int)
    gaps = np.stack([np.abs(colours - colour).max(1) for colour in ([200, 120, 60], [60, 90, 180])])
    return gaps.argmin(0), gaps.min(0)


def test_both_colours_are_learned_and_more_steps_come_nearer():
    real = patches()
    joined = LabeledImages(real.pixels, np.zeros(64, int), ["patch"], real.ids)
    shares, near = [], []
    for steps in (40, 500):
        method = Colours(size=8, steps=steps, batch_size=32, learning_rate=2e-3, ema_images=1000).fit(joined)
        which, gap = nearest(method.paint(method.plan(joined, Budget(copies=4), 0), joined))
        shares.append((which == 0).mean()), near.append((gap < 40).mean())
    # both, in equal shares, and nothing between
    assert 0.35 < shares[1] < 0.65
    assert near[1] > 0.9 > near[0] + 0.3


def test_a_conditional_generator_paints_the_colour_that_is_asked_for():
    real = patches()
    method = Colours(
        size=8, steps=300, batch_size=32, learning_rate=2e-3, ema_images=1000, per_class=False
    ).fit(real)
    rows = method.plan(real, Budget(copies=2), 0)
    which, gap = nearest(method.paint(rows, real))
    assert (which == np.array([np.argmax(row.label) for row in rows])).mean() > 0.95
    assert (gap < 60).mean() > 0.9


# networks and their parts


def test_depth_follows_size():
    assert edges(8) == [4]
    assert edges(64) == [4, 8, 16, 32]
    assert [channels_at(edge, 512) for edge in (4, 32, 64, 256)] == [512, 512, 256, 64]
    for size in (8, 16, 64):
        assert DCGenerator(size, 1, 0, 4, 2)(torch.randn(2, 4), torch.zeros(2, 0)).shape == (2, 1, size, size)
        assert DCDiscriminator(size, 3, 0, 2)(torch.randn(2, 3, size, size), torch.zeros(2, 0)).shape == (2,)
        painter = StyleGenerator(size, 3, 0, 4, 4)
        assert painter(torch.randn(2, painter.numbers), torch.zeros(2, 0)).shape == (2, 3, size, size)


def test_modulation_is_filters_of_ones_own():
    draw = torch.Generator().manual_seed(0)
    images, weight, scales = (
        torch.randn(*shape, generator=draw) for shape in ((3, 4, 6, 6), (5, 4, 3, 3), (3, 4))
    )
    own = weight[None] * scales[:, None, :, None, None]
    own = own * torch.rsqrt(own.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    grouped = F.conv2d(images.reshape(1, 12, 6, 6), own.reshape(15, 4, 3, 3), padding=1, groups=3).view(
        3, 5, 6, 6
    )
    assert torch.allclose(modulated(images, weight, scales), grouped, atol=1e-5)


def test_the_penalty_teaches_the_judge_to_be_flat():
    slope, images = torch.randn(1, 4, 4, requires_grad=True), torch.randn(5, 1, 4, 4, requires_grad=True)
    value = gradient_penalty(images, (slope * images).sum((1, 2, 3)))
    value.backward()
    assert torch.isclose(value, slope.square().sum())
    assert torch.allclose(slope.grad, 2 * slope, atol=1e-5)
    method = cheap(StyleGAN, r1_weight=3.0)
    assert [method.penalises(step) for step in range(4)] == [True, False, True, False]
    assert torch.isclose(method.penalty(images, (slope * images).sum((1, 2, 3))), 3.0 * value)
    assert not any(cheap(StyleGAN, r1_weight=0.0).penalises(step) for step in range(4))


def test_the_dial_follows_the_judge_and_is_part_of_the_checkpoint():
    dial = AdaptiveViews(step=0.1, every=2)
    for step in range(4):
        dial.observe(torch.ones(4), step)
    assert abs(float(dial.strength) - 0.4) < 1e-9
    for step in range(100):
        dial.observe(torch.ones(4), step)
    assert dial.strength == 1
    for step in range(100):
        dial.observe(torch.tensor([1.0, 1.0, -1.0, -1.0]), step)
    assert dial.strength == 0
    assert set(dial.state_dict()) == {"strength", "signs", "seen"}


def test_changes_are_drawn_alike_and_leave_alone_at_chance_zero():
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    assert torch.allclose(colour_chain(images, 0.0, generator_at(0, 0)), images, atol=1e-6)
    dial = AdaptiveViews(("color",))
    assert torch.equal(dial(images, generator_at(0, 0)), Views(("color",))(images, generator_at(0, 0)))
    dial.strength.fill_(1.0)
    assert torch.equal(dial(images, generator_at(0, 0)), dial(images, generator_at(0, 0)))
    assert not torch.equal(dial(images, generator_at(0, 0)), dial(images, generator_at(0, 1)))
    turned = affine_chain(4000, 1.0, 8, generator_at(0, 2))
    assert abs((torch.linalg.det(turned[:, :, :2]) < 0).float().mean() - 0.5) < 0.05  # mirrored by a coin


def test_hue_turns_around_the_grey_axis():
    """Whatever the chances decide, the mean of the channels is only moved, scaled or turned over; a full
    circle has no preferred direction."""
    colour = torch.tensor([0.5, -0.5, 0.0]).view(1, 3, 1, 1).expand(4000, -1, 1, 1)
    painted = colour_chain(colour, 1.0, generator_at(0, 3))
    grey = painted.mean(1, keepdim=True)
    assert ((painted - grey) / (painted - grey).norm(dim=1, keepdim=True)).mean((0, 2, 3)).abs().max() < 0.05
    assert torch.allclose((painted - grey).sum(1), torch.zeros(1), atol=1e-5)


def test_the_cut_square_lies_anywhere_and_is_half_an_edge():
    holes = (
        cut_out(
            torch.ones(500, 1, 8, 8), lambda draw=generator_at(0, 4): torch.rand(500, 1, 1, 1, generator=draw)
        )
        == 0
    )
    assert holes.flatten(1).sum(1).max() == 16
    assert holes.any(0).all()


def test_a_group_of_equal_pictures_has_no_deviation():
    assert group_deviation(torch.ones(6, 2, 4, 4)).max() < 2e-4
    pairs = torch.tensor([0.0, 0.0, 2.0, 4.0]).view(4, 1, 1, 1).expand(-1, 2, 4, 4)  # one group of four
    assert torch.allclose(
        group_deviation(pairs), torch.full((4, 1, 4, 4), float(np.std([0, 0, 2, 4]))), atol=1e-4
    )


def test_batch_statistics_are_those_of_the_weights():
    painter = settle(DCGenerator(16, 1, 0, 6, 3).train(), seed=0)
    numbers = torch.randn(2048, 6, generator=torch.Generator().manual_seed(5))
    inside = painter.net[0](numbers[:, :, None, None])
    assert torch.allclose(inside.mean((0, 2, 3)), painter.net[1].running_mean, atol=0.01)
    assert torch.allclose(inside.var((0, 2, 3)), painter.net[1].running_var, rtol=0.15)
