"""VGGish against a reference written here: pieces by hand, network by functions, weights in the published format."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import resampy
import torch
from torch.nn import functional as F

from extractors.base import NoAudio, build, load
from extractors.recipes import recipe
from extractors.spec import Grid
from extractors.vggish import RECIPES, VGGish
from extractors.weights import WeightsError
from tests.extractors.fake_media import FakeMedia, read_wav
from tests.extractors.test_mel import reference_log_mel, reference_mel_matrix

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
PCA_FOLDER = CLIPS.parent / "weights"
NAMES = [entry.name for entry in RECIPES if entry.name not in ("vggish:preactivation", "vggish:pca8")]  # same front end

# name and weight shape of every layer of vggish-10086976.pth; a bias of the first size goes with each.
PUBLISHED = {
    "features.0": (64, 1, 3, 3),
    "features.3": (128, 64, 3, 3),
    "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3),
    "features.11": (512, 256, 3, 3),
    "features.13": (512, 512, 3, 3),
    "embeddings.0": (4096, 12288),
    "embeddings.2": (4096, 4096),
    "embeddings.4": (128, 4096),
}


def published_state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in PUBLISHED.items():
        fan_in = int(np.prod(shape[1:]))
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def reference_network(state: dict[str, torch.Tensor], patches: torch.Tensor, flatten: str = "HWC") -> torch.Tensor:
    """(N, 1, 96, 64) -> (N, 128) before the last ReLU, by functions alone."""
    maps = patches
    for name, pooled in (("0", 1), ("3", 1), ("6", 0), ("8", 1), ("11", 0), ("13", 1)):
        maps = F.relu(F.conv2d(maps, state[f"features.{name}.weight"], state[f"features.{name}.bias"], padding=1))
        maps = F.max_pool2d(maps, 2, 2) if pooled else maps
    order = {"HWC": "nchw->nhwc", "CHW": "nchw->nchw"}[flatten]
    units = (torch.einsum(order, maps)).reshape(len(maps), 6 * 4 * 512)
    for name in ("0", "2"):
        units = F.relu(F.linear(units, state[f"embeddings.{name}.weight"], state[f"embeddings.{name}.bias"]))
    return F.linear(units, state["embeddings.4.weight"], state["embeddings.4.bias"])


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(published_state(0), path)
    return path


@pytest.fixture(scope="module")
def encoder(weights_file):
    return load("vggish:ave2018", weights=str(weights_file))


def stereo(seconds: float, rate_hz: int, channels: int = 2, seed: int = 0) -> FakeMedia:
    """Noise with a rising tone, in 16-bit steps as a wav file would hold it."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.4 * np.sin(2 * np.pi * (300 + 200 * time_s) * time_s)
    samples = tone * rng.uniform(0.2, 1, (channels, 1)) + 0.05 * rng.standard_normal((channels, len(time_s)))
    return FakeMedia(np.rint(samples.clip(-1, 0.99) * 32_768) / 32_768, rate_hz)


def prepared(name: str, media: FakeMedia, segments: np.ndarray | None = None) -> torch.Tensor:
    spec = recipe(name).spec
    return build(spec).prepare(media, spec.grid.segments(media.duration_s) if segments is None else segments)


def by_hand(second_pieces: list[np.ndarray]) -> np.ndarray:
    return np.stack([reference_log_mel(piece, reference_mel_matrix()) for piece in second_pieces])


def test_network_and_loader_equal_the_reference(encoder):
    patches = torch.randn(3, 1, 96, 64, generator=torch.Generator().manual_seed(1)) - 2
    wanted = F.relu(reference_network(published_state(0), patches))
    found = encoder.encode(patches)
    assert 0.2 < (wanted > 0).float().mean() < 0.8
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_flattening_channels_first_is_not_it(encoder):
    """Negative control."""
    patches = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(1)) - 2
    wrong = F.relu(reference_network(published_state(0), patches, flatten="CHW"))
    assert (encoder.encode(patches) - wrong).abs().max() > 0.05 * wrong.abs().max()


def test_parameters_are_the_published_count(encoder):
    assert encoder.parameters == 72_141_184


def test_ave2018_cuts_before_it_resamples():
    """Ten pieces of the file's own rate, mean of the channels, resampy each, first 96 frames."""
    media = stereo(10.3, 22_050)
    wave = media.audio(None, mono=False).astype(np.float64).mean(axis=0)
    seconds = [wave[i * 22_050 : (i + 1) * 22_050] for i in range(10)]
    wanted = by_hand([resampy.resample(second, 22_050, 16_000, filter="kaiser_best") for second in seconds])
    found = prepared("vggish:ave2018", media)
    assert found.shape == (10, 1, 96, 64)
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-5)
    continuous = resampy.resample(wave, 22_050, 16_000, filter="kaiser_best")
    stock = by_hand([continuous[i * 15_360 : i * 15_360 + 15_600] for i in range(10)])
    assert np.abs(stock[0] - wanted[0]).max() < 0.1
    assert np.abs(stock[5] - wanted[5]).max() > 0.5  # negative control: stock VGGish hops 0.96 s


