"""A table of names: each fault of it is one sentence, its words reach every prompt, and nothing changes
without one."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest

import genaug
from genaug import cli
from genaug.arms import make_arm
from genaug.commands.compare import choose_evaluators
from genaug.comparison import Comparison
from genaug.datasets import load
from genaug.experiment import Run
from genaug.files import write_atomic
from genaug.identity import content_hash, record_of
from genaug.messages import GenaugError
from genaug.name_checks import (
    file_problems,
    guess_words,
    length_findings,
    name_problems,
    same_file,
    token_counter,
    write_names,
)
from genaug.names import (
    BY_FORMAT,
    SHIPPED,
    NameRow,
    NamesTable,
    check_fit,
    find_names,
    in_words,
    known_finding,
    known_set,
    match_rows,
    named_prompt,
    names_findings,
    read_names,
    shipped_names,
)
from genaug.pictures import encode_png
from genaug.plan_file import make_plan, read_plan
from genaug.plans import Budget
from genaug.preflight import open_run
from genaug.prompts import ClassPrompt, class_words
from genaug.readers import formats, open_sets
from genaug.stable_diffusion import load_backbone
from genaug.synthetic_set import open_synthetic
from genaug.tables import table_places, with_names

CODES = ("akiec", "mel", "nv")
WORDS = {"akiec": "actinic keratosis", "mel": "melanoma", "nv": "mole"}
QUICK = "real-gen@num_inference_steps=1"


def table(path, *lines, head="folder,words", encoding="utf-8"):
    path.write_bytes("\n".join([head, *lines, ""]).encode(encoding))
    return path


def photographs(home, names, each=6, size=(20, 20), seed=0):
    draw = np.random.default_rng(seed)
    for name in names:
        for number in range(each):
            pixels = np.kron(draw.integers(0, 256, (5, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
            write_atomic(home / name / f"{number}.png", encode_png(pixels))
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("codes") / "photos", CODES)


@pytest.fixture
def names(tmp_path):
    return table(tmp_path / "names.csv", *(f"{code},{words}" for code, words in WORDS.items()))


def run_json(capsys, *arguments):
    code = cli.run([*map(str, arguments), "--json", *([] if arguments[0] == "audit" else ["--quiet"])])
    return code, json.loads(capsys.readouterr().out)


def kinds(record):
    return [item["kind"] for item in record["findings"]]


def sentence(capsys, *arguments):
    "What a command that is refused says: exit code 2 and one line."
    assert cli.run([*map(str, arguments)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


# ---- a table that is none

BAD = {
    "semicolons": (b"folder;words\nmel;melanoma\n", "semicolons"),
    "tabs": (b"folder\twords\nmel\tmelanoma\n", "tabs"),
    "utf-16": ("folder,words\nmel,melanoma\n".encode("utf-16"), "UTF-16"),
    "latin-1": ("folder,words\nmel,m\xe9lanome\n".encode("latin-1"), "not UTF-8 text in line 2"),
    "nul": (b"folder,words\nmel,mela\0noma\n", "NUL character in line 2"),
    "spreadsheet": (b"PK\3\4" + bytes(60), "spreadsheet's own format"),
    "empty": (b"", "is empty"),
    "blank": (b"\n\n , \n", "is empty"),
    "header only": (b"folder,words\n", "names no class"),
    "no words": (b"folder,metaclass\nmel,lesion\n", "no column 'words'"),
    "no folder": (b"words\nmelanoma\n", "no column 'folder'"),
    "misspelt column": (b"folder,word\nmel,melanoma\n", "did you mean 'words'?"),
    "a column of one's own": (b"folder,words,colour\nmel,melanoma,brown\n", "has a column 'colour'"),
    "column twice": (b"folder,words,words\nmel,a,b\n", "column 'words' twice"),
    "no header": (b"mel,melanoma\nnv,mole\n", "has a column 'mel'"),
    "class twice": (b"folder,words\nmel,a\nnv,b\nmel,c\n", "Line 4"),
    "empty words": (b"folder,words\nmel,\n", "no words for the class 'mel'"),
    "blank words": (b"folder,words\nmel,  \n", "no words for the class 'mel'"),
    "invisible words": ("folder,words\nmel,\u200b\n".encode(), "no words for the class 'mel'"),
    "no class": (b"folder,words\n,melanoma\n", "Line 2"),
    "a cell too many": (b"folder,words\nmel,melanoma, malignant\n", "3 cells instead of 2"),
    "a cell too few": (b"folder,words\nmel\n", "1 cells instead of 2"),
    "open quotation": (b'folder,words\nmel,"melanoma\n', "quotation marks"),
    "escape sequence": (b"folder,words\nmel,mela\x1b[2Jnoma\n", "cannot be seen"),
    "endless words": (b"folder,words\nmel," + b"x" * 400 + b"\n", "400 characters"),
    "endless file": (b"folder,words\n" + b"x,y\n" * 1_300_000, "more than 5,000,000 bytes"),
}


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_of_a_file_is_one_sentence(fault, tmp_path):
    content, part = BAD[fault]
    (tmp_path / "names.csv").write_bytes(content)
    with pytest.raises(GenaugError) as error:
        read_names(tmp_path / "names.csv")
    message = str(error.value)
    assert part in message
    assert "names.csv" in message
    assert message.endswith(".")
    assert message.isprintable()
    assert len(message) < 500


def test_a_table_that_is_missing_or_a_folder_is_one_sentence(tmp_path):
    for path, part in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.csv", "does not exist"),
        ("a\0b", "does not exist"),
        ("~nobody-here/x.csv", "cannot be read"),
    ):
        with pytest.raises(GenaugError, match=part):
            read_names(path)


def test_what_spreadsheets_do_and_does_no_harm_is_accepted(tmp_path):
    plain = table(tmp_path / "plain.csv", "mel,melanoma", "nv,mole")
    for end, mark in (("\r\n", b"\xef\xbb\xbf"), ("\r\n", b""), ("\n", b"\xef\xbb\xbf")):
        other = tmp_path / "other.csv"
        other.write_bytes(
            mark + end.join([' Words ,"FOLDER"', ' melanoma ,"mel"', ",", "mole,nv", ""]).encode()
        )
        assert read_names(other).rows == read_names(plain).rows
    quoted = table(tmp_path / "quoted.csv", '"a,b","one, two"')
    assert read_names(quoted).rows == (NameRow("a,b", "one, two"),)


# ---- a table that does not fit

FITS = {
    "missing": (["mel,melanoma", "nv,mole"], "no line for the class 'akiec'"),
    "several missing": (["mel,melanoma"], "'akiec' and 1 more"),
    "misspelt": (["akiek,a", "mel,b", "nv,c"], "the nearest is 'akiec'"),
    "unknown": (["akiec,a", "mel,b", "nv,c", "zzz,d"], "a line for 'zzz', which the data do not have"),
    "another case": (["akiec,a", "Mel,b", "nv,c"], "the nearest is 'mel'"),
}


@pytest.mark.parametrize("fault", FITS)
def test_each_way_not_to_fit_is_one_sentence(fault, tmp_path):
    lines, part = FITS[fault]
    with pytest.raises(GenaugError) as error:
        check_fit(read_names(table(tmp_path / "names.csv", *lines)), CODES)
    assert part in str(error.value)
    assert str(error.value).count(". ") == 0


def test_zeros_that_a_spreadsheet_ate_are_found(tmp_path):
    eaten = read_names(table(tmp_path / "names.csv", "1,auk", "2,wren", "10,owl"))
    with pytest.raises(GenaugError, match="'1' and 2 more.*nearest is '001'"):
        check_fit(eaten, ("001", "002", "010"))


def test_one_name_stored_in_two_ways_is_one_name(tmp_path):
    read = read_names(table(tmp_path / "names.csv", "Mo\u0308we,gull"))
    check_fit(read, ("M\u00f6we",))
    assert named_prompt(read, ("M\u00f6we",)).text("M\u00f6we") == "a photo of a gull"


def test_equal_words_are_a_warning(tmp_path):
    twins = read_names(table(tmp_path / "names.csv", "akiec,spot", "mel,Spot", "nv,mole"))
    check_fit(twins, CODES)
    findings = names_findings(twins, CODES, named_prompt(twins, CODES))
    assert [(finding.kind, finding.severity, finding.where) for finding in findings] == [
        ("equal-words", "warning", "akiec")
    ]
    apart = read_names(
        table(tmp_path / "b.csv", "a,bengal,cat", "b,bengal,tiger", head="folder,words,metaclass")
    )
    assert names_findings(apart, ("a", "b"), named_prompt(apart, ("a", "b"))) == []


# ---- what a table changes, and what it does not


def test_without_a_table_every_hash_and_record_is_as_before():
    prompt = ClassPrompt(metaclass="bird", names={"a": "auk"})
    assert prompt.fingerprint() == "a photo of a {}|bird|[('a', 'auk')]"
    assert record_of(prompt) == {"template": "a photo of a {}", "metaclass": "bird", "names": {"a": "auk"}}
    assert (
        content_hash(ClassPrompt(metaclass="x"))
        == "0a3abc123c13af6cc178eae0624fc59d940f9f42501f030b25c75a9a17814c39"
    )
    assert Comparison(("original",)).record()["class_prompt"] == {
        "template": "a photo of a {}",
        "metaclass": "",
        "names": {},
    }
    assert named_prompt(None, CODES) == ClassPrompt()
    assert named_prompt(None, CODES, "lesion") == ClassPrompt(metaclass="lesion")


def test_a_metaclass_of_a_class_counts():
    mixed = ClassPrompt(metaclasses={"a": "cat"})
    assert (
        len(
            {
                mixed.fingerprint(),
                ClassPrompt().fingerprint(),
                ClassPrompt(metaclasses={"a": "dog"}).fingerprint(),
            }
        )
        == 3
    )
    assert content_hash(mixed) != content_hash(ClassPrompt())
    assert record_of(mixed)["metaclasses"] == {"a": "cat"}
    for wrong in (None, {"a": 1}, ["a"]):
        with pytest.raises(GenaugError, match="metaclasses"):
            ClassPrompt(metaclasses=wrong)


def test_a_table_that_repeats_the_rule_changes_nothing():
    real = load("digits")["train"]
    rows = tuple(NameRow(name, class_words(name)) for name in real.class_names)
    assert named_prompt(NamesTable("t", rows), real.class_names) == ClassPrompt()


def test_cells_come_before_the_word_for_all_and_it_fills_the_empty_ones():
    mixed = NamesTable(
        "t", (NameRow("a", "tabby", "cat"), NameRow("b", "beagle", "dog"), NameRow("c", "thing"))
    )
    prompt = named_prompt(mixed, ("a", "b", "c"), "pet")
    assert [prompt.text(name) for name in "abc"] == [
        "a photo of a tabby cat",
        "a photo of a beagle dog",
        "a photo of a thing pet",
    ]
    assert prompt.text("a", {"a": "<c000>"}) == "a photo of a <c000> cat"
    assert prompt.text(["a", "b"]) == "a photo of a tabby cat and a beagle dog"
    left = NamesTable("t", (NameRow("a", "tabby", "cat"), NameRow("b", "tiger", "cat")))
    assert named_prompt(left, ("a", "b")) == ClassPrompt(metaclass="cat", names={"a": "tabby", "b": "tiger"})
    shipped = replace(left, shipped=True)
    assert named_prompt(shipped, ("a", "b"), "animal").metaclass == "animal"
    assert named_prompt(shipped, ("a", "b"), "").metaclass == ""
    assert named_prompt(shipped, ("a", "b", "c")).text("c") == "a photo of a c cat"


@pytest.mark.parametrize(
    "method", ["real-gen", "real-guidance", "diff-mix@naming.steps=1", "diff-ii@naming.steps=1"]
)
def test_the_words_stand_in_the_prompts_of_a_plan(method, tmp_path):
    pool = load("digits")["train"]
    real = pool[[position for position in range(len(pool)) if pool.targets[position] < 3][:9]]
    rows = tuple(NameRow(name, f"handwritten {name}", "numeral") for name in pool.class_names)
    prompt = named_prompt(NamesTable("t", rows), pool.class_names)
    network = load_backbone("tiny")
    texts = {}
    for key, given in (("with", prompt), ("without", ClassPrompt())):
        augmenter = make_arm(method, network, given).augmenter
        plan = make_plan(augmenter.fit(real, tmp_path / key, False), real, Budget(1), 0)
        texts[key] = [text for row in plan.rows for text, _ in row.prompts]
    assert texts["with"]
    assert all(text.endswith("numeral") for text in texts["with"])
    assert not any("numeral" in text for text in texts["without"])
    if method.startswith("real"):
        assert all("handwritten" in text for text in texts["with"])


# ---- the tables that come along


def test_every_published_format_has_its_table():
    without = {"label-table", "lesions", "image-list"}
    assert set(formats()) - without == set(BY_FORMAT) - {"nct-crc-he", "ham10000"}
    assert {find_names(None, name) for name in without} == {None}
    assert {BY_FORMAT[name] for name in BY_FORMAT} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_are_in_order(name):
    shipped = shipped_names(name)
    names = tuple(row.folder for row in shipped.rows)
    prompt = named_prompt(shipped, names)
    texts = [prompt.text(item) for item in names]
    assert len({text.casefold() for text in texts}) == len(texts)
    assert all(row.words.isascii() and not name_problems(row.folder, prompt) for row in shipped.rows)
    assert [finding.kind for finding in names_findings(shipped, names, prompt)] == ["names-table"]


def test_shipped_counts_and_facts():
    counts = {name: len(shipped_names(name).rows) for name in SHIPPED}
    assert counts == {
        "cub": 200,
        "fgvc-aircraft": 100,
        "stanford-cars": 196,
        "oxford-pet": 37,
        "flowers-102": 102,
        "waterbirds": 2,
        "kather-2016": 8,
        "nct-crc-he": 9,
        "ham10000": 7,
        "mimic-cxr-lt": 26,
    }
    from torchvision.datasets import Flowers102

    assert [row.folder for row in shipped_names("flowers-102").rows] == [
        name.strip() for name in Flowers102.classes
    ]
    kinds = [row.metaclass for row in shipped_names("oxford-pet").rows]
    assert (kinds.count("cat"), kinds.count("dog")) == (12, 25)
    from genaug.data.mimic_cxr_lt import MIMIC_HEADS, MIMIC_TAILS

    assert set(match_rows(shipped_names("mimic-cxr-lt"), (*MIMIC_HEADS, *MIMIC_TAILS))) == {
        *MIMIC_HEADS,
        *MIMIC_TAILS,
    }
    rule = [(row.folder, row.words) for row in shipped_names("cub").rows]
    assert all(words == class_words(folder) for folder, words in rule)
    assert [int(folder[:3]) for folder, _ in rule] == list(range(1, 201))


BUILT = {
    "cub": miniatures.cub,
    "fgvc-aircraft": miniatures.aircraft,
    "stanford-cars": miniatures.cars,
    "oxford-pet": miniatures.pet,
}


@pytest.mark.parametrize("name", BUILT)
def test_published_layouts_find_their_table(name, tmp_path, capsys):
    home = BUILT[name](tmp_path).home
    code, record = run_json(capsys, "check", f"{name}:{home}")
    said = [item for item in record["findings"] if item["kind"] == "names-table"]
    assert len(said) == 1
    assert SHIPPED[name] in said[0]["message"]
    names = open_sets(f"{name}:{home}")["train"].class_names
    assert match_rows(shipped_names(name), names)
    code, record = run_json(capsys, "check", f"{name}:{home}", "--names", "none")
    assert "names-table" not in kinds(record)


def test_the_makers_of_aircraft_and_the_kinds_of_pets():
    aircraft = named_prompt(shipped_names("fgvc-aircraft"), ("707-320", "Boeing 717", "F-16A/B"))
    assert [aircraft.word(name) for name in ("707-320", "Boeing 717", "F-16A/B")] == [
        "Boeing 707-320",
        "Boeing 717",
        "Lockheed Martin F-16A/B",
    ]
    pets = named_prompt(shipped_names("oxford-pet"), ("Abyssinian", "american bulldog", "american_bulldog"))
    assert pets.text("american_bulldog") == "a photo of a American Bulldog dog"
    assert pets.text("Abyssinian") == "a photo of a Abyssinian cat"


def test_a_folder_named_as_a_known_set_is_told_about_it():
    assert known_set(CODES) == "ham10000"
    assert (
        known_set(
            tuple(
                f"{number:02d}_{name.upper()}"
                for number, name in enumerate(
                    ("tumor", "stroma", "complex", "lympho", "debris", "mucosa", "adipose", "empty"), 1
                )
            )
        )
        == "kather-2016"
    )
    assert known_set(("ADI", "TUM")) == "nct-crc-he"
    assert [item.severity for item in known_finding(CODES, None)] == ["warning"]
    assert known_finding(CODES, shipped_names("ham10000")) == known_finding(("zero", "one"), None) == []
    for names in (load("digits"), load("textures"), load("lesions"), load("digit-scenes")):
        assert known_set(names["train"].class_names) == ""


# ---- names that are no words, and no file names


@pytest.mark.parametrize(
    "name, kind",
    [
        ("mel", "abbreviation"),
        ("ADI", "abbreviation"),
        ("TUM", "abbreviation"),
        ("n02123045", "code-name"),
        ("17", "code-name"),
        ("01_TUMOR", "numbered-name"),
        ("кошка", "odd-name"),
        ("猫", "odd-name"),
    ],
)
def test_names_that_are_no_words(name, kind):
    assert kind in [item for item, _ in name_problems(name, ClassPrompt())]
    given = ClassPrompt(names={name: "melanoma"})
    assert name_problems(name, given) == []


@pytest.mark.parametrize(
    "name", ["zero", "house_sparrow", "012.House_Sparrow", "F-16A/B", "Überraschung", "owl", "café"]
)
def test_names_that_are_words(name):
    assert name_problems(name, ClassPrompt()) == []


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "con",
        "nul",
        "Aux.birds",
        "COM1",
        "lpt9",
        "COM²",
        "a<b",
        "a>b",
        "a:b",
        'a"b',
        "a/b",
        "a\\b",
        "a|b",
        "a?b",
        "a*b",
        "owl.",
        "owl ",
        "owl. .",
        "a\tb",
        "x" * 201,
        "ü" * 130,
    ],
)
def test_names_that_are_no_file_names_on_windows(name):
    assert len(file_problems(name)) == 1


@pytest.mark.parametrize(
    "name",
    ["cone", "company", "COM0", "COM10", "lpt", "owl.x", ".owl", " owl", "a-b", "a'b", "x" * 200, "猫"],
)
def test_names_that_are_file_names_everywhere(name):
    assert file_problems(name) == []


def test_names_that_are_one_folder_elsewhere():
    assert same_file(("Cat", "dog", "CAT", "M\u00f6we", "Mo\u0308we")) == {
        "CAT": "Cat",
        "Mo\u0308we": "M\u00f6we",
    }


def test_tokens_are_counted_against_the_limit(tmp_path):
    count, limit = token_counter()
    assert limit == 32
    assert count("") == 2
    long = "owl " * 60 + "of the north"
    findings = length_findings(["owl", long], ClassPrompt())
    assert [(finding.kind, finding.severity, finding.where) for finding in findings] == [
        ("long-name", "note", long)
    ]
    assert str(count(ClassPrompt().text(long))) in findings[0].message
    tiny = Path(genaug.__file__).parent / "assets" / "tiny-1"
    findings = length_findings(["owl", long], ClassPrompt(), str(tiny))
    assert [(finding.kind, finding.severity) for finding in findings] == [("cut-prompt", "warning")]
    assert "reads 32" in findings[0].message
    with pytest.raises(GenaugError, match="no model folder"):
        token_counter(str(tmp_path / "none"))


# ---- the template


def test_the_template_can_be_read_back_and_fits(tmp_path):
    names = ("01_TUMOR", "mel", "a,b", 'say "owl"', "=1+1", "CON", "Cat", "cat", "n02123045")
    write_names(tmp_path / "new.csv", names, ClassPrompt(metaclass="thing"))
    read = read_names(tmp_path / "new.csv")
    check_fit(read, names)
    assert [row.folder for row in read.rows] == list(names)
    assert {row.metaclass for row in read.rows} == {"thing"}
    with open(tmp_path / "new.csv", newline="", encoding="utf-8") as file:
        problems = {row["folder"]: row["problem"] for row in csv.DictReader(file)}
    assert "number in front" in problems["01_TUMOR"]
    assert "melanoma" in problems["mel"]
    assert "reserved" in problems["CON"]
    assert "same folder as Cat" in problems["cat"]
    assert problems["a,b"] == problems["Cat"] == ""


def test_the_template_never_overwrites(tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("work of hours")
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    for path, part in (
        (mine, "exists"),
        (tmp_path / "link.csv", "exists"),
        (tmp_path / "no" / "x.csv", "its folder does not exist"),
    ):
        with pytest.raises(GenaugError, match=part):
            write_names(path, CODES)
    assert mine.read_text() == "work of hours"


@pytest.mark.parametrize(
    "name, words",
    [
        ("mel", "melanoma"),
        ("01_TUMOR", "tumor"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("012.House_Sparrow", "House Sparrow"),
        ("golden-retriever", "golden retriever"),
        ("BlackFootedAlbatross", "Black Footed Albatross"),
        ("F-16A/B", "F-16A/B"),
        ("707-320", "707-320"),
        ("TUM", "colorectal adenocarcinoma epithelium"),
        ("owl", "owl"),
        ("7", "7"),
        ("_", "_"),
    ],
)
def test_first_guesses(name, words):
    assert guess_words(name) == words


# ---- the commands


def test_check_names_the_faults_and_writes_a_template(folder, tmp_path, capsys):
    code, record = run_json(capsys, "check", folder, "--write-names", tmp_path / "new.csv")
    assert code == 0
    assert {"abbreviation", "known-names"} <= set(kinds(record))
    assert [row.words for row in read_names(tmp_path / "new.csv").rows] == [
        "actinic keratosis",
        "melanoma",
        "melanocytic nevus",
    ]
    code, record = run_json(capsys, "check", folder, "--names", tmp_path / "new.csv")
    assert code == 0
    assert not {"abbreviation", "known-names", "code-name"} & set(kinds(record))
    assert record["next"].endswith(f"--names {tmp_path / 'new.csv'}")
    assert "exists" in sentence(capsys, "check", folder, "--write-names", tmp_path / "new.csv", "--quiet")


def test_check_says_which_folders_do_not_travel(tmp_path, capsys):
    home = photographs(tmp_path / "photos", ("aux", "Owl", "owl", "wren."))
    _, record = run_json(capsys, "check", home)
    assert {item["where"] for item in record["findings"] if item["kind"] == "file-name"} == {
        "aux",
        "owl",
        "wren.",
    }


def test_augment_paints_with_the_words(folder, names, tmp_path, capsys):
    code, record = run_json(
        capsys, "augment", folder, tmp_path / "set", "--method", QUICK, "--copies", 1, "--names", names
    )
    assert code == 0
    plan = read_plan(tmp_path / "set")
    assert {text for row in plan.rows for text, _ in row.prompts} == {
        f"a photo of a {words}" for words in WORDS.values()
    }
    made = open_synthetic(tmp_path / "set")
    assert made.class_names == CODES
    assert sorted(path.name for path in (tmp_path / "set" / "train").iterdir() if path.is_dir()) == sorted(
        CODES
    )
    assert cli.run(["report", str(tmp_path / "set")]) == 0
    assert "a photo of a melanoma" in (tmp_path / "set" / "report.html").read_text()
    capsys.readouterr()
    code, record = run_json(capsys, "audit", tmp_path / "set", "--names", names)
    assert "other-words" not in kinds(record)
    other = table(tmp_path / "other.csv", "akiec,a crust", "mel,a spot", "nv,a dot")
    code, record = run_json(capsys, "audit", tmp_path / "set", "--names", other)
    assert kinds(record).count("other-words") == 1


def test_the_first_prompts_that_augment_shows_have_the_words(folder, names, tmp_path, capsys):
    assert (
        cli.run(
            [
                "augment",
                str(folder),
                str(tmp_path / "set"),
                "--method",
                QUICK,
                "--copies",
                "1",
                "--names",
                str(names),
                "--metaclass",
                "lesion",
                "--quiet",
            ]
        )
        == 0
    )
    assert "  mel: 'a photo of a melanoma lesion'" in capsys.readouterr().out


def test_without_a_table_a_plan_is_bit_identical(folder, names, tmp_path, capsys):
    same = table(tmp_path / "same.csv", *(f"{code},{code}" for code in CODES))
    for out, more in (
        ("a", []),
        ("b", ["--names", "none"]),
        ("c", ["--names", same]),
        ("d", ["--names", names]),
    ):
        assert (
            run_json(capsys, "augment", folder, tmp_path / out, "--method", QUICK, "--copies", 1, *more)[0]
            == 0
        )
    plans = {out: (tmp_path / out / "plan.jsonl").read_bytes() for out in "abcd"}
    assert plans["a"] == plans["b"] == plans["c"] != plans["d"]


def test_an_interrupted_set_is_not_continued_with_other_words(folder, names, tmp_path, capsys):
    command = ["augment", folder, tmp_path / "set", "--method", QUICK, "--copies", 1, "--quiet"]
    assert cli.run([*map(str, command)]) == 0
    capsys.readouterr()
    sentence(capsys, *command, "--names", names)


def test_compare_paints_records_and_recognises_the_words(folder, names, tmp_path, capsys):
    command = [
        "compare",
        folder,
        "--methods",
        f"original,{QUICK}",
        "--shots",
        2,
        "--seeds",
        1,
        "--repeats",
        1,
        "--copies",
        0.5,
        "--updates",
        1,
        "--no-measure",
        "--backbone",
        "tiny",
        "--out",
        tmp_path / "out",
    ]
    code, record = run_json(capsys, *command, "--names", names)
    assert code == 0
    question = json.loads((tmp_path / "out" / "comparison.json").read_text())["question"]
    assert question["class_prompt"]["names"] == WORDS
    plan = next((tmp_path / "out" / "synthetic").glob("split-0/*/plan.jsonl"))
    assert "a photo of a melanoma" in plan.read_text()
    assert "melanoma" in (tmp_path / "out" / "report.html").read_text()
    assert run_json(capsys, *command, "--names", names)[0] == 0
    said = sentence(capsys, *command, "--quiet")
    assert "the prompt of the classes changed" in said
    assert "--names none" in said
    assert "the prompt of the classes changed" in sentence(
        capsys, *command, "--names", "published:ham10000", "--quiet"
    )


def test_the_evaluators_reads_the_words(folder, names):
    prompt = named_prompt(read_names(names), CODES)
    question = Comparison((QUICK,), "photos", 2, class_prompt=prompt)
    run = Run(question, load("digit-scenes"), load_backbone("tiny"), "unused", False)
    usual = {"measure": None, "judge": "auto", "clip": None, "lpips": None, "inception": None}
    evaluators = choose_evaluators(run, usual)
    assert evaluators is not None
    assert evaluators.class_prompt == prompt
    plain = replace(run, question=replace(question, class_prompt=ClassPrompt()))
    assert choose_evaluators(plain, usual).class_prompt == ClassPrompt()


@pytest.mark.parametrize("command", ["check", "augment", "compare", "suffixes"])
@pytest.mark.parametrize("fault", ["semicolons", "fit", "absent"])
def test_every_command_refuses_a_wrong_table_before_any_work(command, fault, folder, tmp_path, capsys):
    bad = {
        "semicolons": table(tmp_path / "bad.csv", "mel;melanoma", head="folder;words"),
        "fit": table(tmp_path / "few.csv", "mel,melanoma"),
        "absent": tmp_path / "none.csv",
    }[fault]
    source = "digits" if command == "suffixes" else folder
    out = {
        "check": [],
        "augment": [tmp_path / "out"],
        "compare": ["--out", tmp_path / "out"],
        "suffixes": [tmp_path / "out"],
    }
    said = sentence(capsys, command, source, *out[command], "--names", bad, "--quiet")
    assert said.startswith("genaug: ")
    assert "names table" in said
    assert not (tmp_path / "out").exists()


def test_audit_and_reproduce_refuse_a_wrong_table(folder, names, tmp_path, capsys):
    assert run_json(capsys, "augment", folder, tmp_path / "set", "--method", QUICK, "--copies", 1)[0] == 0
    few = table(tmp_path / "few.csv", "mel,melanoma")
    assert "no line for the class" in sentence(capsys, "audit", tmp_path / "set", "--names", few)
    assert "does not exist" in sentence(
        capsys,
        "reproduce",
        "diff_ii_few_shot",
        "--names",
        tmp_path / "no.csv",
        "--no-run",
        "--out",
        tmp_path / "tables",
    )
    assert "did you mean 'cub'" in sentence(
        capsys,
        "reproduce",
        "diff_ii_few_shot",
        "--names",
        "published:cup",
        "--no-run",
        "--out",
        tmp_path / "tables",
    )


def test_tables_take_names(tmp_path):
    real = load("digits")["train"]
    path = table(tmp_path / "names.csv", *(f"{name},digit {name}" for name in real.class_names))
    assert table_places("demo", names=str(path)).names == str(path)
    run = open_run(Comparison(("original",), "digits"), "digits", tmp_path, progress=False)
    assert with_names(run, "digits", str(path)).question.class_prompt.text("two") == "a photo of a digit two"
    assert with_names(run, "digits", None) is run
    with pytest.raises(GenaugError, match="have none of the classes"):
        with_names(run, "digits", "published:cub")


def test_suffixes_are_counted_and_filtered_with_the_words(tmp_path, capsys):
    real = load("digit-scenes")["train"]
    prompt = ClassPrompt(names={"zero": "grass"})
    renamed = in_words(real, prompt)
    assert renamed.class_names == tuple("grass" if name == "zero" else name for name in real.class_names)
    assert renamed.ids == real.ids
    assert in_words(real, ClassPrompt()) is real
    twins = in_words(real, ClassPrompt(names={"zero": "one"}))
    assert twins.class_names == real.class_names
    path = table(
        tmp_path / "names.csv",
        *(f"{name},{'flowers' if name == 'zero' else name}" for name in real.class_names),
    )
    code, record = run_json(
        capsys, "suffixes", "digit-scenes", tmp_path / "out.txt", "--published", "cub-5-shot", "--names", path
    )
    assert code == 0
    assert any("names the class 'flowers'" in why for why in record["left_out"].values())


def test_names_have_no_effect_where_nothing_is_prompted(folder, names, tmp_path, capsys):
    code, record = run_json(
        capsys, "augment", folder, tmp_path / "set", "--method", "smote", "--copies", 1, "--names", names
    )
    assert code == 0
    assert [item["where"] for item in record["findings"] if item["kind"] == "no-effect"] == ["--names"]


def test_published_names_that_fit_nothing_are_refused(folder, tmp_path, capsys):
    assert "have none of the classes" in sentence(
        capsys, "check", folder, "--names", "published:cub", "--quiet"
    )
    assert "did you mean 'ham10000'" in sentence(
        capsys, "check", folder, "--names", "published:ham1000", "--quiet"
    )
