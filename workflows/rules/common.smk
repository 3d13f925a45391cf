# What the rules share: the checked configuration, shard numbers and targets.

validate(config, f"{workflow.basedir}/workflows/schemas/config.schema.yaml")
sys.path.insert(0, str(workflow.basedir))

from pipeline.planning import clip_count, code_digest, files_digest, job_digest

RUN = config["run"]
# The commands run from any working directory, with the interpreter that runs Snakemake.
shell.prefix(
    f"export PYTHONPATH='{workflow.basedir}'; export PATH='{Path(sys.executable).parent}':\"$PATH\"; set -euo pipefail; "
)


wildcard_constraints:
    dataset="|".join(config["datasets"]) or "none",
    job=r"\d+",
    model=r"[a-z0-9_+]+(-[a-z0-9_+]+)*",
    setting="supervised|weak",
    seed=r"\d+",
    format=r"[a-z0-9-]+",
    name=r"[a-z0-9]+(-[a-z0-9]+)*?",


def entry(wildcards):
    """The dataset's part of the configuration."""
    return config["datasets"][wildcards.dataset]


def dataset_of(wildcards):
    """Name, part of the configuration and manifest of the dataset."""
    manifest = f"{RUN}/{wildcards.dataset}/manifest.parquet"
    return wildcards.dataset, entry(wildcards), manifest


def digest_of_job(wildcards, look):
    """Short hash of the clips of an extract job; `look`: with files that the next `prepare` will add."""
    job, job_clips = int(wildcards.job), config["job_clips"]
    return job_digest(*dataset_of(wildcards), job, job_clips, look)


def clips_of_job(wildcards):
    """The manifest, for an extract job.

    A new manifest alone runs nothing again: the parameter `clips` says whether the job's clips are others.  Snakemake
    does not look at parameters behind a job that will run, so a job that files will be added to has to be named here.
    """
    manifest = f"{RUN}/{wildcards.dataset}/manifest.parquet"
    grows = workflow.is_main_process and digest_of_job(
        wildcards, look=True
    ) != digest_of_job(wildcards, look=False)
    return manifest if grows else ancient(manifest)


def media(wildcards):
    """Folder of the dataset's clips."""
    return entry(wildcards).get("media", f"{RUN}/{wildcards.dataset}/media")


