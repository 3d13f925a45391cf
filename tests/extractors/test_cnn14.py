"""Cnn14 against librosa, torchlibrosa and a forward pass written here by functions, on the published 84 keys."""

import itertools
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from extractors.base import NoAudio, build, load
from extractors.cnn14 import CNN14, RECIPES
from extractors.nets.cnn14 import Cnn14Network
from extractors.recipes import recipe
from extractors.weights import WeightsError
from tests.extractors.fake_media import FakeMedia, read_wav

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
GOLDEN = Path(__file__).parent / "golden" / "cnn14.npz"
WIDTHS = (1, 64, 128, 256, 512, 1024, 2048)


def fixed_filters() -> dict[str, torch.Tensor]:
    """The Fourier and mel filters of the published file, from numpy's FFT and librosa instead of our formulas."""
    window = librosa.filters.get_window("hann", 1024, fftbins=True)
    fourier = np.fft.fft(np.eye(1024))[:513] * window
    mel = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000).T
    return {
        "spectrogram_extractor.stft.conv_real.weight": torch.from_numpy(fourier.real).float()[:, None],
        "spectrogram_extractor.stft.conv_imag.weight": torch.from_numpy(fourier.imag).float()[:, None],
        "logmel_extractor.melW": torch.from_numpy(np.ascontiguousarray(mel)).float(),
    }


