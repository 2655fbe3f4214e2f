"""What a training step costs, by arithmetic: floating-point operations and saved activations of one sample.

A multiply-add counts as two, the backward pass as twice the forward. Matrix products only: norms, GELU and softmax are
below one per cent. Bytes are those that autograd keeps for the backward pass.
"""

from collections.abc import Mapping

from train.models.croma import CromaConfig
from train.models.masking import kept_count
from train.models.satmae_config import SatmaeConfig

_UPSCALE_KERNELS = 4 * 4 / 4 + 2 * 3 * 3
"""Multiply-adds of an upscaling block per output pixel and pair of channels: a strided 4 x 4, then two of 3 x 3."""


def linear(rows: int, inputs: int, outputs: int) -> int:
    """Operations of a matrix product on `rows` vectors."""
    return 2 * rows * inputs * outputs


def attention(queries: int, keys: int, width: int) -> int:
    """Operations of scores and weighted sum, over all heads."""
    return 2 * linear(queries, width, keys)


def block(tokens: int, width: int, hidden: int) -> int:
    """Operations of self-attention with its projections and of an MLP."""
    return attention(tokens, tokens, width) + linear(tokens, width, 4 * width) + linear(tokens, width, 2 * hidden)


def cross_block(tokens: int, context: int, width: int) -> int:
    """Operations of cross-attention with its projections."""
    projections = linear(tokens, width, 2 * width) + linear(context, width, 2 * width)
    return attention(tokens, context, width) + projections


def forward(config: CromaConfig | SatmaeConfig) -> Mapping[str, int]:
    """Operations of one sample's forward pass, by part of the model."""
    return _croma(config) if isinstance(config, CromaConfig) else _satmae(config)


def step(config: CromaConfig | SatmaeConfig) -> int:
    """Operations of one sample's forward and backward pass."""
    return 3 * sum(forward(config).values())


def activation_bytes(config: CromaConfig | SatmaeConfig, precision: str) -> int:
    """Bytes that one sample's forward pass leaves for its backward pass, to about a tenth.

    Attention weights are not among them: they are computed anew on CPU, and never written by fused kernels.
    """
    values = _croma_values(config) if isinstance(config, CromaConfig) else _satmae_values(config)
    return values * (2 if precision == "bf16" else 4)


def _croma(config: CromaConfig) -> dict[str, int]:
    width, pixels, half = config.encoder_dim, config.patch**2, config.depth // 2
    kept, bands = kept_count(config.patches, config.mask_ratio), config.sar_bands + config.optical_bands
    layer = block(kept, width, 4 * width)
    decoder = config.decoder_dim
    return {
        "embedding": linear(kept, pixels * bands, width),
        "sar": half * layer,
        "optical": config.depth * layer,
        "fusion": half * (layer + cross_block(kept, kept, width)),
        "decoder": linear(kept, width, decoder)
        + config.decoder_depth * block(config.patches, decoder, 4 * decoder)
        + linear(config.patches, decoder, pixels * bands),
        "contrastive": 2 * (linear(1, width, 8 * width) + linear(1, width, width)),
    }


def _satmae(config: SatmaeConfig) -> dict[str, int]:
    width, decoder, places = config.encoder_dim, config.decoder_dim, config.places
    seen, all_tokens = 1 + config.kept_tokens, 1 + config.tokens
    pixels, bands = config.patch**2, len(config.bands)
    # Groups are embedded whole and predict their own bands; other variants embed what is kept and predict all bands.
    embedded, predicted = (places, places) if config.variant == "group" else (config.kept_tokens, config.tokens)
    return {
        "embedding": linear(embedded, pixels * bands, width),
        "encoder": config.depth * block(seen, width, int(width * config.mlp_ratio)),
        "decoder": linear(seen, width, decoder)
        + config.decoder_depth * block(all_tokens, decoder, int(decoder * config.mlp_ratio))
        + linear(predicted, decoder, pixels * bands),
        "larger": _upscaling(config),
    }


def _upscaling(config: SatmaeConfig) -> int:
    if not config.upscales:
        return 0
    bands, side = len(config.bands), config.image_px
    outputs = [(side * 2 ** (scale + 1)) ** 2 for scale in range(config.upscales)]
    wide = 4 * bands
    image = linear(side**2, bands, wide)
    return image + sum(round(linear(n, wide, wide) * _UPSCALE_KERNELS) + linear(n, 9 * wide, bands) for n in outputs)


def _layer_values(width: int, hidden: int) -> int:
    """Per token: inputs of two norms, what they give, queries, keys, values, the attention's result, twice `hidden`."""
    return 8 * width + 2 * hidden


def _croma_values(config: CromaConfig) -> int:
    width, half, decoder = config.encoder_dim, config.depth // 2, config.decoder_dim
    kept, layer = kept_count(config.patches, config.mask_ratio), _layer_values(width, 4 * width)
    encoders = kept * ((config.depth + 2 * half) * layer + half * 7 * width)
    return encoders + config.patches * config.decoder_depth * _layer_values(decoder, 4 * decoder)


def _satmae_values(config: SatmaeConfig) -> int:
    width, decoder, ratio = config.encoder_dim, config.decoder_dim, config.mlp_ratio
    encoder = (1 + config.kept_tokens) * config.depth * _layer_values(width, int(ratio * width))
    return encoder + (1 + config.tokens) * config.decoder_depth * _layer_values(decoder, int(ratio * decoder))
