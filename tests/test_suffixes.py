"""Suffixes: published lists, captions of training images only, any language model, answers however they are
written, the filter, the file, the command."""

import contextlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from genaug import datasets
from genaug.captioners import BlipCaptioner, read_captions
from genaug.cli import run
from genaug.core import LabeledImages
from genaug.data.splits import Manifest, few_shot
from genaug.language_models import LanguageModel, LocalLanguageModel, ServerLanguageModel, open_language_model
from genaug.messages import GenaugError
from genaug.prompts import read_suffixes
from genaug.suffixes import (
    begins_setting,
    draw_captions,
    filter_suffixes,
    find_suffixes,
    instruction,
    known_captions,
    make_suffixes,
    named_class,
    parse_suffixes,
    prefix_for,
    published_lists,
    published_suffixes,
    setting_of,
    stem,
    suffixes_from_captions,
    summarize,
    write_suffixes,
)

KEY = "sk-very-secret-0123456789"
WORDS = "a photo of seven on grass gravel fur stars with blue"
BIRDS = [
    "001.Black_footed_Albatross",
    "House_Sparrow",
    "Tree_Swallow",
    "Rock_Wren",
    "Blue_Jay",
    "Red_winged_Blackbird",
    "Field_Sparrow",
    "Barn_Swallow",
    "Gray_Catbird",
    "Western_Wood_Pewee",
    "Cliff_Swallow",
]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("GENAUG_LLM_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pool():
    return datasets.load("digit-scenes")["train"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    "A captioner's folder of the smallest kind, with random weights."
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder, names = (
        tmp_path_factory.mktemp("blip") / "tiny-blip",
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS.split()],
    )
    layer = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 32,
        "initializer_range": 0.5,
    }
    text = {
        "vocab_size": len(names),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 64,
        "bos_token_id": 5,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BlipForConditionalGeneration(
            BlipConfig(
                text_config=layer | text,
                vision_config=layer | {"image_size": 32, "patch_size": 8},
                projection_dim=32,
                image_text_hidden_size=32,
            )
        )
    tokenizer = BertTokenizerFast(vocab={name: index for index, name in enumerate(names)})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[DEC]"]})
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(blip):
    return BlipCaptioner(blip, max_new_tokens=8)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    "A language model's folder of the smallest kind, with random weights."
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder, words = (
        tmp_path_factory.mktemp("gpt") / "tiny-gpt",
        Tokenizer(
            models.WordLevel(
                {
                    word: index
                    for index, word in enumerate("[UNK] <end> a photo of digit on grass gravel .".split())
                },
                unk_token="[UNK]",
            )
        ),
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=10,
                n_positions=128,
                n_embd=32,
                n_layer=1,
                n_head=2,
                bos_token_id=1,
                eos_token_id=1,
                initializer_range=0.5,
            )
        )
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="<end>").save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def server():
    """A server that answers with whatever `reply` (status, body or function of the request) says, and keeps
    what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = {
                "path": self.path,
                "key": self.headers.get("Authorization"),
                **json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
            }
            here.asked.append(asked)
            code, body = here.reply(asked) if callable(here.reply) else here.reply
            time.sleep(here.delay)
            self.send_response(code)
            if code == 302:
                self.send_header("Location", f"http://127.0.0.1:{here.server_port}/elsewhere")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def do_GET(self):
            here.asked.append({"path": self.path, "key": self.headers.get("Authorization")})

        def log_message(self, *_):
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.daemon_threads, here.asked, here.reply, here.delay = True, [], said("a photo of a bird on a wire"), 0
    thread = threading.Thread(target=here.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    here.address = f"http://127.0.0.1:{here.server_port}"
    yield here
    here.shutdown()
    here.server_close()


def said(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


# the published lists


def test_all_lists_are_there_as_printed():
    wanted = {f"{name}-{shots}-shot" for name in ("cub", "car", "aircraft", "pet") for shots in (5, 10)} | {
        f"{name}-lt-if-{factor}" for name in ("cub", "flower") for factor in (10, 20, 100)
    }
    assert set(published_lists()) == wanted
    assert published_suffixes("cub-5-shot")[0] == "standing on a tree branch"
    assert published_suffixes("pet-10-shot")[-1] == "laying on a couch with a white background"
    assert (
        published_suffixes("flower-lt-if-10")
        == published_suffixes("flower-lt-if-100")
        != published_suffixes("flower-lt-if-20")
    )
    assert [
        len(published_suffixes(name))
        for name in ("cub-5-shot", "pet-5-shot", "cub-lt-if-20", "cub-lt-if-100")
    ] == [10, 7, 7, 8]
    assert not any(
        suffix.endswith(".") or suffix != suffix.strip()
        for name in wanted
        for suffix in published_suffixes(name)
    )


def test_every_list_names_its_source():
    from genaug.suffixes import _list_files

    for path in _list_files().values():
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        assert first.startswith("# ")
        assert "arXiv 2408.16266v1, A.5.1" in first
        assert not any(line.startswith("#") for line in rest)


@pytest.mark.parametrize(
    "name, words",
    [("cub-shot", "did you mean cub-"), ("CUB-5-shot", "cub-5-shot"), ("zzzz", "there are aircraft-10-shot")],
)
def test_an_unknown_list(name, words):
    with pytest.raises(GenaugError, match=words):
        published_suffixes(name)


def test_the_suffixes_option_takes_a_published_list():
    assert find_suffixes("published:cub-5-shot", "x") == published_suffixes("cub-5-shot")
    with pytest.raises(GenaugError, match="no published list"):
        find_suffixes("published:nothing-like-it", "x")


# counting


@pytest.mark.parametrize("seed", range(5))
def test_known_captions_give_a_subset_of_the_sets_suffixes(pool, seed):
    train = few_shot(pool, 5, seed)
    actual, captions = make_suffixes(train, train.ids)
    assert set(actual) <= set(datasets.suffixes("digit-scenes"))
    assert 5 < len(actual) <= 10
    assert len(captions) == 50
    assert all(any(suffix in caption for caption in captions) for suffix in actual)


def test_the_order_is_by_frequency_and_does_not_depend_on_the_order_of_images(pool):
    captions = (
        ["a photo of a one in snow"] * 2 + ["a photo of a two on grass"] * 3 + ["a photo of a two at sea"] * 2
    )
    assert (
        suffixes_from_captions(captions, ["one", "two"])
        == ("on grass", "at sea", "in snow")
        == suffixes_from_captions(captions[::-1], ["two", "one"])
    )
    assert suffixes_from_captions(captions, ["one", "two"], most=1) == ("on grass",)


@pytest.mark.parametrize(
    "caption, words, setting",
    [
        ("a photo of a seven on grass", ["seven"], "on grass"),
        ("A Photo of a SEVEN, on grass.", ["seven"], "on grass"),
        ("two sixes in a row", ["six"], "in a row"),
        ("a photo of a house sparrow bird on a wire", ["sparrow", "house sparrow", "bird"], "on a wire"),
        ("a blackbird on a wire", ["bird"], ""),
        ("a photo of a seven", ["seven"], ""),
        ("a F-16A/B on the ground", ["F-16A/B"], "on the ground"),
        ("a photo", [], ""),
        ("", ["x"], ""),
        ("an a.b on c", ["axb"], ""),
    ],
)
def test_what_stands_behind_the_class(caption, words, setting):
    assert setting_of(caption, words) == setting


def test_captions_that_name_no_class_are_refused():
    with pytest.raises(GenaugError, match="--metaclass"):
        suffixes_from_captions(["something on grass"], ["bird"])


@pytest.mark.parametrize(
    "info",
    [
        None,
        [{}, {"caption": "a"}],
        [{"caption": 3}, {"caption": "a"}],
        [{"caption": " "}, {"caption": "a"}],
        [None, {"caption": "a"}],
    ],
)
def test_lacking_captions_are_counted(info):
    images = LabeledImages([np.zeros((4, 4, 3), np.uint8)] * 2, [0, 1], ["a", "b"], ["x", "y"], info=info)
    with pytest.raises(GenaugError, match=f"{2 if info is None else 1} of 2 images bring no caption"):
        known_captions(images)


# the captioner


def test_only_training_images_are_described(captioner, pool, tmp_path):
    sets = datasets.load("digit-scenes")
    manifest = Manifest.build(sets, 0, 1)
    assert len(captioner.captions(sets["train"].select(manifest.train), manifest)) == 10
    with pytest.raises(GenaugError, match="test image of the manifest"):
        captioner.captions(sets["test"][:1], manifest, tmp_path / "cache.jsonl")
    with pytest.raises(GenaugError, match="captioning"):
        make_suffixes(sets["test"][:3], sets["train"].ids)
    assert not (tmp_path / "cache.jsonl").exists()


def test_captions_do_not_depend_on_the_batch_or_the_order(captioner, pool):
    images = pool[:9]
    together = captioner.captions(images, pool.ids, batch_size=9)
    assert len(set(together)) > 3
    assert (
        captioner.captions(images, pool.ids, batch_size=1)
        == captioner.captions(images, pool.ids, batch_size=4)
        == together
    )
    assert captioner.captions(images[::-1], pool.ids) == together[::-1]


def test_grey_images_and_unequal_sizes(captioner):
    images = LabeledImages(
        [
            np.full((20, 30, 1), 90, np.uint8),
            np.full((50, 10), 90, np.uint8),
            np.full((8, 8, 3), 90, np.uint8),
        ],
        [0, 0, 0],
        ["a"],
        ["x", "y", "z"],
    )
    captions = captioner.captions(images, images.ids)
    assert captions[0] == captions[1] == captions[2] != ""  # the same grey everywhere


def test_the_cache_is_by_content_and_a_killed_run_goes_on(captioner, pool, tmp_path, monkeypatch):
    cache, calls, describe = tmp_path / "captions.jsonl", [], captioner.describe
    wanted = captioner.captions(pool[:6], pool.ids)

    def dying(arrays):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(arrays))
        return describe(arrays)

    monkeypatch.setattr(captioner, "describe", dying)
    with pytest.raises(KeyboardInterrupt):
        captioner.captions(pool[:6], pool.ids, cache, batch_size=2)
    assert len(read_captions(cache)) == 4
    with open(cache, "a") as file:
        file.write('{"key": "torn')
    calls.clear()
    assert captioner.captions(pool[:6], pool.ids, cache, batch_size=2) == wanted
    assert calls == [2]
    calls.clear()
    renamed = LabeledImages(
        pool[:6].pixels, pool[:6].labels, pool.class_names, [f"new/{position}" for position in range(6)]
    )
    # by content, not by name
    assert captioner.captions(renamed, renamed.ids, cache) == wanted
    assert calls == []
    records = [json.loads(line) for line in cache.read_text().splitlines() if not line.endswith("torn")]
    assert {record["image"] for record in records} == set(pool.ids[:6])
    assert {record["model"] for record in records} == {"tiny-blip"}


def test_a_changed_pixel_or_model_or_length_is_described_anew(captioner, blip, pool, tmp_path):
    cache = tmp_path / "captions.jsonl"
    captioner.captions(pool[:1], pool.ids, cache)
    pixels = pool.image(0).copy()
    pixels[0, 0, 0] ^= 1
    changed = LabeledImages([pixels], pool[:1].labels, pool.class_names, pool.ids[:1])
    captioner.captions(changed, pool.ids, cache)
    assert len(read_captions(cache)) == 2
    longer, other = BlipCaptioner(blip, max_new_tokens=9), BlipCaptioner(blip, max_new_tokens=8)
    assert other.fingerprint() == captioner.fingerprint() != longer.fingerprint()
    with torch.no_grad():
        next(other.model.parameters()).flatten()[0] += 1
    other.__dict__.pop("_hash")
    assert other.fingerprint() != captioner.fingerprint()


def test_equal_images_are_described_once(captioner, pool, monkeypatch):
    calls, describe = [], captioner.describe
    monkeypatch.setattr(captioner, "describe", lambda arrays: calls.append(len(arrays)) or describe(arrays))
    twins = LabeledImages([pool.image(0)] * 3, [0] * 3, ["a"], ["x", "y", "z"])
    assert len(set(captioner.captions(twins, twins.ids))) == 1
    assert calls == [1]


def test_the_random_state_is_left_alone(captioner, gpt, pool):
    before = torch.random.get_rng_state().clone()
    captioner.captions(pool[:1], pool.ids)
    LocalLanguageModel(gpt, max_new_tokens=4).complete("a photo")
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_no_captioner(gpt, blip, tmp_path):
    with pytest.raises(GenaugError, match="of the kind 'gpt2', not blip"):
        BlipCaptioner(gpt)
    with pytest.raises(GenaugError, match="no folder"):
        BlipCaptioner(tmp_path / "nowhere")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in blip.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(GenaugError, match="safetensors"):
        BlipCaptioner(pickled)


# language models


def test_a_local_language_model(gpt):
    model = LocalLanguageModel(gpt, max_new_tokens=5)
    answer = model.complete("a photo of a digit")
    assert isinstance(model, LanguageModel)
    assert answer == model.complete("a photo of a digit")
    assert not answer.startswith("a photo of a digit")
    assert set(answer.split()) <= set("a photo of digit on grass gravel .".split())
    with pytest.raises(GenaugError, match="fewer captions"):
        model.complete("a " * 124)
    model.complete("a " * 123)


def test_a_chat_template_is_used(gpt, monkeypatch):
    model, seen = LocalLanguageModel(gpt, max_new_tokens=3), []
    model.tokenizer.chat_template = (
        "{% for message in messages %}photo {{ message['content'] }}{% endfor %} grass"
    )
    generate = model.model.generate
    monkeypatch.setattr(
        model.model, "generate", lambda **given: seen.append(given["input_ids"]) or generate(**given)
    )
    model.complete("gravel")
    assert model.tokenizer.decode(seen[0][0]).split() == ["photo", "gravel", "grass"]


def test_a_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("GENAUG_LLM_KEY", KEY)
    model = open_language_model(server.address, "llama")
    assert model.complete("hello é") == "a photo of a bird on a wire"
    assert KEY not in repr(vars(model))
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["key"] == f"Bearer {KEY}"
    assert asked["model"] == "llama"
    assert asked["messages"] == [{"role": "user", "content": "hello é"}]
    monkeypatch.delenv("GENAUG_LLM_KEY")
    model.complete("again")
    monkeypatch.delenv("OPENAI_API_KEY")
    model.complete("again")
    assert [request["key"] for request in server.asked[1:]] == ["Bearer sk-other", None]


@pytest.mark.parametrize(
    "path, wanted",
    [
        ("", "/v1"),
        ("/", "/v1"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/api/openai", "/api/openai"),
        ("/v1/chat/completions", "/v1"),
    ],
)
def test_addresses(path, wanted):
    assert (
        ServerLanguageModel(f"https://host:1234{path}", "m").address
        == f"https://host:1234{wanted}/chat/completions"
    )


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host",
        "https://",
        "https://user:word@host/v1",
        "https://host/v1?key=1",
        "https://host/v1#a",
        "http://[::1",
        "http://host:port",
    ],
)
def test_wrong_addresses_are_refused_without_repeating_them(address):
    with pytest.raises(GenaugError, match="GENAUG_LLM_KEY") as error:
        ServerLanguageModel(address, "m")
    assert "word" not in str(error.value)


@pytest.mark.parametrize(
    "code, body, words",
    [
        (401, {"error": f"wrong key {KEY}"}, "check the key"),
        (404, {"error": "no such model"}, "--llm-model"),
        (429, {}, "HTTP 429"),
        (500, b"\x1b[31mbroken\xff", "see what it says"),
        (200, b"<html>", "not that of an OpenAI-compatible server"),
        (200, {"choices": []}, "not that of"),
        (200, {"choices": [{"message": {"content": None}}]}, "not that of"),
        (400, {"error": f"{'x' * 290}{KEY}"}, "HTTP 400"),
    ],
)
def test_whatever_the_server_says_is_one_sentence_without_the_key(server, monkeypatch, code, body, words):
    monkeypatch.setenv("GENAUG_LLM_KEY", KEY)
    server.reply = (code, body)
    with pytest.raises(GenaugError, match=words) as error:
        open_language_model(server.address, "m").complete("x")
    assert KEY[:6] not in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(server.asked) == 1


def test_a_model_that_allows_no_temperature_is_asked_again_without(server):
    server.reply = lambda asked: (
        (400, {"error": "Unsupported value: 'temperature'"}) if "temperature" in asked else said("on grass")
    )
    assert ServerLanguageModel(server.address, "m").complete("x") == "on grass"
    assert [("temperature" in request) for request in server.asked] == [True, False]


def test_a_redirection_is_not_followed(server, monkeypatch):
    monkeypatch.setenv("GENAUG_LLM_KEY", KEY)
    server.reply = (302, b"")
    with pytest.raises(GenaugError, match="redirections are not followed"):
        ServerLanguageModel(server.address, "m").complete("x")
    assert [request["path"] for request in server.asked] == ["/v1/chat/completions"]


def test_a_slow_and_an_absent_server(server):
    server.delay = 0.5
    with pytest.raises(GenaugError, match="no answer within 0.1 seconds"):
        ServerLanguageModel(server.address, "m", timeout=0.1).complete("x")
    with pytest.raises(GenaugError, match="cannot be reached"):
        ServerLanguageModel("http://127.0.0.1:9", "m", timeout=2).complete("x")


def test_a_key_goes_over_https_or_to_this_machine_only(monkeypatch):
    assert not ServerLanguageModel("http://10.1.2.3:8000", "m").sends_key
    assert ServerLanguageModel("https://10.1.2.3", "m").sends_key
    assert ServerLanguageModel("http://[::1]:8000", "m").sends_key
    sent = []
    monkeypatch.setenv("GENAUG_LLM_KEY", KEY)
    remote = ServerLanguageModel("http://10.1.2.3:8000", "m")
    monkeypatch.setattr(
        "urllib.request.OpenerDirector.open",
        lambda self, request, timeout: sent.append(request.headers) or (_ for _ in ()).throw(OSError("stop")),
    )
    with pytest.raises(GenaugError):
        remote.complete("x")
    assert len(sent) == 1
    assert KEY not in str(sent)
    assert "no key was sent" in remote._refusal(401, "", KEY)


def test_a_broken_key_is_not_printed(server, monkeypatch):
    monkeypatch.setenv("GENAUG_LLM_KEY", "sk-abc\ndef")
    with pytest.raises(GenaugError, match="characters that no key has") as error:
        ServerLanguageModel(server.address, "m").complete("x")
    assert "abc" not in str(error.value)
    assert server.asked == []


def test_the_name_of_a_model_belongs_to_an_address(gpt):
    with pytest.raises(GenaugError, match="--llm-model"):
        open_language_model("http://localhost:1")
    with pytest.raises(GenaugError, match="belongs to an address"):
        open_language_model(str(gpt), "llama")
    with pytest.raises(GenaugError, match="no folder"):
        open_language_model("no such place")


# summaries


def test_the_draw():
    captions = [f"a bird on {number}" for number in range(500)]
    drawn = draw_captions(captions, 200, 1)
    assert len(drawn) == len(set(drawn)) == 200
    assert drawn == draw_captions(captions[::-1], 200, 1) != draw_captions(captions, 200, 2)
    assert draw_captions(captions[:150], 200) == tuple(sorted(captions[:150]))
    assert draw_captions(["a\n b"]) == ("a b",)


def test_the_instruction_holds_all_captions_and_the_prefix():
    text = instruction(["one", "two"], "aircraft", 7)
    assert "a photo of an aircraft" in text
    assert "at most 7" in text
    assert text.endswith("- one\n- two")
    assert prefix_for() == "a photo of a subject"


@pytest.mark.parametrize(
    "answer, wanted",
    [
        ("1. a photo of a bird on a wire\n2. a photo of a bird in snow", ("on a wire", "in snow")),
        (
            "Here you are:\n(1) \"A photo of a bird on a wire.\"\n\n2) 'a picture of the bird, in snow'",
            ("on a wire", "in snow"),
        ),
        ("- on a wire\n• in snow\nI hope that helps.", ("on a wire", "in snow")),
        ("On a wire\nIn snow.\n\n", ("on a wire", "in snow")),
        ("**1.** a photo of birds flying over water", ("flying over water",)),
        (
            "a photo of a small brown bird on a wire\na photo of a bird\na photo of a bird ON A WIRE",
            ("on a wire",),
        ),
        ("<think>a photo of a bird at night</think>\na photo of a bird on a wire", ("on a wire",)),
        ("so, thinking\n</think>\na photo of a bird on a wire", ("on a wire",)),
        (
            'Sure!\n```json\n["a photo of a bird on a wire", "a photo of a bird in snow"]\n```',
            ("on a wire", "in snow"),
        ),
        ("a photo of a bird on a \x1b[31mwire", ("on a [31mwire",)),
        ("a close-up photo of a bird on a wire", ("on a wire",)),
        ("a photo of a birdhouse on a wire", ("a photo of a birdhouse on a wire",)),
        ("1. with Honeywell on it", ("with Honeywell on it",)),
    ],
)
def test_answers(answer, wanted):
    assert parse_suffixes(answer, "bird") == wanted


def test_at_most_ten_and_at_least_one():
    assert len(parse_suffixes("\n".join(f"{number}. on hill {number}" for number in range(1, 15)))) == 10
    for nothing in ("", "Sorry:", "a photo of a bird.", "<think>on a wire"):
        with pytest.raises(GenaugError, match="named no setting"):
            parse_suffixes(nothing, "bird")


def test_summaries_through_a_server(server):
    server.reply = lambda asked: said("1. A photo of a bird on a wire.\n2. a photo of a bird in snow")
    captions = [f"a bird on wire {number}" for number in range(300)]
    assert summarize(captions, ServerLanguageModel(server.address, "m"), "bird", seed=3) == (
        "on a wire",
        "in snow",
    )
    assert server.asked[0]["messages"][0]["content"] == instruction(draw_captions(captions, 200, 3), "bird")
    with pytest.raises(GenaugError, match="no captions"):
        summarize([], None)


# the filter


@pytest.mark.parametrize(
    "word, wanted",
    [
        ("Lilies", "lily"),
        ("finches", "finch"),
        ("boxes", "box"),
        ("grass", "grass"),
        ("bus", "bus"),
        ("birds", "bird"),
        ("bird's", "bird"),
        ("trees", "tree"),
        ("gas", "gas"),
        ("wings", "wing"),
    ],
)
def test_stems(word, wanted):
    assert stem(word) == wanted


@pytest.mark.parametrize(
    "suffix, name",
    [
        ("with a house sparrow", "House_Sparrow"),
        ("beside two sparrows", "House_Sparrow"),
        ("with an albatross", "001.Black_footed_Albatross"),
        ("on a tree swallow's nest", "Tree_Swallow"),
        ("among JAYS", "Blue_Jay"),
    ],
)
def test_a_class_is_found(suffix, name):
    assert named_class(suffix, BIRDS, "bird")[1] == name


def test_published_birds_survive_a_list_of_birds():
    "Common words of bird names (rock, tree, blue, field) are settings too."
    for name in ("cub-5-shot", "cub-10-shot", "cub-lt-if-10", "cub-lt-if-20", "cub-lt-if-100"):
        assert filter_suffixes(published_suffixes(name), BIRDS, metaclass="bird") == (
            published_suffixes(name),
            {},
        )


def test_a_class_called_by_a_common_word_counts_whole():
    assert named_class("on a red rock", ["Rock", "Red_Rock"])[1] == "Rock"
    assert named_class("on a tall tree", ["one"]) is None
    assert named_class("on one leg", ["one"]) == ("one", "one")
    assert named_class("on a flower", ["rose_flower"], "flower") is None


def test_the_aircraft_list():
    remaining, dropped = filter_suffixes(published_suffixes("aircraft-10-shot"), metaclass="aircraft")
    assert len(remaining) == 5
    assert set(remaining) | set(dropped) == set(published_suffixes("aircraft-10-shot"))

    def reason(word):
        return next(text for suffix, text in dropped.items() if word in suffix)

    assert "'Honeywell' looks like a proper name" in reason("Honeywell")
    assert "'stripe' is a marking" in reason("green stripe")
    assert "'cross' is a marking" in reason("red cross")
    assert "'jet'" in reason("smoke")


@pytest.mark.parametrize(
    "suffix, words",
    [
        ("on a sign", "marking"),
        ("with the Eiffel tower behind", "'Eiffel'"),
        ("by a BMW", "'BMW'"),
        ("at gate 12", "'12' is a number"),
        ("jet in the sky", "'jet'"),
        ("on grass", ""),
        ("On grass", ""),
        ("close-up, from below", ""),
        ("crossing a road", ""),
        ("red", "'red'"),
    ],
)
def test_reasons(suffix, words):
    remaining, dropped = filter_suffixes([suffix])
    assert (words in dropped[suffix]) if words else remaining == (suffix,)


def test_what_only_one_caption_says():
    captions = [
        "a plane on a runway",
        "a plane on a runway by the sea",
        "a plane in the sky by a city",
        "planes in the sky by the sea",
    ]
    remaining, dropped = filter_suffixes(
        ["on a runway", "by a city", "on runways by seas", "in the sky", "under water"], captions=captions
    )
    assert remaining == ("on a runway", "in the sky", "under water")
    assert "has the word 'city'" in dropped["by a city"]
    assert dropped["on runways by seas"] == "only one of 4 captions says this"


def test_all_published_suffixes_but_four_begin_like_a_setting():
    odd = [
        suffix
        for name in published_lists()
        for suffix in published_suffixes(name)
        if not begins_setting(suffix)
    ]
    assert [suffix.split()[0] for suffix in odd] == ["propeller", "airplane", "plane", "jet"]


# the file


def test_the_file_is_read_back_and_protected(tmp_path):
    path = tmp_path / "new" / "suffixes.txt"
    write_suffixes(
        path, ["on grass", "on  grass.", "in snow"], ["made\nfrom captions"], {"with a sign": "a marking"}
    )
    text = path.read_text(encoding="utf-8")
    assert read_suffixes(path) == ("on grass", "in snow")
    assert text.startswith("# made from captions\non grass\n")
    assert "# with a sign    (a marking)" in text
    for index, words in ((path, "--replace"), (tmp_path, "is a folder")):
        with pytest.raises(GenaugError, match=words):
            write_suffixes(index, ["on ice"])
    assert path.read_text(encoding="utf-8") == text
    write_suffixes(path, ["on ice"], replace=True)
    assert read_suffixes(path) == ("on ice",)
    with pytest.raises(GenaugError, match="--keep-all"):
        write_suffixes(tmp_path / "none.txt", [])


# the command


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "A plain folder: three classes, two pictures of each to train and one to test."
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    for part, images in datasets.load("digit-scenes").items():
        for position in (
            [
                position
                for digit in (1, 2, 3)
                for position in np.flatnonzero(images.targets == digit)[: 2 if part == "train" else 1]
            ]
            if part != "shifted"
            else ()
        ):
            path = root / part / images.ids[position]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.image(int(position))).save(path)
    return root


def test_the_command_on_an_embedded_set(tmp_path, capsys):
    assert (
        run(["suffixes", "digit-scenes", str(tmp_path / "a.txt"), "--shots", "5", "--seed", "1", "--quiet"])
        == 0
    )
    shown, text = capsys.readouterr().out, (tmp_path / "a.txt").read_text()
    assert set(read_suffixes(tmp_path / "a.txt")) <= set(datasets.suffixes("digit-scenes"))
    assert "from 50 training images of digit-scenes: captions of the set, settings counted" in text
    assert "--suffixes" in shown
    assert str(tmp_path) not in text
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_one_caption_says_is_left_out_but_for_keep_all(tmp_path, capsys):
    for option, name in ((None, "some.txt"), ("--keep-all", "all.txt")):
        assert (
            run(
                [
                    "suffixes",
                    "digit-scenes",
                    str(tmp_path / name),
                    "--shots",
                    "1",
                    "--seed",
                    "0",
                    "--quiet",
                    *([option] if option else []),
                ]
            )
            == 0
        )
    some, every = read_suffixes(tmp_path / "some.txt"), read_suffixes(tmp_path / "all.txt")
    assert set(some) < set(every)
    assert "Left out: " in capsys.readouterr().out
    assert all(f"# {suffix}    (" in (tmp_path / "some.txt").read_text() for suffix in set(every) - set(some))


def test_the_command_with_a_captioner_and_a_server(tmp_path, capsys, photos, blip, server, monkeypatch):
    monkeypatch.setenv("GENAUG_LLM_KEY", KEY)
    server.reply = said(
        "1. a photo of a digit on grass\n2. a photo of a digit by a Honeywell sign\n3. a photo of a digit "
        "with sevens"
    )
    arguments = [
        "suffixes",
        str(photos),
        str(tmp_path / "p.txt"),
        "--captioner",
        str(blip),
        "--llm",
        server.address,
        "--llm-model",
        "llama",
        "--metaclass",
        "digit",
        "--quiet",
    ]
    assert run(arguments) == 0
    assert read_suffixes(tmp_path / "p.txt") == ("on grass", "with sevens")
    out, text, cache = (
        capsys.readouterr().out,
        (tmp_path / "p.txt").read_text(),
        (tmp_path / "p.captions.jsonl").read_text(),
    )
    assert "captions by tiny-blip, summarised by llama at 127.0.0.1" in text
    assert "'Honeywell'" in text
    assert len(cache.splitlines()) == 6
    assert KEY not in out + text + cache
    assert str(photos) not in text + cache
    assert "no test part" not in out
    assert len(server.asked) == 1
    assert all(
        "pool-" in json.loads(line)["image"] for line in cache.splitlines()
    )  # the test pictures are not looked at
    assert run(arguments) == 2
    assert "--replace" in capsys.readouterr().err
    assert run([*arguments, "--replace", "--keep-all"]) == 0
    assert len(read_suffixes(tmp_path / "p.txt")) == 3
    assert (tmp_path / "p.captions.jsonl").read_text() == cache


def test_the_command_with_a_published_list(tmp_path, capsys, photos):
    assert (
        run(["suffixes", str(photos), str(tmp_path / "a.txt"), "--published", "aircraft-10-shot", "--quiet"])
        == 0
    )
    assert len(read_suffixes(tmp_path / "a.txt")) == 5
    assert "published list aircraft-10-shot" in (tmp_path / "a.txt").read_text()


def test_the_command_explains_itself(capsys):
    assert run(["suffixes", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(
        option in shown
        for option in (
            "--captioner",
            "--llm",
            "--llm-model",
            "--shots",
            "--seed",
            "--metaclass",
            "--published",
            "--keep-all",
            "--replace",
        )
    )


def test_a_device_that_is_not_there(blip, gpt):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    for opened, folder in ((BlipCaptioner, blip), (LocalLanguageModel, gpt)):
        with pytest.raises(GenaugError, match="no GPU"):
            opened(folder, device="cuda")


MISTAKES = {
    "no captions": (["PHOTOS", "OUT"], "name a captioner"),
    "unknown list": (["digits", "OUT", "--published", "cub"], "did you mean cub-"),
    "list and captioner": (
        ["digits", "OUT", "--published", "cub-5-shot", "--captioner", "x"],
        "leave --captioner",
    ),
    "model without address": (["digits", "OUT", "--llm-model", "x"], "give the address with --llm"),
    "address without model": (["digits", "OUT", "--llm", "http://localhost:9"], "--llm-model"),
    "no captioner there": (["digits", "OUT", "--captioner", "no/such/folder"], "no folder"),
    "no language model there": (["digits", "OUT", "--llm", "./nowhere"], "no folder"),
    "no server there": (
        ["digits", "OUT", "--llm", "http://127.0.0.1:9", "--llm-model", "m"],
        "cannot be reached",
    ),
    "output is a folder": (["digits", "."], "is a folder"),
    "shots": (["digits", "OUT", "--shots", "few"], "--shots is a number"),
    "source": (["digit", "OUT"], "did you mean"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, capsys, tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    arguments, words = MISTAKES[name]
    assert (
        run(
            [
                "suffixes",
                *(str(photos) if word == "PHOTOS" else word.replace("OUT", "out.txt") for word in arguments),
                "--quiet",
            ]
        )
        == 2
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("genaug: "), lines
    assert words in lines[0], lines
    assert lines[0].endswith((".", "?", ")")), lines
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not UTF-8"),
        (b"", "has no suffix"),
        (b"on grass\nin \x1b[2Jsnow\n", "control or invisible"),
        ("on \u202egrass\n".encode(), "control or invisible"),
        (b"on a\0b\n", "control or invisible"),
        (b"x" * 2_000_000, "more than 1,000,000"),
        (b"on %d\n" * 5 + b"".join(b"on %d\n" % number for number in range(1500)), "more than 1,000"),
        (b"on " + b"grass " * 200, "more than 300"),
        (b"# only a comment\n\n", "has no suffix"),
    ],
)
def test_a_file_that_is_no_list_of_suffixes_is_refused(content, words, tmp_path):
    from genaug.suffixes import open_suffixes

    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(GenaugError, match=words):
        open_suffixes(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfon grass\r\nin snow.\r\n",
        b"on grass\rin snow\r",
        b"  on   grass \n# x\n\nin snow\nin snow\n",
    ],
)
def test_a_list_with_marks_of_other_systems_is_read(content, tmp_path):
    from genaug.suffixes import open_suffixes

    (tmp_path / "list.txt").write_bytes(content)
    assert open_suffixes(tmp_path / "list.txt") == ("on grass", "in snow")


@pytest.mark.parametrize(
    "name", ["nowhere.txt", ".", "/dev/zero", "x" * 5000, "a\0b", "~nobody-of-that-name/x"]
)
def test_what_is_no_file_is_refused_as_a_list(name, tmp_path, monkeypatch):
    from genaug.suffixes import open_suffixes

    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenaugError):
        open_suffixes(name)


def test_an_answer_of_two_million_characters_is_read_in_a_second():
    import time

    from genaug.suffixes import parse_suffixes

    for answer in (
        "<think>" * 280_000,
        "<think></think>" * 130_000,
        "[" * 1_000_000,
        "a " * 1_000_000,
        "\n" * 1_000_000,
    ):
        began = time.process_time()
        with pytest.raises(GenaugError, match="named no setting"):
            parse_suffixes(answer)
        assert time.process_time() - began < 2


def test_no_control_character_of_an_answer_is_kept():
    from genaug.suffixes import parse_suffixes

    assert all(
        suffix.isprintable()
        for suffix in parse_suffixes('["on \\u001b[31mgrass", "in \\u202esnow"]')
        + parse_suffixes("- on \x1b[2Jgrass\n- in snow")
    )


def test_no_control_character_of_a_caption_is_kept():
    from genaug.suffixes import suffixes_from_captions

    assert suffixes_from_captions(["a wren on \x1b[31mgrass"] * 2, ["wren"]) == ("on [31mgrass",)


@pytest.mark.parametrize("location", ["pipe", "folder", "file.txt/x.txt"])
def test_a_list_is_written_only_where_a_file_can_be(location, tmp_path, monkeypatch):
    from genaug.suffixes import check_free

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GenaugError):
        check_free(location, replace=True)
