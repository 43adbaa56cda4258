"""Class names are looked at before they are painted: equal prompts, codes, odd signs, what is cut."""

import json
import unicodedata

import pytest

from genaug import digits, phantoms, photographs
from genaug.arm_findings import examine_arms
from genaug.files import findings_text
from genaug.messages import GenaugError
from genaug.prompts import ClassPrompt, class_words, is_code, kept_part, oddities, prompt_findings, prompt_key
from genaug.registry import method_names


def count_tokens_of(text):
    return 2 + sum(1 + len(word) // 6 for word in text.split())  # a tokenizer that knows short words


def kinds(names, **more):
    return [finding.kind for finding in prompt_findings(names, **more)]


@pytest.mark.parametrize(
    "names",
    [
        ("cat_1", "cat 1"),
        ("001.Owl", "002.Owl"),
        ("Owl", "owl"),
        ("House__Sparrow", "house sparrow"),
        (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "Café")),
        ("owl", "owl\u200b"),
        ("owl ", "owl"),
        ("12.owl", "owl"),
        ("snow\u00a0owl", "snow owl"),
        ("owl\t", "owl"),
    ],
)
def test_classes_with_one_prompt_are_an_error_where_words_name_them(names):
    findings = [finding for finding in prompt_findings(names) if finding.kind == "equal-prompts"]
    assert [finding.severity for finding in findings] == ["error"]
    assert findings[0].where == names[0]
    assert findings[0].message.isprintable()


def test_names_given_by_hand_can_be_equal_too():
    assert kinds(["n1", "n2"], class_prompt=ClassPrompt(names={"n1": "owl", "n2": "Owl"})) == [
        "equal-prompts"
    ]
    assert (
        kinds(
            ["cat_1", "cat 1"], class_prompt=ClassPrompt(names={"cat_1": "tabby cat", "cat 1": "black cat"})
        )
        == []
    )


@pytest.mark.parametrize(
    "naming, severity", [("words", "error"), ("adapters", "warning"), ("tokens", "warning")]
)
def test_what_was_learned_can_tell_equal_names_apart(naming, severity):
    assert [finding.severity for finding in prompt_findings(["cat_1", "cat 1"], naming=naming)] == [severity]


def test_many_classes_with_one_prompt_are_one_finding():
    findings = prompt_findings([f"{number}.owl" for number in range(1000)])
    assert len(findings) == 1
    assert "996 more" in findings[0].message


@pytest.mark.parametrize(
    "name",
    [
        "n01440764",
        "0",
        "42",
        "007",
        "class_03",
        "Class 3",
        "label-7",
        "category12",
        "a7f3",
        "d41d8cd98f00b204e9800998ecf8427e",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "--",
        "...",
        "_",
        "x1",
        "c12",
        "nv",
        "bkl",
        "id_0042",
        "00000123",
        "T3",
        "B",
        "class_a",
        "Type: B",
        "1_2",
        "cls3",
        "٣",
        "20240131",
    ],
)
def test_codes_are_warned_of(name):
    findings = prompt_findings([name])
    assert [
        (finding.kind, finding.severity, finding.where) for finding in findings if finding.kind == "code-name"
    ] == [("code-name", "warning", name)]
    assert "rename the folder" in findings[0].message
    assert "--metaclass" in findings[0].message


@pytest.mark.parametrize(
    "name",
    [
        "zero",
        "cat",
        "House Sparrow",
        "012.House_Sparrow",
        "F-16A/B",
        "naïve café",
        "fly",
        "cat 1",
        "covid19",
        "Boeing 747",
        "lynx",
        "sky",
        "type writer",
        "class room",
        "group photo",
        "golden-retriever",
        "t-shirt",
        "pug",
        "object glass",
        "decade",
        "facade",
        "Ölbaum",
        "hemangioma",
        "index finger",
        "tench",
        "no entry",
        "target",
        "folder",
        "nor",
        "cats",
        "species",
    ],
)
def test_words_are_not_taken_for_codes(name):
    assert kinds([name]) == []


