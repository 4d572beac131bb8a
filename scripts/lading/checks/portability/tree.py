"""F*: what becomes of an image's files under Apptainer.

There the root file system is read-only and mounted without setuid, nobody is root, and /tmp,
/var/tmp, /dev/shm, the user's home, /etc/resolv.conf and /etc/hosts are the host's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from lading.checks.portability.findings import Found
from lading.checks.portability.subject import Subject
from lading.checks.portability.view import Node, View

_PAYLOAD = ("/opt/", "/usr/", "/app/")
_HIDDEN = ("/tmp", "/var/tmp", "/dev/shm")
# Closed in every distribution, and needed by root only.
_CLOSED = (
    "/root",
    "/lost+found",
    "/run/*",
    "/etc/shadow*",
    "/etc/gshadow*",
    "/etc/.pwd.lock",
    "/etc/sudoers*",
    "/etc/security/opasswd",
    "/etc/ssh/*",
    "/etc/ssl/private*",
    "/etc/pki/*/private*",
    "/etc/pki/*private*",
    "/etc/polkit-1/*",
    "/etc/audit*",
    "/etc/cron*",
    "/etc/default/useradd",
    "/etc/at.deny",
    "/etc/crypttab",
    "/etc/krb5.keytab",
    "/var/cache/apt/*",
    "/var/cache/debconf/*",
    "/var/cache/ldconfig*",
    "/var/cache/private*",
    "/var/lib/apt/*",
    "/var/lib/dpkg/*",
    "/var/lib/dnf/*",
    "/var/lib/rpm/*",
    "/var/lib/private*",
    "/var/lib/systemd/*",
    "/var/lib/polkit-1*",
    "/var/log/*",
    "/var/log",
    "/var/spool/*",
    "/var/empty*",
    "/usr/bin/su",
    "/usr/bin/sudo*",
    "/usr/bin/at",
    "/usr/bin/crontab",
    "/usr/bin/staprun",
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/lib/polkit-1/*",
    "/usr/libexec/dbus-1/dbus-daemon-launch-helper",
    "/usr/libexec/openssh/ssh-keysign",
    "/usr/libexec/sudo*",
    "/usr/libexec/initscripts*",
    "/usr/libexec/utempter*",
    "/usr/sbin/unix_update",
    "/usr/sbin/usermode*",
    "/usr/share/polkit-1/rules.d*",
)
_CLOSED_RE = re.compile(
    "|".join(f"(?:{re.escape(p).replace(chr(92) + '*', '.*')})" for p in _CLOSED), re.DOTALL
)
# Ships with file capabilities in Debian, Ubuntu, Fedora or Enterprise Linux.
_CAPABLE = {
    "arping",
    "clockdiff",
    "dumpcap",
    "fping",
    "gst-ptp-helper",
    "httpd",
    "mtr-packet",
    "newgidmap",
    "newuidmap",
    "ping",
    "ping6",
    "rcp",
    "rlogin",
    "rsh",
    "snap-confine",
    "suexec",
    "systemd-detect-virt",
    "tcpdump",
}
_MADE = ("/dev", "/etc", "/home", "/proc", "/root", "/sys", "/tmp", "/var", "/var/tmp")
# What lies in root's home without anybody having put it there.
_DOT_FOLDERS = (".cache", ".config", ".gnupg", ".ssh", ".conda", ".npm", ".pki", ".dbus")


def check(subject: Subject) -> Iterator[Found]:
    """All findings about files but those about libraries and bytecode."""
    yield from _closed(subject)
    yield from _root(subject)
    yield from _hidden(subject)
    yield from _host_files(subject.view)
    yield from _special(subject.files)
    yield from _surroundings(subject)


def _closed(subject: Subject) -> Iterator[Found]:
    """F1. Of a folder that nobody may enter, only the folder is named."""
    programs = set()
    for entry in subject.command("Entrypoint")[:1] + subject.command("Cmd")[:1]:
        program = subject.which(entry)
        if program is not None:
            programs.add(program.path)
    for path, node in subject.view.walk(enter=lambda folder: bool(folder.node.mode & 0o001)):
        called = path in programs or posixpath.dirname(path) in subject.searched
        effect = _denied(node, called)
        if effect and not _CLOSED_RE.fullmatch(path):
            payload = f"{path}/".startswith(_PAYLOAD)
            yield Found(
                "F1",
                "error" if payload else "warn",
                path,
                effect,
                "chmod a+rX it; COPY --chmod, or umask 022 in the step that makes it",
            )


def _denied(node: Node, program: bool) -> str:
    """What other users than the owner can't do with it."""
    if node.kind == "folder":
        if not node.mode & 0o001:
            return "others than its owner can't enter this folder, and nobody is root"
        # Python's importer lists folders; in one that it can't list it finds no module.
        return "" if node.mode & 0o004 else "others than its owner can't list this folder"
    if node.kind != "file":
        return ""
    if not node.mode & 0o004:
        return "others than its owner can't read this file, and nobody is root"
    if program and node.mode & 0o100 and not node.mode & 0o001:
        return "others than its owner can't run this program"
    return ""


