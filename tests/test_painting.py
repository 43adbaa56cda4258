"""genaug.painting: whatever happens on the way, the finished folder is the same, or one sentence says why
there is none."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from genaug import core, files, locks, painting, plan_file, result_folder, synthesis, synthetic_set
from genaug.contracts import Augmenter, Decision
from genaug.core import LabeledImages
from genaug.data.folders import open_folder
from genaug.data.splits import Manifest
from genaug.files import write_atomic
from genaug.identity import Identity, content_hash, seed_from
from genaug.locks import Team, hold_lock
from genaug.messages import GenaugError
from genaug.pictures import encode_png
from genaug.plan_file import Plan, depths, make_plan, plan_difference, read_plan
from genaug.plans import Budget, PlanRow
from genaug.result_folder import Canvas
from genaug.synthesis import synthesize, take_over
from genaug.synthetic_set import open_synthetic

WRITERS = (locks, painting, result_folder, synthesis, synthetic_set)  # modules that write into a folder
TOY = '''
"""A method and a data set for trials in other processes."""
import time
from dataclasses import dataclass

import numpy as np
import torch

from genaug.contracts import Augmenter
from genaug.core import LabeledImages
from genaug.identity import Identity, content_hash, seed_from
from genaug.plans import PlanRow


@dataclass(kw_only=True)
class Grain(Augmenter):
    name: str = "grain"
    strength: float = 0.3
    delay: float = 0.0
    identity = Identity("Grain", never=("delay",))

    def plan(self, real, budget, seed):
        rows = []
        for slot in budget.slots(real):
            name = content_hash(seed, self.name, self.strength, slot.anchor, slot.copy, slot.class_index)[:16]
            label = tuple(float(value) for value in real.labels[real.index([slot.anchor])[0]])
            rows.append(PlanRow(
                name, self.name, label, ((slot.anchor, 1.0),), (("a photo", 1.0),), seed_from(name),
                {"strength": self.strength},
            ))
        return rows

    def paint(self, rows, real):
        images = []
        for row in rows:
            time.sleep(self.delay)
            photograph = real.batch([row.inputs[0][0]])[0]
            noise = torch.rand(photograph.shape, generator=torch.Generator().manual_seed(row.seed))
            mixed = (1 - self.strength) * photograph + self.strength * noise
            images.append((mixed.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        return images


def toy_images(count=10, side=10):
    arrays = list(np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8))
    names = [f"{number}.png" for number in range(count)]
    return LabeledImages(arrays, np.arange(count) % 2, ("kiwi", "F/A-18 <b>"), names)


def toy_method():
    from genaug.diffusion import ToyBackbone
    from genaug.methods.diff_ii import diff_ii
    from genaug.choices import ClassName
    prototypes = torch.linspace(-0.5, 0.5, 2).reshape(2, 1, 1, 1).expand(2, 3, 8, 8)
    toy = ToyBackbone(prototypes, 0.3, ["kiwi", "F/A-18 <b>"])
    places = ("on grass", "on sand")
    return diff_ii(
        naming=ClassName(), backbone=toy, num_inference_steps=8, guidance_scale=2.0, suffixes=places
    )
'''
KILLER = """
import json, os, random, signal, sys, time
from genaug.plans import Budget
from genaug.synthesis import synthesize
from toy import Grain, toy_images

folder, kills = sys.argv[1], []
random.seed(int(sys.argv[2]))
real = toy_images()
count = lambda: sum(name.endswith(".png") for _, _, names in os.walk(folder) for name in names)
running = lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
for goal in (1, 12, 24, 36, 60, 60, None):        # kill once so many images lie there; None: let it end
    child = os.fork()
    if child == 0:
        slow = Grain(delay=0.02).fit(real)
        synthesize(slow, real, folder, Budget(copies=6), 0, batch_size=8, progress=False)
        os._exit(0)
    while goal is not None and running() and count() < goal:
        time.sleep(0.002)
    deadline = time.time() + random.uniform(0, 0.1)
    while running() and (goal is None or time.time() < deadline):
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    finished = os.path.exists(os.path.join(folder, "train", "metadata.jsonl"))
    kills.append([status == signal.SIGKILL, finished, count()])
