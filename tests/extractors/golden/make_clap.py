"""Golden arrays of CLAP: what the published code computes from seeded weights and a seeded sound.

    python tests/extractors/golden/make_clap.py --laion-clap SITE/laion_clap --valor VALOR/utils \
        --clip WW8Scmk5YsM.wav --out tests/extractors/golden/clap.npz

SITE/laion_clap is the unpacked PyPI package laion-clap 1.1.7 (installed without dependencies), VALOR a checkout of
Franklin905/VALOR at 2677da9, the clip is the real one of `../shared/data/clips` (44.1 kHz stereo, 10.05 s), read with
librosa 0.11.  Only the reference's own classes compute; nothing of clave is imported but the seeds.
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

RATE_HZ = 48_000
#: The decoded length of the LLP sample clip, 10.008 s: nine repeats and a second of zeros.
SAMPLES = 480_375
IDS = [[0, 713, 16, 10, 2182, 9, 2335, 2], [0, 713, 16, 10, 2182, 9, 3173, 6, 42, 65, 18, 1181, 2]]


def import_reference(package: Path, valor: Path) -> tuple[types.ModuleType, types.ModuleType]:
    """laion_clap's model file and VALOR's helpers, without the package's own import of data hubs."""
    for name, path in (("laion_clap", package), ("laion_clap.clap_module", package / "clap_module")):
        module = types.ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    import transformers

    settings = transformers.RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
    )
    transformers.RobertaModel.from_pretrained = classmethod(lambda cls, *_, **__: cls(settings))
    import laion_clap.clap_module.model as model

    sys.path.insert(0, str(valor))
    import clap_utils

    return model, clap_utils


def build(model: types.ModuleType, size: str, fusion: bool) -> torch.nn.Module:
    """The reference network with seeded weights, in evaluation mode."""
    audio = {
        "audio_length": 1024,
        "clip_samples": 480000,
        "mel_bins": 64,
        "sample_rate": 48000,
        "window_size": 1024,
        "hop_size": 480,
        "fmin": 50,
        "fmax": 14000,
        "class_num": 527,
        "model_type": "HTSAT",
        "model_name": size,
    }
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "model_type": "roberta"}
    network = model.CLAP(
        embed_dim={"tiny": 768, "base": 1024}[size],
        audio_cfg=model.CLAPAudioCfp(**audio),
        text_cfg=model.CLAPTextCfg(**text),
        enable_fusion=fusion,
        fusion_type="aff_2d" if fusion else "None",
    )
    fixed = ("relative_position_index", "attn_mask", "position_ids", "token_type_ids", "num_batches_tracked")
    filters = ("spectrogram_extractor", "logmel_extractor")
    filled = {
        name: value
        if name.endswith(fixed) or any(part in name for part in filters)
        else torch.from_numpy(np.asarray(seeded.tensor(name, tuple(value.shape), seed=0), dtype=np.float32))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(filled)
    return network.eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--laion-clap", type=Path, required=True)
    parser.add_argument("--valor", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model, valor = import_reference(arguments.laion_clap, arguments.valor)
    wave = seeded.sound(SAMPLES, RATE_HZ, seed=1)
    settings = {"sample_rate": RATE_HZ, "window_size": 1024, "hop_size": 480, "fmin": 50, "fmax": 14000}

    def features(samples: np.ndarray, truncating: str) -> dict[str, torch.Tensor]:
        samples = torch.from_numpy(valor.int16_to_float32(valor.float32_to_int16(samples)))
        return valor.get_audio_features({}, samples, 480_000, truncating, "repeatpad", settings)

    out: dict[str, np.ndarray] = {}
    for size, fusion in (("tiny", True), ("tiny", False), ("base", False)):
        tag = f"{size}_{'fusion' if fusion else 'plain'}"
        network = build(model, size, fusion)
        state = network.state_dict()
        out[f"{tag}_names"] = np.array(list(state))
        out[f"{tag}_shapes"] = np.array([",".join(map(str, value.shape)) for value in state.values()])
        if fusion:
            wrapper = valor.My_CLAP(types.SimpleNamespace(model=network, model_cfg={"audio_cfg": settings}), "cpu")
            clip, _ = librosa.load(arguments.clip, sr=RATE_HZ)
            for source, samples, rows in (("fusion", wave, (0, 7)), ("clip", clip, (0, 9))):
                edges = np.round(np.linspace(0, len(samples), 11)).astype(np.int32)
                given = [features(samples[edges[r] : edges[r] + len(samples) // 10], "fusion") for r in rows]
                out[f"{source}_rows"] = network.get_audio_embedding(given).numpy()
                whole = samples[np.round(np.linspace(0, len(samples) - 1, 480000)).astype(np.int32)]
                mapped = wrapper.get_audio_feature_maps([features(whole, "fusion")])
                out[f"{source}_map"] = mapped[0, :, ::24].numpy()
                if source == "fusion":
                    out["fusion_mel"] = given[1]["mel_fusion"][0, ::50].numpy()
            ids = torch.ones(len(IDS), 77, dtype=torch.long)
            for row, tokens in enumerate(IDS):
                ids[row, : len(tokens)] = torch.tensor(tokens)
            text = network.get_text_embedding({"input_ids": ids, "attention_mask": (ids != 1).long()})
            out["text_rows"] = text.numpy()
            continue
        second = features(wave[3 * RATE_HZ : 4 * RATE_HZ], "rand_trunc")
        if size == "tiny":
            branch = network.audio_branch
            mel = branch.logmel_extractor(branch.spectrogram_extractor(second["waveform"][None]))
            out["plain_mel"] = mel[0, 0, ::50].numpy()
        out[f"{size}_row"] = network.get_audio_embedding([second]).numpy()
    np.savez_compressed(arguments.out, **out)
    print(arguments.out, arguments.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
