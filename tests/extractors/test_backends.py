"""Networks run by another library agree with PyTorch, or are left to PyTorch."""

import dataclasses
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors import backends, converted, programs, wrapped
from extractors.frame_encoder import FrameEncoder
from extractors.spec import FeatureSpec, FrameSampler, Grid

ROOT = Path(__file__).resolve().parents[2]
SPEC = FeatureSpec(
    encoder="small", recipe="default", modality="visual", layer="pool",
    preprocess=("squash size=8 filter=cv2-bilinear", "unit"), postprocess=("mean over frames",),
    grid=Grid(), sampler=FrameSampler("centres", per_row=2), shape=(5,),
)  # fmt: skip


class Small(FrameEncoder):
    """A convolution, a norm, attention-like products and a mean: what the real networks are made of."""

    def build_network(self):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.GELU(), torch.nn.Flatten(2),
            torch.nn.Linear(36, 5), torch.nn.Softmax(-1), torch.nn.LayerNorm(5),
        ).eval()  # fmt: skip

    def forward(self, inputs):
        return self.network(inputs).mean(dim=1)


class Bent(Small):
    """Answers differently when it is exported."""

    def forward(self, inputs):
        return super().forward(inputs) * (1.001 if torch.compiler.is_exporting() else 1.0)


class Unconvertible(Small):
    def forward(self, inputs):
        if float(inputs.sum()) > -1e9:  # depends on the data, which no exporter follows
            return super().forward(inputs)
        return inputs


