"""CLAP against the published code's own numbers (`golden/make_clap.py`), on seeded weights in the published format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors import clap, clap_mel, roberta
from extractors.base import NoAudio, build
from extractors.checkpoint import load_strictly
from extractors.clap import RECIPES, Clap
from extractors.nets.clap import split_state
from extractors.spec import Grid
from extractors.weights import WeightsError
from pipeline.media import Media
from tests.extractors import published, seeded
from tests.extractors.fake_media import FakeMedia

GOLDEN = Path(__file__).parent / "golden" / "clap.npz"
RATE_HZ = 48_000
SAMPLES = 480_375
BY_NAME = {entry.name: entry for entry in RECIPES}

# 44.1 kHz stereo, 10.05 s, of the data that lies beside the project.
CLIP = Path(__file__).parents[3] / "shared" / "data" / "clips" / "WW8Scmk5YsM.wav"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


def published_state(golden: dict[str, np.ndarray], tag: str, branches: tuple[str, ...]) -> dict[str, torch.Tensor]:
    state = published.state_dict(golden[f"{tag}_names"], golden[f"{tag}_shapes"], branches)
    return {f"module.{name}": value for name, value in state.items()}


def encoder(name: str, golden: dict[str, np.ndarray], tag: str, branches: tuple[str, ...] = ("audio", "logit")) -> Clap:
    made = build(BY_NAME[name].spec)
    load_strictly(made.network, made.convert(published_state(golden, tag, branches)), name, made.optional_keys)
    made.network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def fused(golden: dict[str, np.ndarray]) -> Clap:
    return encoder("clap:valor2023", golden, "tiny_fusion")


@pytest.fixture(scope="module")
def plain(golden: dict[str, np.ndarray]) -> Clap:
    return encoder("clap", golden, "tiny_plain")


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return seeded.sound(SAMPLES, RATE_HZ, seed=1)


@pytest.fixture(scope="module")
def media(wave: np.ndarray) -> FakeMedia:
    return FakeMedia(wave, RATE_HZ)


def seconds(*rows: int) -> np.ndarray:
    return np.array([[row, row + 1.0] for row in rows])


# --- front end


def test_fusion_spectrogram_is_the_published_one(golden, fused, media):
    found = fused.prepare(media, seconds(7))[0, 0, ::50].numpy()
    assert np.abs(found - golden["fusion_mel"]).max() < 2e-3  # decibels; torchaudio works in float32


def test_plain_spectrogram_is_the_published_one(golden, plain, media):
    found = plain.prepare(media, seconds(3))[0, 0, ::50].numpy()
    assert np.abs(found - golden["plain_mel"]).max() < 2e-3


def test_the_two_mel_banks_are_not_interchangeable(golden, wave):
    pieces = clap_mel.repeat_pad(clap_mel.round_trip(wave[None, 3 * RATE_HZ : 4 * RATE_HZ]), 480_000)
    wrong = clap_mel.log_mel(pieces, RATE_HZ, 480, "htk")[0, ::50]
    assert np.abs(wrong - golden["plain_mel"]).mean() > 10  # decibels


@pytest.mark.parametrize(("bank", "norm"), [("slaney", "slaney"), ("htk", None)])
def test_spectrogram_agrees_with_librosa(bank, norm):
    import librosa

    wave = seeded.sound(480_000, RATE_HZ, seed=5)
    mel = librosa.feature.melspectrogram(
        y=wave, sr=RATE_HZ, n_fft=1024, hop_length=480, fmin=50, fmax=14000, n_mels=64, htk=bank == "htk", norm=norm,
        pad_mode="reflect",
    )  # fmt: skip
    expected = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T
    assert np.abs(clap_mel.log_mel(wave[None], RATE_HZ, 480, bank)[0] - expected).max() < 1e-3


def test_integers_are_cut_towards_zero():
    samples = np.array([0.9999 / 32767, -0.9999 / 32767, 1.5, -1.5, 0.5], dtype=np.float32)
    np.testing.assert_array_equal(
        clap_mel.round_trip(samples), np.array([0, 0, 1, -1, 16383 / 32767], dtype=np.float32)
    )


def test_valor_pieces_start_at_rounded_tenths_and_share_one_length():
    samples = np.arange(SAMPLES)
    pieces = clap_mel.tenths(samples, np.arange(10))
    assert pieces.shape == (10, 48_037)
    # round(t * 48037.5), half to even
    assert pieces[:, 0].tolist() == [0, 48038, 96075, 144112, 192150, 240188, 288225, 336262, 384300, 432338]


@pytest.mark.parametrize(("length", "repeats", "zeros"), [(48_000, 10, 0), (48_037, 9, 47_667), (288_000, 1, 192_000)])
def test_only_whole_repeats_fit_and_zeros_follow(length, repeats, zeros):
    padded = clap_mel.repeat_pad(np.ones((1, length)), 480_000)
    assert padded.shape == (1, 480_000)
    assert padded.sum() == repeats * length
    assert not padded[0, 480_000 - zeros :].any()


def test_pieces_longer_than_ten_seconds_keep_their_beginning():
    assert clap_mel.repeat_pad(np.ones((1, 480_100)), 480_000).shape == (1, 480_100)
    assert clap_mel.repeat_pad(np.ones((1, 900_000)), 480_000).shape == (1, 480_479)


def test_reindexing_repeats_or_drops_single_samples():
    assert clap_mel.reindex(np.arange(5), 9).tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4]
    assert clap_mel.reindex(np.arange(9), 5).tolist() == [0, 2, 4, 6, 8]


def test_a_block_of_rows_gets_the_same_input_as_the_whole_clip(fused, plain, media):
    for made in (fused, plain):
        assert torch.equal(made.prepare(media, seconds(0, 1, 7))[2], made.prepare(media, seconds(7))[0])


def test_odd_audio(plain, fused):
    for made in (plain, fused):
        with pytest.raises(NoAudio):
            made.prepare(FakeMedia(np.zeros(0), RATE_HZ), seconds(0))
    with pytest.raises(NoAudio, match="9 decoded audio samples"):
        fused.prepare(FakeMedia(np.zeros(9), RATE_HZ), seconds(0))
    silence = plain.prepare(FakeMedia(np.zeros(100), RATE_HZ), seconds(0))
    assert torch.equal(silence, torch.full((1, 1, 1001, 64), -100.0))  # 10 log10(1e-10)
    minutes = fused.prepare(FakeMedia(seeded.sound(122 * 8_000, 8_000, seed=2), 8_000), seconds(9))
    assert minutes.shape == (1, 1, 1001, 64)
    assert torch.isfinite(minutes).all()


# --- network


def cosine_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max())


def test_fusion_rows_equal_laion_clap(golden, fused, media):
    rows = fused.encode(fused.prepare(media, seconds(0, 7)))
    assert rows.shape == (2, 512)
    assert cosine_error(rows, golden["fusion_rows"]) < 1e-5


def test_a_real_clip_equals_valor(golden, fused):
    if not CLIP.is_file():
        pytest.skip(f"{CLIP.name} of the shared data is not here")
    mapper = build(BY_NAME["clap-map:valor2023"].spec)
    mapper.network = fused.network
    with Media(CLIP) as media:
        rows = fused.encode(fused.prepare(media, seconds(0, 9)))
        tokens = mapper.encode(mapper.prepare(media, mapper.spec.grid.segments(media.duration_s)))
    assert cosine_error(rows, golden["clip_rows"]) < 1e-5
    assert np.abs(tokens[0, :, ::24].numpy() - golden["clip_map"]).max() < 2e-5


def test_a_trimmed_clip_misses_the_published_zeros(golden, fused, wave):
    trimmed = FakeMedia(wave[:480_000], RATE_HZ)  # ten exact repeats instead of nine and a second of silence
    assert cosine_error(fused.encode(fused.prepare(trimmed, seconds(7))), golden["fusion_rows"][1:]) > 1e-3


def test_plain_row_equals_laion_clap(golden, plain, media):
    assert cosine_error(plain.encode(plain.prepare(media, seconds(3))), golden["tiny_row"]) < 1e-5


def test_the_wrong_mel_bank_is_noticed(golden, plain, wave):
    pieces = clap_mel.repeat_pad(clap_mel.round_trip(wave[None, 3 * RATE_HZ : 4 * RATE_HZ]), 480_000)
    wrong = torch.from_numpy(clap_mel.log_mel(pieces, RATE_HZ, 480, "htk"))[:, None]
    assert cosine_error(plain.encode(wrong), golden["tiny_row"]) > 1e-3


def test_map_equals_valor_and_its_tokens_run_over_time(golden, fused, wave):
    made = build(BY_NAME["clap-map:valor2023"].spec)
    made.network = fused.network
    whole = made.spec.grid.segments(10.008)
    tokens = made.encode(made.prepare(FakeMedia(wave, RATE_HZ), whole))
    assert tokens.shape == (1, 64, 768)
    expected = golden["fusion_map"]
    assert np.abs(tokens[0, :, ::24].numpy() - expected).max() < 2e-5
    # As an image, a row holds 8 steps of one chunk; read in that order the map is another one.
    image = tokens[0].unflatten(0, (2, 4, 8)).transpose(0, 1).flatten(0, 2)
    assert np.abs(image[:, ::24].numpy() - expected).max() > 0.1

    quiet = wave.copy()
    quiet[int(0.9 * len(wave)) :] = 0.0
    moved = (made.encode(made.prepare(FakeMedia(quiet, RATE_HZ), whole)) - tokens)[0].abs().mean(dim=1)
    by_time = moved.unflatten(0, (2, 32)).mean(dim=0)
    assert sorted(by_time.argsort(descending=True)[:4].tolist()) == [28, 29, 30, 31]


def test_rows_do_not_depend_on_their_neighbours(plain, media):
    pair = plain.prepare(media, seconds(2, 5))
    together = plain.encode(pair)
    assert torch.equal(together, plain.encode(pair))
    assert (together.flip(0) - plain.encode(pair.flip(0))).abs().max() == 0
    assert (together[:1] - plain.encode(pair[:1])).abs().max() < 1e-6


def test_half_precision_is_close_and_finite(plain, media):
    import dataclasses

    half = build(dataclasses.replace(plain.spec, precision="bf16"))
    half.network = plain.network
    batch = plain.prepare(media, seconds(2))
    reference, rounded = plain.encode(batch), half.encode(batch)
    assert rounded.dtype == torch.float32
    assert 1e-6 < (reference - rounded).abs().max() < 0.05


@pytest.mark.slow
def test_base_row_equals_laion_clap(golden, media):
    made = encoder("clap-base", golden, "base_plain")
    assert cosine_error(made.encode(made.prepare(media, seconds(3))), golden["base_row"]) < 1e-5


# --- text and weights


@pytest.mark.slow
def test_text_rows_equal_laion_clap(golden):
    made = encoder("clap:valor2023", golden, "tiny_fusion", ("audio", "text", "logit"))
    # The two rows of `golden/make_clap.py`.
    rows = [[0, 713, 16, 10, 2182, 9, 2335, 2], [0, 713, 16, 10, 2182, 9, 3173, 6, 42, 65, 18, 1181, 2]]
    ids = torch.ones(2, 77, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    text = made.encode_tokens(ids, (ids != 1).long())
    assert cosine_error(text, golden["text_rows"]) < 1e-5
    tower = made._text.get(made)
    tower.text_model.embeddings.LayerNorm.eps = 1e-12  # transformers' default moves the embedding
    for layer in tower.text_model.encoder.layer:
        layer.attention.output.LayerNorm.eps = layer.output.LayerNorm.eps = 1e-12
    wrong = made.encode_tokens(ids, (ids != 1).long())
    assert cosine_error(wrong, golden["text_rows"]) > 2 * cosine_error(text, golden["text_rows"])


def test_logit_scale_is_the_exponential_of_the_audio_scale(golden, fused):
    assert fused.logit_scale == pytest.approx(np.exp(seeded.tensor("logit_scale_a", (), seed=0)), rel=1e-6)


def test_surplus_missing_and_misshapen_keys_are_all_named(golden):
    made = build(BY_NAME["clap"].spec)
    state = published_state(golden, "tiny_plain", ("audio", "logit"))
    state["module.audio_branch.extra.weight"] = torch.zeros(1)
    state["module.audio_branch.bn0.bias"] = torch.zeros(3)
    del state["module.audio_projection.2.bias"]
    with pytest.raises(WeightsError, match=r"1 missing \(audio_projection.linear2.bias\).*1 surplus.*1 misshapen"):
        load_strictly(made.network, made.convert(state), "clap")


def test_names_of_a_transformers_file_are_kept(fused):
    own = dict(fused.network.state_dict())
    text = {"text_model.pooler.dense.bias": torch.zeros(768), "text_model.embeddings.position_ids": torch.zeros(1, 514)}
    audio, kept = split_state({**own, **text})
    assert audio.keys() == own.keys()
    assert all(torch.equal(audio[name], own[name]) for name in own)
    assert list(kept) == ["text_model.pooler.dense.bias"]


def test_a_fusion_checkpoint_does_not_fit_the_plain_network(golden):
    made = build(BY_NAME["clap"].spec)
    with pytest.raises(WeightsError, match=r"surplus.*fusion_model"):
        load_strictly(made.network, made.convert(published_state(golden, "tiny_fusion", ("audio", "logit"))), "clap")


def test_prompts_need_a_text_tower(fused):
    with pytest.raises(WeightsError, match="has no text tower"):
        fused.encode_tokens(torch.ones(1, 77, dtype=torch.long), torch.ones(1, 77, dtype=torch.long))


def test_missing_vocabulary_names_both_files(tmp_path, monkeypatch):
    def offline(record, folder):
        raise WeightsError("no network")

    monkeypatch.setattr(roberta, "fetch", offline)
    with pytest.raises(WeightsError) as caught:
        roberta.tokenize(["This is a sound of speech"], tmp_path)
    for part in (
        str(tmp_path / "roberta-base.vocab.json"),
        str(tmp_path / "roberta-base.merges.txt"),
        "huggingface.co",
    ):
        assert part in str(caught.value)


def write_vocabulary(folder: Path, size: int) -> None:
    """A byte-pair vocabulary with RoBERTa's special tokens, a few letters, two merges, and unused entries."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *"abcdĠ", "ab", "Ġc"]
    tokens += [f"unused{number}" for number in range(size - 1 - len(tokens))] + ["<mask>"]
    (folder / "roberta-base.vocab.json").write_text(json.dumps({token: rank for rank, token in enumerate(tokens)}))
    (folder / "roberta-base.merges.txt").write_text("#version: 0.2\na b\nĠ c\n")


