"""The manifests are what Kubernetes, the restricted Pod Security Standard and our command lines take.

There is no cluster here: `kubectl kustomize` renders, published schemas and plain loops over rules judge.
"""

import json
import re
import shutil
import tomllib
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from infra.manifests import OVERLAYS, ROOT, Document

from infra import commands, manifests
from pipeline.errors import PretrainError, SourceError

SCHEMAS = ROOT / "tests" / "infra" / "schemas"
OLDEST, NEWEST = "1.31", "1.37"
"""Of Kubernetes. podFailurePolicy is there for good from 1.31 on."""
TRAINING = ("train", "overlays/cpu-test", "overlays/gpu", "overlays/jobset", "overlays/trainjob")
CLUSTER_WIDE = {"Namespace"}
"""Kinds that are in no namespace."""


def _pods(overlay: str) -> list[Document]:
    return [pod for document in manifests.render(overlay) for pod in manifests.pods(document)]


def _trainer(overlay: str) -> tuple[Document, Document]:
    """Spec of the Job that trains, and its container."""
    (job,) = [one for document in manifests.render(overlay) for one in manifests.jobs(document)]
    (container,) = job["template"]["spec"]["containers"]
    return job, container


def _flag(container: Document, name: str) -> str:
    return container["args"][container["args"].index(name) + 1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_document_is_what_its_kind_allows(overlay: str) -> None:
    for document in manifests.render(overlay):
        if "." in document["apiVersion"].partition(".k8s.io")[0]:
            _check_custom(document)
        else:
            _check(document)
        assert (document["kind"] in CLUSTER_WIDE) != ("namespace" in document["metadata"]), document["metadata"]


def _check(document: Document) -> None:
    for version in (OLDEST, NEWEST):
        _validate(json.dumps(document, sort_keys=True), version)


@cache
def _validate(document: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(document), version, strict=True)


def _check_custom(document: Document) -> None:
    """A kind that Kubernetes does not know: the fields used, and then each part as what it is."""
    jsonschema.validate(document, json.loads((SCHEMAS / f"{document['kind']}.json").read_text()))
    if document["kind"] == "TrainingRuntime":
        jobset = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {}}
        _check_custom({**jobset, "spec": document["spec"]["template"]["spec"]})
    for job in manifests.jobs(document):
        _check({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": job})
    for pod in manifests.pods(document):
        meta = {"name": "x", **pod.get("metadata", {})}
        _check({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]})
    if document["kind"] == "DaskCluster":
        service = document["spec"]["scheduler"]["service"]
        _check({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": service})


def test_a_kind_or_a_field_that_nobody_knows_is_noticed() -> None:
    job, jobset = manifests.find("itr", "Job"), manifests.find("overlays/jobset", "JobSet")
    with pytest.raises(jsonschema.ValidationError):
        _check({**job, "spec": {**job["spec"], "restarts": 3}})
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        _check({**job, "kind": "Jobs"})
    with pytest.raises(jsonschema.ValidationError):
        _check_custom({**jobset, "spec": {**jobset["spec"], "restarts": 3}})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_pass_the_restricted_standard(overlay: str) -> None:
    assert _pods(overlay)
    for pod in _pods(overlay):
        spec, meta = pod["spec"], pod["metadata"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) - {"name"} <= {"emptyDir", "configMap", "secret"} for volume in spec["volumes"])
        assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not [name for name in meta.get("annotations", {}) if "apparmor" in name or "seccomp" in name]
        for container in manifests.containers(pod):
            allowed = container["securityContext"]
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["capabilities"] == {"drop": ["ALL"]}
            assert allowed["readOnlyRootFilesystem"] is True
            assert set(allowed) == {"allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"}
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_are_images_of_ours_that_say_what_they_take(overlay: str) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in [one for pod in _pods(overlay) for one in manifests.containers(pod)]:
        owner, _, name = container["image"].partition("/")
        target, _, tag = name.partition(":")
        assert (owner, tag) == ("sentinel-pretrain", version)
        assert target in targets
        assert "command" not in container, "process 1 must stay tini, which hands signals on"
        assert set(container["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_and_flags_are_those_of_the_command_lines(overlay: str) -> None:
    given = {"MACHINE_RANK": "0", "DASK_WORKER_NAME": "worker-0"}
    for container in [one for pod in _pods(overlay) for one in manifests.containers(pod)]:
        commands.parse(manifests.command(container, manifests.environment(overlay, container, given)))


@pytest.mark.parametrize("overlay", TRAINING)
def test_ranks_are_nodes_times_devices_and_share_the_lanes(overlay: str) -> None:
    from train.recipes.croma import RECIPES
    from train.stream.lanes import default_lanes

    job, container = _trainer(overlay)
    nodes = job.get("completions") or manifests.find(overlay, "TrainJob")["spec"]["trainer"]["numNodes"]
    devices = int(container["resources"]["limits"].get("nvidia.com/gpu", "1"))
    ranks = int(_flag(container, "--num_processes"))
    assert int(_flag(container, "--num_machines")) == nodes == job.get("parallelism", nodes)
    assert ranks == nodes * devices
    assert job["completionMode"] == "Indexed"
    for recipe in RECIPES.values():
        assert default_lanes(recipe().stream.global_batch, 1_000_000) % ranks == 0
    assert manifests.find(overlay, "PodDisruptionBudget")["spec"]["minAvailable"] == nodes - 1


@pytest.mark.parametrize("overlay", TRAINING)
def test_ranks_meet_at_a_name_that_the_cluster_gives_to_the_first_pod(overlay: str) -> None:
    job, container = _trainer(overlay)
    host, _, service = _flag(container, "--main_process_ip").partition(".")
    port = int(_flag(container, "--main_process_port"))
    assert [one["containerPort"] for one in container["ports"]] == [port]
    if overlay in {"overlays/jobset", "overlays/trainjob"}:
        name = manifests.find(overlay, "JobSet" if overlay.endswith("jobset") else "TrainJob")["metadata"]["name"]
        assert (host, service) == (f"{name}-node-0-0", name)
        return
    found = manifests.find(overlay, "Service")
    assert (host, service) == (f"{manifests.find(overlay, 'Job')['metadata']['name']}-0", found["metadata"]["name"])
    assert job["template"]["spec"]["subdomain"] == service
    assert found["spec"]["clusterIP"] == "None"
    assert found["spec"]["publishNotReadyAddresses"] is True
    assert found["spec"]["selector"].items() <= job["template"]["metadata"]["labels"].items()


_STEP_S, _STORE_BYTES_PER_S = 60, 50e6
"""The longest step, and the slowest store."""


@cache
def _checkpoint_bytes() -> int:
    """Of CROMA-L: weights, their average, and two moments, in float32."""
    from train.recipes.croma import RECIPES
    from train.recipes.run import parameters

    return parameters(RECIPES["large"]()) * 16


@pytest.mark.parametrize("overlay", TRAINING)
def test_ranks_have_time_to_save_and_the_pod_outlives_them(overlay: str) -> None:
    job, container = _trainer(overlay)
    (save_s,) = [int(one["value"]) for one in container["env"] if one["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert save_s >= _STEP_S + _checkpoint_bytes() / _STORE_BYTES_PER_S
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= save_s + 30
    assert f"{save_s} seconds" in (ROOT / "infra" / "README.md").read_text()


@pytest.mark.parametrize("overlay", ["overlays/jobset", "overlays/trainjob"])
def test_what_trains_is_the_same_however_it_is_started(overlay: str) -> None:
    (job, container), (plain_job, plain) = _trainer(overlay), _trainer("overlays/gpu")
    meets = _flag(container, "--main_process_ip")
    args = [meets if word == "train-0.train" else word for word in plain["args"]]
    assert container == {**plain, "name": container["name"], "args": args}
    assert job["podFailurePolicy"] == plain_job["podFailurePolicy"]
    pod, plain_pod = job["template"], plain_job["template"]
    assert pod["metadata"] == plain_pod["metadata"]
    rest = {name: value for name, value in plain_pod["spec"].items() if name != "subdomain"}
    assert pod["spec"] == {**rest, "containers": [container]}


def _decided(job: Document, code: int, *, disrupted: bool) -> str:
    """What the Job controller does with a pod that ended so: the first rule that matches, or a try less."""
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule and code in rule["onExitCodes"]["values"]:
            return rule["action"]
        if "onPodConditions" in rule and disrupted:
            return rule["action"]
    return "Count"


@pytest.mark.parametrize("overlay", [*TRAINING, "itr"])
def test_preemption_is_told_from_a_request_that_cannot_be_met(overlay: str) -> None:
    from train.stop import EXIT_CODE

    job, _ = _trainer(overlay)
    assert _decided(job, EXIT_CODE, disrupted=False) == "Ignore"
    assert _decided(job, 137, disrupted=True) == "Ignore"
    assert _decided(job, PretrainError.exit_code, disrupted=False) == "FailJob"
    for code in (1, 137, SourceError.exit_code):
        assert _decided(job, code, disrupted=False) == "Count"


@pytest.mark.parametrize("overlay", ["ingest", "overlays/dask-operator"])
def test_ingest_is_tried_again_unless_it_was_asked_for_what_cannot_be(overlay: str) -> None:
    job, _ = _trainer(overlay)
    assert _decided(job, PretrainError.exit_code, disrupted=False) == "FailJob"
    assert _decided(job, SourceError.exit_code, disrupted=False) == "Count"
    assert _decided(job, 143, disrupted=True) == "Ignore"


def test_the_driver_finds_the_scheduler_of_the_operator() -> None:
    cluster = manifests.find("overlays/dask-operator", "DaskCluster")
    _, driver = _trainer("overlays/dask-operator")
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    ports = {port["name"]: port["port"] for port in spec["scheduler"]["service"]["ports"]}
    assert _flag(driver, "--scheduler") == f"tcp://{name}-scheduler:{ports['tcp-comm']}"
    assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert {one["name"]: one["containerPort"] for one in scheduler["ports"]} == ports
    assert scheduler["image"] == worker["image"] == driver["image"], "dask wants one version everywhere"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rules_about_networks_and_disruptions_reach_the_pods(overlay: str) -> None:
    documents = {(one["kind"], one["metadata"]["name"]): one for one in manifests.render(overlay)}
    everybody = documents["NetworkPolicy", "pretrain"]["spec"]["podSelector"]["matchLabels"].items()
    labels = [pod["metadata"]["labels"].items() for pod in _pods(overlay)]
    assert all(everybody <= one for one in labels)
    for (kind, name), document in documents.items():
        if kind == "NetworkPolicy" and name != "pretrain":
            assert any(document["spec"]["podSelector"]["matchLabels"].items() <= one for one in labels)
    if overlay == "overlays/dask-operator":
        workers = documents["PodDisruptionBudget", "ingest-workers"]["spec"]["selector"]["matchLabels"].items()
        assert any(workers <= one for one in labels)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_from_the_cluster(overlay: str) -> None:
    assert "Secret" not in {document["kind"] for document in manifests.render(overlay)}
    given = {"MACHINE_RANK": "0"}
    for container in [one for pod in _pods(overlay) for one in manifests.containers(pod)]:
        known = manifests.environment(overlay, container, given)
        assert not [name for name in known if re.search(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", name)]
        local = "/scratch/" in known.get("RUN", "") or container["args"][:2] == ["dask", "scheduler"]
        assert local or {"secretRef": {"name": "object-store"}} in container["envFrom"]


def test_the_cache_of_shards_fits_into_its_volume() -> None:
    for overlay in ("train", "overlays/gpu"):
        job, container = _trainer(overlay)
        sizes = {one["name"]: one["emptyDir"]["sizeLimit"] for one in job["template"]["spec"]["volumes"]}
        room = int(sizes["tmp"].removesuffix("Gi"))
        assert float(_flag(container, "--cache-gb")) < 0.8 * room * 1.024**3
        assert room <= int(container["resources"]["limits"]["ephemeral-storage"].removesuffix("Gi"))


@pytest.mark.parametrize("overlay", ["gpu", "trainjob", "dask-operator"])
def test_the_readmes_overlay_of_ones_own_changes_images_and_settings(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(manifests.K8S, tmp_path / "sentinel-pretrain" / "infra" / "k8s")
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "infra" / "README.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(example[1].replace("overlays/gpu", f"overlays/{overlay}"))
    documents = manifests.kustomize(tmp_path / "mine")
    found = [one for document in documents for pod in manifests.pods(document) for one in manifests.containers(pod)]
    assert {one["image"].split("/")[0] for one in found} == {"registry.example"}
    (settings,) = [
        one["data"] for one in documents if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "settings"
    ]
    assert (settings["DATA"], settings["CATALOG"]) == ("s3://mine/shards", "planetary-computer")


def test_the_kustomizations_are_for_old_kubectl_too() -> None:
    """Debian's kubectl 1.20 has kustomize 2.0.3, and says nothing about words that it does not know."""
    known = {"apiVersion", "kind", "namespace", "bases", "resources", "generatorOptions", "configMapGenerator"}
    known |= {"patchesStrategicMerge", "patchesJson6902", "images", "commonLabels", "namePrefix"}
    for path in manifests.K8S.rglob("kustomization.yaml"):
        assert set(yaml.safe_load(path.read_text())) <= known, path
