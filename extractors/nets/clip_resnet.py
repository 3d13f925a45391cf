"""CLIP's RN50 image tower and its text tower as open_clip builds them.

Source: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.  The key
names of openai/CLIP and of AudioCLIP's checkpoints (`visual.*`; `transformer.*`, `token_embedding.*`, ...) are
open_clip's own.
"""

from __future__ import annotations

from torch import nn

EMBEDDING = 1024
PICTURE = 224
TOKENS = 77
#: First part of the names that belong to the text tower.
TEXT_NAMES = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


def image_tower() -> nn.Module:
    """(n, 3, 224, 224) float32 pictures -> (n, 1024): the modified ResNet-50 with attention pooling."""
    from open_clip.modified_resnet import ModifiedResNet

    return ModifiedResNet(layers=[3, 4, 6, 3], output_dim=EMBEDDING, heads=32, image_size=PICTURE, width=64)


def text_tower() -> nn.Module:
    """(P, 77) int64 tokens -> (P, 1024): a causal transformer, read at the end-of-text token, not normalised."""
    from open_clip.transformer import QuickGELU, TextTransformer

    return TextTransformer(
        context_length=TOKENS,
        vocab_size=49_408,
        width=512,
        heads=8,
        layers=12,
        output_dim=EMBEDDING,
        act_layer=QuickGELU,
    )
