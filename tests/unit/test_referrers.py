"""The SBOM refers to its image in the registry, and is found there as other tools look for it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import requests

from tests.support.projects import Trial
from tests.support.registries import CUT, INDEX, Registry
from tests.unit.test_push import cloned, there, trial

__all__ = ["there", "trial"]

TYPE = "application/vnd.cyclonedx+json"
EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def image_digest(registry: Registry, trial: Trial, name: str = "one") -> str:
    _, body = registry.manifests[f"group/{name}", trial.key(name)]
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def discovered(registry: Registry, digest: str, name: str = "one") -> list[dict[str, Any]]:
    """What refers to a manifest: as the registry says, else as the tag says that stands in for it
    (distribution specification v1.1, 'Listing Referrers').
    """
    url = f"http://{registry.host}/v2/group/{name}"
    answer = requests.get(f"{url}/referrers/{digest}", timeout=10)
    if answer.status_code == 404:
        accept = {"Accept": INDEX}
        tag = digest.replace(":", "-")
        answer = requests.get(f"{url}/manifests/{tag}", headers=accept, timeout=10)
    if answer.status_code == 404:
        return []
    assert answer.headers["Content-Type"] == INDEX
    found: list[dict[str, Any]] = answer.json()["manifests"]
    return found


@pytest.mark.parametrize("lists", [True, False])
def test_it_is_found(trial: Trial, there: Registry, lists: bool) -> None:
    there.lists_referrers = lists
    assert trial.doit("push:one") == 0
    digest = image_digest(there, trial)
    (entry,) = discovered(there, digest)
    media_type, body = there.manifests["group/one", entry["digest"]]
    assert entry == {
        "mediaType": media_type,
        "digest": f"sha256:{hashlib.sha256(body).hexdigest()}",
        "size": len(body),
        "artifactType": TYPE,
        "annotations": {"org.opencontainers.image.created": "2026-11-01T00:00:00Z"},
    }
    manifest = json.loads(body)
    assert manifest["artifactType"] == TYPE
    assert manifest["config"]["digest"] == EMPTY
    assert there.blobs[EMPTY] == b"{}"
    _, image = there.manifests["group/one", digest]
    assert manifest["subject"] == {"mediaType": media_type, "digest": digest, "size": len(image)}
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == TYPE
    assert layer["annotations"] == {"org.opencontainers.image.title": "one.cdx.json"}
    assert there.blobs[layer["digest"]] == (trial.root / "dist/one.cdx.json").read_bytes()
    # Who has the image's manifest can tell whether it is that one.
    assert json.loads(image)["annotations"]["lading.sbom"] == layer["digest"]
    assert any(tag.startswith("sha256-") for _, tag in there.manifests) != lists


@pytest.mark.parametrize("lists", [True, False])
def test_pushed_once(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str], lists: bool
) -> None:
    there.lists_referrers = lists
    assert trial.doit("push") == 0
    before = dict(there.manifests)
    there.asked.clear()
    capsys.readouterr()
    for one in (trial, cloned(trial)):
        assert one.doit("push") == 0
        assert "nothing to do" in capsys.readouterr().out
    assert not [line for line in there.asked if not line.startswith(("HEAD", "GET"))]
    assert not [line for line in there.asked if "/referrers/" in line or "sha256-" in line]
    assert there.manifests == before


def test_out_of_the_registry_comes_the_same(trial: Trial, there: Registry) -> None:
    assert trial.doit("push:one") == 0
    fresh = cloned(trial)
    assert fresh.doit("archive:one") == 0
    assert fresh.engine.asked == []
    path = "dist/one.cdx.json"
    assert (fresh.root / path).read_bytes() == (trial.root / path).read_bytes()


def test_what_others_have_listed_stays(trial: Trial, there: Registry) -> None:
    assert trial.doit("push:one") == 0
    tag = image_digest(there, trial).replace(":", "-")
    signature = {"mediaType": "m", "digest": f"sha256:{'5' * 64}", "size": 5, "artifactType": "s"}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [signature]}
    there.manifests["group/one", tag] = (
        INDEX,
        json.dumps(index | {"annotations": {"a": "b"}}).encode(),
    )
    for _ in range(2):
        del there.manifests["group/one", trial.key("one")]
        assert trial.doit("push:one") == 0
        kind, body = there.manifests["group/one", tag]
        found = json.loads(body)
        assert kind == INDEX
        assert found["annotations"] == {"a": "b"}
        assert found["manifests"][0] == signature
        assert [one["artifactType"] for one in found["manifests"]] == ["s", TYPE]


def test_something_else_in_the_place_of_the_list(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is said; it is not overwritten, and the image is pushed."""
    assert trial.doit("push:one") == 0
    tag = image_digest(there, trial).replace(":", "-")
    other = there.manifests["group/one", trial.key("one")]
    there.manifests["group/one", tag] = other
    del there.manifests["group/one", trial.key("one")]
    capsys.readouterr()
    assert trial.doit("push:one") == 0
    assert "its SBOM is not attached" in capsys.readouterr().out
    assert there.manifests["group/one", tag] == other
    _, body = there.manifests["group/one", trial.key("one")]
    assert "lading.sbom" not in json.loads(body)["annotations"]
    # As it was said: the tag deleted, and pushed again.
    del there.manifests["group/one", tag]
    assert trial.doit("push:one") == 0
    assert image_digest(there, trial).replace(":", "-") == tag
    assert len(discovered(there, image_digest(there, trial))) == 1


def test_a_registry_that_takes_no_such_manifest(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image is pushed all the same."""
    assert trial.doit("archive:one") == 0
    before: list[str] = []

    def second(line: str) -> int | None:
        if line.startswith("PUT /v2/group/one/manifests/sha256:") and line not in before:
            before.append(line)
            return 400 if len(before) == 2 else None
        return None

    there.instead = second
    assert trial.doit("push:one") == 0
    assert "its SBOM is not attached" in capsys.readouterr().out
    assert discovered(there, image_digest(there, trial)) == []
    assert ("group/one", "2026.11.01") in there.manifests


def test_one_that_was_cut_off_before_it_was_listed_goes_on(trial: Trial, there: Registry) -> None:
    """The key is the image's tag only when its SBOM is there."""
    there.instead = lambda line: CUT if line.startswith("PUT") and "sha256-" in line else None
    assert trial.doit("push:one") == 2
    assert ("group/one", trial.key("one")) not in there.manifests
    there.instead = lambda line: None
    assert trial.doit("push:one") == 0
    assert len(discovered(there, image_digest(there, trial))) == 1


def test_an_image_that_was_pushed_without_one_gets_it(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial.doit("push:one") == 0
    # As it was pushed before there were any.
    kind, body = there.manifests["group/one", trial.key("one")]
    manifest = json.loads(body)
    del manifest["annotations"]["lading.sbom"]
    old = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    there.manifests.clear()
    for tag in (trial.key("one"), "2026.11.01"):
        there.manifests["group/one", tag] = kind, old
    capsys.readouterr()
    # A runner that has no archive leaves it at that; one that has it sends what is missing.
    assert cloned(trial).doit("push:one") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert trial.doit("push:one") == 0
    assert there.manifests["group/one", trial.key("one")] == (kind, body)
    assert there.manifests["group/one", "2026.11.01"] == (kind, body)
    assert len(discovered(there, image_digest(there, trial))) == 1
