"""Golden arrays of HTS-AT: what the authors' code computes from seeded weights and a seeded sound.

    python tests/extractors/golden/make_htsat.py --reference HTSAT --clip WW8Scmk5YsM.wav \
        --out tests/extractors/golden/htsat.npz

HTSAT is a checkout of RetroCirce/HTS-Audio-Transformer at 2e29471; its `utils` module, which imports training
packages, is replaced by an empty one.  The clip is the real one of `../shared/data/clips`, read with librosa 0.11.
Nothing of clave is imported but the seeds.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import librosa
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import seeded

RATE_HZ = 32_000
ROW = 3


def build(reference: Path) -> torch.nn.Module:
    """The authors' network with seeded weights, in evaluation mode."""
    helpers = types.ModuleType("utils")
    helpers.do_mixup = None
    helpers.interpolate = lambda maps, ratio: maps.repeat_interleave(ratio, dim=1)
    sys.modules["utils"] = helpers
    sys.path.insert(0, str(reference))
    from model.htsat import HTSAT_Swin_Transformer

    settings = types.SimpleNamespace(
        window_size=1024, hop_size=320, sample_rate=RATE_HZ, mel_bins=64, fmin=50, fmax=14000, enable_tscam=True,
        htsat_attn_heatmap=False, htsat_hier_output=False, htsat_use_max=False, enable_repeat_mode=False,
        loss_type="clip_bce",
    )  # fmt: skip
    network = HTSAT_Swin_Transformer(
        spec_size=256, patch_size=4, in_chans=1, num_classes=527, window_size=8, config=settings,
        depths=[2, 2, 6, 2], embed_dim=96, patch_stride=(4, 4), num_heads=[4, 8, 16, 32],
    )  # fmt: skip
    kept = ("relative_position_index", "attn_mask", "num_batches_tracked")
    filled = {
        name: value
        if name.endswith(kept) or "extractor" in name
        else torch.from_numpy(np.asarray(seeded.tensor(name, tuple(value.shape), seed=0), dtype=np.float32))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(filled)
    return network.eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    network = build(arguments.reference)
    clip, _ = librosa.load(arguments.clip, sr=RATE_HZ)
    seconds = np.stack([seeded.sound(10 * RATE_HZ, RATE_HZ, seed=2), clip[: 10 * RATE_HZ]])
    tiled = torch.from_numpy(seconds[:, ROW * RATE_HZ : (ROW + 1) * RATE_HZ])
    # DG-SCT doubles the second until it is long enough and cuts: exactly ten repeats.
    while tiled.shape[1] < 10 * RATE_HZ:
        tiled = torch.cat([tiled, tiled], dim=1)
    tiled = tiled[:, : 10 * RATE_HZ]
    seen = []
    network.layers[-1].register_forward_hook(lambda module, given, made: seen.append(made[0]))
    latent = network(tiled)["latent_output"]
    mel = network.logmel_extractor(network.spectrogram_extractor(tiled))
    state = network.state_dict()
    np.savez_compressed(
        arguments.out,
        names=np.array(list(state)),
        shapes=np.array([",".join(map(str, value.shape)) for value in state.values()]),
        mel=mel[0, 0, ::50].numpy(),
        latent=latent[0].numpy(),
        tokens=seen[0][0, :, ::12].numpy(),
        clip_latent=latent[1].numpy(),
        clip_tokens=seen[0][1, :, ::24].numpy(),
    )
    print(arguments.out, arguments.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