print(json.dumps(kills))
"""
TEAM = """
import sys
from genaug.plans import Budget
from genaug.synthesis import synthesize
from toy import Grain, toy_images, toy_method

painted, paint = [], Grain.paint

def counting(self, rows, real):
    painted.extend(rows)
    return paint(self, rows, real)

Grain.paint, real = counting, toy_images()
synthesize(toy_method().fit(real), real, sys.argv[2], Budget(copies=3), 0, batch_size=4, progress=False)
made = synthesize(Grain().fit(real), real, sys.argv[1], Budget(copies=5), 0, batch_size=4, progress=False)
import torch.distributed
rank, backend = torch.distributed.get_rank(), torch.distributed.get_backend()
sys.stdout.write(f"rank {rank} {backend} painted {len(painted)} of {len(made)}\\n")
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    "A folder with the toy module, importable here and in other processes."
    folder = tmp_path_factory.mktemp("workshop")
    for name, text in (("toy", TOY), ("killer", KILLER), ("team", TEAM)):
        (folder / f"{name}.py").write_text(text)
    specification = importlib.util.spec_from_file_location("toy", folder / "toy.py")
    module = sys.modules["toy"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield folder, module
    del sys.modules["toy"]


@pytest.fixture
def toy(workshop):
    return workshop[1]


@pytest.fixture
def real(toy):
    return toy.toy_images()


def paint(augmenter, real, folder, copies=5, seed=0, **options):
    return synthesize(
        augmenter.fit(real), real, folder, Budget(copies=copies), seed, progress=False, **options
    )


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".genaug" not in path.parts
    }


def close(left, right):
    "The same rows, labels and provenance, and no pixel more than 2 of 255 apart."
    assert left.ids == right.ids
    assert np.array_equal(left.labels, right.labels)
    assert left.info == right.info
    assert len(left) > 0
    differences = [np.abs(left.image(name).astype(int) - right.image(name)).max() for name in left.ids]
    assert max(differences) <= 2
    assert len(set(left.sha256)) == len(left)


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(workshop, *command, timeout=300):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(workshop[0]), str(Path(painting.__file__).parents[1])]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        cwd=workshop[0],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---- the finished set


def test_what_lies_on_disk(toy, real, tmp_path):
    made = paint(toy.Grain(), real, tmp_path / "out")
    plan = read_plan(tmp_path / "out")
    assert len(made) == 50
    assert made.ids == tuple(row.id for row in plan.rows)
    assert made.counts() == {"kiwi": 25, "F/A-18 <b>": 25}
    assert set(made.origins) == {"grain"}
    assert plan.header["sources"] == dict(zip(real.ids, real.sha256))
    assert plan.header["versions"]["torch"] == torch.__version__.split("+")[0]
    info = made.info[7]
    assert info["sources"] == [list(pair) for pair in plan.rows[7].inputs]
    assert info["seed"] == plan.rows[7].seed
    assert info["weight"] == 1.0
    assert info["source_sha256"] == [real.sha256[real.index([info["sources"][0][0]])[0]]]
    assert info["prompts"] == [["a photo", 1.0]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".genaug",
        "class_map.txt",
        "findings.json",
        "plan.jsonl",
        "train",
    ]
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == [
        "F%2FA-18 %3Cb%3E",
        "classes.json",
        "kiwi",
        "metadata.jsonl",
    ]
    painted = toy.Grain().paint(plan.rows, real)
    assert all(np.array_equal(made.image(position), painted[position]) for position in range(50))
    assert len(real + made) == 60
    assert not list((tmp_path / "out").rglob("*.part"))


