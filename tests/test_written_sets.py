"""A written set says what it means to torchvision, datasets and timm; where one of them counts otherwise,
that is said. Every case is really loaded."""

import json

import numpy as np
import pytest

from genaug.class_indices import reader_findings
from genaug.contracts import Augmenter
from genaug.core import LabeledImages
from genaug.files import file_name, write_atomic
from genaug.messages import GenaugError
from genaug.pictures import encode_png
from genaug.plans import Budget, PlanRow
from genaug.readers import open_sets
from genaug.synthesis import synthesize
from genaug.synthetic_set import open_synthetic


def coloured(names, targets, ids=None, task="single"):
    "Pictures whose first value is their position, so that every reader can be asked about each of them."
    pixels = [np.full((4, 4, 3), number, np.uint8) for number in range(len(targets))]
    return LabeledImages(
        pixels, targets, names, ids or [f"p{number}" for number in range(len(targets))], task
    )


def first_value(image):
    return int(np.asarray(image)[0, 0, 0])


def by_torchvision(folder, allow_empty=False):
    from torchvision.datasets import ImageFolder

    return {first_value(image): label for image, label in ImageFolder(str(folder), allow_empty=allow_empty)}


def by_timm(folder, class_map=""):
    data = pytest.importorskip("timm.data")
    return {
        first_value(image): int(label)
        for image, label in data.create_dataset("", root=str(folder), class_map=str(class_map))
    }


def by_datasets(folder, cache, **options):
    datasets = pytest.importorskip("datasets")
    splits = datasets.load_dataset(
        "imagefolder", cache_dir=str(cache), **(options or {"data_dir": str(folder)})
    )
    return {first_value(record["image"]): record["label"] for split in splits.values() for record in split}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))


def where(findings, severity=None):
    return {finding.where for finding in findings if severity in (None, finding.severity)}


def counts(images):
    return np.bincount(images.targets, minlength=len(images.class_names))


AGREE = {
    "plain": (["ant", "bee", "cow"], [0, 1, 2]),
    "spaces": (["a b", "a-b", "ab"], [0, 1, 2, 2]),
    "one class": (["one"], [0, 0]),
    "accents": (["f", "z", "é"], [0, 1, 2]),
}
EMPTY = {
    "first": ([1, 2, 2], True),
    "middle": ([0, 2, 2], True),
    "last": ([0, 1, 1], False),
    "all but one": ([2, 2, 2], True),
}
DIFFER = {
    "reserved": (["ABC", "CON", "a0"], [0, 1, 2]),
    "colon": (["a%", "a0", "a:b"], [0, 1, 2]),
    "decomposed": (["e\u0301", "f", "z"], [0, 1, 2]),
    "not sorted": (["dog", "cat"], [0, 1]),
    "our own files": (["metadata.csv", "a"], [0, 1]),
    "natural": (["a2", "a10"], [0, 1]),
    "hidden": (["!", ".a"], [0, 1]),
}


@pytest.mark.parametrize(("names", "targets"), AGREE.values(), ids=AGREE.keys())
def test_all_three_readers_give_the_numbers_of_the_source(names, targets, tmp_path):
    images = coloured(names, targets)
    images.save(tmp_path / "set")
    truth = dict(enumerate(targets))
    assert by_torchvision(tmp_path / "set") == truth
    assert by_datasets(tmp_path / "set", tmp_path / "cache") == truth
    assert by_timm(tmp_path / "set") == truth
    assert not where(reader_findings(names, counts(images)), "warning")


@pytest.mark.parametrize(("targets", "moved"), EMPTY.values(), ids=EMPTY.keys())
def test_a_class_without_images_moves_no_number(targets, moved, tmp_path):
    images, truth = coloured(["ant", "bee", "cow"], targets), dict(enumerate(targets))
    images.save(tmp_path / "set")
    with pytest.raises(FileNotFoundError):
        by_torchvision(tmp_path / "set")
    assert by_torchvision(tmp_path / "set", allow_empty=True) == truth
    assert by_datasets(tmp_path / "set", tmp_path / "cache") == truth
    assert by_timm(tmp_path / "set", "class_map.txt") == truth
    said = reader_findings(images.class_names, counts(images))
    assert any("allow_empty=True" in finding.message for finding in said if finding.where == "ImageFolder")
    assert (by_timm(tmp_path / "set") != truth) == moved == ("timm" in where(said, "warning"))


