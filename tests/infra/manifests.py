"""Manifests of infra/k8s as kubectl renders them, and the pods in them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra" / "k8s"
OVERLAYS = ("ingest", "itr", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir()))
"""What a person applies."""
Document = dict[str, Any]


@cache
def render(overlay: str) -> tuple[Document, ...]:
    """The documents of a folder below infra/k8s; skips where there is no kubectl."""
    return kustomize(K8S / overlay)


def kustomize(folder: Path) -> tuple[Document, ...]:
    """The documents of any folder."""
    if shutil.which("kubectl") is None:
        reason = "kubectl is not installed: run .ci/install-packages (kubernetes-client)"
        pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it") if os.environ.get("REQUIRE_REAL") == "1" else None
        pytest.skip(reason)
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def find(overlay: str, kind: str) -> Document:
    """The only document of a kind."""
    (found,) = [document for document in render(overlay) if document["kind"] == kind]
    return found


def pods(document: Document) -> Iterator[Document]:
    """Templates of pods, wherever they are: what holds `spec.containers`."""
    if "containers" in document.get("spec", {}):
        yield document
    for value in document.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from pods(one)


def jobs(document: Document) -> Iterator[Document]:
    """Specs of Jobs, wherever they are: what holds `podFailurePolicy`."""
    if "podFailurePolicy" in document:
        yield document
    for value in document.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from jobs(one)


def containers(pod: Document) -> list[Document]:
    """All of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(overlay: str, container: Document, given: Mapping[str, str]) -> dict[str, str]:
    """Of a container: its ConfigMaps, its own variables, and what the cluster gives."""
    maps = {one["metadata"]["name"]: one["data"] for one in render(overlay) if one["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]] if "configMapRef" in source else {}
    for one in container.get("env", []):
        found[one["name"]] = one["value"] if "value" in one else given[one["name"]]
    return {**given, **found}


def command(container: Document, variables: Mapping[str, str]) -> list[str]:
    """The arguments with `$(NAME)` put in, as a kubelet does; an unknown name is an error here."""
    return [re.sub(r"\$\(([A-Z_]+)\)", lambda match: variables[match[1]], word) for word in container["args"]]