def test_other_programs_read_the_finished_set(toy, real, tmp_path):
    import pandas as pd
    from torchvision.datasets import ImageFolder

    made = paint(toy.Grain(), real, tmp_path / "out")
    tree = ImageFolder(str(tmp_path / "out" / "train"))
    assert len(tree) == 50
    assert len(tree.classes) == 2
    table = pd.read_json(tmp_path / "out" / "train" / "metadata.jsonl", lines=True)
    assert table["id"].tolist() == list(made.ids)
    assert table["seed"].tolist() == [info["seed"] for info in made.info]
    assert set(table["method"]) == {"grain"}
    opened = open_folder(tmp_path / "out")["train"]
    assert len(opened) == 50
    assert set(opened.sha256) == set(made.sha256)


def test_hugging_face_datasets_reads_the_finished_set(toy, real, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = paint(toy.Grain(), real, tmp_path / "out", copies=1)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == 10
    for record in loaded:
        position = made.index([record["id"]])[0]
        assert np.array_equal(np.asarray(record["image"]), made.image(position))
        assert record["label"] == made.targets[position]
        assert record["seed"] == made.info[position]["seed"]
        assert record["sources"] == [made.info[position]["sources"][0][0]]


def test_batch_size_changes_nothing(toy, real, tmp_path):
    for size in (1, 7, 32):
        paint(toy.Grain(), real, tmp_path / str(size), batch_size=size)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "7") == files_of(tmp_path / "32")
    assert "at least 1" in refusal(paint, toy.Grain(), real, tmp_path / "0", batch_size=0)


def test_a_finished_folder_is_returned_without_painting(toy, real, tmp_path, monkeypatch):
    paint(toy.Grain(), real, tmp_path / "out")
    before = files_of(tmp_path / "out")
    monkeypatch.setattr(toy.Grain, "paint", lambda self, rows, real: pytest.fail("painted again"))
    assert len(paint(toy.Grain(), real, tmp_path / "out")) == 50
    assert files_of(tmp_path / "out") == before


def test_multi_label_images_lie_flat(toy, tmp_path):
    base = toy.toy_images()
    labels = np.random.default_rng(0).integers(0, 2, (10, 2)).astype(np.float32)
    real = LabeledImages(base.pixels, labels, base.class_names, base.ids, task="multi")
    made = paint(toy.Grain(), real, tmp_path / "out", copies=2)
    assert made.task == "multi"
    assert len(list((tmp_path / "out" / "train").glob("*.png"))) == 20
    assert np.array_equal(
        made.labels, np.array([row.label for row in read_plan(tmp_path / "out").rows], np.float32)
    )


def test_a_smaller_budget_gives_a_prefix(toy, real, tmp_path):
    small, large = (paint(toy.Grain(), real, tmp_path / str(copies), copies=copies) for copies in (2, 4))
    assert large.ids[:20] == small.ids
    assert large.sha256[:20] == small.sha256


# ---- killed, broken off, full disk


def test_killed_by_signal_at_random_moments_and_resumed(workshop, toy, real, tmp_path):
    kills = json.loads(run(workshop, "killer.py", str(tmp_path / "killed"), "5"))
    assert sum(signalled and not finished and 0 < count < 60 for signalled, finished, count in kills) >= 3, (
        kills
    )
    paint(toy.Grain(), real, tmp_path / "whole", copies=6)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert len(open_synthetic(tmp_path / "killed")) == 60


