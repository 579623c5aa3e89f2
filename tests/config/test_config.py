"""Parameters: every slip of the pen ends in one sentence that says what to type."""

import json

import pytest
from pydantic import ValidationError

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import NOTEBOOKS, configs_of
from tok1d.config.parse import parse, parse_train, read_params
from tok1d.config.registry import QUANTIZERS
from tok1d.config.schema import EvalConfig, RunConfig, TokenizerConfig, TrainConfig, fields

TRAIN = configs_of("train")


def value(name: str, given):
    """What a parameter of the train notebook becomes."""
    return next(
        getattr(config, name) for config in parse({name: given}, *TRAIN) if name in type(config).model_fields
    )


def sentence(**params) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_train(params)
    text = str(caught.value)
    assert "\n" not in text and "Input should" not in text and "Value error" not in text
    return text


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("num_latent_tokns", 64, "is not a parameter: did you mean num_latent_tokens?"),
        ("Num_Latent_Tokens", 64, "did you mean num_latent_tokens?"),
        ("zzzzzz", 1, "is not a parameter: the parameters here are outputs, sweep, run, data,"),
        ("metric", "psnr", "is not a parameter here: it belongs to the notebook ablation and figures"),
        ("num_latent_tokens", "many", "a whole number, got 'many': for example type num_latent_tokens=64"),
        ("num_latent_tokens", True, "must be a number, not true or false"),
        ("num_latent_tokens", 64.5, "must be a whole number, got 64.5"),
        ("num_latent_tokens", None, "must be a whole number, got None"),
        ("num_latent_tokens", 0, "must be at least 1, got 0: for example type num_latent_tokens=64"),
        ("num_latent_tokens", 9999, "must be at most 4096, got 9999"),
        ("num_latent_tokens", 10**400, "must be at most 4096"),
        ("num_latent_tokens", float("inf"), "must be a finite number"),
        ("lr", float("nan"), "must be a finite number, got nan: for example type lr=0.001"),
        ("lr", "inf", "must be a finite number"),
        ("lr", 0, "must be more than 0, got 0"),
        ("beta1", 1, "must be less than 1, got 1: for example type beta1=0.9"),
        ("max_unreadable", "5%", "must be a number, got '5%': for example type max_unreadable=0.01"),
        ("seed", 2**31, "must be less than 2147483648"),
        ("patch_size", 12, "image_size=64 is no multiple of patch_size=12: type image_size=60"),
        ("quantizer", "fsqs", f"{', '.join(QUANTIZERS)}, got 'fsqs': for example type quantizer=fsq"),
        ("quantizer", 3, f"must be one of {', '.join(QUANTIZERS)}, got 3"),
        ("encoder_size", "b", "one of nano, T, S, B, L, got 'b': for example type encoder_size=B"),
        ("encoder_size", "large", "for example type encoder_size=L"),
        (
            "fsq_levels",
            [8, 2],
            "3 or more each, with a product of at most 1048576, got 8,2: for example type fsq_",
        ),
        ("fsq_levels", [1024, 1025], "with a product of at most 1048576, got 1024,1025"),
        ("fsq_levels", "8,x", "each of fsq_levels must be a whole number, got 'x'"),
        ("fsq_levels", "", "got (): for example type fsq_levels=8,8,8,5,5,5"),
        ("run", "a/b", "must be a plain name"),
        ("run", "a/b", "got 'a/b': for example type run=a-b"),
        ("run", "..", "must be a plain name"),
        ("run", "", "got '': for example type run=quickstart"),
        ("run", "a\n", "for example type run=a"),
        ("run", "x" * 101, "up to 100 letters"),
        ("sweep", "my runs", "for example type sweep=my-runs"),
        ("run", 1.5, "must be text, got 1.5"),
        ("elastic", "maybe", "must be true or false, got 'maybe'"),
        ("elastic", 2, "must be true or false, got 2"),
        ("weather", [1.5], "each of weather must be text, got 1.5: for example type weather=clear,rainy"),
        (
            "token_counts",
            [0],
            "each of token_counts must be at least 1, got 0: for example type token_counts=1,8",
        ),
        ("val_data", ["a", "b"], "must be text, got ['a', 'b']: for example type val_data=photos/val"),
        ("data", "", "data must not be empty, got '': for example type data=toy-roads"),
    ],
)
def test_bad_value_is_one_sentence(name, given, said):
    assert said in sentence(**{name: given})


@pytest.mark.parametrize("name", [None, 1, True, ""])
def test_yaml_keys_that_are_no_names(name):
    with pytest.raises(ConfigError, match="is not a parameter"):
        parse({name: 1}, *TRAIN)


def test_huge_values_are_not_repeated_in_full():
    assert len(sentence(num_latent_tokens="1" * 5000)) < 250


