"""From images to a trained prior: token data sets, training that can be killed, whose tokenizer it is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from priors import COLORS, colored_folders, linear_tokenizer
from safetensors.torch import load_file

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import parse
from tok1d.config.schema import DataConfig, EvalConfig, TokenizerConfig
from tok1d.data.dataset import load_data
from tok1d.evaluation.card import same_card
from tok1d.figures.draw import draw_figure, redraw
from tok1d.figures.samples import against_length, masked_steps
from tok1d.generation.generator import Generator, load_tokenizer
from tok1d.generation.measure import likelihoods, measure_samples, nearest_training_images
from tok1d.generation.prior import Prior
from tok1d.generation.token_dataset import ids_sha256, token_dataset
from tok1d.generation.train import open_tokenizer, tokens_of, train_prior
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError

SMALL = dict(
    prior_width=64, prior_depth=1, steps=12, batch_size=6, warmup_steps=2, log_every=1, checkpoint_every=4,
    prior_tokens=3, samples=6, resamples=0,
)  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with a tokenizer and pictures in class folders; the parameters of a small prior of them."""
    linear_tokenizer(tmp_path / "tokenizer")
    data = colored_folders(tmp_path / "photos")
    where = dict(outputs=tmp_path / "out", tokenizer=tmp_path / "tokenizer", data=data)
    return SMALL | {name: str(path) for name, path in where.items()}


def train(params, **more):
    found = parse(params | more, *configs_of("generate"))
    params = type(
        "Params", (), dict(zip(("run", "data", "prior", "train", "sample", "evaluation"), found, strict=True))
    )
    tokenizer = open_tokenizer(params.prior)
    tokens = tokens_of(tokenizer, params)
    run = Run.open(*found)
    return run, train_prior(run, tokenizer, tokens.train, params), tokens, params


def test_ids_are_made_once_and_are_those_of_the_encoder(place, tmp_path):
    tokenizer = load_tokenizer(place["tokenizer"])
    images, _ = load_data(DataConfig(data=place["data"]), 16, tmp_path / "cache")
    tokens = token_dataset(tokenizer, images, tmp_path / "cache", 3)
    pixels = images.center_crops(range(len(images))).float() / 255
    expected = torch.stack([tokenizer.encode(pixels), tokenizer.encode(pixels.flip(-1))], 1)[..., :3]
    assert torch.equal(torch.from_numpy(tokens.ids.astype("int64")), expected)
    assert tokens.attributes == {"class": tuple(COLORS)}
    classes = [images.names[i].split("/")[0] for i in range(len(images))]
    assert [tokens.attributes["class"][i] for i in tokens.asked[:, 0]] == classes
    [file] = (tmp_path / "cache").glob("ids-*.npy")
    made = file.stat().st_mtime_ns
    assert token_dataset(tokenizer, images, tmp_path / "cache", 2).ids.shape == (len(images), 2, 2)
    assert file.stat().st_mtime_ns == made
    crops = token_dataset(tokenizer, images, tmp_path / "cache", 3, crops=2)
    assert crops.ids.shape[1] == 4 and crops.fingerprint != tokens.fingerprint


def test_every_epoch_sees_every_image_on_any_number_of_processes(place, tmp_path):
    images, _ = load_data(DataConfig(data=place["data"]), 16, tmp_path / "cache")
    tokens = token_dataset(load_tokenizer(place["tokenizer"]), images, tmp_path / "cache", 3)
    whole = tokens.train_batch(3, 4, seed=0)
    parts = [tokens.train_batch(3, 4, 0, rank, 2) for rank in range(2)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)
    seen = torch.cat([tokens.train_batch(step, len(tokens), 0) for step in range(20)]).unique(dim=0)
    views = {
        (int(a[0]), *row) for a, ids in zip(tokens.asked, tokens.ids.tolist(), strict=True) for row in ids
    }
    assert {tuple(row) for row in seen.tolist()} == views


def test_a_tokenizer_whose_decoder_alone_was_trained_since_keeps_its_priors(place, tmp_path):
    _, generator, _, _ = train(place)
    other = load_tokenizer(place["tokenizer"])
    with torch.no_grad():
        next(other.refine.parameters()).add_(1)
    assert ids_sha256(other) == generator.prior.shape.ids_sha256
    Generator(generator.prior, other)
    with torch.no_grad():
        other.encoder.basis.add_(0.1)
    with pytest.raises(ConfigError, match="makes others: type tokenizer="):
        Generator(generator.prior, other)