@pytest.mark.parametrize("location", ["", "train"])
def test_what_a_broken_off_write_left_is_removed(toy, real, tmp_path, location):
    out = tmp_path / "out"
    paint(toy.Grain(), real, out, copies=2)
    (out / "train" / "metadata.jsonl").unlink()
    (out / location / ".abc.part").write_bytes(b"half")
    paint(toy.Grain(), real, out, copies=2)
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("moment", range(0, 27, 2))
def test_broken_off_before_any_write_and_resumed(toy, real, tmp_path, monkeypatch, moment):
    "Every write in turn is the last one: the plan, images, notes, class names, metadata."
    paint(toy.Grain(), real, tmp_path / "whole", copies=2)
    writes = []

    def counted(path, data):
        writes.append(path)
        if len(writes) > moment:
            raise KeyboardInterrupt
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        for module in (*WRITERS, core, files):
            patch.setattr(module, "write_atomic", counted)
        try:
            paint(toy.Grain(), real, tmp_path / "out", copies=2)
        except KeyboardInterrupt:
            assert not (tmp_path / "out" / "train" / "metadata.jsonl").exists()
    paint(toy.Grain(), real, tmp_path / "out", copies=2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_full_disk_is_one_sentence_and_resumes(toy, real, tmp_path, monkeypatch):
    written = []

    def full(path, data):
        written.append(path)
        if len(written) > 15:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        for module in WRITERS:
            patch.setattr(module, "write_atomic", full)
        message = refusal(paint, toy.Grain(), real, tmp_path / "out")
    assert "disk is full" in message
    assert "finished work is kept" in message
    assert "not finished" in refusal(open_synthetic, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) > 5
    assert len(paint(toy.Grain(), real, tmp_path / "out")) == 50


def test_half_written_pictures_and_leftovers_are_replaced(toy, real, tmp_path):
    paint(toy.Grain(), real, tmp_path / "whole")
    paint(toy.Grain(), real, tmp_path / "out")
    pictures = sorted((tmp_path / "out" / "train" / "kiwi").glob("*.png"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:-9])
    pictures[1].write_bytes(b"")
    pictures[2].unlink()
    (pictures[0].parent / ".abc.part").write_bytes(b"half")
    assert "is missing" in refusal(open_synthetic, tmp_path / "out")
    paint(toy.Grain(), real, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_strange_files_in_the_set_are_named(toy, real, tmp_path):
    paint(toy.Grain(), real, tmp_path / "out")
    stranger = tmp_path / "out" / "train" / "kiwi" / "holiday.png"
    stranger.write_bytes(encode_png(real.image(0)))
    assert "holiday.png" in refusal(open_synthetic, tmp_path / "out")
    assert "holiday.png" in refusal(paint, toy.Grain(), real, tmp_path / "out")
    stranger.unlink()
    assert len(paint(toy.Grain(), real, tmp_path / "out")) == 50


# ---- refused


def test_resuming_refuses_other_work_and_says_what_differs(toy, real, tmp_path):
    paint(toy.Grain(), real, tmp_path / "out")
    before = files_of(tmp_path / "out")
    changed = LabeledImages([255 - real.image(0), *real.pixels[1:]], real.labels, real.class_names, real.ids)
    renamed = LabeledImages(real.pixels, real.labels, ("kiwi", "plum"), real.ids)
    for words, arguments in (
        ("the seed", (toy.Grain(), real, 5, 1)),
        ("the settings of the method", (toy.Grain(strength=0.4), real, 5, 0)),
        ("the budget", (toy.Grain(), real, 6, 0)),
        ("the training images", (toy.Grain(), changed, 5, 0)),
        ("the training images", (toy.Grain(), real[:9], 5, 0)),
        ("the classes", (toy.Grain(), renamed, 5, 0)),
    ):
        augmenter, images, copies, seed = arguments
        assert f": {words} changed" in refusal(paint, augmenter, images, tmp_path / "out", copies, seed)
    assert files_of(tmp_path / "out") == before


def test_other_library_versions_are_recorded_but_do_not_stop_a_run(toy, real, tmp_path, monkeypatch):
    paint(toy.Grain(), real, tmp_path / "out")
    monkeypatch.setattr(plan_file, "_versions", lambda: {"torch": "9.9"})
    assert len(paint(toy.Grain(), real, tmp_path / "out")) == 50
    assert read_plan(tmp_path / "out").header["versions"]["torch"] != "9.9"


def test_folders_that_are_not_ours_are_refused(toy, real, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("...")
    assert "not empty" in refusal(paint, toy.Grain(), real, tmp_path / "thesis")
    assert len(list((tmp_path / "thesis").glob("*.txt"))) == 1
    assert "is a file" in refusal(paint, toy.Grain(), real, tmp_path / "thesis" / "chapter1.txt")
    real.save(tmp_path / "photos")
    stored = open_folder(tmp_path / "photos")["all"]
    for folder in (
        tmp_path / "photos",
        tmp_path / "photos" / "synthetic",
        tmp_path / "photos" / "kiwi" / "x",
    ):
        assert "inside one another" in refusal(paint, toy.Grain(), stored, folder)
    assert "inside one another" in refusal(paint, toy.Grain(), stored, tmp_path)
    assert len(paint(toy.Grain(), stored, tmp_path / "out")) == 50
    deep = LabeledImages(
        real.pixels, real.labels, real.class_names, [f"train/a/b/{name}" for name in real.ids]
    )
    deep.save(tmp_path / "deep")
    assert len(paint(toy.Grain(), LabeledImages.open(tmp_path / "deep"), tmp_path / "out2")) == 50


def test_damaged_plans_and_missing_sets_are_refused(toy, real, tmp_path):
    assert "no plan" in refusal(read_plan, tmp_path)
    assert "no plan" in refusal(open_synthetic, tmp_path / "none")
    paint(toy.Grain(), real, tmp_path / "out")
    text = (tmp_path / "out" / "plan.jsonl").read_text()
    for damage in (text[:-20], "\n".join(text.splitlines()[:-1]), "", "{}\n", "[1]\n"):
        (tmp_path / "out" / "plan.jsonl").write_text(damage)
        assert "damaged" in refusal(read_plan, tmp_path / "out")


def test_only_training_images_of_the_manifest_are_painted_from(toy, real, tmp_path):
    manifest = Manifest.build({"all": real}, seed=0, shots=2)
    parts = manifest.sets({"all": real})
    assert len(paint(toy.Grain(), parts["train"], tmp_path / "out", manifest=manifest)) == 20
    assert "test image" in refusal(paint, toy.Grain(), real, tmp_path / "leak", manifest=manifest)
    assert not (tmp_path / "leak").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"inputs": (("stranger", 1.0),)}, "neither a training image"),
        ({"label": (0.5, 0.4)}, "impossible label"),
        ({"label": (1.0,)}, "impossible label"),
        ({"label": (2.0, -1.0)}, "impossible label"),
        ({"prompts": (("a", 0.5),)}, "prompt fractions"),
        ({"round": 20}, "round outside"),
        ({"round": 1}, "planned 49"),
    ],
)
def test_contradictory_plans_are_refused(toy, real, tmp_path, monkeypatch, change, words):
    plan = toy.Grain.plan
    monkeypatch.setattr(
        toy.Grain,
        "plan",
        lambda self, *arguments: [
            PlanRow(**{**(first := plan(self, *arguments))[0].__dict__, **change}),
            *first[1:],
        ],
    )
    assert words in refusal(paint, toy.Grain(), real, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_rows_with_one_id_and_an_empty_budget(toy, real, tmp_path, monkeypatch):
    assert "no image at all" in refusal(
        synthesize, toy.Grain().fit(real), real, tmp_path / "out", Budget(fill=True), 0
    )
    plan = toy.Grain.plan
    monkeypatch.setattr(
        toy.Grain, "plan", lambda self, *arguments: plan(self, *arguments)[:-1] + plan(self, *arguments)[:1]
    )
    assert "same id" in refusal(paint, toy.Grain(), real, tmp_path / "out")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: images[:-1],
        lambda images: [image.astype(float) for image in images],
        lambda images: [image[:, :, 0] for image in images],
        lambda images: [image[:, :, :2] for image in images],
        lambda images: [image[:0] for image in images],
    ],
)
def test_methods_that_return_no_pictures_are_programming_errors(toy, real, tmp_path, monkeypatch, wrong):
    paint_well = toy.Grain.paint
    monkeypatch.setattr(toy.Grain, "paint", lambda self, rows, real: wrong(paint_well(self, rows, real)))
    with pytest.raises(TypeError, match="one uint8 array"):
        paint(toy.Grain(), real, tmp_path / "out")
    assert not (tmp_path / "out" / "train" / "metadata.jsonl").exists()


