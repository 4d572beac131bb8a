"""One Dockerfile, built by Docker and by Podman, with no cache: one archive, which both run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from lading import archive
from lading.engines import connect
from tests.conftest import needs
from tests.support import engines, images

PLATFORM = "linux/amd64"
NAME = "localhost/lading/test-same:1"
TOOLS = ("chmod", "ln", "rm")
BUILD = f"""\
FROM {images.BASE}
ENV B=2 A=1
COPY {" ".join(TOOLS)} /bin/
RUN mkdir -p /opt/venv/bin /opt/conda /var/log /var/cache/apt/archives /srv/data \
 && echo x >/opt/venv/bin/x && ln /opt/venv/bin/x /opt/venv/bin/y \
 && echo built >/var/log/build.log && echo 0123 >/etc/machine-id \
 && echo long >/srv/data/{"n" * 120} && echo late >/opt/late
RUN --mount=type=bind,target=/dev/shm/context cat /dev/shm/context/Dockerfile >/opt/conda/made
RUN rm /bin/sleep /opt/late && rm -r /usr/bin && mkdir /usr/bin && echo new >/usr/bin/new
RUN chmod 1777 /opt/conda
WORKDIR /srv/work
VOLUME /srv/data
EXPOSE 8888/tcp
STOPSIGNAL SIGINT
USER 1000:1000
LABEL a=b
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
"""
LOOK = """
exec 2>&1
cat /opt/venv/bin/x /opt/venv/bin/y /usr/bin/new /srv/data/*
ls -d /bin/sleep /opt/late /var/log/build.log /etc/machine-id
ls -ld /opt/conda
ls -A /usr/bin /dev/shm
echo $A $B $PWD
"""


def made(kind: str, folder: Path, tiny: images.TinyImage) -> tuple[archive.Archive, str]:
    """What an engine's build is when normal, and what can be seen in it once it is loaded."""
    context = folder / "context"
    context.mkdir(parents=True)
    for tool in TOOLS:
        program = shutil.which(tool)
        assert program is not None
        shutil.copy(program, context / tool)
    (context / "Dockerfile").write_text(BUILD)
    images.write_archive(tiny, folder / "base.tar")
    normal = archive.Normal(
        base=(images.digest(tiny.layer),), epoch=1_700_000_000, parts=("/opt/conda", "/opt/venv")
    )
    with engines.private_engine(kind) as running:
        engine = connect(running.environ)
        engine.load(folder / "base.tar")
        found = []
        for number in range(2):
            built = engine.build(
                context, NAME, platform=PLATFORM, log=lambda text: None, cache=False
            )
            out = folder / f"{number}.tar"
            found.append(
                archive.export(engine.save(NAME), out, name=NAME, platform=PLATFORM, normal=normal)
            )
        assert found[0] == found[1]
        # Its files as a container finds them say the same as its layers.
        info = engine.inspect(NAME)
        assert info is not None
        merged = archive.Merged(files=engine.files(built), settings=info.settings)
        at_hand = replace(normal, archive=folder / "base.tar")
        out = folder / "merged.tar"
        assert found[0] == archive.export(
            iter(()), out, name=NAME, platform=PLATFORM, normal=at_hand, merged=merged
        )
        engine.remove(NAME)  # which it does not while there is a container of it
        assert engine.inspect(built) is None
        assert engine.load(folder / "1.tar") == found[1].config != built
        seen = engine.run(NAME, ["/bin/sh", "-c", LOOK]).output
        # As the engine saves what it has loaded, it is the same again.
        again = folder / "again.tar"
        assert (
            archive.export(engine.save(NAME), again, name=NAME, platform=PLATFORM, normal=normal)
            == found[0]
        )
        engine.close()
    return found[0], seen


def test_docker_and_podman_give_the_same_file(tiny: images.TinyImage, tmp_path: Path) -> None:
    needs("docker")
    needs("podman")
    docker, seen = made("docker", tmp_path / "docker", tiny)
    podman, seen_there = made("podman", tmp_path / "podman", tiny)
    assert docker == podman
    assert seen == seen_there
    assert seen.startswith("x\nx\nnew\nlong\n")
    for gone in ("/bin/sleep", "/opt/late", "/var/log/build.log", "/etc/machine-id"):
        assert f"'{gone}'" in seen  # ls can't access it
    assert "drwxrwxrwt" in seen
    assert seen.endswith("/dev/shm:\n\n/usr/bin:\nnew\n1 2 /srv/work\n")