def _root(subject: Subject) -> Iterator[Found]:
    """F2: files under /root, and scripts whose interpreter is there."""
    for path, node in subject.view.walk("/root"):
        parts = path.split("/")[2:]
        if node.kind == "folder" or not parts or parts[0] in _DOT_FOLDERS:
            continue
        if len(parts) == 1 and parts[0].startswith("."):
            continue
        yield Found(
            "F2",
            "error",
            path,
            "it is under /root, which no user may enter",
            "install it under /opt",
        )
    for path, node in subject.files:
        if node.content.startswith(b"#!") and node.mode & 0o111 and b"/root/" in node.content:
            words = node.content[2:].split()
            if any(word.startswith(b"/root/") for word in words[:2]):
                yield Found(
                    "F2",
                    "error",
                    path,
                    "its interpreter is under /root, which no user may enter",
                    "install the interpreter under /opt",
                )


def _hidden(subject: Subject) -> Iterator[Found]:
    """F3: what the host's folders hide."""
    for top in (*_HIDDEN, "/home"):
        found = subject.view.find(top, follow=False)
        if found is None or found.node.kind != "folder":
            continue
        for path, node in subject.view.walk(top):
            if node.kind == "folder":
                continue
            home = top == "/home"
            skeleton = home and posixpath.basename(path) in (".bashrc", ".profile", ".bash_logout")
            if skeleton:
                continue
            yield Found(
                "F3",
                "warn" if home else "error",
                path,
                f"the host's {top} hides it" + (" where a site mounts it" if home else ""),
                "install it under /opt" if home else "remove it, or install it under /opt",
            )


def _host_files(view: View) -> Iterator[Found]:
    """F4: Apptainer mounts the host's file on each of these, and follows what is there."""
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        found = view.find(path, follow=False)
        if found is None or found.node.kind != "symlink":
            continue
        target = found.node.target
        dangling = view.find(path) is None
        if target.startswith("/") or dangling:
            yield Found(
                "F4",
                "error",
                path,
                f"a link to {target}"
                + (", which is not in the image: building the SIF dies" if dangling else "")
                + ("" if dangling else ": it is followed onto the host"),
                "make it an empty file, or leave it out",
            )


def _special(files: Sequence[tuple[str, Node]]) -> Iterator[Found]:
    """F5, F6: rights and devices that a SIF does not give."""
    for path, node in files:
        if node.kind == "file" and node.mode & 0o6000:
            yield Found(
                "F5",
                "info",
                path,
                "setuid or setgid does nothing: the image is mounted without",
                "nothing, if nobody needs it",
            )
        if node.capable and posixpath.basename(path) not in _CAPABLE:
            yield Found(
                "F5",
                "warn",
                path,
                "its file capabilities are lost: what needs them fails",
                "do without them",
            )
        if node.kind in ("char", "block"):
            yield Found(
                "F6",
                "info",
                path,
                "a device node, which a SIF has no use for: /dev is the host's",
                "leave it out",
            )


def _surroundings(subject: Subject) -> Iterator[Found]:
    """F7, F9, F12, F15: what Apptainer needs to find in an image."""
    view = subject.view
    shell = view.file("/bin/sh")
    if shell is None or not shell.node.mode & 0o001:
        yield Found(
            "F7",
            "warn",
            "/bin/sh",
            "there is no shell to be run: apptainer shell fails, and so do ENTRYPOINT and CMD",
            "install one",
        )
    for path in ("/etc/passwd", "/etc/group"):
        # apptainer/apptainer#3394: 'passwd file doesn't exist in container, not updating'.
        found = view.find(path, follow=False)
        if found is None or found.node.kind != "file":
            yield Found(
                "F9",
                "warn",
                path,
                "not a file: Apptainer can't add the user to it, who then has no name "
                "(getpwuid, ssh and expanduser fail)",
                f"make it a file; an empty {path} does",
            )
    yield from _made_by_apptainer(view)
    for path, node in subject.files:
        if node.kind == "folder" and node.mode & 0o700 != 0o700 and path != "/":
            # apptainer build --help, '--fix-perms: ensure owner has rwX permissions'.
            yield Found(
                "F15",
                "info",
                path,
                "its owner can't write in it: a sandbox made of the image can't be removed by rm",
                "chmod u+rwx, or apptainer build --fix-perms",
            )


def _made_by_apptainer(view: View) -> Iterator[Found]:
    """F12: the folders that Apptainer makes when it builds, following links there on the host.

    Seen with 1.4.5: 'failed to make environment dirs: mkdir …/rootfs/home: file exists'. Where it
    builds, sylabs/singularity#1331: 'destination doesn't exist in container'.
    """
    for path in _MADE:
        found = view.find(path, follow=False)
        if found is None or found.node.kind == "folder":
            continue
        target = found.node.target
        if found.node.kind != "symlink":
            dies = "a file where Apptainer makes a folder"
        elif target.startswith("/") and posixpath.normpath(target) not in _MADE:
            dies = f"a link to {target}, which Apptainer looks for on the host"
        elif not target.startswith("/") and view.find(path) is None:
            dies = f"a link to {target}, which is not in the image"
        else:
            dies = ""
        yield Found(
            "F12",
            "error" if dies else "warn",
            path,
            f"{dies}: building the SIF dies"
            if dies
            else "a link, where hosts mount a folder: mounting below it fails on some",
            "make it a folder",
        )
