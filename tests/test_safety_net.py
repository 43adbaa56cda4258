"""What commit 564de8b made is still what the code makes: arms, plans, feeds, pictures, learned words,
accuracies, and work that was begun with it.

The files in `safety/` are written by `make_safety_net.py` and only replaced on purpose. Rows, keys and
fingerprints are compared exactly (floats in nine digits); pictures within 2 of
255, learned numbers within 1e-4 and answers of a classifier except two of sixty, since processors differ.
What is new (a method, a field that is off) is no difference.
"""

import json
import zipfile

import numpy as np
import pytest
import safety_world as world
import torch
from safety_world import SAFETY, stored

from genaug.arms import make_arm
from genaug.choices import load_learned
from genaug.cli import run
from genaug.registry import groups, method_names
from genaug.synthetic_set import open_synthetic

ARMS, PLANS, FEEDS, MIXTURES, TRAININGS = (
    stored(name) for name in ("arms", "plans", "feeds", "mixtures", "trainings")
)
PICTURES = [(path.stem, path.parent.name) for path in sorted((SAFETY / "pictures").rglob("*.png"))]
GROUPS = {"controls": 5, "diff-ii-family": 14, "generator-free": 10, "genmix-family": 18}
PIXELS, LEARNED, ANSWERS = 2, 1e-4, 2  # tolerances: of 255; absolute; of 60 test pictures
AGREES = world.schedule_print() == stored("processor")["schedule"]
same_schedule = pytest.mark.skipif(
    not AGREES,
    reason="this processor computes another noise schedule, which stands in the keys of stored work",
)