def test_clean_default_is_continuous_and_starts_with_its_second():
    media = stereo(4.2, 44_100)
    wave = media.audio(16_000, mono=True, resampler="soxr_hq")
    found = prepared("vggish", media)
    assert found.shape == (4, 1, 96, 64)
    wanted = by_hand([wave[i * 16_000 : i * 16_000 + 15_600].astype(np.float64) for i in range(4)])
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["vggish", "vggish:ave2018", "vggish:llp2020", "vggish:unav2023"])
def test_blocks_of_a_long_clip_join_to_the_same_bytes(name):
    media = stereo(13.0, 8_000, channels=1)
    grid = recipe(name).spec.grid
    segments = Grid(grid.window_s, grid.hop_s).segments(media.duration_s)[-8:]
    blocks = [prepared(name, media, segments[i : i + 3]) for i in range(0, len(segments), 3)]
    assert torch.equal(prepared(name, media, segments), torch.cat(blocks))


def test_unav2023_hops_over_the_continuous_signal():
    media = stereo(2.5, 22_050)
    wave = resampy.resample(media.audio(None, mono=True).astype(np.float64), 22_050, 16_000, filter="kaiser_best")
    frames = 1 + (len(wave) - 400) // 160
    rows = (frames - 96) // 32 + 1
    found = prepared("vggish:unav2023", media)
    assert found.shape == (rows, 1, 96, 64)
    np.testing.assert_allclose(
        found[:, 0], by_hand([wave[i * 5_120 : i * 5_120 + 15_600] for i in range(rows)]), atol=1e-5
    )


def test_unav2023_has_the_published_number_of_rows():
    grid = recipe("vggish:unav2023").spec.grid
    assert grid.rows(10.0) == 29
    for samples in range(15_600, 60_000, 37):
        frames = 1 + (samples - 400) // 160
        assert grid.rows(samples / 16_000) == (frames - 96) // 32 + 1


def test_llp2020_reads_what_moviepy_writes():
    """At 44.1 kHz the written samples are known; without a filter the aliased tone is heard where it folds to."""
    time_s = np.arange(44_100 * 10) / 44_100
    tone = np.rint(0.5 * np.sin(2 * np.pi * 15_000 * time_s) * 32_768) / 32_768
    found = prepared("vggish:llp2020", FakeMedia(np.stack([tone, tone]), 44_100))
    assert found.shape == (10, 1, 96, 64)
    nearest = tone[np.rint(44_100 * ((1.0 / 16_000) * np.arange(15_600))).astype(int)]
    np.testing.assert_allclose(found[:1, 0], by_hand([nearest]), atol=1e-5)
    filtered = prepared("vggish", FakeMedia(np.stack([tone, tone]), 44_100))
    folded = int(found[0, 0].mean(axis=0).argmax())
    assert found[0, 0, :, folded].mean() - filtered[0, 0, :, folded].mean() > 3


@pytest.fixture(scope="module")
def quantising(weights_file, tmp_path_factory):
    """The real PCA parameters from a weight cache, never from the network."""
    if not (PCA_FOLDER / "vggish_pca_params.npz").exists():
        pytest.skip("the published PCA parameters are not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAVE_WEIGHTS", str(PCA_FOLDER))
        return load("vggish:pca8", weights=str(weights_file))


def test_three_outputs_are_three_views_of_one_network(encoder, quantising, weights_file):
    patches = torch.randn(16, 1, 96, 64, generator=torch.Generator().manual_seed(3)) - 2
    units = reference_network(published_state(0), patches)
    before = load("vggish:preactivation", weights=str(weights_file)).encode(patches)
    assert (before < 0).any()
    assert (before - units).abs().max() <= 1e-5 * units.abs().max()
    assert torch.equal(before.relu(), encoder.encode(patches))

    # No mean of what has passed a ReLU is negative, so the parameters are of what comes before it.
    parameters = np.load(PCA_FOLDER / "vggish_pca_params.npz")
    whitened = parameters["pca_eigen_vectors"] @ (before.double().numpy().T - parameters["pca_means"][:, None])
    assert (parameters["pca_means"] < 0).any()
    scaled = (np.clip(whitened.T, -2, 2) + 2) * 255 / 4
    found = quantising.encode(patches)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, scaled.astype(np.uint8))
    assert (found.numpy() != np.rint(scaled)).mean() > 0.02  # negative control: the torch port rounds


