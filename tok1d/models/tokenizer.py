"""The 1D image tokenizer: an image becomes K discrete tokens and comes back (TiTok, arXiv:2406.07550)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from tok1d.config.fields import ConfigError
from tok1d.config.parse import BEFORE, parse
from tok1d.config.schema import TokenizerConfig
from tok1d.models.decoder import Decoded, Decoder
from tok1d.models.encoder import Encoder
from tok1d.models.linear import LinearTokenizer
from tok1d.models.quantizers import NO_IDS, Quantized, build_quantizer
from tok1d.models.refine import RefiningDecoder
from tok1d.models.weights import is_hub_id, offline, read_file

WHERE = "give a folder such as outputs/runs/quickstart/model, or the hub's user/name"

CARD = """---
{{ card_data }}
---

A 1D image tokenizer ([TiTok](https://arxiv.org/abs/2406.07550)) made with tok1d:

```python
from tok1d import Tokenizer

tokenizer = Tokenizer.from_pretrained(where)  # this folder, or its hub id
ids = tokenizer.encode(images)  # [B, 3, S, S] in 0 … 1, or uint8 -> [B, K]
images = tokenizer.decode_ids(ids)
```

S is `image_size` of config.json, K `num_latent_tokens`; there stands all else about the network too.
"""


class Reconstruction(NamedTuple):
    images: Tensor  # [B, 3, H, W], about 0 … 1, not clamped
    ids: Tensor | None  # [B, K] int64; None: the quantizer has none
    loss: Tensor  # scalar, the quantizer's own loss
    terms: dict[str, Tensor]  # what that loss consists of, by name; detached, to log
    codes: Tensor  # [B, k, dim]
    features: Tensor | None  # [B, N, D], the ViT decoder's patches after its middle block


def read_config(values: Any) -> TokenizerConfig:
    """What `config.json` holds; nothing is filled in, for another network would be built. Raises
    `ConfigError`.
    """
    if not isinstance(values, dict):
        raise ConfigError("config.json holds no names and values")
    lacking = [name for name in TokenizerConfig.model_fields if name not in values and name not in BEFORE]
    if lacking:
        raise ConfigError(f"config.json lacks {some(lacking)}: bring the whole file")
    try:
        return parse(BEFORE | values, TokenizerConfig)[0]
    except ConfigError as error:
        raise ConfigError(f"config.json is not usable: {error}") from None


def some(names: list[str]) -> str:
    """Names in a sentence, of many the first three."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def check_complete(state: Mapping[str, Tensor], model: nn.Module, file: Path) -> None:
    """Raises `ConfigError`, naming them, unless these are all of a model's tensors, in their shapes, and no
    others: the rest of a model would be random.
    """
    own = model.state_dict()
    lacking = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    odd = [name for name in own if name in state and own[name].shape != state[name].shape]
    wrong = [
        f"{verb} {some(names)}"
        for verb, names in (("lacks", lacking), ("has unknown", unknown), ("has another shape of", odd))
        if names
    ]
    if wrong:
        raise ConfigError(f"{file} {', '.join(wrong)}: bring the whole file that belongs to its config.json")


def described(tensor: object) -> str:
    """uint8 [8, 3, 64, 64]"""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


class Tokenizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tok1d",
    tags=["image-tokenizer", "1d-tokenizer"],
    model_card_template=CARD,
    coders={TokenizerConfig: (lambda config: config.model_dump(mode="json"), read_config)},
):
    """Images are float tensors [B, 3, H, W] in 0 … 1 (RGB), tokens are int64 [B, K] in 0 … codebook_size - 1.

    `save_pretrained(folder)` and `from_pretrained(folder or hub id)` write and read `config.json` and
    `model.safetensors`; what is incomplete is refused.
    """

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder: Any  # an Encoder, or a LinearTokenizer
        self.decoder: Any = None  # of a linear code: its own
        if config.encoder == "linear":
            K = config.num_latent_tokens
            self.encoder = LinearTokenizer(config.image_size, K, config.fsq_levels, "centroids")
            self.quantizer = build_quantizer(config)
        else:
            self.encoder = Encoder(config)
            self.quantizer = build_quantizer(config)
            self.to_codes = nn.Linear(self.encoder.width, self.quantizer.in_dim)
            self.decoder = Decoder(config, self.quantizer.dim)
        most = config.num_latent_tokens if config.elastic else 1
        size = config.decoder_refine
        self.refine = RefiningDecoder(size, most) if size != "none" else None
        self.frozen: list[nn.Module] = []  # stay in eval mode

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Tokenizer":
        """The tokenizer of a folder or hub id, which may name a revision (`id@tag`), in eval mode. Raises
        `ConfigError` if there is none, or if `config.json` or the weights are incomplete or damaged.
        """
        given = str(pretrained_model_name_or_path)
        folder, on_hub = Path(given).expanduser(), is_hub_id(given)
        if on_hub:
            given, _, revision = given.partition("@")
            options = {"local_files_only": offline()} | ({"revision": revision} if revision else {}) | options
        elif not given.strip() or not folder.is_dir():
            raise ConfigError(f"there is no folder {given or 'without a name'}: {WHERE}")
        elif not (folder / "config.json").exists():
            inside = folder / "model"
            hint = f"type {inside}" if (inside / "config.json").exists() else WHERE
            raise ConfigError(f"{given}: there is no config.json: {hint}")
        try:
            return super().from_pretrained(given if on_hub else folder, **options)
        except ConfigError as error:
            raise ConfigError(f"{given}: {error}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:  # no names and values
            raise ConfigError(f"{given}: config.json is damaged ({error})") from None
        except Exception as error:  # no internet, no such repository or revision, no permission
            if not on_hub:
                raise
            why = type(error).__name__
            raise ConfigError(
                f"there is no folder {given}, and as a hub id it cannot be fetched ({why}): {WHERE}"
            ) from error

    @classmethod
    def _from_pretrained(cls, **options: Any) -> "Tokenizer":
        if "config" not in options:
            raise ConfigError("there is no config.json")
        return super()._from_pretrained(**options)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        file = Path(model_file)
        state = read_file(file, "bring the whole file")
        check_complete(state, model, file)
        model.load_state_dict(state)
        return model.to(map_location).eval()

    _load_as_pickle = _load_as_safetensor

    def encode_codes(
        self, images: Tensor, num_tokens: int | None = None, entropy_weight: float = 0.0
    ) -> Quantized:
        """images [B, 3, H, W] -> codes [B, k, dim], ids [B, k] (None for kl), and the quantizer's loss, in
        which the entropies of vq, lfq and softvq have `entropy_weight`. Images are as in `encode`; while it
        is trained nobody looks whether they are in range, which a GPU would wait for.
        """
        count = self._count(num_tokens)
        self._check_shape(images)
        if not self.training or not images.is_floating_point():
            images = self._in_range(images)
        if isinstance(self.encoder, LinearTokenizer):
            ids = self.encoder.encode(images, count)
            return Quantized(self.quantizer.ids_to_codes(ids), ids, images.new_zeros(()), {})
        z = self.to_codes(self.encoder(images, count))  # [B, k, in_dim]
        return self.quantizer(z, entropy_weight)

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """images [B, 3, S, S], float in 0 … 1 or uint8 -> token ids [B, k] int64; k is K unless the tokenizer
        is elastic.

        Raises `ValueError` for images of another size or range, or if its tokens are continuous and have none
        (kl): use `encode_codes` and `decode`. softvq's ids are the strongest codes only.
        """
        ids = self.encode_codes(images, num_tokens).ids
        if ids is None:
            raise ValueError(NO_IDS)
        return ids

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, k, dim] -> images [B, 3, H, W], clamped to 0 … 1. Raises `ValueError` for codes of
        another shape, or of a count that this tokenizer does not have.
        """
        return self.decode_unclamped(codes).images.clamp(0, 1)

    def decode_unclamped(self, codes: Tensor, places: Tensor | None = None) -> Decoded:
        """codes [B, k, dim] of the first tokens -> images [B, 3, H, W], not clamped, and the ViT decoder's
        features. Of the tokens at `places` [B, k] alone, as if there were no others. Raises `ValueError` as
        `decode` does.
        """
        dim = self.quantizer.dim
        if not isinstance(codes, Tensor) or codes.ndim != 3 or codes.shape[2] != dim or not len(codes):
            raise ValueError(
                f"codes are [B, k, {dim}] here, got {described(codes)}: give those of encode_codes"
            )
        if places is None:
            self._count(codes.shape[1])
        if isinstance(self.encoder, LinearTokenizer):
            decoded = Decoded(self.encoder.decode_ids(self.quantizer.codes_to_ids(codes), places), None)
        else:
            decoded = self.decoder(codes, places)
        if self.refine is None:
            return decoded
        return decoded._replace(images=self.refine(decoded.images, codes.shape[1]))

    def decode_ids(self, ids: Tensor) -> Tensor:
        """token ids [B, k] int64 -> images [B, 3, S, S], clamped to 0 … 1. Raises `ValueError` for ids that
        this tokenizer does not have.
        """
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point() or not len(ids):
            raise ValueError(f"ids are int64 [B, k], got {described(ids)}: give them as encode does")
        self._count(ids.shape[1])
        size = self.quantizer.codebook_size
        low, high = ids.min().item(), ids.max().item()
        if size and not 0 <= low <= high < size:
            raise ValueError(f"ids are 0 … {size - 1} here, got {low} … {high}: decode ids of this tokenizer")
        return self.decode(self.quantizer.ids_to_codes(ids))

    def forward(
        self, images: Tensor, num_tokens: int | None = None, entropy_weight: float = 0.0
    ) -> Reconstruction:
        """images [B, 3, H, W] in 0 … 1 -> their reconstruction from `num_tokens` tokens (None: all K)."""
        codes, ids, loss, terms = self.encode_codes(images, num_tokens, entropy_weight)
        decoded = self.decode_unclamped(codes)
        return Reconstruction(decoded.images, ids, loss, terms, codes, decoded.features)

    def _check_shape(self, images: Tensor) -> None:
        """Raises `ValueError` unless images are [B, 3, S, S]."""
        S, got = self.config.image_size, described(images)
        if not isinstance(images, Tensor):
            raise ValueError(f"images are a tensor, got {got}: type torch.as_tensor(images)")
        if images.ndim == 4 and images.shape[1:] == (3, S, S) and len(images):
            return
        hint = f"resize and crop them to {S} pixels"
        if images.ndim == 3:
            hint = "type images[None] for a single one"
        elif images.ndim == 4 and images.shape[-1] == 3:
            hint = "type images.permute(0, 3, 1, 2)"
        raise ValueError(f"images are [B, 3, {S}, {S}] here, got {got}: {hint}")

    def _in_range(self, images: Tensor) -> Tensor:
        """Images as floats in 0 … 1; a little beyond may come from resizing. Raises `ValueError`."""
        if images.dtype == torch.uint8 or not images.numel():
            return images.float() / 255
        if not images.is_floating_point():
            raise ValueError(f"images are float or uint8, got {described(images)}: type images.float() / 255")
        low, high = images.min().item(), images.max().item()
        if not -0.2 <= low <= high <= 1.2:  # NaN is in no range
            hint = "type images / 255" if high > 1.2 and low > -0.2 else "type (images + 1) / 2"
            hint = hint if math.isfinite(low + high) else "replace what is not finite"
            raise ValueError(f"images are in 0 … 1, got {low:.3g} … {high:.3g}: {hint}")
        return images

    def _count(self, num_tokens: int | None) -> int:
        K = self.config.num_latent_tokens
        if num_tokens is None or num_tokens == K:
            return K
        if not self.config.elastic:
            raise ValueError(
                f"this tokenizer has {K} tokens, not {num_tokens}: train one with elastic=true for any count"
            )
        if not 1 <= num_tokens <= K:
            raise ValueError(
                f"num_tokens={num_tokens} is not in 1 … {K}: type a count this tokenizer was trained for"
            )
        return num_tokens

    @property
    def device(self) -> torch.device:
        return self.encoder.mean.device

    @property
    def last_layer(self) -> Tensor:
        """The weight of the layer that makes pixels: there VQGAN's adaptive weight compares gradients."""
        return self.decoder.last_layer if self.refine is None else self.refine.conv_out.weight

    def learn_only(self, what: str) -> None:
        """Freeze all but the `decoder` (with what refines it), or all but `refine`; `all` learns all. Ids
        stay as they are in either case.
        """
        names = {"decoder": ("decoder", "refine"), "refine": ("refine",)}.get(what)
        self.frozen = [] if names is None else [m for n, m in self.named_children() if n not in names]
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Tokenizer":
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self
