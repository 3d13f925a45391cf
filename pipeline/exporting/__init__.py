"""Layouts that published training code reads, one file each; `FORMATS` names them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

# format -> "module:function"; each function takes a Request and returns an Export
FORMATS: dict[str, str] = {
    "ave-h5": "pipeline.exporting.ave_h5:write",
    "llp-npy": "pipeline.exporting.llp_npy:write",
    "unav-npy": "pipeline.exporting.unav_npy:write",
    "dgsct": "pipeline.exporting.dgsct:write",
    "webdataset": "pipeline.exporting.webdataset:write",
    "hdf5": "pipeline.exporting.hdf5:write",
}


def writer(name: str) -> Callable:
    """The function that writes a format."""
    module, function = FORMATS[name].split(":")
    return getattr(importlib.import_module(module), function)