# ---- several processes


def test_shards_by_hand_in_any_order(toy, real, tmp_path):
    paint(toy.Grain(), real, tmp_path / "whole")
    results = [paint(toy.Grain(), real, tmp_path / "out", shard=(index, 3)) for index in (2, 0, 1)]
    assert results[:2] == [None, None]
    assert len(results[2]) == 50
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert len(paint(toy.Grain(), real, tmp_path / "out", shard=(0, 3))) == 50
    for shard in ((3, 3), (-1, 2), (0, 0)):
        assert "shard" in refusal(paint, toy.Grain(), real, tmp_path / "bad", shard=shard)


def test_groups_stay_whole_and_shards_share_everything(toy, real):
    plan = make_plan(toy.Grain().fit(real), real, Budget(copies=5), 0)
    grouped = Plan(
        plan.header,
        tuple(
            PlanRow(**{**row.__dict__, "group": f"g{position // 3}"})
            for position, row in enumerate(plan.rows)
        ),
    )
    shares = [Team(index, 4).share(grouped, grouped.rows) for index in range(4)]
    assert sum(map(len, shares)) == 50
    owners = {}
    for index, share in enumerate(shares):
        for row in share:
            assert owners.setdefault(row.group, index) == index


def test_torchrun_paints_halves_and_process_zero_finishes(workshop, toy, real, tmp_path):
    output = run(
        workshop,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "team.py",
        str(tmp_path / "team"),
        str(tmp_path / "diff-ii"),
    )
    assert "rank 0 gloo painted 25 of 50" in output
    assert "rank 1 gloo painted 25 of 50" in output
    paint(toy.Grain(), real, tmp_path / "whole")
    assert files_of(tmp_path / "team") == files_of(tmp_path / "whole")
    alone = synthesize(
        toy.toy_method().fit(real), real, tmp_path / "alone", Budget(copies=3), 0, progress=False
    )
    close(alone, open_synthetic(tmp_path / "diff-ii"))


