"""The 1D image tokenizer: an image becomes K discrete tokens and comes back (TiTok, arXiv:2406.07550)."""

from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig
from tok1d.models.decoder import Decoded, Decoder
from tok1d.models.encoder import Encoder
from tok1d.models.linear import LinearTokenizer
from tok1d.models.quantizers import NO_IDS, Quantized, build_quantizer
from tok1d.models.refine import RefiningDecoder


class Reconstruction(NamedTuple):
    images: Tensor  # [B, 3, H, W], about 0 … 1, not clamped
    ids: Tensor | None  # [B, K] int64; None: the quantizer has none
    loss: Tensor  # scalar, the quantizer's own loss
    terms: dict[str, Tensor]  # what that loss consists of, by name; detached, to log
    codes: Tensor  # [B, k, dim]
    features: Tensor | None  # [B, N, D], the ViT decoder's patches after its middle block


class Tokenizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tok1d",
    tags=["image-tokenizer", "1d-tokenizer"],
    coders={
        TokenizerConfig: (lambda config: config.model_dump(mode="json"), lambda data: TokenizerConfig(**data))
    },
):
    """Images are float tensors [B, 3, H, W] in 0 … 1 (RGB), tokens are int64 [B, K] in 0 … codebook_size - 1.

    `save_pretrained(folder)` and `from_pretrained(folder or hub id)` write and read `config.json` and
    `model.safetensors`.
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

    def encode_codes(
        self, images: Tensor, num_tokens: int | None = None, entropy_weight: float = 0.0
    ) -> Quantized:
        """images [B, 3, H, W] -> codes [B, k, dim], ids [B, k] (None for kl), and the quantizer's loss, in
        which the entropies of vq, lfq and softvq have `entropy_weight`.
        """
        count = self._count(num_tokens)
        if isinstance(self.encoder, LinearTokenizer):
            ids = self.encoder.encode(images, count)
            return Quantized(self.quantizer.ids_to_codes(ids), ids, images.new_zeros(()), {})
        z = self.to_codes(self.encoder(images, count))  # [B, k, in_dim]
        return self.quantizer(z, entropy_weight)

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """images [B, 3, H, W] in 0 … 1 -> token ids [B, k] int64; k is K unless the tokenizer is elastic.

        Raises `ValueError` for pixels that are NaN or infinite, and if its tokens are continuous and have no
        ids (kl): use `encode_codes` and `decode`. softvq's ids are the strongest codes only.
        """
        if not images.isfinite().all():  # no id is right for them; FSQ's would be below 0
            raise ValueError("the images have pixels that are NaN or infinite: give pixels in 0 … 1")
        ids = self.encode_codes(images, num_tokens).ids
        if ids is None:
            raise ValueError(NO_IDS)
        return ids

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, k, dim] -> images [B, 3, H, W], clamped to 0 … 1."""
        return self.decode_unclamped(codes).images.clamp(0, 1)

    def decode_unclamped(self, codes: Tensor) -> Decoded:
        """codes [B, k, dim] -> images [B, 3, H, W], not clamped, and the ViT decoder's features."""
        if isinstance(self.encoder, LinearTokenizer):
            decoded = Decoded(self.encoder.decode_ids(self.quantizer.codes_to_ids(codes)), None)
        else:
            decoded = self.decoder(codes)
        if self.refine is None:
            return decoded
        return decoded._replace(images=self.refine(decoded.images, codes.shape[1]))

    def decode_ids(self, ids: Tensor) -> Tensor:
        """token ids [B, k] -> images [B, 3, H, W], clamped to 0 … 1."""
        self._count(ids.shape[1])
        return self.decode(self.quantizer.ids_to_codes(ids))

    def forward(
        self, images: Tensor, num_tokens: int | None = None, entropy_weight: float = 0.0
    ) -> Reconstruction:
        """images [B, 3, H, W] in 0 … 1 -> their reconstruction from `num_tokens` tokens (None: all K)."""
        codes, ids, loss, terms = self.encode_codes(images, num_tokens, entropy_weight)
        decoded = self.decode_unclamped(codes)
        return Reconstruction(decoded.images, ids, loss, terms, codes, decoded.features)

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
