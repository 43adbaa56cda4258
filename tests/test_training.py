"""Training: edge cases of the loop, and the claim that a killed run ends bit-equal, shown with a process that
is really killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from genaug.choices import LearnedAdapter
from genaug.concepts.category import CategorySettings
from genaug.concepts.dreambooth import DreamBoothSettings
from genaug.concepts.lora import AdapterSettings
from genaug.concepts.textual_inversion import TokenSettings
from genaug.messages import GenaugError
from genaug.methods.feature_aligned import AlignedWeights
from genaug.training import (
    LoopSettings,
    generator_at,
    learning_rate_factor,
    load_checkpoint,
    make_optimizer,
    named_tensors,
    newest_checkpoint,
    save_checkpoint,
    train_loop,
)

RUN = """
import sys, time, torch
from torch import nn
from genaug.training import LoopSettings, generator_at, train_loop
torch.set_num_threads(1)
folder, pause = sys.argv[1], float(sys.argv[2])
network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
with torch.no_grad():
    for index, value in enumerate(network.parameters()):
        value.copy_(torch.randn(value.shape, generator=generator_at(9, index)))
class Average:
    def __init__(self, parameters):
        self.shadow_params, self.optimization_step = [value.detach().clone() for value in parameters], 0
    def step(self, parameters):
        self.optimization_step += 1
        with torch.no_grad():
            for mean, value in zip(self.shadow_params, parameters): mean.lerp_(value, 0.1)
ema = Average(network.parameters())
def loss_at(step):
    inputs = torch.randn(16, 4, generator=generator_at(1, step))
    return ((network(inputs)[:, 0] - inputs.prod(1).sin()) ** 2).mean()
def report(step, loss):
    print(step, flush=True)
    time.sleep(pause)
