"""Drawing from a prior, exactly."""

import itertools

import numpy as np
import pytest
import torch
from priors import random_prior

from tok1d.config.fields import ConfigError
from tok1d.config.generation import SampleConfig
from tok1d.config.parse import parse
from tok1d.generation.sampling import draw_tokens, filtered, guidance_at, sample, sample_masked

PLAIN = SampleConfig(guidance=1)
KINDS = ["autoregressive", "masked"]


def asked(*colors: int) -> torch.Tensor:
    return torch.tensor(colors)[:, None]


@pytest.mark.parametrize("levels", [(3, 2), (5,)], ids=["two digits", "one digit"])
def test_the_likelihoods_of_all_sequences_sum_to_one(levels):
    prior = random_prior(num_tokens=2, levels=levels)
    ids = torch.tensor(list(itertools.product(range(prior.shape.codebook_size), repeat=2)))
    with torch.no_grad():
        log_p = prior(ids, asked(2).expand(len(ids), -1)).sum(1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_p.exp().max() > 1.5 / len(ids)  # and it prefers some


def test_draws_are_as_frequent_as_likely():
    prior = random_prior(num_tokens=1, levels=(3, 2))
    n = 4000
    ids = sample(prior, asked(1).expand(n, -1), PLAIN, seed=0, indices=range(n))
    with torch.no_grad():
        p = prior(torch.arange(6)[:, None], asked(1).expand(6, -1)).exp()[:, 0]
    shares = torch.bincount(ids[:, 0], minlength=6) / n
    assert (shares - p).abs().max() < 4 * (0.25 / n) ** 0.5


@pytest.mark.parametrize(
    "settings", [dict(temperature=0), dict(), dict(guidance_schedule="linear", guidance=3)]
)
def test_a_cache_changes_no_token(settings):
    prior, what = random_prior(num_tokens=8), asked(0, 1, 2, 3)
    config = SampleConfig(**settings)
    with_cache, without = (sample(prior, what, config, 0, range(4), cache=c) for c in (True, False))
    assert torch.equal(with_cache, without)


def test_guidance_of_one_is_the_conditional_distribution_bit_for_bit():
    prior = random_prior()
    torch.manual_seed(0)
    logits = torch.randn(2 * 3, 5, sum(prior.shape.levels))
    noise = torch.rand(3, 5, 2, dtype=torch.float64)
    pair, single = (draw_tokens(prior, each, 1.0, noise, PLAIN) for each in (logits, logits[:3]))
    assert torch.equal(pair[0], single[0]) and torch.equal(pair[1], single[1])
    more, _ = draw_tokens(prior, logits, 4.0, noise, PLAIN)
    assert not torch.equal(more, single[0])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_depend_on_their_seed_and_number_alone(kind):
    prior, what = random_prior(kind), asked(*[i % 4 for i in range(8)])
    config = SampleConfig(guidance=2, masked_steps=3)
    found = {
        size: torch.cat(
            [
                sample(prior, what[i : i + size], config, 0, range(i, min(8, i + size)))
                for i in range(0, 8, size)
            ]
        )
        for size in (1, 3, 8)
    }
    assert torch.equal(found[1], found[8]) and torch.equal(found[3], found[8])
    assert len(found[8].unique(dim=0)) > 4
    assert not torch.equal(found[8], sample(prior, what, config, 1, range(8)))


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_no_mask_is_left_and_what_is_known_stays(steps):
    prior = random_prior("masked")
    config = SampleConfig(guidance=1, masked_steps=steps)
    known = torch.tensor([[7, 3]] * 4)
    rngs = [np.random.default_rng(i) for i in range(4)]
    with torch.no_grad():
        steps_left = sample_masked(prior, asked(0, 1, 2, 3), config, rngs, known)
    found = [step.ids for step in steps_left]
    assert all(torch.equal(s.guess[s.ids >= 0], s.ids[s.ids >= 0]) for s in steps_left)
    assert all((step.guess >= 0).all() for step in steps_left)
    masks = [int((ids < 0).sum()) for ids in found]
    assert len(found) == steps and masks[-1] == 0 and masks == sorted(masks, reverse=True)
    assert all(torch.equal(ids[:, :2], known) for ids in found)
    for earlier, later in itertools.pairwise(found):
        assert torch.equal(later[earlier >= 0], earlier[earlier >= 0])


def test_the_first_tokens_of_a_real_image_are_completed():
    prior, known = random_prior(), torch.tensor([[7, 3, 1]] * 6)
    ids = sample(prior, asked(*[0] * 6), PLAIN, 0, range(6), known=known)
    assert torch.equal(ids[:, :3], known) and len(ids[:, 3:].unique(dim=0)) > 1
    shorter = sample(prior, asked(*[0] * 6), PLAIN, 0, range(6), num_tokens=4, known=known)
    assert torch.equal(shorter, ids[:, :4])  # fewer tokens: the same picture, coarser


def test_filters_keep_the_likeliest():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert torch.isfinite(filtered(logits, 2, 1.0)).tolist() == [True, True, False, False]
    assert torch.isfinite(filtered(logits.flip(0), 0, 0.7)).tolist() == [False, False, True, True]
    assert torch.isfinite(filtered(logits, 0, 0.1)).tolist() == [True, False, False, False]


def test_schedules_of_guidance():
    def scales(**settings):
        return [round(guidance_at(SampleConfig(guidance=3, **settings), k, 5), 2) for k in range(5)]

    assert scales(guidance_schedule="constant") == [3, 3, 3, 3, 3]
    assert scales(guidance_schedule="step", guidance_start=0.4) == [1, 1, 3, 3, 3]
    assert scales(guidance_schedule="linear") == [1, 1.5, 2, 2.5, 3]
    late = scales(guidance_schedule="power-cosine")
    assert late[0] == 1 and late[-1] == 3 and late[2] < 1.1 and late == sorted(late)


def test_every_class_can_be_asked_for_the_last_one_too():
    prior = random_prior()
    assert [prior.indices({"color": color}) for color in ("blue", "green", "red")] == [[0], [1], [2]]
    assert prior.indices({}) == [3]
    blue, red = (sample(prior, asked(c), SampleConfig(temperature=0, guidance=5), 0, [0]) for c in (0, 2))
    assert not torch.equal(blue, red)


def test_what_cannot_be_asked_is_one_sentence():
    prior, unconditional = random_prior(), random_prior(attributes={})
    with pytest.raises(
        ConfigError, match="color=pink is unknown to this prior: type one of blue, green, red"
    ):
        prior.indices({"color": "pink"})
    with pytest.raises(ConfigError, match="cannot be asked for weather=rainy: it knows color"):
        prior.indices({"weather": "rainy"})
    with pytest.raises(ConfigError, match="trained without conditions"):
        unconditional.indices({"color": "red"})
    nothing = torch.empty(2, 0, dtype=torch.long)
    with pytest.raises(ConfigError, match="type guidance=1"):
        sample(unconditional, nothing, SampleConfig(guidance=2), 0, range(2))
    assert sample(unconditional, nothing, PLAIN, 0, range(2)).shape == (2, 5)
    with pytest.raises(ConfigError, match="type 1 … 5"):
        sample(prior, asked(0), PLAIN, 0, [0], num_tokens=6)
    with pytest.raises(ConfigError, match="none is left to generate"):
        sample(prior, asked(0), PLAIN, 0, [0], known=torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ConfigError, match="num_tokens=0 cannot be generated"):
        sample(prior, asked(0), PLAIN, 0, [0], num_tokens=0)
    for odd in (asked(4), asked(-1), asked(0).float(), torch.zeros(1, 2, dtype=torch.long), asked()):
        with pytest.raises(ConfigError, match="make it with"):
            sample(prior, odd, PLAIN, 0, range(len(odd)))
    for known in ([[12]], [[-1]], [[0.0]], [[0], [0]], [0]):
        with pytest.raises(ConfigError, match=r"known tokens are int64 \[1, j\] in 0 … 11"):
            sample(prior, asked(0), PLAIN, 0, [0], known=torch.tensor(known))
    with pytest.raises(ConfigError, match="seed=-1 is below 0: type seed=1"):
        sample(prior, asked(0), PLAIN, -1, [0])
    with pytest.raises(ConfigError, match="guidance must be 1"):
        parse({"guidance": 0}, SampleConfig)
