# What the rules share: the checked configuration, shard numbers and targets.

validate(config, f"{workflow.basedir}/workflows/schemas/config.schema.yaml")
sys.path.insert(0, str(workflow.basedir))

from pipeline import configuration, recipes
from pipeline.datasets.description import MANIFESTS
from pipeline.finetuning import recipe as tuning_recipes
from pipeline.planning import (
    clip_count,
    code_digest,
    contents_digest,
    files_digest,
    job_digest,
)

if problems := configuration.clashes(config["datasets"]):
    raise WorkflowError("\n".join(problems))
configuration.expand(config)

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
    variant=r"(-[a-z][a-z0-9]*)*",
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
    looks = wildcards.dataset == "folder" and workflow.is_main_process
    grows = looks and digest_of_job(wildcards, True) != digest_of_job(wildcards, False)
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


def training(wildcards):
    """The configuration entry of one training run."""
    wanted = f"{wildcards.model}-{wildcards.setting}{wildcards.variant}"
    for run in entry(wildcards).get("train", []):
        if configuration.training_name(wildcards.dataset, run) == wanted:
            return run
    raise WorkflowError(f"no training {wanted} is configured for {wildcards.dataset}")


def scores(dataset):
    return [
        f"{RUN}/{dataset}/scores/{configuration.training_name(dataset, run)}-{seed}.json"
        for run in config["datasets"][dataset].get("train", [])
        for seed in run.get("seeds", [0])
    ]


def exports(dataset):
    return [
        f"{RUN}/{dataset}/receipts/export-{layout}.json"
        for layout, _ in configuration.exports(config["datasets"][dataset])
    ]


def export_features(wildcards):
    """Role -> feature with its weights, of one export."""
    chosen = dict(configuration.exports(entry(wildcards)))[wildcards.format]
    return {
        role: name if "=" in name else pinned(wildcards, name)
        for role, name in chosen.items()
    }


def export_flags(wildcards):
    flags = [
        f"--feature {f'{role}={name}'!r}"
        for role, name in export_features(wildcards).items()
    ]
    if wildcards.format == "dgsct":  # made from the clips
        flags.append(f"--media {media(wildcards)!r}")
    return " ".join(flags)


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


def tuned_receipts(dataset, name=None, seed=None):
    """Receipts of the extractions with tuned weights; where only projections were trained there is nothing new."""
    return [
        f"{RUN}/{dataset}/receipts/extract-tuned/{tuning['name']}-{one}/{job}.json"
        for tuning in config["datasets"][dataset].get("finetune", [])
        for one in tuning.get("seeds", [0])
        for job in range(jobs(dataset))
        if tuning.get("tune") != "projections"
        and name in (None, tuning["name"])
        and seed in (None, one)
    ]


def effects(dataset):
    """What fine-tuning changed, where there is any."""
    return [f"{RUN}/{dataset}/effect.json"] if tuned_receipts(dataset) else []


def targets():
    made = []
    for dataset, settings in config["datasets"].items():
        made += extract_receipts(dataset) + scores(dataset) + exports(dataset)
        made += label_receipts(dataset) + tunings(dataset) + tuned_receipts(dataset)
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


def given_weights(wildcards):
    """Choices of weights as the configuration has them."""
    chosen = entry(wildcards).get("weights", "pretrained")
    return [chosen] if isinstance(chosen, str) else list(chosen)


def weights(wildcards):
    chosen = given_weights(wildcards)
    chosen += [f"{name}={path}" for name, path in checkpoints(wildcards).items()]
    return " ".join(f"--weights {choice!r}" for choice in chosen)


def own_checkpoints(wildcards, *choices):
    """Short hash of the checkpoint files among choices of weights; those that the run makes itself have receipts."""
    files = [choice.partition("=")[2] or choice for choice in choices]
    made = checkpoints(wildcards).values()
    return contents_digest(
        file for file in files if file not in made and Path(file).is_file()
    )


def tuning(wildcards, name):
    """The configuration entry of a fine-tuning."""
    for found in entry(wildcards).get("finetune", []):
        if found["name"] == name:
            return found
    raise WorkflowError(f"no fine-tuning {name} is configured for {wildcards.dataset}")


def first_weights(wildcards, feature):
    """The weights that a feature is extracted with, before any fine-tuning."""
    given = given_weights(wildcards)
    named = dict(choice.split("=", 1) for choice in given if "=" in choice)
    named |= checkpoints(wildcards)
    return named.get(feature, next((c for c in given if "=" not in c), "pretrained"))


