"""Names of folders and files with anything in them that a file system takes: checked, painted, reported and
audited, with the right labels and nothing that moves a terminal or a browser."""

import csv
import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from fuzz_world import (
    QUICK,
    call_checked,
    examples,
    expect,
    expect_clean_page,
    page_faults,
    run_checked,
    small_world,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genaug.core import LabeledImages
from genaug.data.folders import check_folder, open_folder
from genaug.files import file_name
from genaug.messages import printable

ODD = [
    "cat",
    "dog",
    "with space",
    " leading",
    "trailing ",
    "trailing.",
    "...",
    ".hidden",
    "-dash",
    "--help",
    "--out=x",
    "new\nline",
    "x\nFORGED error: all is lost",
    "tab\t",
    "esc\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "bell\x07",
    "del\x7f",
    "\x01",
    "rtl\u202eabc",
    "zero\u200bwidth",
    "\u200b",
    "nbsp\u00a0x",
    "\u3000",
    "bom\ufeff",
    "\u2028line",
    "\u2029",
    "\x85",
    "accent-e\u0301",
    "accent-\u00e9",
    "\u212b",
    "\u00c5",
    "A\u030a",
    "ﬁ",
    "ß",
    "ẞ",
    "İ",
    "ı",
    "Σ",
    "ς",
    "漢字",
    "한글",
    "\u1112\u1161\u11ab",
    "عربي",
    "हिन्दी",
    "😀",
    "👩‍👩‍👧",
    "🏳️‍🌈",
    "\ufe0f",
    "\U000e0041",
    "\U0010ffff",
    "\ue000",
    "a" * 255,
    "é" * 127,
    "漢" * 85,
    "a" * 201,
    "😀" * 50,
    "quote'",
    'double"',
    "back\\slash",
    "colon:",
    "a:b",
    "star*",
    "what?",
    "<hostile>",
    "</td><hostile>",
    "'\"><hostile a='",
    "<script>alert(1)<",
    "&lt;hostile&gt;",
    "&#60;hostile>",
    "a|b",
    "percent%41",
    "%",
    "%2e%2e",
    "%s%n",
    "{}",
    "{0}",
    "{name}",
    "{x.__class__}",
    "$HOME",
    "$(id)",
    "`id`",
    "semi;colon",
    "comma,comma",
    "a=b",
    "@x",
    "+x",
    "=1+1",
    "=HYPERLINK(1)",
    "-1+1",
    "CON",
    "con",
    "nul",
    "NUL.txt",
    "com1",
    "LPT9",
    "aux.png",
    "~",
    "~root",
    "#",
    "# heading",
    "[link](x)",
    "**bold**",
    "| a | b |",
    "\\x1b",
    "\\n",
    "a\\u202e",
    "classes.json",
    "metadata.jsonl",
    "train",
    "test",
    "val",
    "all",
    "Train",
    "real",
    "synthetic",
    "original",
    "none",
    "null",
    "nan",
    "inf",
    "True",
    "0",
    "1",
    "-0",
    "1e400",
    "01",
    "001.Owl",
    "n01440764",
    "cat_1",
    "cat 1",
    "Cat",
    "CAT",
    "cat.",
    "class=cat",
    "minus original",
    "file_name",
    "label",
    "index",
    "__class__",
    "__MACOSX",
    "Thumbs.db",
    "lost+found",
    "report.html",
    ".genaug",
    ".git",
]


def plain_name(name):
    return (
        0 < len(os.fsencode(name)) <= 255 and "/" not in name and "\0" not in name and name not in (".", "..")
    )


safe = st.characters(exclude_categories=("Cs",))
any_name = st.one_of(
    st.sampled_from(ODD),
    st.text(safe, min_size=1, max_size=12),
    st.text(
        st.characters(categories=("Cc", "Cf", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me", "Mc")),
        min_size=1,
        max_size=6,
    ),
    st.tuples(st.sampled_from(ODD), st.text(safe, max_size=3)).map("".join),
).filter(plain_name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("fuzz_names")) as made:
        yield made


def spread(world, classes, files=("0.png", "1.png"), home="named"):
    "Two different pictures per class; the grey of a class says which it is."
    home, draw = world.fresh(home), np.random.default_rng(0)
    for index, name in enumerate(classes):
        folder = os.path.join(home, name)
        os.makedirs(folder, exist_ok=True)
        for file in files:
            shade = 10 + 200 * index // max(1, len(classes))
            array = (shade + draw.integers(0, 8, (10, 10, 3))).astype(np.uint8)
            with open(os.path.join(folder, file), "wb") as target:
                Image.fromarray(array).save(target, "PNG")
    return home


def judge(world, classes, files=("0.png", "1.png")):
    "Check, paint, open, report, audit."
    home, out = spread(world, classes, files), world.cwd / "out"
    shutil.rmtree(out, ignore_errors=True)
    checked = run_checked(world, ["check", home, "--quiet"])
    listed = run_checked(world, ["check", home, "--json", "--quiet"])
    expect(
        listed.code == checked.code
        and listed.out.isascii()
        and json.loads(listed.out)["findings"] is not None,
        f"--json says something else: {listed.code}, {listed.out[:200]!r}",
    )
    report = call_checked(check_folder, home).value
    made = run_checked(
        world, ["augment", home, "out", "--method", "smote", "--copies", "1", "--quiet"], out="out"
    )
    if checked.code == 0:
        expect(made.code == 0 or len(made.err) > 0, f"'check' finds nothing, 'augment' refuses: {made.err!r}")
    if made.code == 0:
        labels_are_right(home, out)
        expect(
            run_checked(world, ["report", "out"], out="out").code == 0,
            f"no report of a finished set of {classes!r}",
        )
        expect_clean_page(out / "report.html")
        audited = run_checked(world, ["audit", "out"], out="out")
        expect(audited.code == 0, f"a clean set is called wrong: {audited.out}")
    shutil.rmtree(out, ignore_errors=True)
    return report


def labels_are_right(home, out):
    "The classes of the source, in its order; every picture has the grey of its class."
    source, made = next(iter(open_folder(home).values())), LabeledImages.open(out / "train")
    expect(
        tuple(made.class_names) == tuple(source.class_names),
        f"other classes: {made.class_names} for {source.class_names}",
    )
    shades = [
        np.mean([source.image(int(position)).mean() for position in np.flatnonzero(source.targets == index)])
        for index in range(len(source.class_names))
    ]
    for position, target in enumerate(made.targets):
        expect(
            int(np.argmin(np.abs(np.array(shades) - made.image(position).mean()))) == target,
            f"'{made.ids[position]}' shows another class than its label says",
        )
        expect(
            os.path.realpath(made.pixels[position]).startswith(os.path.realpath(out) + os.sep),
            f"'{made.pixels[position]}' lies outside the set",
        )


# --- the claims
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(3))
def test_odd_class_names_are_painted_with_the_right_labels_or_refused(world, part):
    judge(world, [name for name in ODD if plain_name(name)][part * 7 :: 41][:5])


@examples(3)
@given(st.lists(any_name, min_size=1, max_size=4))
def test_any_class_names_are_painted_with_the_right_labels_or_refused(world, classes):
    judge(world, classes)


@examples(2)
@given(st.lists(any_name.map(lambda name: name[:40] + ".png").filter(plain_name), min_size=1, max_size=5))
def test_any_file_names_are_painted_with_the_right_labels_or_refused(world, files):
    judge(world, ("cat", "dog"), ("a.png", *files))


COLLISIONS = {
    "case": ["Cat", "cat"],
    "case beyond ASCII": ["ÉCOLE", "école"],
    "sharp s": ["straße", "STRASSE"],
    "normal form": ["e\u0301", "\u00e9"],
    "angstrom": ["\u212b", "A\u030a"],
    "compatibility": ["ﬁn", "fin"],
    "trailing dot": ["cat", "cat."],
    "trailing blank": ["cat", "cat "],
    "reserved": ["CON", "%43ON"],
    "escaped": ["a:b", "a%3Ab"],
    "long": ["a" * 254 + "b", "a" * 254 + "c"],
    "long with signs": [("é" * 126) + "a", ("é" * 126) + "b"],
    "invisible": ["cat", "ca\u200bt"],
    "direction": ["cat", "\u202ecat"],
    "order": ["ABC", "CON", "a0", "a:b"],
    "digits": ["a2", "a10"],
    "prefix": ["cat", "cat-wild"],
    "dotless": ["i", "ı", "İ", "I"],
    "blank and underscore": ["cat_1", "cat 1"],
}


@pytest.mark.parametrize(
    "name", ["case", "normal form", "trailing dot", "reserved", "escaped", "long", "order"]
)
def test_names_that_collide_keep_their_labels_or_are_refused(world, name):
    judge(world, COLLISIONS[name])


@examples(60)
@given(st.text(max_size=300))
def test_any_text_becomes_a_safe_name_for_one_file(text):
    made = file_name(text)
    assert 0 < len(made.encode("utf-8")) <= 200
    assert "/" not in made
    assert "\\" not in made
    assert made not in (".", "..")
    assert not any(ord(character) < 32 for character in made)
    assert made == file_name(unicodedata.normalize("NFC", text))


@examples(60)
@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_two_texts_become_two_names(left, right):
    if unicodedata.normalize("NFC", left) != unicodedata.normalize("NFC", right):
        assert file_name(left) != file_name(right)


@examples(60)
@given(st.text(max_size=100))
def test_printable_text_moves_no_terminal_and_keeps_plain_text(text):
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
    printable(text).encode("utf-8")


def test_names_that_are_not_utf8_are_named_and_refused(world):
    home = spread(world, ("cat", "dog"))
    shutil.copy(home / "cat" / "0.png", os.path.join(os.fsencode(home), b"cat", b"\xff\xfe.png"))
    os.mkdir(os.path.join(os.fsencode(home), b"\xffclass"))
    assert run_checked(world, ["check", home, "--quiet"]).code == 2
    assert run_checked(world, ["augment", home, "out", "--method", "smote", "--quiet"], out="out").code == 2


@pytest.mark.parametrize("name", ["x\nFORGED", "esc\x1b[31m", "<hostile>"])
def test_a_source_folder_with_an_odd_name_is_compared_and_shown_safely(world, name):
    home = world.fresh() / name
    shutil.copytree(world.photos, home)
    out = world.fresh("odd_out")
    made = run_checked(
        world,
        [
            "compare",
            home,
            "--methods",
            "original",
            "--shots",
            "1",
            "--seeds",
            "1",
            "--repeats",
            "1",
            "--updates",
            "1",
            "--classifier-weights",
            "random",
            "--no-measure",
            "--quiet",
            "--out",
            out,
        ],
        out=out,
    )
    assert made.code == 2 or not page_faults(out / "report.html")


def compare_names(world, classes):
    "Class names through a comparison: rows can be read back, the page is clean."
    home, out = spread(world, classes, ("0.png", "1.png", "2.png", "3.png")), world.cwd / "compared"
    shutil.rmtree(out, ignore_errors=True)
    made = run_checked(
        world,
        [
            "compare",
            home,
            "--methods",
            "original,smote",
            *QUICK,
            "--out",
            "compared",
        ],
        out="compared",
    )
    if made.code == 0:
        expect_clean_page(out / "report.html")
        with open(out / "results.csv", encoding="utf-8", newline="") as file:
            parts = {row["part"] for row in csv.DictReader(file) if row["metric"] == "sensitivity"}
        expect(
            len(parts)
            == len({unicodedata.normalize("NFC", name) for name in classes if not name.startswith(".")}),
            f"classes are lost in the rows: {parts}",
        )
    shutil.rmtree(out, ignore_errors=True)


def test_odd_class_names_are_compared_and_shown_safely(world):
    compare_names(world, ["<hostile>", "x\nFORGED", "a,b", "=1+1", "é\u202e"])


@pytest.mark.long
@pytest.mark.parametrize("name", COLLISIONS)
def test_all_names_that_collide_keep_their_labels_or_are_refused(world, name):
    judge(world, COLLISIONS[name])


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(ODD)))
def test_every_odd_name_is_painted_alone_and_beside_a_plain_one(world, number):
    if plain_name(ODD[number]):
        file = ODD[number][:100] + ".png"
        judge(world, [ODD[number], "plain"], ("a.png", file) if plain_name(file) else ("a.png",))


