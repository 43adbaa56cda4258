"""Several processes: the team is known before anything is learned, one learns and the others wait, and two
commands never share a result folder."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

import genaug
from genaug.choices import ClassName
from genaug.locks import Team, hold_output
from genaug.messages import GenaugError
from genaug.methods.diff_ii import diff_ii
from genaug.plans import Budget
from genaug.synthesis import synthesize
from genaug.synthetic_set import open_synthetic
from genaug.training import LoopSettings, alone_in, join_team, train_loop

REPOSITORY = Path(genaug.__file__).parents[1]


def forked(work):
    "Run `work` in a child process; its exit code is 0 when it returned."
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def ended_well(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def elsewhere(call):
    "What `call` raises in another thread, which for a lock is another process."
    said = []

    def attempt():
        try:
            call()
        except GenaugError as error:
            said.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start(), thread.join()
    return said[0] if said else None


def enter(*arguments, **options):
    return lambda: hold_output(*arguments, **options).__enter__()


def test_training_asks_nobody_who_else_there_is(monkeypatch):
    from accelerate.state import PartialState

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    before = dict(PartialState._shared_state)
    PartialState._shared_state.clear()
    weight = torch.nn.Parameter(torch.ones(1))
    try:
        train_loop(lambda step: (weight**2).sum(), {"weight": weight}, LoopSettings(2, 0.1))
        assert not PartialState._shared_state
    finally:
        PartialState._shared_state.update(before)


def test_without_torchrun_nobody_waits():
    assert join_team() == (0, 1)


def test_a_world_that_cannot_be_found_is_a_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert "unset WORLD_SIZE" in refusal(join_team)


@pytest.mark.parametrize("count", ["x", "0", "-3", ""])
def test_a_world_of_nonsense_is_a_sentence(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert "WORLD_SIZE" in refusal(join_team)


def test_of_two_processes_one_trains_and_both_end_with_the_same_weights(tmp_path):
    def learn():
        weight = torch.nn.Parameter(torch.ones(3))

        def loss_at(step):
            (tmp_path / f"update-{step}-{os.getpid()}").touch()
            return (weight**2).sum()

        train_loop(
            loss_at, {"weight": weight}, LoopSettings(30, 0.1, checkpoint_every=3), tmp_path / "checkpoint"
        )
        torch.save(weight.detach(), tmp_path / f"weights-{os.getpid()}.pt")

    children = [forked(learn) for _ in range(3)]
    assert all(ended_well(child) for child in children)
    assert len(list(tmp_path.glob("update-*"))) == 30
    first, *others = [torch.load(path, weights_only=True) for path in tmp_path.glob("weights-*.pt")]
    assert all(torch.equal(first, other) for other in others)


def test_who_learns_and_dies_makes_room_for_the_next(tmp_path):
    def die():
        with alone_in(tmp_path / "concept"):
            os._exit(0)

    assert ended_well(forked(die))
    with alone_in(tmp_path / "concept"):
        assert True


def test_a_second_command_is_refused_before_it_learns(tmp_path):
    with hold_output(tmp_path / "out"):
        assert f"number {os.getpid()}" in elsewhere(enter(tmp_path / "out"))


def test_the_same_folder_by_another_path_is_the_same_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out").mkdir()
    with hold_output(tmp_path / "out"):
        assert "is painting" in elsewhere(enter(tmp_path / "link"))


def test_shards_go_together(tmp_path):
    with hold_output(tmp_path / "out", (0, 2)):
        assert elsewhere(enter(tmp_path / "out", (1, 2))) is None


@pytest.mark.parametrize("ours, theirs", [(None, (0, 2)), ((0, 2), None), ((0, 2), (0, 2)), ((0, 2), (0, 3))])
def test_what_does_not_go_together_is_refused(tmp_path, ours, theirs):
    with hold_output(tmp_path / "out", ours):
        assert "is painting" in elsewhere(enter(tmp_path / "out", theirs))


def test_painting_inside_a_held_folder_holds_it_once_more(tmp_path):
    real = toy_photographs()
    with hold_output(tmp_path / "out"):
        method = diff_ii(naming=ClassName(), backbone=toy_backbone(), num_inference_steps=4).fit(
            real, tmp_path / "out" / ".genaug" / "work"
        )
        made = synthesize(method, real, tmp_path / "out", Budget(copies=1), 0, progress=False)
        assert "is painting" in elsewhere(enter(tmp_path / "out"))
    assert len(made) == 6


def test_a_folder_in_which_nothing_was_begun_disappears(tmp_path):
    with pytest.raises(RuntimeError), hold_output(tmp_path / "deep" / "out"):
        raise RuntimeError("refused")
    assert not (tmp_path / "deep" / "out").exists()


def test_a_folder_with_work_in_it_stays(tmp_path):
    with pytest.raises(RuntimeError), hold_output(tmp_path / "out"):
        (tmp_path / "out" / "concept.json").write_text("{}")
        raise RuntimeError("stopped")
    assert (tmp_path / "out" / "concept.json").exists()


@pytest.mark.parametrize("note", ["", "[]", "{", '{"pid": "x"}', "null", "[" * 9999, '{"pid": 1e999}'])
def test_a_damaged_note_beside_the_lock_is_not_in_the_way(tmp_path, note):
    with hold_output(tmp_path / "out"):
        (tmp_path / "out" / ".genaug" / "lock.json").write_text(note)
        assert "number unknown" in elsewhere(enter(tmp_path / "out"))


def test_an_empty_team_paints_nothing_and_waits_for_nobody():
    Team().wait()


TORCHRUN = "import sys; from genaug.cli import run; sys.exit(run(sys.argv[1:]))"


def team(folder, count, *arguments):
    (folder / "command.py").write_text(TORCHRUN)
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    launcher = (
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        if count > 1
        else [sys.executable]
    )
    return subprocess.run(
        [*launcher, "command.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [
        "da-fusion@naming.steps=10",
        "diff-ii@naming.steps=10;num_inference_steps=5",
        "dcgan@steps=5;size=16;width=8",
        "datadream@naming.steps=2",
    ],
)
def test_torchrun_learns_once_and_equals_one_process(tmp_path, method):
    arguments = ["augment", "digits", "out", "--shots", "1", "--copies", "1", "--method", method, "--quiet"]
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        done = team(tmp_path / str(count), count, *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
    alone, together = (open_synthetic(tmp_path / str(count) / "out") for count in (1, 2))
    assert alone.ids == together.ids
    assert np.array_equal(alone.labels, together.labels)
    assert max(np.abs(alone.image(name).astype(int) - together.image(name)).max() for name in alone.ids) <= 2