def batch(rows: int) -> torch.Tensor:
    return torch.randint(0, 255, (rows, 2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _openvino(tmp_path, monkeypatch):
    monkeypatch.setenv(programs.VARIABLE, str(tmp_path / "programs"))
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")


def test_fp32_agrees_within_rounding_and_is_really_used(caplog):
    encoder = Small(SPEC)
    expected = encoder.encode(batch(6))
    backends.install(encoder, "openvino")
    found = encoder.encode(batch(6))
    assert encoder.backend.refusal is None
    assert "runs on PyTorch" not in caplog.text
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.shape == (6, 5)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    encoder = Small(SPEC)
    backends.install(encoder, "openvino")
    rows = batch(8)
    whole = encoder.encode(rows)
    mixed = encoder.encode(torch.cat([rows[:1], rows[:7].flip(0)]))
    assert torch.equal(whole[:1], mixed[:1])
    assert torch.equal(whole[:7].flip(0), mixed[1:])


@pytest.mark.parametrize(("items", "threads", "expected"), [(32, 2, 2), (32, 1, 1), (32, 16, 8), (6, 2, 1), (9, 4, 1)])
def test_a_batch_is_cut_into_equal_parts_that_are_not_tiny(items, threads, expected):
    assert converted.parts(items, threads) == expected


def test_parts_come_back_in_order(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    encoder = Small(SPEC)
    expected = encoder.encode(batch(12))
    backends.install(encoder, "openvino")
    np.testing.assert_allclose(encoder.encode(batch(12)), expected, atol=2e-6)
    assert encoder.backend.refusal is None
    assert np.ptp(expected.numpy(), axis=0).max() > 1e-3, "rows cannot be told apart"


class OverTime(Small):
    """Weights of five dimensions."""

    def build_network(self):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv3d(3, 5, (1, 3, 3)), torch.nn.Conv3d(5, 5, (1, 6, 6))).eval()

    def forward(self, inputs):
        return self.network(inputs[:, :, None]).flatten(1)


@pytest.mark.parametrize("name", backends.NAMES)
def test_convolutions_over_time_run_on_every_backend(name):
    encoder = OverTime(SPEC)
    expected = encoder.encode(batch(4))
    backends.install(encoder, name)
    np.testing.assert_allclose(encoder.encode(batch(4)), expected, atol=2e-6)
    assert getattr(encoder.backend, "refusal", None) is None


@pytest.mark.parametrize("name", ["openvino", "inductor"])
def test_bf16_is_near_fp32(name, caplog):
    encoder = Small(SPEC)
    expected = encoder.encode(batch(6))
    encoder = Small(dataclasses.replace(SPEC, precision="bf16"))
    backends.install(encoder, name)
    found = encoder.encode(batch(6))
    assert encoder.backend.refusal is None
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999
    if name == "openvino":
        native = "BF16" in converted._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        assert ("does not compute in bf16" in caplog.text) != native, "who asks for speed must hear that there is none"


class BentWhenCompiled(Small):
    def forward(self, inputs):
        return super().forward(inputs) * (1.001 if torch.compiler.is_compiling() else 1.0)


class Uncompilable(Small):
    """Asks for a kernel that no other test has had compiled."""

    def forward(self, inputs):
        return (super().forward(inputs) + 0.4321).sin()


class OutOfRoom(Small):
    def forward(self, inputs):
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("no room")
        return super().forward(inputs)


def test_a_compiled_network_agrees_for_every_shape_and_keeps_its_rows():
    encoder = Small(SPEC)
    expected = encoder.encode(batch(6))
    backends.install(encoder, "inductor")
    first = encoder.encode(batch(6))
    kept = first.clone()
    fewer = encoder.encode(batch(6)[:2])
    again = encoder.encode(batch(6).flip(0)).flip(0)
    assert encoder.backend.refusal is None
    assert torch.equal(first, kept), "a later batch was written over rows that were given out"
    assert torch.equal(first, again), "a row depends on its place"
    np.testing.assert_allclose(first, expected, atol=2e-6)
    np.testing.assert_allclose(fewer, expected[:2], atol=2e-6)


def test_more_networks_than_pytorch_compiles_for_one_function():
    """Past its limit of eight it runs what comes as it is, and says so only in its own log."""
    seen = []

    def counting(graph, inputs):
        seen.append(graph)
        return graph.forward

    for extra in range(10):
        encoder = Small(SPEC)
        encoder.network.extend(torch.nn.GELU() for _ in range(extra))
        backends.install(encoder, "inductor")
        encoder.backend._program = torch.compile(wrapped.Forward(encoder), dynamic=False, backend=counting)
        encoder.encode(batch(4))
        assert encoder.backend.refusal is None
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("kind", "reason"), [(BentWhenCompiled, "relative difference"), (Uncompilable, "no-such-compiler")]
)
def test_a_network_that_does_not_compile_runs_without(kind, reason, caplog):
    from torch._inductor import config

    encoder = kind(SPEC)
    expected = encoder.encode(batch(4))
    backends.install(encoder, "inductor")
    with config.patch({"cpp.cxx": ("no-such-compiler",)} if kind is Uncompilable else {}):
        np.testing.assert_allclose(encoder.encode(batch(4)), expected, atol=2e-6)
    assert reason in encoder.backend.refusal
    assert "runs without torch.compile" in caplog.text


def test_a_compiled_network_without_room_asks_for_fewer_rows():
    encoder = OutOfRoom(SPEC)
    expected = torch.cat([encoder.encode(batch(2)), encoder.encode(batch(2))])
    backends.install(encoder, "inductor")
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode(batch(3))
    np.testing.assert_allclose(encoder.encode(batch(2)), expected[:2], atol=2e-6)
    assert encoder.backend.refusal is None


@pytest.mark.parametrize(("kind", "reason"), [(Bent, "relative difference"), (Unconvertible, "")])
def test_a_network_that_does_not_convert_runs_on_pytorch(kind, reason, caplog):
    encoder = kind(SPEC)
    expected = encoder.encode(batch(4))
    backends.install(encoder, "openvino")
    assert torch.equal(encoder.encode(batch(4)), expected)
    assert reason in encoder.backend.refusal
    assert "runs on PyTorch" in caplog.text


class Kept(Small):
    """Fails where its network is needed."""

    def build_network(self):
        raise AssertionError("the network is built although it was kept")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_second_run_reads_the_network_that_the_first_converted(precision):
    spec = dataclasses.replace(SPEC, precision=precision)
    first = Small(spec)
    assert not backends.is_kept(spec, "openvino")
    backends.install(first, "openvino")
    expected = first.encode(batch(8))
    assert first.backend.refusal is None
    assert backends.is_kept(spec, "openvino")
    assert not backends.is_kept(spec, "torch")
    second = Kept(spec)
    backends.install(second, "openvino")
    assert torch.equal(second.encode(batch(8)), expected)
    assert second.device == torch.device("cpu")
    backends.install(second, "openvino", rows=1_000)
    with pytest.raises(AssertionError, match="is built"):  # too little work: PyTorch does it, as it did before
        second.encode(batch(8))
    assert "floating-point operations" in second.backend.refusal


def test_a_network_that_disagrees_is_not_kept():
    encoder = Bent(SPEC)
    backends.install(encoder, "openvino")
    encoder.encode(batch(4))
    assert not backends.is_kept(SPEC, "openvino")


def test_little_work_is_not_converted(caplog):
    encoder = Small(SPEC)
    backends.install(encoder, "openvino", rows=1_000)
    encoder.encode(batch(4))
    # 2 pictures a row; 36 positions of 16 channels from 27 numbers, and 16 rows of 5 from 36, two operations each
    work = 2 * (36 * 16 * 27 + 16 * 36 * 5) * 2 * 1_000
    assert f"{work:.2g} floating-point operations" in encoder.backend.refusal
    assert "runs on PyTorch" not in caplog.text
    backends.install(encoder, "openvino", rows=10**8)
    encoder.encode(batch(4))
    assert encoder.backend.refusal is None


def test_nothing_reports_to_the_makers():
    encoder = Small(SPEC)
    backends.install(encoder, "openvino")
    encoder.encode(batch(2))
    assert sys.modules["openvino_telemetry"] is None
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


def test_unknown_or_unfit_backends_are_refused():
    with pytest.raises(ValueError, match="none of torch, openvino"):
        backends.install(Small(SPEC), "tensorrt")
    assert backends.available("cuda:0")[0] == "torch"
    assert "openvino" not in backends.available("cuda:0")
    assert backends.available("cpu")[0] == "openvino"


def test_signals_are_survived_after_encoders_have_come_and_gone():
    """A handler runs on the stack that the runtime gave to the thread: that one has to be there still."""
    code = """
        import gc, os, signal
        from extractors import backends
        from tests.extractors.test_backends import SPEC, Small, batch

        caught = []
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(True))
        first, second = Small(SPEC), Small(SPEC)
        for encoder in (first, second):
            backends.install(encoder, "openvino")
            encoder.encode(batch(2))
            assert encoder.backend.refusal is None
        for encoder in (first, second):  # in the order in which they came
            encoder.backend = None
            gc.collect()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert caught
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, timeout=120, check=False)
    assert ran.returncode == 0