@pytest.mark.parametrize(("names", "targets"), DIFFER.values(), ids=DIFFER.keys())
def test_a_reader_that_counts_otherwise_is_named_and_the_others_agree(names, targets, tmp_path):
    images, truth = coloured(names, targets), dict(enumerate(targets))
    images.save(tmp_path / "set")
    said = where(reader_findings(names, counts(images)), "warning")
    assert (by_torchvision(tmp_path / "set") != truth) == ("ImageFolder" in said)
    assert (by_timm(tmp_path / "set") != truth) == ("timm" in said)
    assert by_datasets(tmp_path / "set", tmp_path / "cache") == truth
    assert by_timm(tmp_path / "set", "class_map.txt") == truth
    assert json.loads((tmp_path / "set" / "classes.json").read_text(encoding="utf-8")) == names


def test_names_that_differ_in_case_only_are_reported():
    said = reader_findings(["Bird", "bird"], [1, 1])
    assert any("ignores case" in finding.message for finding in said)
    assert "timm" in where(said, "warning")


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["test", "train"], None),
        (["cat", "val 2"], None),
        (["cat", "x-test-y"], None),
        (["cat", "dog"], ["test_1", "b", "c"]),
        (["dev", "z"], None),
    ],
)
def test_a_name_that_datasets_takes_for_a_split_is_reported_with_what_helps(names, ids, tmp_path):
    images, truth = coloured(names, [0, 1, 1], ids), {0: 0, 1: 1, 2: 1}
    images.save(tmp_path / "set")
    said = reader_findings(names, counts(images), ids=images.ids)
    assert "datasets" in where(said, "warning")
    assert any("data_files" in finding.message for finding in said)
    assert (
        by_datasets(tmp_path / "set", tmp_path / "cache", data_files={"train": f"{tmp_path / 'set'}/**"})
        == truth
    )


@pytest.mark.parametrize("names", [["mytest", "zebra"], ["Test", "b"], ["contest", "trainingx"]])
def test_a_name_that_only_looks_like_a_split_is_not_reported(names, tmp_path):
    images = coloured(names, [0, 1, 1])
    images.save(tmp_path / "set")
    assert len(by_datasets(tmp_path / "set", tmp_path / "cache")) == 3
    assert "datasets" not in where(reader_findings(names, counts(images)), "warning")


def test_a_space_that_timm_drops_is_reported(tmp_path):
    images = coloured(["a\u00a0", "b"], [0, 1])
    images.save(tmp_path / "set")
    assert len(by_timm(tmp_path / "set", "class_map.txt")) == 1
    assert any("unusual space" in finding.message for finding in reader_findings(images.class_names, [1, 1]))


def test_several_labels_per_image_are_for_datasets_only(tmp_path):
    images = coloured(["a", "b"], [[1, 1], [0, 1]], task="multi")
    images.save(tmp_path / "set")
    with pytest.raises(FileNotFoundError):
        by_torchvision(tmp_path / "set")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert {first_value(record["image"]): record["labels"] for record in loaded} == {0: [1, 1], 1: [0, 1]}
    assert not (tmp_path / "set" / "class_map.txt").exists()
    assert where(reader_findings(["a", "b"], [1, 2], "multi")) == {"ImageFolder"}


def test_files_keep_the_names_they_had():
    assert [file_name(name) for name in ("a:b", "CON", "e\u0301", "cat")] == ["a%3Ab", "%43ON", "é", "cat"]


class Copier(Augmenter):
    def plan(self, real, budget, seed):
        return [
            PlanRow(
                f"row{number}",
                self.name,
                tuple(map(float, real.labels[real.index([slot.anchor])[0]])),
                ((slot.anchor, 1.0),),
                (),
                number,
            )
            for number, slot in enumerate(budget.slots(real))
        ]

    def paint(self, rows, real):
        return [real.image(row.inputs[0][0]) for row in rows]


