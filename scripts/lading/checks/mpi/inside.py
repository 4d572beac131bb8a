"""What is run in containers of an image, as its declared tests are, and what each part printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lading.checks.declared import HOME, USER
from lading.checks.mpi.host import MOUNTED, SONAMES
from lading.engines import Engine, Mount

LIMIT = 120
"""Seconds for each thing that is run: ranks that do not find each other may wait for ever."""

SETTINGS = {
    # Open MPI asks for ssh where it will never use it, and wants a core for each rank.
    "OMPI_MCA_plm_rsh_agent": "false",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_plm_ssh_agent": "false",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    # Docker forbids a process to read another's memory (process_vm_readv); Apptainer does not.
    "MPIR_CVAR_CH4_CMA_ENABLE": "0",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_smsc": "^cma",
    "UCX_TLS": "^cma",
}

START = f"""\
limit=; ! command -v timeout >/dev/null || limit='timeout {LIMIT}'
part() {{
  printf '\\n@part %s\\n' "$1"; shift
  $limit "$@" </dev/null 2>&1
  printf '\\n@code %s\\n' "$?"
}}
rank=$1; shift
python=$(command -v python || command -v python3) || python=
mpiexec=$(command -v mpiexec || command -v mpirun) || mpiexec=
[ -z "$python" ] || "$python" -c '
import importlib.util, sys
sys.exit(importlib.util.find_spec("mpi4py") is None)' || python=
"""

OWN = """\
part glibc getconf GNU_LIBC_VERSION
[ -z "$mpiexec" ] || part launcher "$mpiexec" --version
if [ -n "$python" ]; then
  part ranks "$mpiexec" -n 2 "$python" -c "$rank"
  part helloworld "$mpiexec" -n 2 "$python" -m mpi4py.bench helloworld
fi
for name; do
  program=$(command -v "$name") || continue
  part "linked $name" env LD_TRACE_LOADED_OBJECTS=1 "$program"
  found=$(LD_TRACE_LOADED_OBJECTS=1 "$program" | sed -n 's/.* => \\(\\/.*\\) (0x.*/\\1/p')
  part "real $name" readlink -f $found
  part "run $name" "$mpiexec" -n 2 "$program"
done
"""

TAKEN = f"""\
mpiexec={MOUNTED}/bin/mpiexec
export OPAL_PREFIX={MOUNTED}
for way in $WAYS; do
  paths={MOUNTED}/$way
  [ "$way" != needs ] || paths=$paths:$paths/$FLAVOUR
  export LD_LIBRARY_PATH="$paths"
  [ -z "$python" ] || part "$way ranks" "$mpiexec" -n 2 "$python" -c "$rank"
  for name; do
    program=$(command -v "$name") || continue
    part "$way linked $name" env LD_TRACE_LOADED_OBJECTS=1 "$program"
    found=$(LD_TRACE_LOADED_OBJECTS=1 "$program" | sed -n "s/.*$SONAME => \\(.*\\) (0x.*/\\1/p")
    part "$way same $name" sh -c 'test "$1" -ef "$2"' sh "$found" {MOUNTED}/lib/$SONAME
    part "$way run $name" "$mpiexec" -n 2 "$program"
  done
done
"""

LOADED = f"""\
part abi printenv MPI4PY_MPIABI
export LD_LIBRARY_PATH={MOUNTED}/lib LD_DEBUG=libs,files
part python "$python" -c 'import mpi4py; mpi4py.rc.initialize = False; import mpi4py.MPI'
for name; do
  program=$(command -v "$name") || continue
  part "$name" env LD_TRACE_LOADED_OBJECTS=1 "$program"
done
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a part printed, and its exit code."""

    code: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Containers of one image: as an ordinary user, read-only, an empty home, no network."""

    engine: Engine
    image: str
    programs: tuple[str, ...]

    def own(self) -> Mapping[str, Said]:
        """The image's MPI as it is."""
        return self._run(OWN)

    def taken(
        self, folder: Path, flavour: str, ways: Sequence[str], over: Mapping[str, Path]
    ) -> Mapping[str, Said]:
        """With a host's MPI in `folder`, found in each of these ways; `over` are files of this
        machine that are bound over the image's.
        """
        mounts = [Mount(source=folder, target=MOUNTED)]
        mounts += [Mount(source=source, target=target) for target, source in over.items()]
        return self._run(
            TAKEN,
            mounts,
            {"WAYS": " ".join(ways), "FLAVOUR": flavour, "SONAME": SONAMES[flavour]},
        )

    def loaded(self, folder: Path) -> Mapping[str, Said]:
        """What the dynamic loader says it does when a host's MPI is there; LD_DEBUG in ld.so(8)."""
        return self._run(LOADED, [Mount(source=folder, target=MOUNTED)])

    def _run(
        self, script: str, mounts: Sequence[Mount] = (), env: Mapping[str, str] | None = None
    ) -> Mapping[str, Said]:
        rank = Path(__file__).with_name("rank.py").read_text()
        answer = self.engine.run(
            self.image,
            ["/bin/sh", "-c", START + script, "sh", rank, *self.programs],
            user=USER,
            read_only=True,
            tmpfs=(HOME, "/tmp", "/var/tmp"),
            network="none",
            mounts=mounts,
            env={"HOME": HOME, **SETTINGS, **(env or {})},
            workdir=HOME,
        )
        return parts(answer.output)


_PART = re.compile(r"^@part ([^\n]+)\n(.*?)^@code (\d+)$", re.MULTILINE | re.DOTALL)


def parts(output: str) -> Mapping[str, Said]:
    """What a script printed, by part; one that did not come to its end is left out."""
    return {
        name: Said(code=int(code), output=text.strip("\n"))
        for name, text, code in _PART.findall(output.replace("\r\n", "\n"))
    }