def test_batch_size_and_shards_change_no_pixel_of_diff_ii_by_more_than_two(toy, real, tmp_path):
    made = [
        synthesize(
            toy.toy_method().fit(real),
            real,
            tmp_path / str(size),
            Budget(copies=3),
            0,
            batch_size=size,
            progress=False,
        )
        for size in (1, 32)
    ]
    close(*made)
    for index in (1, 0):
        shard = synthesize(
            toy.toy_method().fit(real),
            real,
            tmp_path / "shards",
            Budget(copies=3),
            0,
            shard=(index, 2),
            progress=False,
        )
    close(made[0], shard)
    assert read_plan(tmp_path / "1").header["settings"]["start"]["type"] == "CircleStart"
    assert " at 0x" not in (tmp_path / "1" / "plan.jsonl").read_text()


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(toy, real, tmp_path):
    paint(toy.Grain(), real, tmp_path / "out")
    (tmp_path / "out" / "train" / "metadata.jsonl").unlink()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with hold_lock(tmp_path / "out", Team()):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        assert f"number {child}" in refusal(paint, toy.Grain(), real, tmp_path / "out")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert (tmp_path / "out" / ".genaug" / "lock.json").exists()
    assert len(paint(toy.Grain(), real, tmp_path / "out")) == 50
    assert not (tmp_path / "out" / ".genaug" / "lock.json").exists()


# ---- rounds, filters, groups, ingredients


@dataclass(kw_only=True)
class Sieve(Augmenter):
    """Every candidate is one flat colour; those brighter than `limit` are kept. Three rounds, or groups of
    three."""

    name: str = "sieve"
    limit: int = 100
    rounds: int = 3
    grouped: bool = False
    seen: list = field(default_factory=list)
    identity = Identity("Sieve", never=("seen",))

    def plan(self, real, budget, seed):
        rows = []
        for number in range(self.rounds):
            for slot in budget.slots(real):
                name = content_hash(seed, slot.anchor, slot.copy, number)[:12]
                label = tuple(float(value) for value in real.labels[real.index([slot.anchor])[0]])
                group = f"{slot.anchor}-{slot.copy}" if self.grouped else None
                rows.append(
                    PlanRow(
                        name,
                        self.name,
                        label,
                        ((slot.anchor, 1.0),),
                        (),
                        seed_from(name),
                        {},
                        group,
                        0 if self.grouped else number,
                    )
                )
        return rows

    def paint(self, rows, real):
        self.seen += [row.id for row in rows]
        return [np.full((4, 4, 1), row.seed % 256, np.uint8) for row in rows]

    def select(self, rows, images, real):
        if not self.grouped:
            return [Decision(image[0, 0, 0] > self.limit, 0.5, "dim") for image in images]
        best = {}
        for row, image in zip(rows, images):
            best[row.group] = max(best.get(row.group, (-1, "")), (int(image[0, 0, 0]), row.id))
        return [Decision(best[row.group][1] == row.id) for row in rows]


