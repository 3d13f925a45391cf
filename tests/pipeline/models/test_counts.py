"""Parameter counts and operations as published or measured on the public code, to the unit."""

import pytest
import torch
from torch import nn

from pipeline.models.base import parameter_counts
from pipeline.models.dg_sct import STAGES, Adapter
from pipeline.models.table import build
from tests.pipeline.models import networks as n

# name, setting, shapes, classes, options -> total with what the public code leaves unused, total without
COUNTS = [
    ("avel", "supervised", n.AVE, 28, {}, 1_335_246, 1_335_246),
    ("avel", "weak", n.AVE, 28, {}, 1_335_246, 1_335_246),
    ("cmran", "supervised", n.AVE, 28, {}, 15_863_262, 9_509_150),
    ("cmran", "weak", n.AVE, 28, {}, 15_863_519, 9_509_407),
    ("cmbs", "supervised", n.AVE, 28, {}, 13_544_537, 9_200_473),
    ("cmbs", "weak", n.AVE, 28, {}, 14_789_439, 9_395_518),
    ("cace-net", "supervised", n.AVE, 28, {}, 13_118_681, 9_283_417),
    ("cace-net", "supervised", n.AVE, 28, {"guide": "audio"}, 12_575_193, None),
    ("cace-net", "supervised", n.AVE, 28, {"guide": "visual"}, 12_723_673, None),
    ("cace-net", "supervised", n.AVE, 28, {"guide": "none"}, 11_029_719, None),
    ("cace-net", "supervised", n.RESNET, 28, {}, 14_150_873, None),
    ("dmin", "supervised", n.AVE, 28, {}, 17_744_890, 11_390_778),
    ("dmin", "weak", n.AVE, 28, {}, 17_745_661, 11_391_549),
    ("dmsf", "supervised", n.AVE, 28, {}, None, 3_421_883),
    ("dmsf", "supervised", n.AUDIOCLIP, 28, {"rate": 4}, None, 6_948_283),
    ("dmsf", "supervised", n.AUDIOCLIP, 28, {"rate": 16}, None, 4_981_627),
    ("dg-sct", "supervised", n.MAPS, 28, {}, 12_071_554 + 550_229, None),
    ("han", "weak", n.LLP, 25, {}, 9_307_723, 4_569_675),
    ("valor", "weak", n.LLP, 25, {}, 5_096_523, 5_094_475),
    ("valor-plus", "weak", n.LLP, 25, {"width": 256, "layers": 4}, 5_052_235, 5_051_211),
    ("valor-plus-plus", "weak", n.VALOR, 25, {"width": 256, "layers": 4}, 4_888_395, 4_887_371),
    ("link", "weak", n.VALOR, 25, {}, 5_808_212, None),
]


@pytest.mark.parametrize("row", COUNTS, ids=lambda row: f"{row[0]}-{row[1]}-{'-'.join(map(str, row[4].values()))}")
def test_totals(row):
    name, setting, shapes, classes, options, registered, live = row
    # Only the CLAP map's pooling needs numbers; everything else is counted without memory.
    with torch.device("cpu" if shapes is n.VALOR else "meta"):
        if registered is not None:
            idle = {} if registered == live else {"idle": True}
            whole = build(name, setting, shapes, classes, **options, **idle)
            assert parameter_counts(whole)["total"] == registered
        if live is not None:
            assert parameter_counts(build(name, setting, shapes, classes, **options))["total"] == live


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_without_leftovers_every_parameter_is_live(name, setting):
    network, made = n.tiny(name, setting)
    counts = parameter_counts(network, n.total_loss(network, made))
    assert counts["idle"] == 0
    assert counts["live"] == counts["total"]


@pytest.mark.parametrize("name", ["cmran", "cmbs", "cace-net", "dmin", "han", "link"])
def test_leftovers_are_idle(name):
    setting = "weak" if name in ("han", "link") else "supervised"
    plain, _ = n.tiny(name, setting)
    network, made = n.tiny(name, setting, idle=True)
    counts = parameter_counts(network, n.total_loss(network, made))
    assert counts["live"] == parameter_counts(plain)["total"]
    assert counts["idle"] > 0


def test_adapters_of_all_stages():
    expected = [(9_501_980, 9_618_484), (825_140, 1_289_380), (957_284, 2_798_932), (3_649_028, 10_982_056)]
    total = 0
    for (visual_tokens, visual, audio_tokens, audio, pairs), counts in zip(STAGES, expected, strict=True):
        with torch.device("meta"):
            made = (
                Adapter(audio_tokens, audio, visual_tokens, visual, idle=True),
                Adapter(visual_tokens, visual, audio_tokens, audio, idle=True),
            )
        assert tuple(parameter_counts(adapter)["total"] for adapter in made) == counts
        total += 2 * pairs * sum(counts)  # around attention and around the MLP
    assert total == 188_538_864


def billions_of_operations(network, shapes) -> float:
    """Twice the multiply-adds of linear and LSTM modules for one clip, the convention of the published numbers."""
    products = 0

    def count(layer, arguments, output):
        nonlocal products
        if isinstance(layer, nn.Linear):
            products += output.numel() * layer.in_features
        else:
            x = arguments[0]
            directions = 2 if layer.bidirectional else 1
            products += directions * x.shape[0] * x.shape[1] * 4 * layer.hidden_size * (x.shape[2] + layer.hidden_size)

    for layer in network.modules():
        if type(layer) in (nn.Linear, nn.LSTM):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(**{name: torch.zeros(1, *shape) for name, shape in shapes.items()})
    return 2 * products / 1e9


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("cace-net", {}, 1.66),
        ("cace-net", {"guide": "audio"}, 1.27),
        ("cace-net", {"guide": "none"}, 0.36),
        ("avel", {}, 0.30),
        ("cmbs", {}, 1.28),
    ],
)
def test_operations(name, options, published):
    network = build(name, "supervised", n.AVE, 28, **options)
    assert billions_of_operations(network, n.AVE) == pytest.approx(published, abs=0.006)