@pytest.fixture
def filled(tmp_path):
    "What faults.md has: ant 4, bee 2, cow 2, filled up, so that nothing is painted of the first class."
    for name, count in (("ant", 4), ("bee", 2), ("cow", 2)):
        for number in range(count):
            write_atomic(
                tmp_path / "photos" / name / f"{number}.png",
                encode_png(np.full((8, 8, 3), 10 * len(name) + 40 * number + ord(name[0]) % 7, np.uint8)),
            )
    real = open_sets(str(tmp_path / "photos"))["all"]
    synthesize(
        Copier(name="copier").fit(real), real, tmp_path / "out", Budget(fill=True), seed=0, progress=False
    )
    return tmp_path / "out"


def test_a_set_that_fills_up_has_all_class_folders(filled, tmp_path):
    made = open_synthetic(filled)
    truth = sorted(made.targets.tolist())
    assert sorted(path.name for path in (filled / "train").iterdir() if path.is_dir()) == [
        "ant",
        "bee",
        "cow",
    ]
    from torchvision.datasets import ImageFolder

    assert sorted(ImageFolder(str(filled / "train"), allow_empty=True).targets) == truth
    assert (filled / "class_map.txt").read_text() == "ant\nbee\ncow\n"
    timm = pytest.importorskip("timm.data")
    assert (
        sorted(
            label
            for _, label in timm.create_dataset(
                "", root=str(filled / "train"), class_map=str(filled / "class_map.txt")
            )
        )
        == truth
    )
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(filled / "train"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert sorted(loaded["label"]) == truth


def test_a_set_with_a_class_map_is_still_finished_again_after_damage(filled):
    real = open_sets(str(filled.parent / "photos"))["all"]
    sorted((filled / "train").rglob("*.png"))[0].unlink()
    again = synthesize(
        Copier(name="copier").fit(real), real, filled, Budget(fill=True), seed=0, progress=False
    )
    assert len(again) == 4
    assert sorted(path.name for path in filled.iterdir()) == [
        ".genaug",
        "class_map.txt",
        "findings.json",
        "plan.jsonl",
        "train",
    ]


def test_class_names_that_would_share_a_folder_are_refused():
    with pytest.raises(GenaugError, match="distinct"):
        coloured(["é", "e\u0301"], [0, 1])


# ---- what is read back


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]\n",
        lambda text: "null\n",
        lambda text: "{}\n",
        lambda text: text.replace("p0.png", "../../x.png", 1),
        lambda text: text.replace("ant/p0.png", "/etc/passwd", 1),
        lambda text: text.replace('"labels": [1.0, 0.0]', '"labels": ["a"]'),
        lambda text: text.replace('"labels": [1.0, 0.0]', '"labels": [1.0]'),
        lambda text: text.replace('"labels": [1.0, 0.0]', '"labels": [NaN, 0.0]'),
        lambda text: text.replace('"task": "single"', '"task": 3'),
        lambda text: text.replace('"id": "p0"', '"id": "p1"'),
        lambda text: text.replace('"id": "p0"', '"id": 5'),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"info": null', '"info": "{"'),
        lambda text: text.replace('"origin": "real"', '"origin": [1]'),
    ],
)
def test_damaged_metadata_are_refused_in_one_sentence(damage, tmp_path):
    coloured(["ant", "bee"], [0, 1]).save(tmp_path / "set")
    path = tmp_path / "set" / "metadata.jsonl"
    changed = damage(path.read_text(encoding="utf-8"))
    assert changed != path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(GenaugError, match="damaged"):
        LabeledImages.open(tmp_path / "set")


@pytest.mark.parametrize("text", ["", "{}", '["ant"]', '["ant", "ant"]', "[1, 2]", '"ab"', "\0", None])
def test_damaged_class_names_are_refused_in_one_sentence(text, tmp_path):
    coloured(["ant", "bee"], [0, 1]).save(tmp_path / "set")
    path = tmp_path / "set" / "classes.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(GenaugError, match="damaged"):
        LabeledImages.open(tmp_path / "set")


@pytest.mark.parametrize("seed", range(20))
def test_turned_over_bytes_in_the_metadata_give_no_traceback(seed, tmp_path):
    coloured(["ant", "bee"], [0, 1]).save(tmp_path / "set")
    path, draw = tmp_path / "set" / ("metadata.jsonl", "classes.json")[seed % 2], np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for index in draw.integers(0, len(data), 1 + seed % 5):
        data[index] = draw.integers(256)
    path.write_bytes(bytes(data))
    try:
        LabeledImages.open(tmp_path / "set")
    except GenaugError as error:
        assert "damaged" in str(error)
