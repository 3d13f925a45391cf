# Clips to features: one job per shard of clips, all encoders in one pass over each clip.


rule extract:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        acquired=acquired,
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/extract/{{shard}}-of-{{shards}}.json",
    log:
        f"{RUN}/{{dataset}}/logs/extract/{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/extract/{{shard}}-of-{{shards}}.tsv"
    conda:
        "../../environment.yml"
    threads: max(1, config["workers"] + 1)
    resources:
        mem_mb=memory("extract"),
        runtime=minutes("extract"),
        gpu=1 if config["device"].startswith("cuda") else 0,
    params:
        media=media,
        store=lambda w, input: Path(input.manifest).parent / "features",
        encoders=lambda w: ",".join(entry(w)["encoders"]),
        weights=weights,
        tail=lambda w: entry(w).get("tail", "pad"),
        max_failed=allowed_failures,
        device=config["device"],
        precision=config["precision"],
        workers=config["workers"],
        job_clips=config["job_clips"],
        # Snakemake does not see changes inside the package: this does, and comments do not count.
        code=lambda w: code_digest(entry(w)["encoders"]),
    shell:
        "python -m pipeline.extract --manifest {input.manifest:q} --media {params.media:q} --store '{params.store}' "
        "--encoders {params.encoders} {params.weights} --shard {wildcards.shard}/{wildcards.shards} "
        "--device {params.device} --precision {params.precision} --tail {params.tail} --workers {params.workers} --job-clips {params.job_clips} "
        "{params.max_failed} --receipt {output.receipt:q} > {log:q} 2>&1"