@pytest.mark.parametrize("name", sorted(fields(*TRAIN)))
def test_every_field_says_something_useful_about_nonsense(name):
    text = sentence(**{name: {"a": object}})
    assert name in text.split(" must be ")[0]
    assert f": for example type {name}=" in text and not text.endswith("=")


def test_what_only_a_vit_has_asks_for_one():
    """Unless the encoder is told; a repeated default asks for nothing."""
    assert TokenizerConfig().encoder == "linear" and TokenizerConfig().decoder_refine == "small"
    for asked in (
        dict(quantizer="vq"),
        dict(encoder_init="dinov2"),
        dict(patch_size=8),
        dict(encoder_size="S"),
    ):
        config = TokenizerConfig(**asked)
        assert (config.encoder, config.decoder_refine) == ("vit", "none"), asked
        assert TokenizerConfig(**asked, decoder_refine="nano").decoder_refine == "nano"
    assert TokenizerConfig(encoder="vit").decoder_refine == "none"
    assert TokenizerConfig(encoder="linear", patch_size=8).encoder == "linear"
    assert TokenizerConfig(**TokenizerConfig().model_dump()) == TokenizerConfig()
    assert TokenizerConfig(patch_size=16, quantizer="fsq", num_latent_tokens=8).encoder == "linear"


def test_suggested_image_size_is_always_accepted():
    for patch in range(2, 65):
        for size in range(8, 2049, 37):
            try:
                TokenizerConfig(image_size=size, encoder="vit", patch_size=patch)
            except ValidationError as error:
                suggestion = int(str(error).split("type image_size=")[1].split()[0])
                TokenizerConfig(image_size=suggestion, encoder="vit", patch_size=patch)
                assert abs(suggestion - size) < patch


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("lr", "1e-4", 1e-4),
        ("lr", 1e-4, 1e-4),
        ("steps", "1e3", 1000),
        ("steps", 1e3, 1000),
        ("elastic", "yes", True),
        ("elastic", "False", False),
        ("elastic", 1, True),
        ("fsq_levels", "8, 8,5", (8, 8, 5)),
        ("fsq_levels", 8, (8,)),
        ("fsq_levels", [7, "8"], (7, 8)),
        ("token_counts", 64, (64,)),
        ("token_counts", "", ()),
        ("fsq_levels", "8,5,5", (8, 5, 5)),
        ("weather", "clear, partly cloudy", ("clear", "partly cloudy")),
        ("weather", None, ()),
        ("val_data", None, ""),
        ("run", 64, "64"),
        ("mixed_precision", False, "no"),
        ("num_latent_tokens", "64", 64),
    ],
)
def test_what_yaml_and_the_command_line_hand_over(name, given, meant):
    got = value(name, given)
    assert (got, type(got)) == (meant, type(meant))


def test_more_tokens_than_patches_is_fine():
    tokenizer = TokenizerConfig(image_size=32, patch_size=16, num_latent_tokens=256)
    assert (tokenizer.grid, tokenizer.num_latent_tokens) == (2, 256)


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().lr = 1.0


def test_descriptions_and_defaults_are_sound():
    for classes in map(configs_of, NOTEBOOKS):
        assert not any("%%" in field.description for field in fields(*classes).values())
        assert parse({}, *classes) == tuple(cls() for cls in classes)
        dumped = {k: v for config in parse({}, *classes) for k, v in config.model_dump(mode="json").items()}
        assert parse(dumped, *classes) == parse({}, *classes)


def test_a_name_of_every_class_is_sorted_into_it():
    run, evaluation = parse({"run": "x", "eval_images": 7}, RunConfig, EvalConfig)
    assert (str(run.folder), evaluation.eval_images) == ("outputs/runs/x", 7)


