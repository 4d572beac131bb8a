"""Where channels are: conda's own configuration, in conda's own order."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.conda import condarc, worker
from lading.conda.channels import Channels
from lading.errors import EnvironmentProblem


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any configuration of conda's."""
    monkeypatch.setattr(condarc, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(worker, "default_alias", lambda: "https://default.example")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def urls(home: Path, *names: str, **environ: str) -> list[tuple[str, str]]:
    found = Channels(environ={"HOME": str(home), **environ}).all(names)
    return [(channel.name, channel.url) for channel in found]


def test_without_any_the_librarys_default_counts(home: Path) -> None:
    assert urls(home, "lab", "pkgs/main") == [
        ("lab", "https://default.example/lab"),
        ("pkgs/main", "https://default.example/pkgs/main"),
    ]


def test_the_alias(home: Path) -> None:
    write(home / ".condarc", "channel_alias: https://mirror.example/conda/\n")
    assert urls(home, "lab") == [("lab", "https://mirror.example/conda/lab")]
    assert urls(home, "lab", CONDA_CHANNEL_ALIAS="https://other.example") == [
        ("lab", "https://other.example/lab")
    ]


def test_later_files_go_before_earlier_ones(home: Path, tmp_path: Path) -> None:
    places = [
        tmp_path / "system/etc/conda/condarc",
        tmp_path / "system/etc/conda/condarc.d/a.yml",
        tmp_path / "system/var/lib/conda/.condarc",
        tmp_path / "root/.condarc",
        home / ".config/conda/condarc",
        home / ".conda/.condarc",
        home / ".condarc",
        tmp_path / "prefix/.condarc",
        tmp_path / "mine",
    ]
    environ = {
        "CONDA_EXE": str(tmp_path / "root/bin/conda"),
        "CONDA_PREFIX": str(tmp_path / "prefix"),
        "CONDARC": str(tmp_path / "mine"),
    }
    for number, place in enumerate(places):
        write(
            place, f"channel_alias: https://{number}.example\ncustom_channels: {{c{number}: x}}\n"
        )
        assert urls(home, "lab", **environ) == [("lab", f"https://{number}.example/lab")]
    settings = condarc.settings({"HOME": str(home), **environ})
    assert set(settings.custom) == {f"c{number}" for number in range(len(places))}


def test_custom_channels_and_names_for_several(home: Path) -> None:
    write(
        home / ".condarc",
        """
custom_channels: {lab: https://lab.example/conda, pkgs: https://pkgs.example}
custom_multichannels: {ours: [lab, pkgs/extra, "https://far.example/x/deep"]}
default_channels: ["https://pkgs.example/pkgs/main", pkgs/r]
""",
    )
    assert urls(home, "lab", "lab/dev") == [
        ("lab", "https://lab.example/conda/lab"),
        ("lab/dev", "https://lab.example/conda/lab/dev"),
    ]
    assert urls(home, "ours", "lab") == [
        ("lab", "https://lab.example/conda/lab"),
        ("pkgs/extra", "https://pkgs.example/pkgs/extra"),
        ("deep", "https://far.example/x/deep"),
    ]
    assert urls(home, "defaults") == [
        ("main", "https://pkgs.example/pkgs/main"),
        ("pkgs/r", "https://pkgs.example/pkgs/r"),
    ]


def test_defaults_without_configuration_are_nobodys(home: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="stands for several"):
        urls(home, "defaults")


def test_tokens_of_anaconda_client(home: Path) -> None:
    folder = home / ".config/binstar"
    write(folder / "https%3A%2F%2Fapi.lab.example.token", "tk-1234\n")
    write(folder / "https%3A%2F%2Fmirror.example%2Fconda.token", "tk-5")
    alias = {"CONDA_CHANNEL_ALIAS": "https://conda.lab.example"}
    assert urls(home, "a", **alias) == [("a", "https://conda.lab.example/t/tk-1234/a")]
    alias = {"CONDA_CHANNEL_ALIAS": "https://mirror.example/conda"}
    assert urls(home, "a", **alias) == [("a", "https://mirror.example/conda/t/tk-5/a")]
    # Another path on the same host is somebody else's.
    alias = {"CONDA_CHANNEL_ALIAS": "https://mirror.example/condatoo"}
    assert urls(home, "a", **alias) == [("a", "https://mirror.example/condatoo/a")]
    channel = Channels(environ={"HOME": str(home), **alias}).one("a")
    assert "tk-5" not in repr(channel)


def test_variables_in_values(home: Path) -> None:
    write(home / ".condarc", "channel_alias: https://$WHO:${PASS}@x.example\n")
    assert urls(home, "a", WHO="me", PASS="it") == [("a", "https://me:it@x.example/a")]


def test_proxies_and_certificates(home: Path) -> None:
    write(home / ".condarc", "proxy_servers: {http: http://p:1, https: ''}\nssl_verify: ~/ca.pem\n")
    found = condarc.settings({"HOME": str(home)})
    assert found.proxies == {"http": "http://p:1"}
    assert found.certificates.endswith("/ca.pem")


@pytest.mark.parametrize("text", ["a: [", "\0", "channel_alias: [a]\n- b"])
def test_a_damaged_file_is_named(home: Path, text: str) -> None:
    write(home / ".condarc", text)
    with pytest.raises(EnvironmentProblem, match=r"\.condarc:1|\.condarc:2"):
        urls(home, "a")


@pytest.mark.parametrize("text", ["", "[]", "a", "channel_alias: {}\ncustom_channels: 3\n"])
def test_other_forms_mean_nothing(home: Path, text: str) -> None:
    write(home / ".condarc", text)
    assert urls(home, "a") == [("a", "https://default.example/a")]