def differs(actual, expected, where=""):
    """Where two plain values first differ, in words; "" when nowhere. Further keys in `found` are no
    difference."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        gone = [f"{where}.{key} is gone" for key in expected if key not in actual]
        return next(
            iter(
                gone
                + [
                    text
                    for key in expected
                    if key in actual and (text := differs(actual[key], expected[key], f"{where}.{key}"))
                ]
            ),
            "",
        )
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return next(
            (
                text
                for index, pair in enumerate(zip(actual, expected))
                if (text := differs(*pair, f"{where}[{index}]"))
            ),
            "",
        )
    return "" if actual == expected else f"{where}: {actual!r}, and it was {expected!r}"


def furthest(actual, expected):
    "Largest difference of two strips."
    assert actual.shape == expected.shape
    return int(np.abs(actual.astype(int) - expected.astype(int)).max())


# ---------------------------------------------------------------- arms and plans


def test_every_method_of_then_is_still_registered():
    assert {text for text in ARMS if "@" not in text and "+" not in text} - {"cmo-drw"} <= set(method_names())


def test_every_method_of_today_is_in_the_net():
    "A new method is added with `python tests/make_safety_net.py --add`."
    assert set(method_names()) <= set(ARMS)


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_still_begins_with_its_arms(name):
    assert all(make_arm(text).text for text in groups()[name])
    assert len(groups()[name]) >= GROUPS[name]


@pytest.mark.parametrize("text", ARMS)
def test_an_arm_has_the_same_settings(text):
    assert (
        differs(
            world.arm_record(text), {key: value for key, value in ARMS[text].items() if key != "unit"}, text
        )
        == ""
    )


@pytest.mark.parametrize("text", ARMS)
def test_the_settings_of_an_arm_are_as_many(text):
    "A setting that is added would change the keys of stored work; it must be off where nobody asks for it."
    actual = world.arm_record(text)
    for part in ("augmenter", "tiny", "mixer", "balancer"):
        assert (actual[part] or {}).get("settings", {}).keys() == (ARMS[text][part] or {}).get(
            "settings", {}
        ).keys()
    assert (actual["use"] or {}).keys() == (ARMS[text]["use"] or {}).keys()


@same_schedule
@pytest.mark.parametrize("text", ARMS)
def test_a_comparison_finds_the_stored_result_of_an_arm(text):
    assert world.unit_key(text) == ARMS[text]["unit"]


@pytest.mark.parametrize("text", PLANS)
def test_a_plan_has_the_same_rows(text):
    assert differs(world.plan_record(text), PLANS[text], text) == ""


def test_the_photographs_of_the_net_are_the_same():
    assert world.photographs().fingerprint() == PLANS["real-gen"]["first"][0]["fitted_on"]


# ---------------------------------------------------------------- feeds and mixtures


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("name", FEEDS)
def test_a_training_is_fed_the_same(name, task):
    assert differs(world.feed_record(name, task), FEEDS[name][task], name) == ""


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixer_mixes_the_same(name):
    images, labels = world.mixture(name)
    assert furthest(images, world.read_strip(world.mixture_file(name))) <= PIXELS
    assert np.allclose(labels, MIXTURES[name], atol=1e-5)


# ---------------------------------------------------------------- pictures and learned words


@pytest.mark.parametrize("name, kind", PICTURES)
def test_the_first_pictures_are_the_same(name, kind):
    if not AGREES and (kind != "toy" or name in ("dcgan", "stylegan", "pixel-diffusion")):
        pytest.skip(
            "this processor computes another noise schedule, which decides the ids of rows and with "
            "them the noise, or trains a generator otherwise"
        )
    assert (
        furthest(world.painted(name, kind), world.read_strip(SAFETY / "pictures" / kind / f"{name}.png"))
        <= PIXELS
    )


@pytest.mark.parametrize("kind", world.CONCEPTS)
def test_a_learned_folder_opens_and_is_learned_again(kind, tmp_path):
    old = load_learned(world.unpack(f"concepts/{kind}", tmp_path / "old"))
    new = world.learn(kind)
    before, after = world.concept_tensors(old), world.concept_tensors(new)
    assert before.keys() == after.keys()
    assert type(old) is type(new)
    assert all(torch.allclose(after[name], before[name], atol=LEARNED, rtol=0) for name in before)


@pytest.mark.parametrize("kind", world.CONCEPTS)
def test_a_learned_folder_is_written_with_the_same_files(kind, tmp_path):
    old = world.unpack(f"concepts/{kind}", tmp_path / "old")
    concept = load_learned(old)
    concept.save(tmp_path / "new")
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (old, tmp_path / "new")
    ]
    assert names[0] == names[1]
    assert load_learned(tmp_path / "new").fingerprint() == concept.fingerprint()


@same_schedule
@pytest.mark.parametrize("kind", ["tokens", "category"])
def test_a_learned_folder_remembers_its_making(kind, tmp_path):
    settings = json.loads(json.dumps(dict(world.learn(kind).settings)))
    assert (
        differs(settings, dict(load_learned(world.unpack(f"concepts/{kind}", tmp_path)).settings), kind) == ""
    )


# ---------------------------------------------------------------- trainings


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_answers_the_same(name, seed):
    actual, expected = world.answers(name, seed), TRAININGS[name]["answers"][seed]
    assert len(actual) == len(expected) == 60
    assert sum(finding != other for finding, other in zip(actual, expected)) <= ANSWERS
    assert abs(world.share_right(actual) - TRAININGS[name]["accuracies"][seed]) <= ANSWERS / 60 + 1e-4


# ---------------------------------------------------------------- what comes with the library, and work
# begun by it


@same_schedule
def test_the_embedded_weights_sets_and_judges_are_the_same():
    assert differs(world.embedded_record(), stored("embedded")["record"]) == ""


@same_schedule
@pytest.mark.parametrize("name", ["augment", "learned"])
def test_a_set_begun_then_is_finished_now(name, tmp_path):
    expected, out = stored(f"out-{name}"), world.unpack(f"out-{name}", tmp_path / "out")
    before, plan = world.pictures_below(out), (out / "plan.jsonl").read_bytes()
    assert run(world.command(expected["command"], out)) == 0
    actual = world.pictures_below(out)
    assert len(actual) == 10
    assert len(before) == 5
    assert {file: actual[file] for file in before} == before
    assert (out / "plan.jsonl").read_bytes() == plan
    record = world.finished_record(out)
    assert differs(record, {key: expected[key] for key in ("ids", "labels", "files", "metadata")}) == ""
    again = world.strip([world.read_strip(out / "train" / file) for file in expected["taken"]])
    assert furthest(again, world.read_strip(SAFETY / f"out-{name}-missing.png")) <= PIXELS
    assert len(open_synthetic(out)) == 10


@same_schedule
def test_words_learned_then_are_not_learned_again(tmp_path):
    expected, out = stored("out-learned"), world.unpack("out-learned", tmp_path / "out")
    concepts = [path for path in (out / ".genaug" / "work" / "concepts").rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in concepts}
    assert run(world.command(expected["command"], out)) == 0
    assert {path for path in (out / ".genaug" / "work" / "concepts").rglob("*") if path.is_file()} == set(
        before
    )
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == was for path, was in before.items())


@same_schedule
def test_a_comparison_finished_then_is_read_and_not_run_again(tmp_path):
    expected, out = stored("out-compare"), world.unpack("out-compare", tmp_path / "out")
    before, runs = (
        world.result_values(out),
        {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "runs").iterdir()},
    )
    assert len(runs) == 8
    assert run(world.command(expected["command"], out)) == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "runs").iterdir()} == runs
    assert world.result_values(out) == before


@same_schedule
def test_a_lost_run_of_a_comparison_is_made_again_under_the_same_key(tmp_path):
    expected, out = stored("out-compare"), world.unpack("out-compare", tmp_path / "out")
    units = {path: json.loads(path.read_text(encoding="utf-8")) for path in (out / "runs").iterdir()}
    lost = next(path for path in sorted(units) if units[path]["arm"].startswith("real-guidance"))
    pictures, stamps = (
        world.pictures_below(out),
        {path: path.stat().st_mtime_ns for path in out.rglob("*.png")},
    )
    lost.unlink()
    assert run(world.command(expected["command"], out)) == 0
    again = json.loads(lost.read_text(encoding="utf-8"))
    assert set((out / "runs").iterdir()) == set(units)
    assert world.pictures_below(out).keys() >= pictures.keys()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert sum(item != other for item, other in zip(again["correct"], units[lost]["correct"])) <= 0.05 * len(
        again["correct"]
    )
    assert again["settings"]["fed"] == units[lost]["settings"]["fed"]


def texts_of(path):
    "The texts in a committed file, for looking into."
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [
                archive.read(name).decode("utf-8", "replace")
                for name in archive.namelist()
                if not name.endswith((".png", ".safetensors"))
            ]
    return [path.read_text(encoding="utf-8")] if path.suffix == ".json" else []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SAFETY.rglob("*")) if path.suffix in (".json", ".zip")],
    ids=lambda path: path.name,
)
def test_no_committed_file_names_a_place_on_a_machine(path):
    assert not [
        text
        for text in texts_of(path)
        for index in ("/tmp", "/work", "/home", "/root", "/Users", ":\\\\")
        if index in text
    ]


def test_the_net_is_small():
    assert sum(path.stat().st_size for path in SAFETY.rglob("*") if path.is_file()) < 700_000


def test_the_maker_overwrites_nothing():
    import make_safety_net

    before = {path: path.stat().st_mtime_ns for path in SAFETY.rglob("*")}
    with pytest.raises(SystemExit, match="not empty"):
        make_safety_net.main([])
    assert {path: path.stat().st_mtime_ns for path in SAFETY.rglob("*")} == before