def test_yaml_files(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_bytes(
        b"\xef\xbb\xbflr: 1e-4\r\nsteps: 1e3\r\nelastic: yes\r\nmixed_precision: no\r\nrun: 2025-01-31\r\n"
    )
    second.write_text("steps: 2_000  # wins\nweather: clear, snowy\ntimeofday: [night]\nscene:\n")
    run, data, tokenizer, train, _ = parse(read_params(first, second), *TRAIN)
    assert (train.lr, train.steps, train.mixed_precision, tokenizer.elastic) == (1e-4, 2000, "no", True)
    assert (run.run, data.weather, data.timeofday, data.scene) == (
        "2025-01-31",
        ("clear", "snowy"),
        ("night",),
        (),
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_changes_nothing(tmp_path, text):
    (tmp_path / "empty.yaml").write_text(text)
    assert read_params(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"lr: 1\nsteps: [1\nx: 2\n", " line 3 is not valid YAML: write one 'name: value' a line"),
        (b"lr: 1\n\tsteps: 2\n", " line 2 is not valid YAML"),
        (b"lr:1e-4\n", "holds no 'name: value' lines: write for example 'steps: 1000'"),
        (b"- steps\n- 1000\n", "holds no 'name: value' lines"),
        (b"steps: 1\nrun: \xff\xfe\n", "cannot be read: give a text file"),
        (b"run: \x00\n", "is not valid YAML"),
    ],
)
def test_broken_files(tmp_path, content, said):
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_params(tmp_path / "broken.yaml")
    assert said in str(caught.value) and "broken.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no parameter file .*nosuch.yaml: see params/"):
        read_params(tmp_path / "nosuch.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_params(tmp_path)


def test_counts_to_evaluate_are_counts_the_tokenizer_has():
    assert "token_counts=128 is no count of this tokenizer" in sentence(token_counts="1,128", elastic=True)
    assert "type 64, or elastic=true" in sentence(token_counts=8, elastic=False)
    parse(dict(token_counts="1,8,64", elastic=True), *TRAIN)


@pytest.mark.parametrize(
    "typed", ["2025-01-31", "2025-02-30", "2025-01-31 12:00:00", "12:30:45", "007", "1:30.5"]
)
def test_a_word_in_yaml_stays_as_it_was_typed(typed, tmp_path):
    (tmp_path / "p.yaml").write_text(f"data: {typed}\nsteps: 1000\nlr: 1.0e-4\nseed: 0x10\nelastic: no\n")
    params = read_params(tmp_path / "p.yaml")
    wanted = {"data": typed, "steps": 1000, "lr": 1e-4, "seed": 16, "elastic": False}
    assert params == wanted and json.loads(json.dumps(params)) == params


@pytest.mark.parametrize(
    "value", ["!!binary aGk=", "!!timestamp 2025-01-31", "!!set {a, b}", "!!omap [a: 1]"]
)
def test_what_no_notebook_can_hold_is_refused_in_one_sentence(value, tmp_path):
    (tmp_path / "p.yaml").write_text(f"run: {value}\n")
    with pytest.raises(ConfigError, match=r"p.yaml line 1 is not valid YAML: write one 'name: value' a line"):
        read_params(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    "text",
    ["steps: 1\nlr: 1\nsteps: 2\n", "steps: 1\n\n'steps': 1\n", "\ncells:\n- {steps: 1,\n\n   steps: 2}\n"],
)
def test_a_name_that_is_given_twice_is_refused(text, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"p.yaml gives steps twice, in lines [13] and [35]: leave out one"):
        read_params(tmp_path / "p.yaml")


def test_what_a_merged_mapping_gives_may_be_overridden(tmp_path):
    (tmp_path / "p.yaml").write_text("grid: &a {lr: [1], seed: [2]}\nparams: {<<: *a, lr: 3}\n")
    assert read_params(tmp_path / "p.yaml")["params"] == {"lr": 3, "seed": [2]}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (dict(l2_weight=0), "perceptual_weight are 0, so nothing learns the pixels: type l2_weight=1"),
        (dict(l2_weight=0, quantizer="vq", align_weight=1), "are 0, so nothing learns the pixels"),
        (dict(l2_weight=1e-10), "are 1e-10 in all, so nothing learns the pixels: type l2_weight=1"),
        (dict(l2_weight=0, adversarial_weight=1), "so nothing learns the pixels"),  # 0 is its adaptive weight
        (dict(perceptual="lpips"), "perceptual=lpips does nothing with perceptual_weight=0: type percep"),
        (dict(perceptual="vgg", perceptual_weight=0), "or perceptual=lpips perceptual_weight=0 to train"),
        (dict(perceptual_checkpoint="vgg16.pth"), "or perceptual_checkpoint='' perceptual_weight=0"),
        (dict(discriminator="features"), "does nothing with adversarial_weight=0"),
        (dict(lecam_weight=0.1), "does nothing with adversarial_weight=0"),
        (dict(align_to="mae"), "does nothing with align_weight=0"),
        (dict(adversarial_weight=0.1, discriminator_start=1200), "is not before the end, steps=1200: type"),
        (dict(adversarial_weight=0.1, steps=1, discriminator_start=9), "type discriminator_start=0, or adv"),
    ],
)  # fmt: skip
def test_a_loss_that_can_teach_nothing_is_refused(params, says):
    assert says in sentence(**params)


@pytest.mark.parametrize(
    "params",
    [
        dict(perceptual="lpips", perceptual_weight=0),
        dict(l2_weight=0, perceptual_weight=1),
        dict(l2_weight=0, adversarial_weight=1, adaptive_weight=False),
        dict(adversarial_weight=0.1, discriminator_start=1199),
        dict(perceptual_checkpoint="", perceptual_weight="0"),
    ],
)
def test_losses_that_teach_something(params):
    train = parse_train(params).train
    assert parse_train(train.model_dump(mode="json")).train == train