def published_state(seed: int) -> dict[str, torch.Tensor]:
    """84 keys of `Cnn14_mAP=0.431.pth`, seeded; `bn0` normalises decibels, so nothing saturates."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def norm(name: str, width: int, mean: float, variance: float) -> dict[str, torch.Tensor]:
        return {
            f"{name}.weight": 1 + 0.1 * normal(width),
            f"{name}.bias": 0.1 * normal(width),
            f"{name}.running_mean": mean + 0.1 * normal(width),
            f"{name}.running_var": variance * (1 + 0.2 * normal(width).abs()),
            f"{name}.num_batches_tracked": torch.tensor(7),
        }

    state = fixed_filters() | norm("bn0", 64, -20.0, 100.0)
    for block, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS), start=1):
        for layer, source in ((1, inputs), (2, outputs)):
            scale = (2 / (9 * source)) ** 0.5
            state[f"conv_block{block}.conv{layer}.weight"] = scale * normal(outputs, source, 3, 3)
            state |= norm(f"conv_block{block}.bn{layer}", outputs, 0.0, 1.0)
    for name, outputs in (("fc1", 2048), ("fc_audioset", 527)):
        state |= {f"{name}.weight": normal(outputs, 2048) / 2048**0.5, f"{name}.bias": 0.1 * normal(outputs)}
    return state


def reference_log_mel(waves: torch.Tensor, **bank: object) -> np.ndarray:
    """(B, 101, 64) decibels by librosa."""
    bank = {"fmin": 50, "fmax": 14_000, "n_mels": 64} | bank
    rows = []
    for wave in waves.double().numpy():
        mel = librosa.feature.melspectrogram(
            y=wave, sr=32_000, n_fft=1024, hop_length=320, center=True, pad_mode="reflect", power=2.0, **bank
        )
        rows.append(librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T)
    return np.stack(rows)


def reference_embedding(state: dict[str, torch.Tensor], log_mel: torch.Tensor) -> torch.Tensor:
    """(B, 101, 64) -> (B, 2048) by functions, normalising by hand."""

    def norm(maps: torch.Tensor, name: str, axis: int) -> torch.Tensor:
        shape = [1] * maps.ndim
        shape[axis] = -1
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    maps = norm(log_mel[:, None], "bn0", axis=3)
    for block in range(1, 7):
        for layer in (1, 2):
            maps = F.conv2d(maps, state[f"conv_block{block}.conv{layer}.weight"], padding=1)
            maps = F.relu(norm(maps, f"conv_block{block}.bn{layer}", axis=1))
        if block < 6:
            maps = F.avg_pool2d(maps, kernel_size=2, stride=2)
    units = maps.mean(dim=3)
    units = units.max(dim=2).values + units.mean(dim=2)
    return F.relu(F.linear(units, state["fc1.weight"], state["fc1.bias"]))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published_state(0)


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("cnn14") / "cnn14.pth"
    torch.save({"iteration": 600_000, "model": state}, path)
    return load("cnn14:cace2024", weights=str(path))


def chirps(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(32_000) / 32_000
    start = torch.rand(rows, 1, generator=generator) * 2_000
    tone = 0.3 * torch.sin(2 * torch.pi * (start + 3_000 * time_s) * time_s)
    return tone + 0.02 * torch.randn(rows, 32_000, generator=generator)


def test_published_keys_and_parameter_counts(state):
    with torch.device("meta"):
        network = Cnn14Network()
    assert len(state) == 84
    assert set(network.state_dict()) == set(state)
    fixed = sum(state[name].numel() for name in fixed_filters())
    assert sum(parameter.numel() for parameter in network.parameters()) == 80_753_615
    assert 80_753_615 + fixed == 81_837_071


def test_fixed_filters_are_the_published_formula():
    found = Cnn14Network().state_dict()
    for name, wanted in fixed_filters().items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-6, err_msg=name)


def test_log_mel_equals_librosa(encoder):
    waves = chirps(2)
    found = encoder.network.log_mel(waves)[:, 0]
    assert found.shape == (2, 101, 64)
    assert np.abs(found.numpy() - reference_log_mel(waves)).max() < 1e-3


@pytest.mark.parametrize("bank", [{"htk": True}, {"norm": None}, {"fmin": 0, "fmax": None}])
def test_other_mel_banks_are_not_it(encoder, bank):
    """Negative control."""
    waves = chirps(1)
    assert np.abs(encoder.network.log_mel(waves)[:, 0].numpy() - reference_log_mel(waves, **bank)).max() > 1


def test_network_and_loader_equal_the_reference(encoder, state):
    waves = chirps(2)
    found = encoder.encode(waves)
    assert found.shape == (2, 2048)
    assert 0.2 < (found > 0).float().mean() < 0.8
    same_front_end = reference_embedding(state, encoder.network.log_mel(waves)[:, 0])
    assert (found - same_front_end).abs().max() <= 1e-5 * same_front_end.max()
    whole = reference_embedding(state, torch.from_numpy(reference_log_mel(waves)).float())
    assert (found - whole).abs().max() <= 1e-4 * whole.max()
    swapped = reference_embedding(state, encoder.network.log_mel(waves)[:, 0].flip(2))
    assert (found - swapped).abs().max() > 0.05 * found.max()  # negative control: mel bins upside down


def test_each_second_is_reflected_at_its_own_ends(encoder):
    """No context crosses from one second to the next, unlike a spectrogram of the whole clip."""
    waves = chirps(2)
    together = encoder.network.log_mel(waves.reshape(1, -1))[0, 0]
    alone = encoder.network.log_mel(waves)[:, 0]
    torch.testing.assert_close(together[2:99], alone[0, 2:99], atol=1e-3, rtol=0)
    assert (together[100] - alone[0, 100]).abs().max() > 0.5


def test_seconds_of_the_clip(encoder):
    """librosa's own route: load at 32 kHz, mono, then reshape to seconds."""
    rng = np.random.default_rng(0)
    media = FakeMedia(0.3 * rng.standard_normal((2, 44_100 * 10)).astype(np.float32), 44_100)
    wave = librosa.resample(
        media.audio(None, mono=False).mean(axis=0), orig_sr=44_100, target_sr=32_000, res_type="soxr_hq"
    )
    found = encoder.prepare(media, encoder.spec.grid.segments(10.0))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, wave[:320_000].reshape(10, 32_000), atol=1e-5)


