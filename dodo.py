"""The graph, and only the graph: one group of tasks a verb, one task an image.

lock -> fetch -> dockerfile -> build -> check -> archive -> sif
"""

from collections.abc import Iterator

from lading.config import DOIT_CONFIG
from lading.tasks import Entry, open_project
from lading.verbs import (
    archive,
    base,
    build,
    check,
    dockerfile,
    env,
    fetch,
    lock,
    push,
    sif,
    source,
    upgrade,
    verify,
)

__all__ = ["DOIT_CONFIG"]

pipeline = open_project("project.yaml")


def task_lock() -> Iterator[Entry]:
    """pin everything that goes in: versions, files, sha256 (locks/)"""
    yield from pipeline.bases("lock", make=base.lock, current=base.lock_current)
    yield from pipeline.sources(make=source.lock, current=source.lock_current)
    yield from pipeline.images(
        "lock", lock, after=["lock:base:{base}"], of_sources=["lock:source:{source}"]
    )


def task_fetch() -> Iterator[Entry]:
    """download what the locks name, checked, into the store"""
    yield from pipeline.images("fetch", fetch, after=["lock:{name}"])


def task_dockerfile() -> Iterator[Entry]:
    """write the Dockerfile with its whole context (build/NAME/context)"""
    yield from pipeline.images(
        "dockerfile",
        dockerfile,
        after=["fetch:{name}"],
        of_sources=["build:source:{source}@{base}"],
    )


def task_build() -> Iterator[Entry]:
    """build the images in the engine, with no network"""
    yield from pipeline.bases(
        "build",
        make=base.build,
        current=base.build_current,
        clean=base.clean,
        after=["lock:base:{base}"],
    )
    yield from pipeline.compiled(
        make=source.build, current=source.build_current, clean=source.clean
    )
    yield from pipeline.images("build", build, after=["dockerfile:{name}", "build:base:{base}"])


def task_check() -> Iterator[Entry]:
    """run the tests as an unprivileged user, read-only, with no network"""
    yield from pipeline.images("check", check, after=["build:{name}"])


def task_archive() -> Iterator[Entry]:
    """write the tarball for Docker, Podman and Apptainer (dist/NAME.tar)"""
    yield from pipeline.images("archive", archive, after=["check:{name}"])


def task_sif() -> Iterator[Entry]:
    """make dist/NAME.sif with Apptainer and test it; when asked for"""
    yield from pipeline.images("sif", sif, after=["archive:{name}"])


def task_push() -> Iterator[Entry]:
    """send the archives to the project's registry; when asked for"""
    yield from pipeline.compiled("push", make=push.push_source, current=push.source_current)
    yield from pipeline.images("push", push, after=["archive:{name}"])


def task_verify() -> Iterator[Entry]:
    """build it all again from nothing, and compare; when asked for"""
    yield from pipeline.images("verify", verify, after=["archive:{name}"])


def task_upgrade() -> Iterator[Entry]:
    """move the pins of the locks, all or package=NAME; when asked for"""
    yield from pipeline.bases("upgrade", make=upgrade.make_base, current=upgrade.current)
    yield from pipeline.images("upgrade", upgrade)


def task_env() -> Iterator[Entry]:
    """show what conda's activation would set, and is set instead; when asked for"""
    yield from pipeline.images("env", env, after=["lock:{name}"], section="conda")