def test_a_metaclass_excuses_short_codes_and_no_identifiers():
    aircraft = ClassPrompt(metaclass="aircraft")
    assert kinds(["707-320", "A320", "7", "MD-11", "nv"], class_prompt=aircraft) == []
    assert (
        kinds(["n01440764", "class_03", "d41d8cd98f00b204e9800998ecf8427e"], class_prompt=aircraft)
        == ["code-name"] * 3
    )


@pytest.mark.parametrize(
    "name, why",
    [
        ("cat\x1b[2J", "cannot be seen"),
        ("ca\u202et", "cannot be seen"),
        ("🐈 cat", "a picture"),
        ("кот", "not Latin"),
        ("猫", "not Latin"),
        ("قطة", "not Latin"),
        ("cat {}", "placeholder"),
        ("<c000>", "placeholder"),
        ("{0}", "placeholder"),
    ],
)
def test_odd_signs_are_named_and_the_terminal_is_not_moved(name, why):
    findings = [finding for finding in prompt_findings([name]) if finding.kind == "odd-name"]
    assert len(findings) == 1
    assert why in findings[0].message
    assert findings[0].line().isprintable()
    assert json.loads(findings_text(findings))["findings"][0]["where"] == name


@pytest.mark.parametrize("name", [" ", "\u200b", "\t", ""])
def test_a_name_without_a_word_is_an_error(name):
    assert ("empty-name", "error") in [
        (finding.kind, finding.severity) for finding in prompt_findings([name])
    ]


def test_the_metaclass_and_names_for_classes_that_do_not_exist_are_looked_at():
    assert [finding.where for finding in prompt_findings(["cat"], ClassPrompt(metaclass="{animal}"))] == [
        "metaclass"
    ]
    assert [
        (finding.kind, finding.where)
        for finding in prompt_findings(["cat"], ClassPrompt(names={"Cat": "tabby"}))
    ] == [("unknown-name", "Cat")]


LONG = "owl of the far north " * 30


def test_long_names_with_a_common_beginning_become_equal_when_they_are_cut():
    findings = prompt_findings([LONG + "by day", LONG + "by night", "owl"], count_tokens=count_tokens_of)
    assert [(finding.kind, finding.severity) for finding in findings] == [
        ("equal-cut-prompts", "error"),
        ("cut-prompt", "warning"),
        ("cut-prompt", "warning"),
    ]
    assert "by day" in findings[0].message
    assert "by night" in findings[0].message


def test_long_names_that_differ_at_the_beginning_are_cut_with_a_warning_only():
    assert kinds(["day " + LONG, "night " + LONG], count_tokens=count_tokens_of) == [
        "cut-prompt",
        "cut-prompt",
    ]


def test_without_a_tokenizer_nothing_is_said_about_length():
    assert kinds([LONG + "by day", LONG + "by night"]) == []


def test_the_limit_is_the_last_length_that_is_not_cut():
    name = " ".join(["owl"] * 70)
    tokens = count_tokens_of(ClassPrompt().text(name))
    assert kinds([name], count_tokens=count_tokens_of, limit=tokens) == []
    assert kinds([name], count_tokens=count_tokens_of, limit=tokens - 1) == ["cut-prompt"]


def test_suffixes_that_do_not_fit_are_found():
    suffixes = ("on grass", "in the " + "very " * 75 + "far north")
    assert kinds(["owl", "wren"], suffixes=suffixes, count_tokens=count_tokens_of) == [
        "cut-suffix",
        "cut-suffix",
    ]
    assert kinds(["owl", "wren"], suffixes=suffixes[:1], count_tokens=count_tokens_of) == []


def test_learned_words_are_short_however_long_the_name():
    assert kinds([LONG + "by day", LONG + "by night"], count_tokens=count_tokens_of, naming="tokens") == []


def test_the_part_that_is_kept_is_the_longest_that_fits():
    for limit in range(3, 30):
        remaining = kept_part(LONG, count_tokens_of, limit)
        assert count_tokens_of(remaining) <= limit < count_tokens_of(LONG[: len(remaining) + 1])