@pytest.mark.parametrize(("rate_hz", "channels", "seconds"), [(8_000, 1, 1.2), (48_000, 6, 0.3), (32_000, 2, 11.0)])
def test_any_audio_gives_ten_rows(encoder, rate_hz, channels, seconds):
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((channels, round(rate_hz * seconds))).astype(np.float32)
    found = encoder.prepare(FakeMedia(samples, rate_hz), encoder.spec.grid.segments(seconds))
    assert found.shape == (10, 32_000)
    assert found.isfinite().all()
    assert (found[2:].abs().max() == 0) == (seconds < 2)


def test_silence_and_no_audio(encoder):
    assert encoder.encode(torch.zeros(1, 32_000)).isfinite().all()
    np.testing.assert_allclose(encoder.network.log_mel(torch.zeros(1, 32_000)), -100.0, atol=1e-4)
    with pytest.raises(NoAudio):
        build(recipe("cnn14").spec).prepare(FakeMedia(None), np.array([[0.0, 1.0]]))


def test_rows_do_not_depend_on_their_neighbours(encoder):
    waves = chirps(3)
    other = torch.cat([waves[:1], torch.zeros(2, 32_000)])
    assert torch.equal(encoder.encode(waves)[0], encoder.encode(other)[0])


def test_wrong_checkpoint_is_refused(state, tmp_path):
    wrong = {name: value for name, value in state.items() if name != "logmel_extractor.melW"}
    torch.save({"model": wrong}, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match="melW"):
        load("cnn14", weights=str(tmp_path / "wrong.pth"))


def test_random_weights_keep_the_filters():
    encoder = load("cnn14", weights="random:3")
    name = "logmel_extractor.melW"
    np.testing.assert_allclose(encoder.network.state_dict()[name], fixed_filters()[name], atol=1e-6)
    assert encoder.spec.weights == "random:3"


def test_records():
    assert CNN14.sha256 == "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"
    assert [entry.name for entry in RECIPES] == ["cnn14", "cnn14:cace2024"]


@pytest.mark.parity
def test_log_mel_and_filters_equal_torchlibrosa(encoder):
    stft = pytest.importorskip("torchlibrosa.stft")
    spectrogram = stft.Spectrogram(n_fft=1024, hop_length=320, win_length=1024, freeze_parameters=True)
    log_mel = stft.LogmelFilterBank(
        sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None
    )
    theirs = {f"spectrogram_extractor.{name}": value for name, value in spectrogram.state_dict().items()}
    theirs |= {f"logmel_extractor.{name}": value for name, value in log_mel.state_dict().items()}
    for name, wanted in theirs.items():
        np.testing.assert_allclose(Cnn14Network().state_dict()[name], wanted, atol=1e-6, err_msg=name)
    waves = chirps(2)
    error = (encoder.network.log_mel(waves) - log_mel(spectrogram(waves))).abs().max()
    assert error < 1e-3


@pytest.mark.parametrize("file", ["---1_cCGK4M.wav", "R9_ZSCveAHg_7s.wav"])
def test_published_code_on_real_clips(encoder, file):
    """The published network's output for the same weights; golden values by `golden/make_cnn14.py`."""
    if not (CLIPS / file).exists():
        pytest.skip("real clips are not here")
    golden = np.load(GOLDEN)
    wanted, mel = golden[f"{file}_embedding"], golden[f"{file}_log_mel"]
    segments = np.array([[2.0, 3.0], [5.0, 6.0]])
    batch = encoder.prepare(read_wav(CLIPS / file), segments)
    found = encoder.encode(batch)[:, ::16]
    log_mel = encoder.network.log_mel(batch)[:, 0, ::10, ::4]
    assert np.abs(log_mel.numpy() - mel).max() < 1e-2
    assert np.abs(found.numpy() - wanted).max() <= 1e-4 * wanted.max()