def test_a_prior_learns_what_it_is_asked_for(place):
    run, generator, tokens, params = train(place, steps=80, prior_dropout=0)
    rows = likelihoods(generator, tokens)
    assert rows[0]["nats / token"] < 0.6 * rows[2]["nats / token"]
    pictures = {}
    for name in COLORS:
        ids = generator.ids(generator.asked([f"class={name}"], 8), params.sample)
        pictures[name] = generator.decode(ids).float().mean((0, 2, 3))
    assert {name: int(mean.argmax()) for name, mean in pictures.items()} == {"blue": 2, "green": 1, "red": 0}
    assert [list(words.values()) for words in generator.in_words(generator.balanced(3))] == [
        [c] for c in COLORS
    ]
    again = Generator.of_run(run)
    assert torch.equal(
        again.ids(generator.balanced(4), params.sample), generator.ids(generator.balanced(4), params.sample)
    )


def weights_of(run):
    return load_file(run / "model" / "model.safetensors")


def test_a_killed_prior_ends_with_the_same_bits(place, tmp_path):
    command = [sys.executable, "-m", "tok1d.cli", "prior"]
    given = place | {"run": "killed", "steps": 100}
    command += [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = Run(tmp_path / "out" / "priors" / "killed")
    process = subprocess.Popen(command, env=env)
    while len(killed.metrics if (killed / "previous.ckpt").exists() else ()) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not killed.has_model
    subprocess.run(command, env=env, check=True)
    whole, *_ = train(place, run="whole", steps=100)
    expected = weights_of(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(killed).items())


def test_two_processes_train_the_prior_of_one(place):
    alike = dict(prior_dropout=0, condition_drop=0, grad_accum_steps=1)
    one, *_ = train(place, run="one", **alike)
    two, *_ = train(place, run="two", num_processes=2, **alike)
    expected = weights_of(one)
    for name, tensor in weights_of(two).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_a_saved_prior_is_the_trained_one(place, kind):
    run, generator, _, params = train(place, prior=kind, run=kind)
    again = Prior.from_pretrained(run / "model")
    for name, tensor in generator.prior.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    asked = generator.balanced(3)
    assert torch.equal(Generator.of_run(run).ids(asked, params.sample), generator.ids(asked, params.sample))


@pytest.mark.parametrize("elastic", [True, False], ids=["elastic", "fixed"])
def test_samples_are_measured_at_each_length_and_the_card_says_how(place, tmp_path, elastic):
    linear_tokenizer(tmp_path / "tokenizer", elastic=elastic)
    lengths = [1, 2, 3] if elastic else [4]
    run, generator, tokens, params = train(place, prior_tokens=lengths[-1])
    found = measure_samples(run, generator, tokens, params.sample, EvalConfig(resamples=0))
    assert [row["num_tokens"] for row in found["results"]] == lengths
    card = run.evaluation["card"]
    assert card["images"] == 6 and card["reference"]["which"] == "validation images"
    assert card["sampling"]["guidance"] == 2 and card["sampling"]["formula"].startswith("u + s (c - u)")
    assert [row["num_tokens"] for row in found["tokenizer"]["results"]] == lengths
    chosen = measure_samples(run, generator, tokens, params.sample, EvalConfig(token_counts=lengths[-1:]))
    assert [row["num_tokens"] for row in chosen["results"]] == lengths[-1:]
    with pytest.raises(ConfigError, match=f"no length of these samples: type {'1 … 3' if elastic else 4}"):
        measure_samples(run, generator, tokens, params.sample, EvalConfig(token_counts=(9,)))


def test_distances_to_real_images_and_no_comparison_of_other_numbers_of_samples(place, real_weights):
    """gFID and KID of FID's Inception, for real; nothing unfinished is left in the cache."""
    run, generator, tokens, params = train(place, prior_tokens=2)
    metrics = dict(
        metrics=("rfid", "kid"), resamples=0, inception_checkpoint=str(real_weights / "inception_fid.pth")
    )
    two = params.sample.model_copy(update={"sample_seeds": (0, 1)})
    several = measure_samples(run, generator, tokens, two, EvalConfig(**metrics))
    found = measure_samples(run, generator, tokens, params.sample, EvalConfig(**metrics))
    assert all(row["gfid"] > 0 and "kid" in row for row in found["results"])
    assert all(row["rfid"] > 0 for row in found["tokenizer"]["results"])
    (copied,) = found["training"]  # as many real training images
    assert copied["samples"] == 6 and 0 < copied["gfid"] < min(row["gfid"] for row in found["results"])
    assert found["over_seeds"] == []
    first, second = (row["gfid"] for row in several["results"] if row["num_tokens"] == 2)
    (mean,) = (row for row in several["over_seeds"] if row["num_tokens"] == 2)
    assert mean["gfid"] == pytest.approx((first + second) / 2) and mean["seeds"] == 2
    assert mean["gfid_interval"][1] - mean["gfid"] == pytest.approx(6.353 * abs(first - second), rel=0.02)
    assert against_length(several) and against_length(found)
    assert found["card"]["metrics"]["rfid"]["reference"]["images"] == len(tokens.val_images)
    assert not [path for path in run.cache.rglob("*") if path.name.endswith(".tmp")]
    other, _, _, _ = train(place, run="other", prior_tokens=2)
    fewer = params.sample.model_copy(update={"samples": 3})
    measure_samples(other, generator, tokens, fewer, EvalConfig(**metrics))
    with pytest.raises(RunError, match="was evaluated with images="):
        same_card([run, other])


def test_a_figure_of_guidance_against_distance_and_diversity(place, tmp_path, real_weights, capsys):
    config = EvalConfig(
        metrics=("rfid", "prdc"), resamples=0, inception_checkpoint=str(real_weights / "inception_fid.pth")
    )
    runs = []
    for scale in (1, 3):
        run, generator, tokens, params = train(
            place, run=f"g{scale}", guidance=scale, samples=12, prior_tokens=1
        )
        measure_samples(run, generator, tokens, params.sample, config)
        runs.append(run)
    draw_figure("guidance", runs[:1], tmp_path)
    assert "more than one guidance" in capsys.readouterr().out
    draw_figure("guidance", runs, tmp_path)
    kept = json.loads((tmp_path / "guidance.json").read_text())
    assert [row["guidance"] for row in kept["drawn"]] == [1, 3] and "3 validation images" in kept["caption"]
    assert all(row["gfid"] > 0 and 0 <= row["recall"] <= 1 for row in kept["drawn"])
    assert redraw(tmp_path / "guidance.json")


def test_each_sample_has_a_nearest_training_image(place, real_weights):
    _, _, tokens, params = train(place)
    copies = tokens.images.center_crops([4, 1])
    for by in ("pixels", "inception"):
        chosen = params.sample.model_copy(update={"nearest_by": by})
        config = EvalConfig(inception_checkpoint=str(real_weights / "inception_fid.pth"))
        assert torch.equal(nearest_training_images(copies, tokens.images, chosen, config), copies)


def test_a_masked_prior_shows_its_steps(place):
    _, generator, _, params = train(place, prior="masked")
    asked, config = generator.balanced(3), params.sample.model_copy(update={"masked_steps": 3})
    steps = generator.masked_steps(asked, config)
    kept = [int((step.ids >= 0).sum()) for step in steps]
    assert kept == sorted(kept) and kept[-1] == 9 and kept[0] < 9
    assert torch.equal(steps[-1].ids, generator.ids(asked, config))
    assert torch.equal(steps[-1].images, generator.decode(steps[-1].ids))
    assert masked_steps(steps).axes
    assert Generator.masked_steps(train(place, run="by-token")[1], asked, config) == []


def test_what_does_not_fit_is_refused_in_one_sentence(place, tmp_path, capsys):
    def refused(**more):
        with pytest.raises((ConfigError, RunError)) as error:
            train(place, **more)
        return str(error.value)

    assert "type prior_tokens=4" in refused(prior_tokens=9)
    assert "these images have no label weather with two values: type one of class" in refused(
        condition="weather"
    )
    assert "there is no tokenizer nowhere/at/all: type tokenizer=FOLDER" in refused(
        tokenizer="nowhere/at/all"
    )
    assert "no trained prior: train one with 'tok1d run notebooks/generate.ipynb'" in refused(
        prior_from=str(tmp_path / "out" / "priors" / "nothing")
    )
    continuous = Tokenizer(TokenizerConfig(image_size=16, patch_size=8, quantizer="kl", num_latent_tokens=3))
    continuous.save_pretrained(tmp_path / "kl" / "model")
    assert "continuous tokens, which these priors cannot learn" in refused(tokenizer=str(tmp_path / "kl"))
    assert not (tmp_path / "out" / "priors").exists()  # nothing is left of what was refused
    run, *_ = train(place)
    linear_tokenizer(tmp_path / "tokenizer", fsq_levels=(3, 4))  # trained anew in the same folder
    assert "no longer makes: type another run=NAME" in refused()
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="there is no tokenizer"):
        Generator.of_run(run)
    broken = run / "model" / "config.json"
    whole = json.loads(broken.read_text())
    for odd in (
        {"kind": "autoregressive"},
        whole | {"levels": []},
        whole | {"width": -1},
        whole | {"heads": 0},
    ):
        broken.write_text(json.dumps(odd))
        with pytest.raises(ConfigError, match="holds no prior"):
            Prior.from_pretrained(run / "model")
    for name in whole.keys() - {"num_tokens", "levels"}:  # nothing is filled in
        broken.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(ConfigError, match=f"config.json lacks {name}: bring the whole file"):
            Prior.from_pretrained(run / "model")
    assert main(["prior", "-p", "prior_from=x"]) == 1
    assert "prior_from is trained already" in capsys.readouterr().err
