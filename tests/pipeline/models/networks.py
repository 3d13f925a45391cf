"""Inputs of the published sizes and of tiny ones, for every network of the table."""

import torch

from pipeline.models.table import MODELS, build

AVE = {"visual": (10, 7, 7, 512), "audio": (10, 128)}
AUDIOCLIP = {"visual": (10, 7, 7, 2048), "audio": (10, 1024)}
RESNET = {"visual": (10, 7, 7, 2048), "audio": (10, 2048)}
MAPS = {"visual": (10, 36, 1536), "audio": (10, 64, 768)}
LLP = {"audio": (10, 128), "visual": (80, 2048), "motion": (10, 512)}
VALOR = {"audio": (1, 64, 768), "visual": (10, 768), "motion": (10, 512)}

TINY_AVE = {"visual": (6, 2, 2, 8), "audio": (6, 6)}
TINY_MAPS = {"visual": (6, 4, 16), "audio": (6, 3, 16)}
TINY_LLP = {"audio": (6, 6), "visual": (12, 8), "motion": (6, 5)}
TINY_VALOR = {"audio": (1, 64, 6), "visual": (6, 8), "motion": (6, 5)}
_SMALL = {"width": 16, "visual_width": 16}
# name -> shapes and options of a tiny network
TINY = {
    "avel": (TINY_AVE, {"hidden": 16, "lstm": 8, "head": 8}),
    "cmran": (TINY_AVE, _SMALL | {"hidden": 32}),
    "cmbs": (TINY_AVE, _SMALL | {"encoder_hidden": 32, "decoder_hidden": 32}),
    "cace-net": (TINY_AVE, _SMALL | {"audio_width": 6, "encoder_hidden": 32, "decoder_hidden": 32, "contrast_from": 0}),
    "dmin": (TINY_AVE, _SMALL | {"hidden": 32}),
    "dmsf": (TINY_AVE, _SMALL | {"audio_width": 8, "rate": 2}),
    "dg-sct": (TINY_MAPS, _SMALL | {"audio_width": 8, "hidden": 32, "adapter": True}),
    "han": (TINY_LLP, {"segments": 6, "width": 16, "hidden": 32}),
    "valor": (TINY_LLP, {"segments": 6, "width": 16, "heads": 2, "hidden": 32}),
    "valor-plus": (TINY_LLP, {"segments": 6, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "pre_norm": True}),
    "valor-plus-plus": (TINY_VALOR, {"segments": 6, "width": 16, "heads": 2, "hidden": 32, "layers": 2}),
    "link": (
        TINY_VALOR,
        {"segments": 6, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "text_audio": 4, "text_visual": 5},
    ),
}
EVERY = [(name, setting) for name in MODELS for setting in MODELS[name]]


def tiny(name: str, setting: str, seed: int = 0, **options):
    """A tiny network of three classes and a batch of six clips for it."""
    shapes, own = TINY[name]
    torch.manual_seed(seed)
    network = build(name, setting, shapes, 3, **own | options)
    if name == "link":
        network.set_text(torch.randn(3, 4), torch.randn(3, 5))
    return network, batch(network, shapes, 6, 3)


def batch(network, shapes, clips: int, classes: int) -> dict[str, torch.Tensor]:
    """Random streams, and labels of the network's task; one clip is background throughout, one label set is empty."""
    segments = next(
        shape[0] for name, shape in shapes.items() if name == ("visual" if network.task == "ave" else "motion")
    )
    made = {name: torch.randn(clips, *shape).abs() for name, shape in shapes.items()}
    if network.task == "ave":
        label = torch.arange(clips) % classes
        labels = torch.full((clips, segments), classes)
        for clip in range(clips):
            start = clip % (segments // 2 + 1)
            labels[clip, start : start + segments // 2] = label[clip]
        if clips > 3:
            labels[3] = classes
        made["labels"] = torch.nn.functional.one_hot(labels, classes + 1).float()
        made["video_labels"] = torch.nn.functional.one_hot(label, classes + 1).float()
        events = made["labels"][..., :classes]
        for name in (
            "visual",
            "audio",
        ):  # AVEL's loss is flat where it says background: chance alone would keep it there
            shape = (clips, segments, *[1] * (made[name].dim() - 3), classes)
            made[name][..., :classes] += 3 * events.reshape(shape)
        return made
    made["video_labels"] = torch.tensor([[(clip >> c) & 1 for c in range(classes)] for clip in range(clips)]).float()
    for modality, step in (("audio", 1), ("visual", 2)):
        on = (torch.arange(segments)[None, :, None] + torch.arange(clips)[:, None, None] * step) % 3 > 0
        made[f"{modality}_pseudo"] = on * made["video_labels"][:, None, :]
    return made


def inputs(network, made):
    return {name: made[name] for name in (*network.streams, *network.label_inputs)}


def total_loss(network, made, epoch: int = 50):
    network.begin_epoch(epoch)
    return torch.stack(list(network.losses(network(**inputs(network, made)), made, epoch).values())).sum()
