"""Tokens that are touched: what dropping, editing and exchanging them does to a picture."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from priors import linear_tokenizer
from workbench import REPO

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig, TokenizerConfig
from tok1d.data.dataset import load_data
from tok1d.evaluation.evaluate import reconstruct
from tok1d.explore.microscope import Microscope
from tok1d.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    """Four toy roads, uint8 [4, 3, 64, 64]."""
    _, images = load_data(DataConfig(toy_images=4, toy_val_images=4), 64, tmp_path_factory.mktemp("cache"))
    return images.center_crops(range(4))


@pytest.fixture(scope="module")
def shipped():
    return Tokenizer.from_pretrained(REPO / "outputs/published/toy-roads-64px/model")


def rank_correlation(a, b) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(x, kind="stable")) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_all_tokens_are_the_reconstruction_and_a_dropped_one_is_missed(shipped, roads):
    microscope = Microscope(shipped, roads[0])
    whole = reconstruct(shipped, roads[:1], (128,))[128][0]
    assert torch.equal(microscope.decode(microscope.ids), whole)
    lost = [row["lost"] for row in microscope.table()]
    assert lost[0] > 3 > lost[-1] > -1  # dB
    assert sum(row["effect"] for row in microscope.table()) == pytest.approx(1)
    assert microscope.decode([None] * 127 + microscope.ids[-1:]).shape == whole.shape


def test_a_token_changes_the_picture_most_where_its_map_says(shipped, roads):
    """Maps are of dropping; here the token gets another image's code instead. Waves have nodes where nothing
    changes, and another code has others: near each pixel, in a window of 9, they agree.
    """
    microscope, other = Microscope(shipped, roads[0]), Microscope(shipped, roads[1])
    found = []
    for k in range(16):
        if microscope.ids[k] == other.ids[k]:
            continue
        edited = [other.ids[k] if j == k else i for j, i in enumerate(microscope.ids)]
        before, after = microscope.decode(microscope.ids).float(), microscope.decode(edited).float()
        change = (after - before).abs().mean(0)
        near = [F.avg_pool2d(x[None], 9, 4).flatten().numpy() for x in (change, microscope.effects([k])[0])]
        found.append(rank_correlation(*near))
    assert np.median(found) > 0.6 and min(found) > 0, found


def test_codes_are_edited_exchanged_and_blended(shipped, roads):
    one, other = Microscope(shipped, roads[0]), Microscope(shipped, roads[2])
    assert torch.equal(one.decode(other.ids), other.decode(other.ids))
    for share, end in ((0.0, one), (1.0, other)):  # two at once round otherwise than one
        assert (one.blend(other.ids, share).int() - end.decode(end.ids).int()).abs().max() <= 1
    between = one.blend(other.ids, 0.5).float()
    ends = [one.decode(ids).float() for ids in (one.ids, other.ids)]
    apart = (ends[0] - ends[1]).abs().mean()
    assert all((between - end).abs().mean() < apart for end in ends)
    near = one.neighbors(0)
    assert len(near) == 6 and one.ids[0] not in near
    changed = one.with_code(0, near).float()
    far = one.with_code(0, [other.ids[0]]).float()
    before = one.decode(one.ids).float()
    assert (changed - before).abs().mean((1, 2, 3)).median() < (far - before).abs().mean()
    assert set(one.first_and_last()) == {
        "only the first", "all but the first", "only the last", "all but the last"
    }  # fmt: skip


def test_where_a_query_looks_and_why_a_coefficient_looks_nowhere(shipped, roads):
    with pytest.raises(ConfigError, match="not queries"):
        _ = Microscope(shipped, roads[0]).looks_at
    torch.manual_seed(0)
    sizes = dict(encoder_size="nano", decoder_size="nano", patch_size=16, num_latent_tokens=5)
    tokenizer = Tokenizer(TokenizerConfig(encoder="vit", image_size=64, **sizes))
    maps = Microscope(tokenizer, roads[0]).looks_at
    assert maps.shape == (5, 4, 4) and torch.allclose(maps.sum((1, 2)), torch.ones(5), atol=1e-5)
    covered = roads[0].clone()
    covered[:, :, 32:] = 0
    assert not torch.allclose(Microscope(tokenizer, covered).looks_at, maps)


def test_what_cannot_be_decoded_is_one_sentence(shipped, roads, tmp_path):
    microscope = Microscope(shipped, roads[0])
    for ids, words in (
        ([1], "give 128"), ([None] * 128, "keep one"), ([64_000, *microscope.ids[1:]], "type 0 … 63999"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            microscope.decode(ids)
    for ask in (microscope.effects, microscope.lost, microscope.without):
        for k in (-1, 128):
            with pytest.raises(ConfigError, match=f"there is no token {k}: type 0 … 127"):
                ask([k])
        with pytest.raises(ConfigError, match="no token is named: type some of 0 … 127"):
            ask([])
    with pytest.raises(ConfigError, match="no code is given: type some of 0 … 63999"):
        microscope.with_code(0, [])
    with pytest.raises(ConfigError, match="there is no token 128"):
        microscope.neighbors(128)
    with pytest.raises(ConfigError, match="there is no token 128"):
        microscope.with_code(128, [0])
    for share, dropped in ((2.0, 0), (float("nan"), 0), (0.5, 1)):
        with pytest.raises(ConfigError, match="type a share of 0 … 1, and give every token"):
            microscope.blend([None] * dropped + microscope.ids[dropped:], share)
    for image in (roads[0] / 255, roads[0].float()):
        with pytest.raises(ConfigError, match="images are uint8 in 0 … 255 here, got float32"):
            Microscope(shipped, image)
    with pytest.raises(ConfigError, match="continuous"):
        Microscope(Tokenizer(TokenizerConfig(encoder="vit", image_size=64, quantizer="kl")), roads[0])
    single = linear_tokenizer(tmp_path, num_latent_tokens=1, elastic=False)
    alone = Microscope(single, torch.zeros(3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="only token"):
        alone.effects([0])
    assert set(alone.first_and_last()) == {"only the first", "only the last"}
