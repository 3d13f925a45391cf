# Clips to features: one job per shard of clips, all encoders in one pass over each clip.


rule extract:
    input:
        manifest=clips_of_job,
        acquired=acquired,
        taught=taught,
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/extract/{{job}}.json",
    log:
        f"{RUN}/{{dataset}}/logs/extract/{{job}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/extract/{{job}}.tsv"
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
        # Functions of threads are no reason to run again: where and how wide a job runs changes no feature.
        device=lambda w, threads: config["device"],
        workers=lambda w, threads: config["workers"],
        redo=lambda w: "--redo absent" if "acquire" in entry(w) else "",
        precision=config["precision"],
        job_clips=config["job_clips"],
        clips=lambda w: digest_of_job(w, look=workflow.is_main_process),
        # Snakemake does not see changes inside the package: this does, and comments do not count.
        code=lambda w: code_digest(entry(w)["encoders"]),
        checkpoints=lambda w: own_checkpoints(w, *given_weights(w)),
    shell:
        "python -m pipeline.extract --manifest {input.manifest:q} --media {params.media:q} --store '{params.store}' "
        "--encoders {params.encoders} {params.weights} --job {wildcards.job} --job-clips {params.job_clips} "
        "--device {params.device} --workers {params.workers} --precision {params.precision} --tail {params.tail} "
        "{params.redo} {params.max_failed} --receipt {output.receipt:q} > {log:q} 2>&1"
