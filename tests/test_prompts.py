import pytest

from genaug.messages import GenaugError
from genaug.prompts import ClassPrompt, class_words, clean_suffixes, read_suffixes, two_stage


@pytest.mark.parametrize(
    "name, words",
    [
        ("012.House_Sparrow", "House Sparrow"),
        ("house sparrow", "house sparrow"),
        ("F-16A/B", "F-16A/B"),
        ("3.", "3."),
        ("v1.5", "v1.5"),
        ("__", "__"),
        ("707-320", "707-320"),
        ("naïve_café", "naïve café"),
    ],
)
def test_class_words(name, words):
    assert class_words(name) == words


def test_names_by_hand_and_placeholders_win():
    prompt = ClassPrompt(metaclass="dog", names={"n02085620": "Chihuahua"})
    assert prompt.text("n02085620") == "a photo of a Chihuahua dog"
    assert prompt.text("n02085620", {"n02085620": "<c0>"}) == "a photo of a <c0> dog"
    assert prompt.text(["n02085620", "pug"], {"pug": "<c1>"}) == "a photo of a Chihuahua dog and a <c1> dog"
    assert ClassPrompt("{} in a box").text("cat") == "cat in a box"
    assert (
        ClassPrompt().fingerprint()
        != ClassPrompt(metaclass="bird").fingerprint()
        != ClassPrompt(names={"a": "b"}).fingerprint()
    )


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_has_one_place(template):
    with pytest.raises(GenaugError, match="exactly one"):
        ClassPrompt(template)


def test_suffix_files(tmp_path):
    path = tmp_path / "suffixes.txt"
    path.write_bytes("\ufeff# ours\r\non grass.\r\n\r\n  on   a wire \r\non grass\r\n...\r\n".encode())
    assert read_suffixes(path) == ("on grass", "on a wire")
    assert clean_suffixes(["flying over water", "flying over wate"]) == (
        "flying over water",
        "flying over wate",
    )
    path.write_text("# nothing\n\n")
    with pytest.raises(GenaugError, match="no suffix"):
        read_suffixes(path)
    path.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(GenaugError, match="UTF-8"):
        read_suffixes(path)
    with pytest.raises(GenaugError, match="does not exist"):
        read_suffixes(tmp_path / "none.txt")


def test_two_stages_sum_to_one_and_keep_their_order():
    for split_ratio in (0.1, 0.3, 0.5, 0.7, 0.9):
        (first, share), (second, rest) = two_stage("a bird", "on grass", split_ratio)
        assert (first, second) == ("a bird on grass", "a bird")
        assert share == split_ratio
        assert share + rest == pytest.approx(1)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(GenaugError, match="split ratio"):
            two_stage("a", "b", bad)