def test_later_rounds_are_painted_only_where_images_are_missing(real, tmp_path):
    sieve = Sieve()
    made = paint(sieve, real, tmp_path / "out", copies=3)
    plan = read_plan(tmp_path / "out")
    level = {row.id: row.seed % 256 for row in plan.rows}
    assert made.counts() == {"kiwi": 15, "F/A-18 <b>": 15}
    assert all(level[name] > 100 for name in made.ids)
    assert 30 < len(sieve.seen) <= 90
    assert made.info[0]["weight"] == 0.5
    first_kept = [row.id for row in plan.rows if level[row.id] > 100 and row.round == 0]
    assert set(first_kept) <= set(made.ids)
    rejected = {path.stem for path in (tmp_path / "out" / ".genaug" / "rejected").glob("*.png")}
    assert rejected == set(sieve.seen) - set(made.ids)
    assert len(list((tmp_path / "out" / "train").rglob("*.png"))) == 30
    decisions = [
        json.loads(line)
        for line in (tmp_path / "out" / ".genaug" / "decisions.jsonl").read_text().splitlines()
    ]
    assert {decision["id"] for decision in decisions if decision["keep"]} == set(made.ids)
    assert len(decisions) == len(sieve.seen)
    (tmp_path / "out" / "train" / "metadata.jsonl").unlink()
    before = files_of(tmp_path / "out")
    again = Sieve()
    assert paint(again, real, tmp_path / "out", copies=3).ids == made.ids
    assert again.seen == []
    assert {
        name: data for name, data in files_of(tmp_path / "out").items() if "metadata" not in name
    } == before


def test_a_filter_with_shards_ends_with_the_same_set(real, tmp_path):
    whole = paint(Sieve(), real, tmp_path / "whole", copies=3)
    results = [paint(Sieve(), real, tmp_path / "out", copies=3, shard=(index, 2)) for index in (0, 1)]
    assert results[0] is None
    assert results[1].ids == whole.ids
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_filter_that_turns_down_too_much_says_how_many_are_missing(real, tmp_path):
    message = refusal(paint, Sieve(limit=250), real, tmp_path / "out", copies=3)
    assert "of 15 images" in message
    assert "loosen" in message
    assert "not finished" in refusal(open_synthetic, tmp_path / "out")
    made = paint(Sieve(limit=250), real, tmp_path / "out", copies=3, allow_fewer=True)
    assert 0 <= len(made) < 30
    assert made.class_names == real.class_names


def test_of_a_group_one_is_kept(real, tmp_path):
    made = paint(Sieve(grouped=True), real, tmp_path / "out", copies=2)
    assert len(made) == 20
    assert len({info["group"] for info in made.info}) == 20
    assert files_of(tmp_path / "out").keys() >= {"plan.jsonl", "train/metadata.jsonl"}