def test_prompts_become_padded_ids(tmp_path):
    write_vocabulary(tmp_path, 50_265)
    ids, mask = roberta.tokenize(["ab cd", "a" * 200], tmp_path)
    assert ids.shape == mask.shape == (2, 77)
    assert ids[0, :6].tolist() == [0, 9, 10, 7, 2, 1]  # <s> ab Ġc d </s> <pad>
    assert mask.sum(dim=1).tolist() == [5, 77]
    assert ids[1, 76] == 2  # cut, and still ended


def test_another_vocabulary_is_refused(tmp_path):
    write_vocabulary(tmp_path, 1_000)
    with pytest.raises(WeightsError, match=r"1000 tokens.*50265"):
        roberta.tokenize(["a"], tmp_path)


# --- recipes


def test_recipes_say_what_their_network_is():
    for entry in RECIPES:
        fusion = "fusion" in entry.spec.layer
        assert any("bank=htk" in step for step in entry.spec.preprocess) == fusion
        assert ("fusion" in entry.weights.file) == fusion
        assert entry.weights.url.endswith(entry.weights.file)
    assert len({entry.spec.key for entry in RECIPES}) == len(RECIPES)
    assert BY_NAME["clap-map:valor2023"].spec.grid == Grid(10.0, 10.0, count=1)