@pytest.mark.parametrize(
    "template",
    [
        "a photo",
        "{} and {}",
        "a {} of {x}",
        "a {} of {0}",
        "a {} }",
        "{ a {}",
        "a {{}} b",
        "{!r}",
        "{:>9}",
        "",
        "a {0}",
        "a {}{.x}",
    ],
)
def test_a_template_with_other_braces_is_refused(template):
    with pytest.raises(GenaugError, match="exactly one"):
        ClassPrompt(template)


@pytest.mark.parametrize(
    "wrong",
    [
        {"template": None},
        {"template": 3},
        {"metaclass": None},
        {"metaclass": 3},
        {"names": None},
        {"names": ["a"]},
        {"names": {"a": 1}},
        {"names": {1: "a"}},
    ],
)
def test_words_of_another_type_are_refused(wrong):
    with pytest.raises(GenaugError, match=next(iter(wrong))):
        ClassPrompt(**wrong)


@pytest.mark.parametrize("name", ["{}", "{x}", "{0}", "%s", "a}b", "\\1"])
def test_braces_in_a_name_stay_what_they_are(name):
    assert ClassPrompt(metaclass="{m}").text(name) == f"a photo of a {class_words(name)} {{m}}"


@pytest.mark.parametrize(
    "names",
    [
        digits.DIGIT_WORDS,
        [item.word for item in photographs.TEXTURES],
        [item.name for item in phantoms.LESIONS],
    ],
    ids=("digits", "textures", "lesions"),
)
def test_the_built_in_sets_have_no_finding(names):
    names = tuple(names)
    assert prompt_findings(names, count_tokens=count_tokens_of) == []
    assert prompt_findings(names, ClassPrompt(metaclass="picture"), ("on grass",), count_tokens_of) == []
    assert examine_arms(method_names(), names, suffixes=("on grass",), count_tokens=count_tokens_of) == []


def test_only_methods_that_paint_from_words_are_asked():
    names = ["001.Owl", "002.Owl", "n01440764"]
    assert (
        list(
            examine_arms(
                ["original", "mixup", "smote", "dcgan", "round-trip", "feature-space@denoising_steps=0"],
                names,
            )
        )
        == []
    )
    assert [finding.severity for finding in examine_arms(["real-gen"], names)] == ["error", "warning"]
    assert [finding.severity for finding in examine_arms(["diff-ii"], names)] == ["warning", "note"]


def test_a_finding_of_two_methods_is_given_once_and_in_its_most_severe_form():
    names = ["001.Owl", "002.Owl", "n01440764"]
    assert [
        (finding.kind, finding.severity)
        for finding in examine_arms(["diff-ii", "loft", "real-gen", "real-guidance"], names)
    ] == [("equal-prompts", "error"), ("code-name", "warning")]


def test_words_given_by_hand_and_a_tokenizer_reach_the_arms():
    prompt = ClassPrompt(names={"n1": "owl", "n2": "wren"})
    assert examine_arms(["real-gen"], ["n1", "n2"], class_prompt=prompt, count_tokens=count_tokens_of) == []
    assert [
        finding.kind for finding in examine_arms(["real-gen"], [LONG, "wren"], count_tokens=count_tokens_of)
    ] == ["cut-prompt"]
    assert [
        finding.kind
        for finding in examine_arms(
            ["real-gen"],
            [f"long name number {'i' * number}" for number in range(1, 40)],
            "multi",
            count_tokens=count_tokens_of,
        )
    ] == ["cut-enumeration"]


def test_keys_codes_and_oddities_take_any_text():
    for text in ("", "\x00", "\ud800", "a" * 10_000, "\U0001f408" * 50, "é\u0301" * 20, "{" * 100):
        assert isinstance(prompt_key(text), str)
        assert is_code(text) in (True, False)
        assert isinstance(oddities(text), list)
        assert all(
            finding.line().isprintable()
            for finding in prompt_findings([text, "owl"], count_tokens=count_tokens_of)
        )
