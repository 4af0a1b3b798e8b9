"""Where does a peer's program come from? From the machine, or out of Debian's package without installing it.

A mail server's package would start a server and write /etc, and two of them exclude each other; unpacked into target/interop
they do neither.
"""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "target" / "interop" / "debian"


class Missing(Exception):
    """A program that cannot be had: its row is skipped, with this reason."""


def installed(name: str) -> str:
    """The program of that name on this machine."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise Missing(f"{name} is not installed")
    return found


def unpacked(file: str, *packages: str) -> pathlib.Path:
    """`file` out of Debian's `packages`, fetched once."""
    wanted = UNPACKED / file
    marks = UNPACKED / "unpacked"
    lacking = [package for package in packages if not (marks / package).exists()]
    if lacking:
        if not shutil.which("apt-get"):
            raise Missing(f"no apt-get to fetch {packages[0]} with")
        marks.mkdir(parents=True, exist_ok=True)
        fetched = UNPACKED / "packages"
        fetched.mkdir(exist_ok=True)
        for package in lacking:
            download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
            run = subprocess.run(download, cwd=fetched, capture_output=True, text=True, check=False, timeout=120)
            files = sorted(fetched.glob(f"{package}_*.deb"))
            if run.returncode or not files:
                raise Missing(f"apt-get download {package}: {(run.stderr.strip() or 'nothing').splitlines()[-1]}")
            subprocess.run(["dpkg-deb", "-x", files[-1], UNPACKED], check=True)
            (marks / package).touch()
    if not wanted.exists():
        raise Missing(f"{packages[0]} holds no {file}")
    # An unpacked set-user-id program would ignore where its libraries lie; nothing here needs the bit.
    if wanted.is_file() and wanted.stat().st_mode & 0o6000:
        wanted.chmod(0o755)
    return wanted


def libraries() -> dict[str, str]:
    """The environment in which unpacked programs find the libraries unpacked with them."""
    found = {str(file.parent) for file in UNPACKED.rglob("*.so.*")}
    return dict(os.environ, LD_LIBRARY_PATH=":".join(sorted(found)))


def either(name: str, file: str, *packages: str) -> str:
    """The installed program, else the one in Debian's packages."""
    try:
        return installed(name)
    except Missing:
        return str(unpacked(file, *packages))


def root_needed(what: str) -> None:
    """`what` cannot run without root."""
    if os.geteuid() != 0:
        raise Missing(f"{what} needs root")


# Arguments: the folder, how many places, the places, the command.
NAMESPACE = """set -eu
mount --make-rprivate /
folder=$1 places=$2
shift 2
while [ "$places" -gt 0 ]; do
    mount --bind "$folder$1" "$(readlink -f "$1")"
    places=$((places - 1))
    shift
done
exec "$@"
"""


def namespace(folder: pathlib.Path, users: dict[str, int], places: tuple[str, ...] = ()) -> list[str]:
    """What to write before a command that must find these users, and folders of its own at `places`, on a machine without them.

    A mount namespace: nobody else on the machine sees it, and it ends with the command.
    """
    root_needed("a mount namespace")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise Missing("no mount namespaces here, and its users and paths are compiled in")
    for place in places:
        (folder / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    for name, form in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
        shutil.copy(f"/etc/{name}", folder / "etc" / name)
        with (folder / "etc" / name).open("a") as entries:
            entries.writelines(form.format(user, number) for user, number in users.items())
    all_places = (*places, "/etc/passwd", "/etc/group")
    return ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", str(folder), str(len(all_places)), *all_places]


def version(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The first line that names a version."""
    run = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, timeout=30, stdin=subprocess.DEVNULL, env=environment
    )
    lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if any(sign.isdigit() for sign in line)]
    return lines[0] if lines else "?"
