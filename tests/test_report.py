"""The report is one file that loads nothing, in which no name can do harm and nothing is claimed that was not
measured."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from test_experiment import QUESTION, SETS, dataclasses
from toy_sets import noise_set

from genaug.compare import compare
from genaug.comparison_report import class_table, verdicts
from genaug.contracts import Augmenter
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.experiment import Run
from genaug.files import write_atomic
from genaug.html_page import Section, html_table, make_page
from genaug.messages import GenaugError
from genaug.plans import Budget, PlanRow
from genaug.readers import open_sets
from genaug.report import write_report
from genaug.set_report import leak_lines, nearest_images, row_words
from genaug.synthesis import synthesize

NASTY = "<img src=x onerror=alert(1)> & \"quotes' ☃ ‮"


class Page(HTMLParser):
    "What a browser would see."

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("img", "meta", "br", "link", "input", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.text += data

    def harmless(self):
        "No script, no handler, no address outside the page."
        links = [
            value
            for name, value in self.attributes
            if name in ("src", "href", "xlink:href", "action", "poster", "srcset", "data")
        ]
        outside = [link for link in links if not link.startswith(("data:image/png;base64,", "#"))]
        styles = " ".join(value or "" for name, value in self.attributes if name == "style")
        handlers = [name for name, _ in self.attributes if name.startswith("on")]
        return (
            not outside
            and not handlers
            and not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(self.tags)
            and "url(http" not in styles
        )


class Painter(Augmenter):
    "A method that turns photographs upside down, with a hostile prompt."

    def plan(self, real, budget, seed):
        return [
            PlanRow(
                f"row{number}",
                "painter",
                tuple(map(float, real.labels[real.index([slot.anchor])[0]])),
                ((slot.anchor, 1.0),),
                ((NASTY, 0.5), ("plain", 0.5)),
                number,
                {"angle": 0.5},
            )
            for number, slot in enumerate(budget.slots(real))
        ]

    def paint(self, rows, real):
        return [np.ascontiguousarray(real.image(row.inputs[0][0])[::-1]) for row in rows]


@pytest.fixture
def made(tmp_path):
    "A set made from a folder with a hostile class name; the folder OUT."
    names, home = ("<b>bold", "plain class"), tmp_path / "photos"
    noise_set([0, 0, 0, 1, 1, 1], names, size=12, ids="p{}").save(home)
    for path in home.glob("*.json*"):
        path.unlink()
    next(path for path in home.iterdir() if "bold" in path.name).rename(home / names[0])
    real = open_sets(str(home))["all"]
    synthesize(
        Painter(name="painter").fit(real), real, tmp_path / "out", Budget(copies=2), seed=0, progress=False
    )
    write_atomic(
        tmp_path / "out" / ".genaug" / "run.json", json.dumps({"source": str(home), "notes": ["a note"]})
    )
    return tmp_path / "out"


def test_the_page_about_a_set_is_whole_and_harmless(made):
    page = Page(write_report(made).read_text(encoding="utf-8"))
    assert page.harmless()
    assert page.open == []
    assert "<b>bold" in page.text
    assert "b" not in page.tags
    assert "onerror=alert(1)" in page.text
    assert page.tags.count("img") >= 2 * (
        3 + 4 * 3
    )  # photographs, and for each of four images itself, its source and its neighbour
    for words in (
        "painter",
        "a note",
        "Counts",
        "Audit",
        "for 50%; then",
        "Every source is a training image",
    ):
        assert words in page.text, words


def test_photographs_that_moved_are_not_shown_and_that_is_said(made):
    (made.parent / "photos").rename(made.parent / "elsewhere")
    page = Page(write_report(made).read_text(encoding="utf-8"))
    assert "The photographs are not shown" in page.text
    assert "does not exist" in page.text
    assert page.harmless()


def test_an_unfinished_set_has_no_report(made):
    (made / "train" / "metadata.jsonl").unlink()
    with pytest.raises(GenaugError, match="not finished"):
        write_report(made)


def test_the_page_about_a_comparison(tmp_path):
    train = SETS["train"]
    backbone = ToyBackbone.from_images(train.batch(), train.targets, train.class_names)
    question = dataclasses.replace(QUESTION, methods=("original", "round-trip", "mixup"), copies=1)
    actual = compare(
        Run(question, SETS, backbone, tmp_path / "out", False), source=NASTY, remarks=["a remark"]
    )
    page = Page(write_report(tmp_path / "out").read_text(encoding="utf-8"))
    assert page.harmless()
    assert page.open == []
    assert NASTY.replace("\u202e", "\\u202e") in page.text
    for words in (
        "round-trip minus original",
        "class 2",
        "a remark",
        "No test image is a source",
        "new splits, classifier seeds and test images",
        *actual.decision.sentences(),
    ):
        assert words in page.text, words
    assert page.text.index("Verdict: ") < page.text.index("round-trip minus original")
    assert f"{100 * actual.summary.loc[0, 'mean']:.1f}" in page.text
    assert "svg" in page.tags


def test_an_unfinished_comparison_has_no_report(tmp_path):
    compare(Run(QUESTION, SETS, None, tmp_path, False))
    (tmp_path / "summary.json").unlink()
    with pytest.raises(GenaugError, match="not finished"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_other_folders_are_refused(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenaugError, match="does not exist|holds neither"):
        write_report(tmp_path / name)


def test_every_text_of_a_table_is_escaped():
    page = Page(make_page(NASTY, [Section(NASTY, html_table(pd.DataFrame({NASTY: [NASTY, 1.5]})))]))
    assert page.harmless()
    assert page.tags.count("img") == 0
    assert page.text.count("onerror=alert(1)") >= 5


def test_the_policy_forbids_everything_but_embedded_images():
    text = make_page("t", [])
    assert re.search(
        r'Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        r'\'unsafe-inline\'"',
        text,
    )


def test_leaks_are_found_by_the_sources():
    image = np.zeros((4, 4, 3), np.uint8)
    synthetic = LabeledImages(
        [image] * 2,
        [0, 0],
        ("a",),
        ["r0", "r1"],
        info=[{"sources": [["train0", 1.0]]}, {"sources": [["exam0", 0.5], ["r0", 0.5]]}],
    )
    assert sum(line.startswith("LEAK") for line in leak_lines(synthetic, ["train0"], ["exam0"])) == 2
    assert not any(line.startswith("LEAK") for line in leak_lines(synthetic, ["train0", "exam0"], ["exam1"]))
    assert any(line.startswith("LEAK") for line in leak_lines(synthetic, ["train0", "exam0"], ["train0"]))


def test_a_gain_is_called_one_only_outside_its_interval():
    line = {"mean": 0.5, "minus original": 0.02}
    summary = pd.DataFrame(
        [{"arm": "original", "minus original": np.nan, "original low": np.nan, "original high": np.nan}]
        + [
            {"arm": name, **line, "original low": low, "original high": high}
            for name, low, high in (
                ("sure", 0.01, 0.03),
                ("unsure", -0.01, 0.05),
                ("worse", -0.05, -0.01),
                ("single", np.nan, np.nan),
            )
        ]
    )
    said = verdicts(summary)
    assert [sentence.rsplit(": ", 1)[1] for sentence in said] == [
        "better.",
        "not distinguishable from zero.",
        "worse.",
        "one split gives no interval.",
    ]


def test_the_nearest_image_is_found_whatever_the_sizes():
    training = noise_set([0] * 4, ("a",), size=16, ids=list("wxyz"))
    large = LabeledImages([training.image(2).repeat(2, 0).repeat(2, 1)], [0], ("a",), ["big"])
    name, distance = nearest_images(large, training)["big"]
    assert name == "y"
    assert distance < 0.15


def test_classes_and_arms_keep_their_order():
    rows = pd.DataFrame(
        [
            {
                "metric": "sensitivity",
                "part": f"class={name}",
                "value": value,
                "method": arm,
                "variant": variant,
            }
            for arm, variant in (("mixup", ""), ("diff-ii+cutmix", "split_ratio=1"))
            for name, value in (("b", 0.5), ("a%2Cc", 1.0))
        ]
    )
    table = class_table(rows, ("diff-ii@split_ratio=1+cutmix", "mixup"), ("a,c", "b"))
    assert list(table.columns) == ["class", "diff-ii@split_ratio=1+cutmix", "mixup"]
    assert table["class"].tolist() == ["a,c", "b"]


def test_words_about_a_row():
    words = row_words(
        {
            "prompts": [["a wren on grass", 0.3], ["a wren", 0.7]],
            "settings": {"position": 0.123456, "mode": "circle", "anchor": "x", "copy": 1},
            "weight": 0.5,
        }
    )
    assert (
        words == "“a wren on grass” for 30%; then “a wren” for 70% · position 0.123, mode circle, weight 0.5"
    )
