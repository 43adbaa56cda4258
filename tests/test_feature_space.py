"""Feature-space augmentation: codes, generations, saliency, gates, partners, labels, the last steps of the
schedule, and what survives a kill."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import (
    get_2d_projection,
    get_2d_projection_with_sign_correction,
)
from toy_sets import noise_set

import genaug.methods.feature_space as module
from genaug import fusion_partners
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.fusion_partners import (
    Learned,
    choose_head,
    confusion_table,
    distances_to,
    map_pairs,
    nearest_partners,
)
from genaug.generators import sparse_codes
from genaug.generators.sparse_codes import (
    CodeSettings,
    CodeUNet,
    IteratedLearning,
    Networks,
    class_weights,
    code_classifier,
    encode_set,
    fitting_levels,
    imitation_loss,
    learn_codes,
    phases_of,
    sample_tokens,
    site_simplex,
    small_classifier,
    sparsity,
)
from genaug.messages import GenaugError
from genaug.methods.feature_space import (
    LABEL_RULES,
    FeatureSpace,
    from_tail,
    fuse,
    fused_label,
    fusion_of,
    pairings,
    relevance,
    toss_coins,
    touch_up,
)
from genaug.metrics.saliency import principal_projection, saliency
from genaug.plans import Budget
from genaug.sampling import SamplingSettings, add_noise, denoise, row_noise
from genaug.training import LoopSettings, train_loop

NAMES = ("fog", "rain", "sun", "moon", "comet")  # fog and rain are the heads
QUICK = {
    "generations": 2,
    "interaction_updates": 3,
    "imitation_updates": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "width": 8,
    "vocabulary": 6,
    "num_inference_steps": 4,
    "denoising_steps": 2,
}
HEADS = [0, 1]


def several(count=18, seed=0, size=8):
    "Images with one to three of five labels; the head labels on most of them."
    draw = np.random.default_rng(seed)
    labels = (draw.random((count, 5)) < [0.6, 0.5, 0.15, 0.1, 0.1]).astype(np.float32)
    labels[0], labels[1], labels[2], labels[3], labels[4], labels[5] = (
        np.eye(5)[0],
        np.eye(5)[1],
        [1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [1, 1, 0, 0, 0],
    )
    labels[~labels.any(1), 0] = 1
    return noise_set(labels, NAMES, size=size, seed=draw, task="multi")


def single(counts=(6, 4, 2), seed=0):
    return noise_set(np.repeat(np.arange(len(counts)), counts), NAMES[: len(counts)], seed=seed)


def backbone_of(classes=5, size=8):
    means = torch.linspace(-0.5, 0.5, classes).view(-1, 1, 1, 1).expand(classes, 3, size, size)
    return ToyBackbone(means, 0.3, NAMES[:classes])


@pytest.fixture(scope="module")
def backbone():
    return backbone_of()


@pytest.fixture(scope="module")
def real():
    return several()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("feature_space")


@pytest.fixture(scope="module")
def fit(backbone, real, work):
    "Fits a method; those that learn the same codes share them."
    return lambda **changes: FeatureSpace(**{**QUICK, "backbone": backbone, **changes}).fit(real, work)


@pytest.fixture(scope="module")
def fitted(fit):
    return fit()


def pieces_of(count, monkeypatch):
    "Sets are gone through in pieces of so many images."
    for part in (sparse_codes, fusion_partners):
        monkeypatch.setattr(part, "BLOCK", count)


def counted(backbone, monkeypatch):
    "Every row of every call of the denoiser, by level."
    levels, before = [], type(backbone).predict_noise
    monkeypatch.setattr(
        type(backbone),
        "predict_noise",
        lambda self, latents, timesteps, condition: (
            levels.extend(timesteps.tolist()),
            before(self, latents, timesteps, condition),
        )[1],
    )
    return levels


def state(networks):
    return {name: value.clone() for name, value in networks.state_dict().items()}


def equal(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) for name, value in left.items()
    )


def part(values, name):
    return {key: value for key, value in values.items() if key.startswith(name + ".")}


# ---- codes and tokens


def test_a_code_is_a_point_on_the_simplex_at_every_site():
    logits = 30 * torch.randn(3, 7, 4, 5, generator=torch.Generator().manual_seed(0))
    for temperature in (0.1, 1.0, 10.0):
        codes = site_simplex(logits, temperature)
        assert torch.allclose(codes.sum(1), torch.ones(3, 4, 5), atol=1e-5)
        assert codes.min() >= 0
    cold, warm = (sparsity(site_simplex(logits, temperature)) for temperature in (0.1, 10.0))
    assert cold[0] < warm[0]
    assert cold[1] > warm[1]
    one_hot = F.one_hot(torch.zeros(1, 2, 2, dtype=torch.long), 7).movedim(-1, 1).float()
    assert sparsity(one_hot) == (0.0, 1.0)


def test_tokens_are_drawn_along_the_channels_even_where_there_are_as_many_columns():
    generator = torch.Generator().manual_seed(0)
    codes = site_simplex(
        2 * torch.randn(1, 6, 6, 6, generator=generator)
    )  # V = H = W: a reshape without a transpose would go unnoticed by shapes
    tokens = sample_tokens(codes, generator)
    assert tokens.shape == codes.shape
    assert set(tokens.unique().tolist()) == {0.0, 1.0}
    assert (tokens.sum(1) == 1).all()
    assert not (tokens.sum(3) == 1).all()
    often = sum(sample_tokens(codes.expand(200, -1, -1, -1), generator).mean(0) for _ in range(20)) / 20
    assert (often - codes[0]).abs().max() < 5 * 0.5 / 4000**0.5
    certain = F.one_hot(torch.randint(0, 6, (2, 3, 3), generator=generator), 6).movedim(-1, 1).float()
    assert torch.equal(
        sample_tokens(certain, generator), certain
    )  # an entry of probability zero is never drawn


def test_tokens_follow_from_the_generator():
    codes = site_simplex(torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0)))
    first, same, other = (sample_tokens(codes, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["bce", "ce"])
def test_imitation_is_lowest_where_the_student_agrees_with_the_teacher(kind):
    logits = torch.tensor([1.5, 0.2, -1.0]).view(1, 3, 1, 1).expand(1, 3, 60, 60)
    tokens = sample_tokens(site_simplex(logits), torch.Generator().manual_seed(0)).double()
    often = tokens.mean((2, 3), keepdim=True).expand(1, 3, 60, 60).clone().requires_grad_()
    loss = imitation_loss(often, tokens, kind)
    (slope,) = torch.autograd.grad(loss, often)
    slope = slope.sum((2, 3))[0]
    assert (slope - slope.mean()).abs().max() < 1e-6  # no direction within the simplex lowers it
    entries = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).view(1, 3, 1, 1)
    target = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    by_hand = {"bce": -(np.log(0.8) + np.log(0.5) + np.log(0.7)) / 3, "ce": -np.log(0.5)}[kind]
    assert abs(float(imitation_loss(entries, target, kind)) - by_hand) < 1e-9


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_networks_fit_every_size(norm):
    for size, levels in (((8, 8), 3), ((12, 4), 2), ((7, 7), 0), ((1, 1), 0), ((64, 64), 6), ((128, 128), 6)):
        assert fitting_levels(size) == levels
        if max(size) < 64:
            assert CodeUNet(4, 6, 8, levels, norm)(torch.randn(1, 4, *size)).shape == (1, 6, *size)


def test_the_output_of_the_networks_is_linear():
    network = CodeUNet(3, 5, 8, 2)
    with torch.no_grad():
        network.ups[0][-1].bias.add_(7.0)
    assert network(torch.zeros(1, 3, 4, 4)).min() > 5


def test_vgg_is_for_large_codes_only():
    with pytest.raises(GenaugError, match="classifier='small'"):
        code_classifier("vgg11", 4, 2, (16, 16))
    assert code_classifier(None, 4, 2, (31, 64))[1] == "block3"


def test_vgg_is_built_for_codes(monkeypatch):
    import timm

    asked = {}
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **settings: asked.update(settings, name=name) or torch.nn.Identity(),
    )
    assert code_classifier(None, 64, 10, (64, 64))[1] == "features.19"
    assert asked == {
        "name": "vgg11",
        "pretrained": False,
        "in_chans": 64,
        "num_classes": 10,
    }


# ---- generations


def test_phases():
    phases = phases_of(3, 4, 2)
    assert [(phase.kind[:3], phase.generation) for phase in phases] == [
        ("int", 0),
        ("imi", 1),
        ("int", 1),
        ("imi", 2),
        ("int", 2),
    ]
    assert all(later.first == phase.first + phase.updates for phase, later in zip(phases, phases[1:]))
    assert [phase.kind for phase in phases_of(3, 4, 2, False)] == ["interaction"] * 3
    assert (
        sum(phase.updates for phase in CodeSettings(epochs=2, generations=2, batch_size=8).phases(20))
        == 3 * 2 * 3
    )
    for code in ("dense", "raw"):
        assert {phase.kind for phase in CodeSettings(code=code).phases(20)} == {"interaction"}


def trained(real, stop=None, latents=None, **changes):
    settings = CodeSettings(
        **{
            **{
                key: value
                for key, value in QUICK.items()
                if key not in ("num_inference_steps", "denoising_steps")
            },
            **changes,
        }
    )
    latents = (
        np.random.default_rng(0).standard_normal((len(real), 3, 8, 8)).astype(np.float32)
        if latents is None
        else latents
    )
    trainer = IteratedLearning(settings, latents, real.labels, real.task)
    before = state(trainer.networks)
    updates = sum(phase.updates for phase in trainer.phases) if stop is None else stop
    train_loop(
        trainer.loss_at,
        trainer.networks,
        LoopSettings(updates, settings.learning_rate, trainer.adamw, weight_decay=0.01),
    )
    return trainer, before, state(trainer.networks)


def test_the_teacher_is_frozen_the_student_new_and_the_rest_carried_over(real):
    _, start, spoken = trained(real, 3)  # the end of generation 0
    trainer, _, taught = trained(real, 5)  # the end of the imitation in generation 1
    assert equal(part(start, "teacher"), part(spoken, "teacher"))  # nobody was taught yet
    assert not any(
        equal(part(start, name), part(spoken, name)) for name in ("student", "decoder", "classifier")
    )

    def rename(values):
        return {key.replace("student.", "teacher."): value for key, value in values.items()}

    assert equal(
        rename(part(spoken, "student")), part(taught, "teacher")
    )  # the copy of the last student, unchanged by the imitation
    assert equal(part(spoken, "decoder"), part(taught, "decoder"))
    assert equal(part(spoken, "classifier"), part(taught, "classifier"))
    assert not equal(part(spoken, "student"), part(taught, "student"))
    _, _, ended = trained(real)  # the end of generation 1
    assert equal(part(taught, "teacher"), part(ended, "teacher"))
    assert not equal(part(taught, "decoder"), part(ended, "decoder"))
    assert not any(parameter.requires_grad for parameter in trainer.networks["teacher"].parameters())


def test_a_generation_begins_with_fresh_weights_and_a_fresh_optimizer(real):
    trainer, _, _ = trained(real, 3)
    optimizer, networks = trainer.changer, trainer.networks
    assert all(parameter in optimizer.state for parameter in networks["student"].parameters())
    trainer.new_generation(1)
    assert equal(state(networks["student"]), state(networks.fresh_student(1)))
    assert not equal(state(networks.fresh_student(1)), state(networks.fresh_student(0)))
    assert not any(parameter in optimizer.state for parameter in networks["student"].parameters())
    assert all(
        parameter in optimizer.state
        for name in ("decoder", "classifier")
        for parameter in networks[name].parameters()
    )


def test_gradients_of_zero_do_not_move_what_imitation_leaves_alone(real):
    trainer, _, _ = trained(real, 4)  # in the imitation of generation 1
    before = state(trainer.networks)
    for parameter in trainer.networks.parameters():
        parameter.grad = torch.zeros_like(parameter)  # as several processes leave them
    trainer.changer.step()
    after = state(trainer.networks)
    assert equal(part(before, "decoder"), part(after, "decoder"))
    assert equal(part(before, "classifier"), part(after, "classifier"))
    assert not equal(part(before, "student"), part(after, "student"))


def test_without_iteration_the_student_is_never_replaced(real):
    trainer, _, _ = trained(real, iterated=False)
    assert "teacher" not in trainer.networks
    assert all(
        int(trainer.changer.state[parameter]["step"]) == 6
        for parameter in trainer.networks["student"].parameters()
    )


def test_every_pass_shows_every_image_once(real):
    trainer, _, _ = trained(real, 1, interaction_updates=6, batch_size=7)
    trainer.latents = np.arange(len(real), dtype=np.float32).reshape(-1, 1, 1, 1)
    shown = [trainer.batch(step, trainer.phases[0])[0].flatten().tolist() for step in range(6)]
    first, second = sum(shown[:3], []), sum(shown[3:], [])
    assert sorted(first) == sorted(second) == list(range(len(real)))
    assert shown[0] != shown[3]


@pytest.mark.parametrize("killed_at", [2, 3, 4, 6])
def test_a_killed_fit_ends_with_the_same_weights(real, tmp_path, killed_at, monkeypatch):
    latents = np.random.default_rng(0).standard_normal((len(real), 3, 8, 8)).astype(np.float32)
    settings = CodeSettings(
        **{
            key: value
            for key, value in QUICK.items()
            if key not in ("num_inference_steps", "denoising_steps")
        },
        checkpoint_every=1,
    )
    whole, heard = learn_codes(settings, latents, real.labels, "multi", "cpu", tmp_path / "whole")
    honest = IteratedLearning.loss_at

    def killed(self, step):
        if step == killed_at:
            raise KeyboardInterrupt
        return honest(self, step)

    monkeypatch.setattr(IteratedLearning, "loss_at", killed)
    with pytest.raises(KeyboardInterrupt):
        learn_codes(settings, latents, real.labels, "multi", "cpu", tmp_path / "killed")
    asked = []
    monkeypatch.setattr(
        IteratedLearning, "loss_at", lambda self, step: (asked.append(step), honest(self, step))[1]
    )
    again, log = learn_codes(settings, latents, real.labels, "multi", "cpu", tmp_path / "killed")
    assert asked[0] == killed_at
    assert equal(state(whole), state(again))
    assert log == heard
    assert set(log) == {"0", "1"}


def test_class_weights():
    labels = np.array([[1, 1, 0]] * 3 + [[0, 1, 0]] * 5)
    assert class_weights(labels, "none").tolist() == [1, 1, 1]
    assert np.allclose(class_weights(labels, "code"), [8 / 9, 8 / 24, 8 / 3])
    assert np.allclose(class_weights(labels, "ratio"), [5 / 3, 1 / 8, 7])


# ---- saliency


@pytest.fixture(scope="module")
def looked_at():
    torch.manual_seed(0)
    with torch.no_grad():
        network = small_classifier(5, 4, 16)
    return network.eval(), torch.randn(6, 5, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_projection_is_the_library_s_up_to_the_sign_rule(looked_at):
    draw = torch.Generator().manual_seed(3)
    for shape in ((6, 12, 8, 8), (4, 40, 5, 3), (3, 2, 9, 9)):
        activations = torch.randn(shape, generator=draw)
        ours, plain = principal_projection(activations).numpy(), get_2d_projection(activations.numpy())
        assert np.abs(np.abs(ours) - np.abs(plain)).max() < 1e-4
        assert np.abs(ours - get_2d_projection_with_sign_correction(activations.numpy())).max() < 1e-4
        assert (ours.max((1, 2)) >= -ours.min((1, 2)) - 1e-5).all()


def test_the_sign_of_the_decomposition_changes_nothing(monkeypatch):
    activations = torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    activations[3] = 0
    activations[4, :, :2], activations[4, :, 2:] = 1.0, -1.0  # two values of equal size
    before, honest = principal_projection(activations), torch.linalg.svd

    def turned(values, full_matrices):
        left, strength, right = honest(values, full_matrices=full_matrices)
        return -left, strength, -right

    monkeypatch.setattr(torch.linalg, "svd", turned)
    assert torch.equal(before, principal_projection(activations))
    assert (before[3] == 0).all()
    assert before[4].abs().max() > 1


@pytest.mark.parametrize("layers", [("block3",), ("block1", "block2", "block3")])
@pytest.mark.parametrize(
    "kind, library", [("eigen", EigenCAM), ("gradcam", GradCAM), ("eigengrad", EigenGradCAM)]
)
def test_saliency_is_the_library_s(looked_at, kind, library, layers, monkeypatch):
    network, codes = looked_at
    import pytorch_grad_cam.eigen_cam as eigen_cam
    import pytorch_grad_cam.eigen_grad_cam as eigen_grad_cam

    for part_of in (eigen_cam, eigen_grad_cam):
        monkeypatch.setattr(part_of, "get_2d_projection", get_2d_projection_with_sign_correction)
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    with library(network, [network.get_submodule(name) for name in layers]) as reference:
        theirs = reference(codes, [ClassifierOutputTarget(int(index)) for index in classes])
    network.zero_grad(set_to_none=True)
    ours = saliency(network, codes, layers, kind, classes).numpy()
    assert ours.shape == (6, 8, 8)
    assert np.abs(ours - theirs).max() < 2e-4
    assert ours.min() >= 0
    assert ours.max() <= 1
    other = saliency(network, codes, layers, kind, classes.roll(1)).numpy()
    assert (np.abs(ours - other).max() > 0.1) == (kind != "eigen")  # EigenCAM asks for no class
    alone = np.concatenate(
        [
            saliency(network, codes[index : index + 1], layers, kind, classes[index : index + 1]).numpy()
            for index in range(6)
        ]
    )
    assert np.abs(ours - alone).max() < 1e-4
    assert not any(parameter.grad is not None for parameter in network.parameters())


def test_saliency_is_brought_to_the_size_of_the_code():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 2),
    )
    codes = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with EigenCAM(network, [network[1]]) as reference:
        theirs = reference(codes, None)
    ours = saliency(network, codes, ("1",))
    same = [np.abs(ours[index].numpy() - theirs[index]).max() < 1e-4 for index in range(2)]
    signs = [
        np.sign(
            get_2d_projection(network[:2](codes).detach().numpy())[index].ravel()
            @ get_2d_projection_with_sign_correction(network[:2](codes).detach().numpy())[index].ravel()
        )
        for index in range(2)
    ]
    assert ours.shape == (2, 8, 8)
    assert all(agree or sign < 0 for agree, sign in zip(same, signs))


def test_saliency_names_the_layers_it_could_look_at(looked_at):
    for layers, kind in ((("nowhere",), "eigen"), (("block3",), "lime")):
        with pytest.raises(GenaugError, match="block1"):
            saliency(*looked_at, layers, kind)


# ---- gates


def test_the_gates_are_a_partition_and_the_naive_ones_are_not_random():
    truth = torch.tensor([[True, False], [False, True]])
    cases = [
        (specific, generic, coin)
        for specific in (False, True)
        for generic in (False, True)
        for coin in (False, True)
    ]
    for specific, generic, coin in cases:
        full_s, full_g, full_r = (torch.full((1, 1, 1), value) for value in (specific, generic, coin))
        s, g, r = float(specific), float(generic), float(coin)
        tail, head = (
            s * (1 - g) + (1 - g - s + 2 * g * s) * r,
            g * (1 - s) + (1 - g - s + 2 * g * s) * (1 - r),
        )  # Eqs. 8 to 12, weights of the two parents
        assert {tail, head} == {0.0, 1.0}
        assert bool(from_tail(full_s, full_g, full_r)) == (tail == 1.0)
        assert bool(from_tail(full_s, full_g, full_r, "naive")) == specific
    assert torch.equal(
        from_tail(truth[None], truth[None], torch.ones(1, 2, 2, dtype=torch.bool), "naive"), truth[None]
    )


def test_the_thresholds_are_strict():
    maps = torch.tensor([[[0.4, 0.4 + 1e-6, 0.4 - 1e-6, 0.0, 1.0]]])
    specific, generic = relevance(maps, maps, 0.4, 0.4)
    assert specific.flatten().tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert generic.flatten().tolist() == [False, False, True, True, False]
    assert relevance(maps, maps, 1.0, 0.0)[0].sum() == relevance(maps, maps, 1.0, 0.0)[1].sum() == 0


def test_coins_are_fair_independent_and_follow_from_the_seed():
    coins = toss_coins((16, 16), range(200))
    # not one coin per picture
    assert abs(float(coins.float().mean()) - 0.5) < 0.01
    assert coins.float().mean((1, 2)).std() < 0.06
    assert torch.equal(toss_coins((16, 16), [7]), coins[7:8])
    assert not toss_coins((4, 4), [1], 0.0).any()
    assert toss_coins((4, 4), [1], 1.0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"code": "dense"},
        {"code": "raw"},
        {"gates": "naive"},
        {"cam": "gradcam"},
        {"cam": "eigengrad", "space": "code"},
        {"iterated": False, "space": "latent"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "default",
)
def test_every_fused_site_is_a_site_of_one_parent(fit, real, changes):
    method = fit(**changes)
    rows = method.plan(real, Budget(tail=4), 0)
    fused = fusion_of(method, rows, real)
    tail, head = ((fused.codes == parent).all(1) for parent in (fused.tail_codes, fused.head_codes))
    assert (tail | head).all()
    assert tail[fused.chosen].all()
    assert head[~fused.chosen].all()
    if method.code == "sparse":
        assert torch.allclose(fused.codes.sum(1), torch.ones(len(rows), 8, 8), atol=1e-5)
        assert fused.codes.min() >= 0
    if method.code == "raw":
        assert torch.equal(fused.latents, fuse(fused.tail_latents, fused.head_latents, fused.chosen))
    for row, chosen in zip(rows, fused.chosen):
        assert row.inputs[0][1] == pytest.approx(float(chosen.double().mean()), abs=1e-12)
        assert sum(weight for _, weight in row.inputs) == pytest.approx(1)
        assert row.settings["share"] == row.inputs[0][1]
    assert 0 < float(fused.chosen.float().mean()) < 1


# ---- partners


def test_confusion_leaves_out_images_that_have_the_head():
    chances, labels = np.array([[0.9, 0.1], [0.3, 0.2], [0.5, 0.6]]), np.array([[1, 1], [0, 1], [0, 1]])
    assert confusion_table(chances, labels)[1, 0] == pytest.approx(0.4)
    assert np.isnan(confusion_table(chances, labels)[0, 1])


def test_the_head_class_is_never_a_tail_class_nor_a_label_of_the_picture(fit, real):
    for choice in ("class", "image"):
        method = fit(head_choice=choice)
        learned, checked = method.learned, 0
        for row in method.plan(real, Budget(tail=6), 0):
            position, partner = (learned.positions[name] for name, _ in row.inputs)
            wanted, head = NAMES.index(row.settings["class"]), NAMES.index(row.settings["head"])
            assert method.head_classes() == HEADS
            assert real.labels[position, wanted] == 1
            assert wanted in (2, 3, 4)
            if row.settings["partner_rule"] == "head":
                assert head in HEADS
                assert real.labels[position, head] == 0
                assert real.labels[partner, head] == 1
                assert not real.labels[partner, 2:].any()
                scores = (
                    learned.chances[position]
                    if choice == "image"
                    else confusion_table(learned.chances, real.labels)[wanted]
                )
                free = [index for index in HEADS if not real.labels[position, index]]
                assert head == max(free, key=lambda index: scores[index])
                checked += 1
        assert checked >= 10


def learned_of(labels, chances=None, maps=None):
    labels = np.array(labels, float)
    chances = (
        np.tile(np.linspace(0.1, 0.5, labels.shape[1]), (len(labels), 1)) if chances is None else chances
    )
    return Learned(
        None, tuple(map(str, range(len(labels)))), labels, chances, map_pairs(labels, "eigen"), maps, {}
    )


@pytest.mark.parametrize(
    "labels, index, wanted, expected",
    [
        # the most confused head, no tail label
        ([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]], 0, 2, ("head", 1, [1])),
        # the next head, if that one never comes alone
        ([[0, 0, 1], [0, 1, 1], [1, 0, 0]], 0, 2, ("head", 0, [2])),
        # partners with another tail label, never with the same
        ([[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], 0, 2, ("head with tail", 0, [1])),
        # all heads are in the picture
        ([[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]], 0, 2, ("other class", 3, [1])),
        # nothing but what it has
        ([[1, 1, 1], [1, 0, 0], [1, 0, 1]], 0, 2, ("shared head", 0, [1])),
        # only its own class
        ([[1, 1, 1], [0, 0, 1]], 0, 2, ("any image", 2, [1])),
        # a picture of a head class
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 0, 0, ("head", 1, [1])),
        # a picture without labels
        ([[0, 0, 0], [0, 1, 0], [1, 0, 0]], 0, -1, ("head", 1, [1])),
        # a partner without labels
        ([[0, 0, 1], [0, 0, 0]], 0, 2, ("any image", -1, [1])),
    ],
)
def test_who_may_be_a_partner(labels, index, wanted, expected):
    rule, head, members = choose_head(learned_of(labels), HEADS, index, wanted)
    assert (rule, head, members.tolist()) == expected


def test_one_photograph_has_no_partner():
    with pytest.raises(GenaugError, match="two photographs"):
        choose_head(learned_of([[0, 0, 1]]), HEADS, 0, 2)


@pytest.mark.parametrize("space", ["cam", "code", "latent"])
def test_neighbours_are_the_nearest_in_their_space(fit, real, space, monkeypatch):
    pieces_of(4, monkeypatch)
    method = fit(space=space)
    learned, latents = method.learned, torch.from_numpy(np.array(method.latents_of(real)))
    with torch.no_grad():
        points = (
            {
                "cam": torch.from_numpy(np.array(learned.maps)),
                "code": learned.networks.encode(latents),
                "latent": latents,
            }[space]
            .flatten(1)
            .double()
        )
    pairs = pairings(method, real, Budget(tail=6).slots(real))
    for pair in pairs:
        _, _, members = choose_head(learned, HEADS, pair.position, pair.wanted)
        distance = ((points[members] - points[pair.position]) ** 2).sum(1).numpy()
        assert len(pair.near) == min(3, len(members))
        assert np.allclose(
            np.sort(distance)[: len(pair.near)],
            distance[[members.tolist().index(near) for near in pair.near]],
            rtol=1e-4,
        )
    everyone = pairings(dataclasses_replace(method, neighbours="inf"), real, Budget(tail=1).slots(real))
    assert all(
        set(pair.near) == set(choose_head(learned, HEADS, pair.position, pair.wanted)[2]) for pair in everyone
    )


def dataclasses_replace(method, **changes):
    "The method with other settings of painting and the same learned codes."
    other = dataclasses.replace(method, **changes)
    for name in ("learned", "fitted_on", "folder"):
        setattr(other, name, getattr(method, name))
    return other


def test_distances_do_not_depend_on_the_company(fitted, real):
    wishes = [(2, 2, 1, np.array([1, 3, 5])), (3, 3, 0, np.array([0, 5]))]
    for space in ("cam", "code", "latent"):
        together = list(distances_to(fitted.learned, lambda: fitted.latents_of(real), space, wishes))
        assert all(
            np.array_equal(
                line, next(iter(distances_to(fitted.learned, lambda: fitted.latents_of(real), space, [wish])))
            )
            for line, wish in zip(together, wishes)
        )
    assert nearest_partners(np.array([9, 4, 7]), np.array([1.0, 1.0, 0.5]), 2).tolist() == [7, 4]


def test_a_class_conditional_map_belongs_to_image_and_class(fit, real):
    learned = fit(cam="gradcam").learned
    assert len(learned.maps) == int(real.labels.sum())
    assert len({learned.map_row(5, 0), learned.map_row(5, 1)}) == 2
    assert len(fit().learned.maps) == len(real)
    assert fit().learned.map_row(5, 0) == fit().learned.map_row(5, 1)


# ---- labels and prompts


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_labels_lie_in_zero_and_one_and_are_never_negative(fit, real, rule):
    method = fit(label_rule=rule)
    rows = method.plan(real, Budget(tail=5), 0)
    labels = np.array([row.label for row in rows])
    assert labels.min() >= 0
    assert labels.max() <= 1
    assert np.isfinite(labels).all()
    for row in rows:
        tail, head = (real.labels[method.learned.positions[name]] for name, _ in row.inputs)
        label, share = np.array(row.label), row.settings["share"]
        expected = {
            "union": np.maximum(tail, head),
            "own": tail,
            "tail": np.eye(5)[NAMES.index(row.settings["class"])],
            "coverage": np.maximum(tail, head * (1 - share)),
        }
        if rule in expected:
            assert np.allclose(label, expected[rule])
    assert set(np.unique(labels)) <= {0.0, 1.0} or rule in ("coverage", "classifier")


def test_the_classifier_s_label_is_its_answer_to_the_fused_code(fit, real):
    method = fit(label_rule="classifier")
    rows = method.plan(real, Budget(tail=2), 0)
    with torch.no_grad():
        answers = method.learned.networks["classifier"](fusion_of(method, rows, real).codes).sigmoid().numpy()
    assert np.allclose(answers, [row.label for row in rows], atol=1e-5)
    assert method.plan(real, Budget(tail=1), 0) == rows[:3]


def test_unknown_rules_are_refused():
    with pytest.raises(GenaugError, match="coverage"):
        fused_label(np.zeros(2), np.zeros(2), 0, 0.5, "mean")


def test_the_prompt_names_the_tail_labels_or_all_labels(fit, real):
    for kind in ("tail", "union"):
        method = fit(prompt=kind)
        for row in method.plan(real, Budget(tail=3), 0):
            tail, head = (real.labels[method.learned.positions[name]] for name, _ in row.inputs)
            shown = [name for name in NAMES if f" {name}" in row.prompts[0][0]]
            expected = np.maximum(tail, head) if kind == "union" else tail * [0, 0, 1, 1, 1]
            assert shown == [name for name, has in zip(NAMES, expected) if has]
            assert sum(part for _, part in row.prompts) == 1
    assert all(row.prompts == () for row in fit(denoising_steps=0).plan(real, Budget(tail=1), 0))


# ---- the last steps of the schedule


def test_no_steps_bypass_the_denoiser_exactly(fit, real, backbone, monkeypatch):
    method, levels = fit(denoising_steps=0), counted(backbone, monkeypatch)
    monkeypatch.setattr(type(backbone), "embed", lambda *_: pytest.fail("a prompt was embedded"))
    rows = method.plan(real, Budget(tail=2), 0)
    latents = fusion_of(method, rows, real).latents
    assert touch_up(method, latents, rows) is latents
    method.paint(rows, real)
    assert levels == []
    assert method.evaluations(rows) == 0


@pytest.mark.parametrize("steps, guidance", [(1, 3.5), (2, 3.5), (4, 1.0)])
def test_the_last_steps_of_the_schedule_are_run(fit, real, backbone, steps, guidance, monkeypatch):
    method = fit(denoising_steps=steps, guidance_scale=guidance)
    rows = method.plan(real, Budget(tail=1), 0)
    levels = counted(backbone, monkeypatch)
    method.paint(rows, real)
    assert sorted(set(levels), reverse=True) == backbone.timesteps(4)[-steps:].tolist()
    assert len(levels) == method.evaluations(rows)


def test_noise_is_added_only_when_asked_for(fit, real, backbone):
    plain, noised = fit(), fit(renoise=True)
    rows = plain.plan(real, Budget(tail=2), 0)
    latents, prompts = (
        fusion_of(plain, rows, real).latents,
        backbone.embed([row.prompts[0][0] for row in rows]),
    )
    start = add_noise(
        backbone,
        latents,
        row_noise(latents.shape[1:], [row.seed for row in rows]),
        int(backbone.timesteps(4)[2]),
    )
    for method, begin in ((plain, latents), (noised, start)):
        assert torch.equal(
            touch_up(method, latents, rows),
            denoise(
                backbone, begin, [prompts], settings=SamplingSettings(4, guidance_scale=3.5), start_step=2
            ),
        )
    mixed = [rows[0], dataclasses.replace(rows[1], settings={**rows[1].settings, "denoising_steps": 0})]
    half = touch_up(plain, latents[:2], mixed)
    assert torch.equal(half[1], latents[1])
    assert torch.allclose(half[0], touch_up(plain, latents[:1], rows[:1])[0], atol=1e-6)


# ---- plan and paint


def test_a_smaller_budget_is_a_prefix_and_a_seed_decides(fitted, real):
    small, large, other = (
        fitted.plan(real, Budget(tail=2), 0),
        fitted.plan(real, Budget(tail=5), 0),
        fitted.plan(real, Budget(tail=2), 1),
    )
    copies = fitted.plan(real, Budget(copies=2), 0)
    assert copies[: len(real)] == fitted.plan(real, Budget(copies=1), 0)
    assert all(row in large for row in small)
    assert {row.id for row in other}.isdisjoint(row.id for row in small)
    assert [row.inputs for row in other] != [row.inputs for row in small]
    assert len({row.id for row in large}) == len(large) == 15
    alone = fitted.plan(real, Budget(per_class={"comet": 1}), 0)
    assert alone[0] in large  # a row does not depend on what else is asked


def test_arms_that_differ_after_fusing_fuse_the_same_pairs(fit, real):
    base = fit()
    rows = base.plan(real, Budget(tail=3), 0)
    for changes in (
        {"denoising_steps": 0},
        {"label_rule": "tail"},
        {"prompt": "union"},
        {"renoise": True},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 3},
    ):
        other = fit(**changes).plan(real, Budget(tail=3), 0)
        assert [(row.inputs, row.seed) for row in other] == [(row.inputs, row.seed) for row in rows]
        assert {row.id for row in other}.isdisjoint(row.id for row in rows)
    naive = fit(gates="naive").plan(real, Budget(tail=3), 0)
    assert [(row.inputs[1][0], row.seed) for row in naive] == [(row.inputs[1][0], row.seed) for row in rows]


def test_batches_do_not_matter_and_order_neither(fitted, real):
    rows = fitted.plan(real, Budget(tail=4), 0)
    whole = fitted.paint(rows, real)
    singly = [fitted.paint([row], real)[0] for row in rows]
    reverse = fitted.paint(rows[::-1], real[::-1])[::-1]
    assert (
        max(
            np.abs(left.astype(int) - right).max()
            for other in (singly, reverse)
            for left, right in zip(whole, other)
        )
        <= 2
    )
    assert fitted.paint([], real) == []
    assert all(image.dtype == np.uint8 and image.shape == (8, 8, 3) for image in whole)


def test_plain_copies_take_the_rarest_label(fitted, real):
    rows, counts = fitted.plan(real, Budget(copies=1), 0), real.labels.sum(0)
    assert len(rows) == len(real)
    for row in rows:
        own = np.flatnonzero(real.labels[fitted.learned.positions[row.inputs[0][0]]])
        assert counts[NAMES.index(row.settings["class"])] == counts[own].min()


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_sets_with_one_label_per_image(rule, tmp_path_factory, work):
    images = single()
    method = FeatureSpace(**QUICK, backbone=backbone_of(3), label_rule=rule, heads=1).fit(
        images, work / "single"
    )
    rows = method.plan(images, Budget(copies=1), 0)
    labels = np.array([row.label for row in rows])
    assert np.allclose(labels.sum(1), 1, atol=1e-6)
    assert labels.min() >= 0
    for row, label in zip(rows, labels):
        tail, head = (images.targets[method.learned.positions[name]] for name, _ in row.inputs)
        assert tail != head
        assert row.settings["class"] == NAMES[tail]
        assert row.settings["partner_rule"] == ("head" if tail else "other class")
        if rule in ("union", "own", "tail"):
            assert label.argmax() == tail
            assert label[tail] == pytest.approx(0.5 if rule == "union" else 1, abs=1e-5)
        if rule == "coverage":
            assert label[tail] == pytest.approx(row.settings["share"])
            assert label[head] == pytest.approx(1 - row.settings["share"])
    assert np.allclose(method.learned.chances.sum(1), 1, atol=1e-5)
    assert len(method.paint(rows, images)) == len(rows)


def test_images_without_labels_do_no_harm(backbone):
    images = several()
    labels = images.labels.copy()
    labels[6:9] = 0
    images = LabeledImages(images.pixels, labels, NAMES, images.ids, "multi")
    for cam in ("eigen", "gradcam"):
        method = FeatureSpace(**QUICK, backbone=backbone, cam=cam).fit(images)
        rows = method.plan(images, Budget(copies=1), 0)
        bare = [row for row in rows if row.settings["class"] is None]
        assert len(bare) == 3
        assert len(method.paint(rows, images)) == len(images)


# ---- files


def test_a_second_fit_reads_what_the_first_has_learned(fit, fitted, real, work, monkeypatch):
    monkeypatch.setattr(sparse_codes, "train_loop", lambda *_, **__: pytest.fail("it was learned again"))
    for changes in (
        {},
        {"cam": "eigengrad"},
        {"gates": "naive"},
        {"denoising_steps": 1},
        {"label_rule": "own"},
    ):
        assert equal(state(fit(**changes).learned.networks), state(fitted.learned.networks))
    assert fit().learned.log == fitted.learned.log
    assert len(list((work / "feature_space").glob("latents-*.npy"))) == 1


def test_saving_and_loading_changes_nothing(fit, real, tmp_path):
    for changes in ({}, {"cam": "gradcam", "space": "code"}, {"code": "raw", "label_rule": "classifier"}):
        method, folder = fit(**changes), tmp_path / str(len(changes))
        method.save(folder)
        assert not [path for path in folder.rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]
        copy = dataclasses.replace(method).load(folder)
        rows = method.plan(real, Budget(tail=3), 0)
        assert copy.plan(real, Budget(tail=3), 0) == rows
        assert str(copy.learned.log) == str(
            method.learned.log
        )  # as text: a raw code has no entropy, and NaN is not itself
        assert all(
            np.array_equal(left, right)
            for left, right in zip(method.paint(rows, real), copy.paint(rows, real))
        )
    with pytest.raises(GenaugError, match="other settings"):
        dataclasses.replace(method, code="sparse", vocabulary=9).load(folder)


def test_the_same_seed_learns_the_same_and_global_states_stay(backbone, real):
    def states():
        return (torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()))

    before = states()
    first, same, other = (FeatureSpace(**QUICK, backbone=backbone, seed=seed).fit(real) for seed in (0, 0, 1))
    assert states() == before
    assert equal(state(first.learned.networks), state(same.learned.networks))
    assert not equal(state(first.learned.networks), state(other.learned.networks))
    assert np.array_equal(first.learned.maps, same.learned.maps)


def test_the_set_is_gone_through_in_pieces(backbone, real, tmp_path, monkeypatch):
    pieces_of(5, monkeypatch)
    encoded, coded = [], []
    encode, code = type(backbone).encode, Networks.encode
    monkeypatch.setattr(
        type(backbone),
        "encode",
        lambda self, images, generator=None: (encoded.append(len(images)), encode(self, images))[1],
    )
    monkeypatch.setattr(
        Networks,
        "encode",
        lambda self, latents, who="student": (coded.append(len(latents)), code(self, latents, who))[1],
    )
    method = FeatureSpace(**{**QUICK, "batch_size": 4}, backbone=backbone).fit(real, tmp_path)
    assert max(encoded) == 5
    assert sum(encoded) == len(real)
    assert max(coded) <= 5
    assert isinstance(method.latents_of(real), np.memmap)
    assert isinstance(method.learned.maps, np.memmap)
    assert sum(encoded) == len(real)
    del coded[:]
    method.plan(real, Budget(tail=3), 0)
    assert coded == []  # distances between maps need no codes
    dataclasses_replace(method, space="code").plan(real, Budget(tail=3), 0)
    assert coded
    assert max(coded) <= 5


def test_half_a_file_of_latents_is_not_used(backbone, real, tmp_path, monkeypatch):
    pieces_of(5, monkeypatch)
    before, calls = type(backbone).encode, []

    def dies(self, images, generator=None):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return before(self, images)

    monkeypatch.setattr(type(backbone), "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        encode_set(real, backbone, tmp_path / "latents.npy")
    assert not (tmp_path / "latents.npy").exists()
    assert np.allclose(
        encode_set(real, backbone, tmp_path / "latents.npy"), 2 * real.batch().numpy() - 1, atol=1e-6
    )


# ---- what cannot be done


def test_latents_that_are_not_finite_are_named(backbone, real, tmp_path, monkeypatch):
    before = type(backbone).encode
    monkeypatch.setattr(
        type(backbone),
        "encode",
        lambda self, images, generator=None: (
            before(self, images) * torch.where(torch.arange(len(images)) == 3, np.nan, 1.0).view(-1, 1, 1, 1)
        ),
    )
    with pytest.raises(GenaugError, match="'3.png' are not finite"):
        encode_set(real, backbone, tmp_path / "latents.npy")
    assert not (tmp_path / "latents.npy").exists()


def test_answers_that_are_not_finite_are_refused(backbone, real, monkeypatch):
    before = module.learn_codes

    def broken(*arguments):
        networks, log = before(*arguments)
        networks["classifier"].head.bias.fill_(np.nan)
        return networks, log

    monkeypatch.setattr(module, "learn_codes", broken)
    with pytest.raises(GenaugError, match="not finite"):
        FeatureSpace(**QUICK, backbone=backbone).fit(real)


def test_sets_with_nothing_to_fuse(backbone, real):
    method = FeatureSpace(**QUICK, backbone=backbone)
    one_class = LabeledImages(real.pixels[:3], [0, 0, 0], ["fog"], real.ids[:3])
    no_tail = LabeledImages(real.pixels[:4], [0, 0, 0, 0], ["fog", "rain"], real.ids[:4])
    for images, changes in ((one_class, {}), (no_tail, {}), (real[:1], {}), (real[[0, 1]], {})):
        with pytest.raises(GenaugError, match="head class and one tail class"):
            dataclasses.replace(method, **changes).fit(images)
    with pytest.raises(GenaugError, match="leave no"):
        dataclasses.replace(method, heads=5).fit(real)


def test_what_was_not_fitted_does_not_plan(fitted, real):
    with pytest.raises(GenaugError, match="not been fitted"):
        FeatureSpace(**QUICK).plan(real, Budget(), 0)
    with pytest.raises(GenaugError, match="not been fitted to these"):
        fitted.plan(several(seed=1), Budget(), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "thin"},
        {"imitation_loss": "kl"},
        {"class_weighting": "inverse"},
        {"norm": "layer"},
        {"classifier": "vgg"},
        {"cam": "eigencam"},
        {"gates": "xor"},
        {"head_choice": "nearest"},
        {"space": "pixels"},
        {"label_rule": "mean"},
        {"prompt": "head"},
        {"vocabulary": 0},
        {"generations": 0},
        {"epochs": 1.5},
        {"imitation_updates": 0},
        {"reconstruction_weight": 1.1},
        {"coin": -0.1},
        {"tau_high": 2.0},
        {"temperature": 0.0},
        {"learning_rate": 0.0},
        {"denoising_steps": -1},
        {"neighbours": 0},
        {"neighbours": 1.5},
    ],
)
def test_settings_that_mean_nothing(changes):
    with pytest.raises(GenaugError, match=next(iter(changes))):
        FeatureSpace(**changes)


def test_settings_that_do_not_go_together(backbone, real):
    for changes, words in (
        ({"denoising_steps": 5}, "num_inference_steps=4"),
        ({"levels": 4}, "levels=3"),
        ({"classifier": "vgg11"}, "classifier='small'"),
        ({"cam_layer": "attic"}, "block1"),
        ({"num_inference_steps": 1000}, "num_inference_steps=1000"),
    ):
        with pytest.raises(GenaugError, match=words):
            FeatureSpace(**{**QUICK, "backbone": backbone, **changes}).fit(real)
    assert FeatureSpace(neighbours=float("inf")).neighbours == "inf"


def test_overlapping_thresholds_are_a_finding_and_no_warning():
    from genaug.arm_findings import arm_notes
    from genaug.arms import make_arm

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [note.kind for note in arm_notes(make_arm("feature-space@tau_high=0.3;tau_low=0.5"))] == [
            "overlapping-masks"
        ]
        assert arm_notes(make_arm("feature-space")) == []


def test_the_effort_is_known_before(real):
    method = FeatureSpace(**QUICK)
    assert (
        FeatureSpace().evaluations_per_image,
        FeatureSpace(guidance_scale=1.0).evaluations_per_image,
        FeatureSpace(denoising_steps=0).evaluations_per_image,
    ) == (10, 5, 0)
    assert method.effort(real) == (2 * 3 + 2, 8)
    assert FeatureSpace().effort(real) == (39, len(real))