@pytest.mark.parametrize(("rate_hz", "hop"), [(48_000, 480), (32_000, 320)])
def test_frames_that_repeat_are_computed_once_and_are_the_same(rate_hz, hop, monkeypatch):
    rng = np.random.default_rng(0)
    second = rng.normal(0, 0.1, (2, rate_hz)).astype(np.float32)
    # Ten times the same second; nearly so; silence.
    pieces = np.concatenate([np.tile(second, 10), np.zeros((1, 10 * rate_hz), np.float32)])
    pieces[1, -1] += 1e-3
    counts = [len(clap_mel._distinct_frames(piece, rate_hz, hop)[0]) for piece in pieces]
    # A second is 100 frames; two reach over the beginning and two over the end.
    assert counts == [104, 1001, 104]
    found = clap_mel.log_mel(pieces, rate_hz, hop, "slaney")
    every = np.arange(1001)
    monkeypatch.setattr(clap_mel, "_distinct_frames", lambda *_: (every, every))
    np.testing.assert_allclose(found, clap_mel.log_mel(pieces, rate_hz, hop, "slaney"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bank", ["slaney", "htk"])
def test_spectrograms_of_a_tensor_are_the_same(bank):
    waves = np.random.default_rng(0).normal(0, 0.1, (3, 480_000)).astype(np.float32)
    waves[1, 1000:] = 0  # silence lies at the floor
    found = clap_mel.log_mel_tensor(torch.from_numpy(waves), RATE_HZ, 480, bank)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, clap_mel.log_mel(waves, RATE_HZ, 480, bank), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="1001 frames"):
        clap_mel.log_mel_tensor(torch.zeros(1, 48_000), RATE_HZ, 480, bank)


def test_unknown_layers_and_steps_are_refused():
    import dataclasses

    spec = BY_NAME["clap"].spec
    with pytest.raises(ValueError, match="layer 'htsat-huge/projection'"):
        build(dataclasses.replace(spec, layer="htsat-huge/projection"))
    for steps in (("decode rate=48000 channels=mean filter=soxr_hq", "slice"), (*spec.preprocess, "sharpen")):
        with pytest.raises(ValueError, match=r"slice|sharpen"):
            clap_mel.transform(
                steps, clap_mel.collect(steps, FakeMedia(np.zeros(48_000), RATE_HZ), seconds(0), spec.grid)
            )
    with pytest.raises(ValueError, match="neither slaney nor htk"):
        clap_mel.mel_matrix(RATE_HZ, "bark")


def test_every_checkpoint_in_the_file_names_a_recipe():
    records = {value.file for value in vars(clap).values() if isinstance(value, clap.Weights)}
    assert records == {entry.weights.file for entry in RECIPES}