def jobs(dataset):
    """Number of extract jobs; known before anything has run, so that a dry run shows the whole plan.

    Only the main process looks for files added to a folder: a cluster job does what it was started for.
    """
    clips = clip_count(
        dataset,
        config["datasets"][dataset],
        f"{RUN}/{dataset}/manifest.parquet",
        look=workflow.is_main_process,
    )
    return max(1, -(-clips // config["job_clips"]))


def extract_receipts(dataset):
    """Job N is the same clips however many are added after them, so its receipt does not carry their number."""
    return [
        f"{RUN}/{dataset}/receipts/extract/{job}.json" for job in range(jobs(dataset))
    ]


def trainings(dataset):
    """(model, setting, seed) of every training run of a dataset."""
    return [
        (
            run["model"],
            run.get("setting", "weak" if dataset == "llp" else "supervised"),
            seed,
        )
        for run in config["datasets"][dataset].get("train", [])
        for seed in run.get("seeds", [0])
    ]


def training(wildcards):
    """The configuration entry of one training run."""
    for run in entry(wildcards).get("train", []):
        setting = run.get(
            "setting", "weak" if wildcards.dataset == "llp" else "supervised"
        )
        if (run["model"], setting) == (wildcards.model, wildcards.setting):
            return run
    raise WorkflowError(
        f"no training of {wildcards.model}, {wildcards.setting} is configured for {wildcards.dataset}"
    )


def scores(dataset):
    return [
        f"{RUN}/{dataset}/scores/{model}-{setting}-{seed}.json"
        for model, setting, seed in trainings(dataset)
    ]


def exports(dataset):
    return [
        f"{RUN}/{dataset}/receipts/export-{name}.json"
        for name in config["datasets"][dataset].get("export", [])
    ]


def label_receipts(dataset):
    """The receipt of the pseudo-labels, where they are configured."""
    return (
        [f"{RUN}/{dataset}/receipts/pseudolabel.json"]
        if "pseudolabel" in config["datasets"][dataset]
        else []
    )


def tunings(dataset):
    """Receipts of every fine-tuning."""
    return [
        f"{RUN}/{dataset}/finetune/{tuning['name']}-{seed}/finetune.json"
        for tuning in config["datasets"][dataset].get("finetune", [])
        for seed in tuning.get("seeds", [0])
    ]


def targets():
    made = []
    for dataset, settings in config["datasets"].items():
        made += extract_receipts(dataset) + scores(dataset) + exports(dataset)
        made += label_receipts(dataset) + tunings(dataset)
        made.append(f"{RUN}/{dataset}/report.html")
        if settings.get("release"):
            made.append(f"{RUN}/{dataset}/receipts/release.json")
    return made


def memory(kind):
    """Megabytes to ask for; half as much again with every retry."""
    wanted = config["resources"].get(kind, config["resources"]["default"])["mem_mb"]
    return lambda wildcards, attempt: int(wanted * (1 + 0.5 * (attempt - 1)))


def minutes(kind):
    """Minutes to ask for; twice as many with every retry."""
    wanted = config["resources"].get(kind, config["resources"]["default"])[
        "runtime_min"
    ]
    return lambda wildcards, attempt: wanted * 2 ** (attempt - 1)


def acquired(wildcards):
    """Downloads come first, where the configuration asks for them."""
    return (
        [f"{RUN}/{wildcards.dataset}/receipts/acquire.json"]
        if "acquire" in entry(wildcards)
        else []
    )


def taught(wildcards):
    """Teachers come first, where the configuration trains its own."""
    return (
        [f"{RUN}/{wildcards.dataset}/teachers/teach.json"]
        if "teach" in entry(wildcards)
        else []
    )


def checkpoints(wildcards):
    """Encoder name -> checkpoint, of the teachers that the run trains itself."""
    return {
        name: f"{RUN}/{wildcards.dataset}/teachers/{name}.pt"
        for name in entry(wildcards).get("teach", {}).get("encoders", [])
    }


def weights(wildcards):
    chosen = entry(wildcards).get("weights", "pretrained")
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    chosen += [f"{name}={path}" for name, path in checkpoints(wildcards).items()]
    return " ".join(f"--weights {choice!r}" for choice in chosen)


def labelling_flags(wildcards):
    chosen, own = entry(wildcards)["pseudolabel"], checkpoints(wildcards)
    teachers = [
        f"{name}={own[name]}" if name in own else name for name in chosen["teachers"]
    ]
    flags = [f"--teacher {name!r}" for name in teachers]
    flags += [
        f"--{name} {chosen[name]!r}"
        for name in ("rule", "prompts", "thresholds", "calibrate")
        if name in chosen
    ]
    flags += [f"--mask {mask}" for mask in chosen.get("masks", [])]
    return " ".join(flags)


def tuning_flags(wildcards):
    for tuning in entry(wildcards).get("finetune", []):
        if tuning["name"] == wildcards.name:
            own = checkpoints(wildcards).get(tuning["visual"])
            start = tuning.get("weights", own or "pretrained")
            given = {
                "visual": tuning["visual"],
                "visual-weights": start,
                "audio": tuning["audio"],
                "recipe": tuning.get("recipe", "clave"),
            }
            flags = [f"--{name} {value!r}" for name, value in given.items()]
            return " ".join(flags)
    raise WorkflowError(
        f"no fine-tuning {wildcards.name} is configured for {wildcards.dataset}"
    )


def allowed_failures(wildcards):
    allowed = entry(wildcards).get("max_failed")
    return "" if allowed is None else f"--max-failed {allowed}"


def training_flags(wildcards):
    chosen = training(wildcards)
    flags = [
        f"--{name} {chosen[name]!r}"
        for name in ("config", "visual", "audio", "motion")
        if name in chosen
    ]
    if chosen.get("labels"):
        flags.append(f"--labels '{RUN}/{wildcards.dataset}/labels'")
    return " ".join(flags)


def training_labels(wildcards):
    return (
        label_receipts(wildcards.dataset) if training(wildcards).get("labels") else []
    )