@dataclass(kw_only=True)
class Mean(Augmenter):
    "Images made of two earlier rows, which are themselves left out of the set."

    name: str = "mean"

    def plan(self, real, budget, seed):
        rows = []
        for slot in budget.slots(real):
            label = tuple(float(value) for value in real.labels[real.index([slot.anchor])[0]])
            names = [f"{slot.anchor}-{slot.copy}-{part}" for part in ("one", "two", "mean")]
            rows += [
                PlanRow(name, self.name, label, ((slot.anchor, 1.0),), (), seed_from(name))
                for name in names[:2]
            ]
            rows.append(PlanRow(names[2], self.name, label, ((names[0], 0.5), (names[1], 0.5)), (), 0))
        return rows

    def paint(self, rows, real):
        def flat(row):
            return np.full((4, 4, 3), row.seed % 256, np.uint8)

        def mixed(row):
            return ((real.image(row.inputs[0][0]).astype(int) + real.image(row.inputs[1][0])) // 2).astype(
                np.uint8
            )

        return [mixed(row) if len(row.inputs) == 2 else flat(row) for row in rows]

    def select(self, rows, images, real):
        return [
            Decision(row.id.endswith("mean"), reason="" if row.id.endswith("mean") else "ingredient")
            for row in rows
        ]


def test_rows_made_from_rows(real, tmp_path):
    made = paint(Mean(), real, tmp_path / "out", copies=1)
    assert len(made) == 10
    assert all(name.endswith("mean") for name in made.ids)
    levels = [seed_from(f"0.png-0-{part}") % 256 for part in ("one", "two")]
    assert made.image("0.png-0-mean")[0, 0, 0] == sum(levels) // 2
    results = [paint(Mean(), real, tmp_path / "shards", copies=1, shard=(index, 2)) for index in (0, 1)]
    assert results[0] is None
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "out")

    def row(name, *inputs):
        return PlanRow(name, "m", (1.0,), tuple((item, 1.0) for item in inputs), (), 0)

    assert depths([row("b", "a"), row("a", "photo")]) == {"a": 0, "b": 1}
    for rows in ([row("a"), row("b", "a"), row("c", "b")], [row("a", "b"), row("b", "a")]):
        assert "two steps" in refusal(depths, rows)


def test_painting_leaves_the_images_and_the_global_random_state_alone(toy, real, tmp_path):
    before = (real.fingerprint(), torch.get_rng_state().clone(), np.random.get_state()[1].copy())
    paint(toy.Grain(), real, tmp_path / "out", copies=1)
    fresh = LabeledImages(real.pixels, real.labels, real.class_names, real.ids)
    assert fresh.fingerprint() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_plan_difference_of_equal_headers_but_other_rows(toy, real):
    plan = make_plan(toy.Grain().fit(real), real, Budget(copies=1), 0)
    other = Plan(plan.header, plan.rows[:-1] + (PlanRow(**{**plan.rows[-1].__dict__, "seed": 1}),))
    assert plan_difference(plan, other) == "the rows"
    assert plan_difference(plan, plan) == ""


def test_rows_are_taken_over_only_from_the_same_work(toy, tmp_path):
    real = toy.toy_images()
    method = toy.Grain().fit(real)
    small = synthesize(method, real, tmp_path / "small", Budget(copies=1), 0, progress=False)
    plain = synthesize(toy.Grain().fit(real), real, tmp_path / "plain", Budget(copies=3), 0, progress=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "plan.jsonl").write_text("{nonsense")
    before = (tmp_path / "small" / "plan.jsonl").read_bytes()
    helped = synthesize(
        toy.Grain().fit(real),
        real,
        tmp_path / "helped",
        Budget(copies=3),
        0,
        progress=False,
        like=[tmp_path / "broken", tmp_path / "nowhere", tmp_path / "small"],
    )
    assert helped.ids == plain.ids
    assert all(np.array_equal(helped.image(name), plain.image(name)) for name in plain.ids)
    assert (tmp_path / "small" / "plan.jsonl").read_bytes() == before
    assert len(open_synthetic(tmp_path / "small")) == len(small)
    plan = make_plan(method, real, Budget(copies=3), 0)
    assert take_over(Canvas(tmp_path / "count", plan), [tmp_path / "small"]) == len(small)
    other = real[1:]
    assert (
        take_over(
            Canvas(tmp_path / "others", make_plan(toy.Grain().fit(other), other, Budget(copies=3), 0)),
            [tmp_path / "small"],
        )
        == 0
    )
    assert (
        take_over(
            Canvas(tmp_path / "seeds", make_plan(method, real, Budget(copies=3), 1)),
            [tmp_path / "small"],
        )
        == 0
    )