def pinned(wildcards, feature):
    """A feature with its weights, where fine-tuning makes another one of the same name."""
    tuned = {found["visual"] for found in entry(wildcards).get("finetune", [])}
    own = checkpoints(wildcards)
    if feature in tuned or feature in own:
        return f"{feature}={first_weights(wildcards, feature)}"
    return feature


def tuned_file(wildcards, name, seed):
    """The checkpoint that a fine-tuning writes."""
    encoder = tuning(wildcards, name)["visual"].split(":")[0]
    return f"{RUN}/{wildcards.dataset}/finetune/{name}-{seed}/{encoder}.safetensors"


def labelling_flags(wildcards):
    chosen = entry(wildcards)["pseudolabel"]
    teachers = [pinned(wildcards, name) for name in chosen["teachers"]]
    flags = [f"--teacher {name!r}" for name in teachers]
    flags += [
        f"--{name} {chosen[name]!r}"
        for name in ("rule", "prompts", "thresholds", "calibrate")
        if name in chosen
    ]
    flags += [f"--mask {mask}" for mask in chosen.get("masks", [])]
    return " ".join(flags)


def labelling_files(wildcards):
    """Short hash of captions and thresholds."""
    chosen = entry(wildcards)["pseudolabel"]
    own = MANIFESTS / wildcards.dataset / "prompts.tsv"
    thresholds = [chosen["thresholds"]] if "thresholds" in chosen else []
    return contents_digest([chosen.get("prompts", own), *thresholds])


def tuning_files(wildcards):
    """Short hash of a fine-tuning's recipe and of the checkpoint that it begins with."""
    chosen = tuning(wildcards, wildcards.name)
    first = chosen.get("weights", first_weights(wildcards, chosen["visual"]))
    recipe = tuning_recipes.file_of(chosen.get("recipe", "clave"))
    return contents_digest([recipe]) + own_checkpoints(wildcards, first)


def tuning_flags(wildcards):
    chosen = tuning(wildcards, wildcards.name)
    given = {
        "visual": chosen["visual"],
        "visual-weights": chosen.get(
            "weights", first_weights(wildcards, chosen["visual"])
        ),
        "audio": pinned(wildcards, chosen["audio"]),
        "recipe": chosen.get("recipe", "clave"),
    }
    if "tune" in chosen:
        given["tune"] = chosen["tune"]
    return " ".join(f"--{name} {value!r}" for name, value in given.items())


def allowed_failures(wildcards):
    allowed = entry(wildcards).get("max_failed")
    return "" if allowed is None else f"--max-failed {allowed}"


def tuned_seed(wildcards):
    """Fine-tuning and its seed that a training reads: the training's own seed where there is one, else the first."""
    name = training(wildcards).get("tuned")
    if name is None:
        return None
    seeds = tuning(wildcards, name).get("seeds", [0])
    own = int(wildcards.seed)
    return name, own if own in seeds else seeds[0]


def training_flags(wildcards):
    chosen = training(wildcards)
    streams = {
        name: pinned(wildcards, chosen[name])
        for name in ("visual", "audio", "motion")
        if name in chosen
    }
    if tuned := tuned_seed(wildcards):
        feature = tuning(wildcards, tuned[0])["visual"]
        streams["visual"] = f"{feature}={tuned_file(wildcards, *tuned)}"
    flags = [f"--{name} {value!r}" for name, value in streams.items()]
    if "config" in chosen:
        flags.append(f"--config {chosen['config']!r}")
    if chosen.get("labels"):
        flags.append(f"--labels '{RUN}/{wildcards.dataset}/labels'")
    return " ".join(flags)


def training_recipe(wildcards):
    """Short hash of the settings of a training."""
    chosen, model, setting = training(wildcards), wildcards.model, wildcards.setting
    path = chosen.get("config") or recipes.config_file(model, wildcards.dataset)
    return recipes.digest(Path(path), setting)


def training_inputs(wildcards):
    """What a training needs beside the features: pseudo-labels, or features of a tuned encoder."""
    made = (
        label_receipts(wildcards.dataset) if training(wildcards).get("labels") else []
    )
    if tuned := tuned_seed(wildcards):
        made = made + tuned_receipts(wildcards.dataset, *tuned)
    return made
