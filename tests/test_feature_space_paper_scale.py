"""What `paper` would do in the table of feature-space fusion, planned on a miniature of MIMIC-CXR-LT: rows,
steps, network."""

import numpy as np
import pytest
from PIL import Image
from table_pages import executed

from genaug.arms import parse_arm
from genaug.comparison import classifier_preset, make_split
from genaug.data.mimic_cxr_lt import MIMIC_HEADS, MIMIC_TAILS, open_mimic_cxr_lt
from genaug.plans import Budget


@pytest.fixture(scope="module")
def page():
    return executed(
        "feature_space_long_tail",
        until_run=False,
        scale="paper",
        data={"mimic-cxr-lt": "mimic-cxr-lt:FOLDER"},
    )


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    "Thirty pictures with the ten labels, in the layout of the 19-label release."
    root = tmp_path_factory.mktemp("mimic")
    labels, draw = (*MIMIC_HEADS, *MIMIC_TAILS), np.random.default_rng(0)
    for part in ("train", "val", "test"):
        lines = [",".join(["dicom_id", "subject_id", "path", *labels])]
        for number in range(30):
            name = f"files/p10/p{part}{number}/s1/{part}{number}.jpg"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / name)
            row = [
                int(draw.random() < (0.6 if index < 5 else 0.15) or number == index) for index in range(10)
            ]
            lines.append(",".join([f"{part}{number}", f"{part}{number}", name, *map(str, row)]))
        (root / f"miccai2023_mimic-cxr-lt_labels_{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    return open_mimic_cxr_lt(root)


def test_the_ablations_read_the_same_way():
    space = executed(
        "feature_space_ablations",
        until_run=False,
        scale="paper",
        data={"mimic-cxr-lt": "mimic-cxr-lt:FOLDER"},
    )
    (question,) = space["table"].questions
    assert len(question.methods) == len(set(space["hour"].question.methods))
    # rows of other data are not shown under this name
    assert not any(len(space["shown"].rows(part)) for part in space["shown"].parts("hour"))
    assert space["shown"].missing() == []


def test_a_thousand_pictures_for_each_of_five_tail_classes(page, chests):
    (question,) = page["table"].questions
    assert question.scale == "paper"
    assert not question.draws
    assert len(question.splits) == 3
    train = make_split(question, chests, 0).train
    assert train.task == "multi"
    assert len(train) == 30
    assert set(np.flatnonzero(train.labels.sum(0) < 10)) <= set(range(5, 10))
    made = [arm for arm in question.methods if "tail=1000" in arm]
    assert len(made) == len(question.methods) - 2 == 12
    wanted = Budget(tail=1000).wanted(train)
    assert sum(wanted.values()) == 5000
    assert set(wanted.values()) == {1000}


def test_steps_and_network_are_the_papers(page):
    (question,) = page["table"].questions
    fields = [dict(parse_arm(arm).settings) for arm in question.methods if arm.startswith("feature-space")]
    assert {field["denoising_steps"] for field in fields} == {0, 1, 5}
    assert {field["num_inference_steps"] for field in fields} == {75}
    # the paper's own
    assert not any(
        name in field for field in fields for name in ("generations", "width", "interaction_updates")
    )
    assert {field["label_rule"] for field in fields} == {"union", "tail", "coverage", "classifier"}
    preset = classifier_preset("densenet121")
    assert preset.network == "densenet121"
    assert preset.view.size == 224