settings = LoopSettings(
    60, {"network": 1e-2}, seed=3, schedule="cosine", warmup=5, weight_decay=0.01, checkpoint_every=7
)
losses = train_loop(loss_at, {"network": network}, settings, folder, ema=ema, callback=report)
torch.save([losses, network.state_dict(), ema.shadow_params, ema.optimization_step], folder + "/result.pt")
"""


def start(folder, pause):
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def flat(thing):
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, dict):
        return [tensor for value in thing.values() for tensor in flat(value)]
    if isinstance(thing, list):
        return [tensor for value in thing for tensor in flat(value)]
    return [torch.tensor(thing, dtype=torch.float64)]


def test_killed_run_ends_bit_equal(tmp_path):
    (tmp_path / "whole").mkdir(), (tmp_path / "killed").mkdir()
    whole, killed = start(tmp_path / "whole", 0), start(tmp_path / "killed", 0.02)
    for line in killed.stdout:
        if int(line) >= 30:
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.pt").exists()
    assert newest_checkpoint(tmp_path / "killed") is not None
    again = start(tmp_path / "killed", 0)
    output, problems = again.communicate(timeout=300)
    assert again.returncode == 0, problems
    assert int(output.split()[0]) >= 28, "it must continue, not begin again"
    whole.communicate(timeout=300)
    first, second = (
        torch.load(tmp_path / name / "result.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert len(flat(first)) == len(flat(second)) > 60
    assert all(torch.equal(left, right) for left, right in zip(flat(first), flat(second)))


def quadratic():
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    return weight, lambda step: (weight**2).sum()


def test_finds_the_minimum_and_leaves_global_randomness_alone():
    weight, loss_at = quadratic()
    before = torch.random.get_rng_state()
    losses = train_loop(loss_at, {"weight": weight}, LoopSettings(200, 0.1, schedule="linear"))
    assert weight.abs().max() < 0.02
    assert len(losses) == 200
    assert torch.equal(before, torch.random.get_rng_state())


def test_not_a_number_is_a_sentence():
    weight, _ = quadratic()
    with pytest.raises(GenaugError, match="nan at step 2.*learning rate"):
        train_loop(
            lambda step: weight.sum() * (float("nan") if step == 2 else 1.0),
            {"weight": weight},
            LoopSettings(5, 0.1),
        )


def test_other_settings_are_refused_and_longer_runs_allowed(tmp_path):
    weight, loss_at = quadratic()
    train_loop(loss_at, {"weight": weight}, LoopSettings(4, 0.1), tmp_path)
    assert len(train_loop(loss_at, {"weight": weight}, LoopSettings(6, 0.1), tmp_path)) == 6
    with pytest.raises(GenaugError, match="other settings.*lr"):
        train_loop(loss_at, {"weight": weight}, LoopSettings(8, 0.2), tmp_path)
    with pytest.raises(GenaugError, match="other parameters"):
        train_loop(loss_at, {"weight": nn.Parameter(torch.zeros(3))}, LoopSettings(8, 0.1), tmp_path)


def test_finished_run_is_not_continued(tmp_path):
    weight, loss_at = quadratic()
    losses = train_loop(loss_at, {"weight": weight}, LoopSettings(4, 0.1), tmp_path)
    before = weight.detach().clone()
    fresh, loss_at = quadratic()
    assert train_loop(loss_at, {"weight": fresh}, LoopSettings(4, 0.1), tmp_path) == losses
    assert torch.equal(fresh, before)


def test_partial_checkpoint_is_ignored(tmp_path):
    weight, _ = quadratic()
    optimizer = make_optimizer({"weight": weight}, 0.1)
    save_checkpoint(tmp_path, 5, {"weight": weight}, optimizer, [1.0] * 5)
    (tmp_path / "step-00000009.partial").mkdir()
    assert newest_checkpoint(tmp_path).name == "step-00000005"
    save_checkpoint(tmp_path, 9, {"weight": weight}, optimizer, [1.0] * 9)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000009"]
    assert load_checkpoint(tmp_path, {"weight": weight}, optimizer) == (9, [1.0] * 9)


def test_learning_rates_belong_to_their_parts():
    first, second = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))
    trained, _ = named_tensors({"net": first, "token": second})
    rates = {
        id(member): group["lr"]
        for group in make_optimizer(trained, {"net": 0.1, "token": 0.2}).param_groups
        for member in group["params"]
    }
    assert rates[id(first.weight)] == rates[id(first.bias)] == 0.1
    assert rates[id(second)] == 0.2
    with pytest.raises(GenaugError, match="token"):
        make_optimizer(trained, {"net": 0.1})


@pytest.mark.parametrize("wrong", [{"schedule": "sine"}, {"optimizer": "lion"}])
def test_unknown_names_are_errors(wrong):
    weight, loss_at = quadratic()
    with pytest.raises(GenaugError, match="use |one of constant"):
        train_loop(loss_at, {"weight": weight}, LoopSettings(2, 0.1, **wrong))


def test_frozen_parameters_are_an_error():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(GenaugError, match="nothing to train"):
        train_loop(lambda step: torch.zeros(()), {"frozen": frozen}, LoopSettings(2, 0.1))


def test_schedule_limits():
    for schedule in ("constant", "linear", "cosine", "trapezoid"):
        factors = [learning_rate_factor(step, 50, schedule, warmup=10) for step in range(50)]
        assert factors[:10] == sorted(factors[:10])
        assert max(factors) <= 1
        assert min(factors) > 0
    assert not torch.equal(
        torch.rand(4, generator=generator_at(0, 1)), torch.rand(4, generator=generator_at(0, 1, "noise"))
    )


def test_the_bar_shows_the_loss(capsys):
    weight = torch.nn.Parameter(torch.ones(1))

    def slow_loss(step):
        time.sleep(0.3)  # bars are redrawn twice a second
        return (weight**2).sum()

    losses = train_loop(slow_loss, {"weight": weight}, LoopSettings(5, 0.1), progress=True)
    shown = capsys.readouterr().err
    assert any(f"loss {sum(losses[:count]) / count:.4f}" in shown for count in range(1, 6))


def test_settings_are_recorded_under_the_names_that_old_records_have():
    words, adapter = TokenSettings(steps=5).record(), AdapterSettings(alpha=2.0).record()
    assert words["method"] == "textual inversion"
    assert words["lr"] == 2e-3
    assert not {"learning_rate", "warmup", "grad_clip", "checkpoint_every"} & set(words)
    assert "text_encoder" not in adapter
    assert AdapterSettings(text_encoder=True).record()["text_encoder"] is True
    assert AdapterSettings().record(whole=True)["warmup"] == 0
    assert CategorySettings(token_learning_rate=1e-3).record()["token_lr"] == 1e-3


def test_a_naming_records_what_its_learner_is_told_and_no_more():
    naming = LearnedAdapter(scope="image", fuse=2)
    heard = AdapterSettings(
        steps=400, learning_rate=1e-4, batch_size=8, rank=16, text_encoder=True, warmup=100, schedule="cosine"
    )
    assert naming.record() == heard.record()


def test_settings_of_one_learner_become_those_of_another():
    aligned = AlignedWeights(steps=7, noise_weight=0.5, seed=3)
    dream = aligned.converted(DreamBoothSettings, prior_count=4)
    assert (dream.steps, dream.noise_weight, dream.seed, dream.prior_count) == (7, 0.5, 3, 4)
    assert dream.record() == aligned.record()


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": -1.0}, {"batch_size": 0}, {"schedule": "sine"}, {"steps": 2.5}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused_where_they_are_made(wrong):
    with pytest.raises(GenaugError, match=f"cannot have {next(iter(wrong))}="):
        TokenSettings(**wrong)