def test_whitening_behind_the_relu_is_refused():
    spec = recipe("vggish:pca8").spec
    with pytest.raises(ValueError, match=r"fitted to layer 'fc2', not to 'fc2\.relu'"):
        VGGish(dataclasses.replace(spec, layer="fc2.relu"))


def test_random_weights_need_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("CLAVE_WEIGHTS", str(tmp_path))
    encoder = load("vggish:pca8", weights="random:0")
    rows = encoder.encode(torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(0)))
    assert rows.dtype == torch.uint8
    assert rows.unique().numel() > 10


def test_published_ave_features_are_read_after_the_relu():
    """The released background clips: no negative value, most exactly 0, float32 values in a float64 file."""
    path = CLIPS.parent / "ave" / "audio_feature_noisy.h5"
    if not path.exists():
        pytest.skip("the published features are not here")
    with h5py.File(path) as file:
        published = file["avadataset"][()]
    spec = recipe("vggish:ave2018").spec
    assert published.shape[1:] == (spec.grid.rows(10.0), *spec.shape)
    assert published.min() == 0.0
    assert 0.5 < (published == 0).mean() < 0.8
    assert np.array_equal(published.astype(spec.dtype), published)
    assert (spec.layer, spec.postprocess) == ("fc2.relu", ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (32_000, 6), (48_000, 2)])
def test_any_rate_and_channel_count(name, rate_hz, channels):
    media = stereo(1.4, rate_hz, channels)
    rows = recipe(name).spec.grid.rows(media.duration_s)
    patches = prepared(name, media)
    assert patches.shape == (rows, 1, 96, 64)
    assert patches.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_audio_that_ends_early_is_continued_with_silence(name):
    grid = recipe(name).spec.grid
    segments = Grid(grid.window_s, grid.hop_s, count=4).segments(1.2)
    patches = prepared(name, stereo(1.2, 16_000), segments)
    assert patches.shape == (4, 1, 96, 64)
    if grid.hop_s == 1.0:
        np.testing.assert_allclose(patches[2:], np.log(0.01), rtol=1e-6)
    np.testing.assert_allclose(prepared(name, stereo(0.3, 44_100), segments)[3], np.log(0.01), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_audio_is_said_so(name):
    with pytest.raises(NoAudio):
        prepared(name, FakeMedia(None), np.array([[0.0, 1.0]]))


def test_float_audio_is_rounded_to_16_bit_steps():
    """A step of 2^-16 vanishes, as it would in the wav file that the published extractors read."""
    quiet = FakeMedia(np.full((1, 160_000), 0.4 / 32_768, np.float32), 16_000)
    np.testing.assert_allclose(prepared("vggish:ave2018", quiet), np.log(0.01), rtol=1e-6)
    assert np.abs(prepared("vggish", quiet) - np.log(0.01)).max() > 1e-4


def test_rows_do_not_depend_on_their_neighbours(encoder):
    patches = torch.randn(4, 1, 96, 64, generator=torch.Generator().manual_seed(2))
    one = encoder.encode(patches)
    other = encoder.encode(torch.cat([patches[:1], torch.zeros(3, 1, 96, 64)]))
    assert torch.equal(one[0], other[0])


def test_wrong_checkpoints_are_refused(tmp_path):
    state = published_state(0)
    state["surplus.weight"] = state.pop("embeddings.4.bias")
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"embeddings\.4\.bias.*surplus"):
        load("vggish", weights=str(tmp_path / "wrong.pth"))


@pytest.mark.parametrize("file", ["---1_cCGK4M.wav", "WW8Scmk5YsM.wav"])
def test_real_clip_front_end_and_network(encoder, file):
    """A real AVE clip through both complete pipelines."""
    if not (CLIPS / file).exists():
        pytest.skip("real clips are not here")
    media = read_wav(CLIPS / file)
    wave = media.audio(None, mono=False).astype(np.float64).mean(axis=0)
    rate_hz = media.audio_rate_hz
    pieces = [
        resampy.resample(wave[i * rate_hz : (i + 1) * rate_hz], rate_hz, 16_000, filter="kaiser_best")
        for i in range(10)
    ]
    wanted_patches = by_hand(pieces)
    patches = prepared("vggish:ave2018", media)
    np.testing.assert_allclose(patches[:, 0], wanted_patches, atol=1e-5)
    wanted = F.relu(reference_network(published_state(0), torch.from_numpy(wanted_patches).float()[:, None]))
    np.testing.assert_allclose(encoder.encode(patches), wanted, atol=1e-5 * float(wanted.max()))