@pytest.mark.long
@examples(100)
@given(st.lists(any_name, min_size=1, max_size=6))
def test_many_class_names_are_painted_with_the_right_labels_or_refused(world, classes):
    judge(world, classes)


@pytest.mark.long
@examples(60)
@given(st.lists(any_name.map(lambda name: name[:40] + ".png").filter(plain_name), min_size=1, max_size=8))
def test_many_file_names_are_painted_with_the_right_labels_or_refused(world, files):
    judge(world, ("cat", "dog"), ("a.png", *files))


@pytest.mark.long
@examples(30)
@given(st.lists(any_name, min_size=2, max_size=5, unique=True))
def test_many_class_names_are_compared_and_shown_safely(world, classes):
    compare_names(world, classes)


@pytest.mark.long
@examples(3000)
@given(st.text(max_size=300), st.text(max_size=300))
def test_many_texts_become_safe_and_different_names(left, right):
    for text in (left, right):
        made = file_name(text)
        assert 0 < len(made.encode("utf-8")) <= 200
        assert "/" not in made
        assert "\\" not in made
        assert made not in (".", "..")
        assert not any(ord(character) < 32 for character in made)
        assert printable(text).isprintable()
    if unicodedata.normalize("NFC", left) != unicodedata.normalize("NFC", right):
        assert file_name(left) != file_name(right)
