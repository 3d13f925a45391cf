"""Croissant 1.0 metadata (JSON-LD) of a release: dataset search engines and loaders read it.

Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

from typing import Any

from pipeline.manifest import Manifest

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_COLUMNS = {
    "id": ("sc:Text", "permanent id of the clip, the row name in the feature store"),
    "source_id": ("sc:Text", "id of the video that the clip was cut from"),
    "start_s": ("sc:Float", "start of the clip inside that video, seconds; empty where nobody published it"),
    "duration_s": ("sc:Float", "length of the clip, seconds"),
    "split": ("sc:Text", "train, val or test"),
}


def croissant(
    record: dict[str, Any], manifest: Manifest, licences: dict[str, Any], hashes: dict[str, str], date: str | None
) -> dict[str, Any]:
    """JSON-LD; file addresses are relative to the release folder.

    Args:
        date: of publication, YYYY-MM-DD; left out if None, so that the same inputs give the same file.
    """
    facts = manifest.facts
    demo = "DEMO, not for training or comparison. " if record["demo"] else ""
    features = ", ".join(spec_key for spec_key in record["specs"])
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": record["id"],
        "description": f"{demo}Audio and visual features of {facts.get('title', manifest.dataset)}: {features}. "
        f"Licences: annotations {licences['annotations']}; code and weights of each encoder in licences.json.",
        "license": f"annotations: {licences['annotations']}; weights: see licences.json",
        "url": str(facts.get("page", "https://schema.org/Dataset")),
        "citeAs": str(facts.get("citation", "unknown")).strip(),
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [
            _file("manifest.parquet", "application/x-parquet", hashes),
            _file("specs.json", "application/json", hashes),
            _file("coverage.json", "application/json", hashes),
            _file("licences.json", "application/json", hashes),
        ]
        + [
            _file(name, "application/octet-stream" if "/c/" in name else "application/json", hashes)
            for name in hashes
            if name.startswith("store/")
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "clips",
                "name": "clips",
                "description": "one record per clip, in the row order of every array of the store",
                "key": {"@id": "clips/id"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"clips/{name}",
                        "name": f"clips/{name}",
                        "description": text,
                        "dataType": kind,
                        "source": {"fileObject": {"@id": "manifest.parquet"}, "extract": {"column": name}},
                    }
                    for name, (kind, text) in _COLUMNS.items()
                ],
            }
        ],
    }
    if date:
        described["datePublished"] = date
    return described


def _file(name: str, kind: str, hashes: dict[str, str]) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": kind,
        "sha256": hashes[name],
    }
