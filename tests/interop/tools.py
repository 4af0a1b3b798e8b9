"""Where does a peer's program come from? From the machine, or out of Debian's package without installing it.

A mail server's package would start a server and write /etc, and two of them exclude each other; unpacked into target/interop
they do neither.
"""

import os
import pathlib
import re
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


def unpacked(file: str, *packages: str, suite: str = "") -> pathlib.Path:
    """`file` out of Debian's `packages`, fetched once; of the machine's own release, or of `suite`, beside the others."""
    into = UNPACKED.with_name(suite) if suite else UNPACKED
    marks, fetched = into / "unpacked", into / "packages"
    for package in packages:
        if (marks / package).exists():
            continue
        if not shutil.which("apt-get"):
            raise Missing(f"no apt-get to fetch {package} with")
        fetched.mkdir(parents=True, exist_ok=True)
        marks.mkdir(exist_ok=True)
        apt("download", "-q", package, into=into, suite=suite)
        subprocess.run(["dpkg-deb", "-x", next(fetched.glob(f"{package}_*.deb")), into], check=True)
        (marks / package).touch()
    wanted = into / file
    if not wanted.exists():
        raise Missing(f"{packages[0]} holds no {file}")
    # An unpacked set-user-id program would ignore where its libraries lie; nothing here needs the bit.
    if wanted.is_file() and wanted.stat().st_mode & 0o6000:
        wanted.chmod(0o755)
    return wanted


def apt(*arguments: str, into: pathlib.Path, suite: str) -> None:
    """apt-get with lists of its own where the suite is not the machine's."""
    options = ["-o", "APT::Sandbox::User=root"]
    if suite:
        state = into / "apt"
        if not (state / "lists").exists() and arguments[0] != "update":
            (state / "lists" / "partial").mkdir(parents=True)
            (state / "cache" / "archives" / "partial").mkdir(parents=True)
            (state / "status").touch()
            keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
            (state / "sources.list").write_text(f"deb [signed-by={keys}] http://deb.debian.org/debian {suite} main\n")
            apt("update", "-q", into=into, suite=suite)
        for key, value in (
            ("Etc::sourcelist", state / "sources.list"),
            ("Etc::sourceparts", "/nonexistent"),
            ("State", state),
            ("State::status", state / "status"),
            ("Cache", state / "cache"),
        ):
            options += ["-o", f"Dir::{key}={value}"]
    command = ["apt-get", *options, *arguments]
    run = subprocess.run(command, cwd=into / "packages", capture_output=True, text=True, check=False, timeout=120)
    if run.returncode:
        raise Missing(f"apt-get {' '.join(arguments)}: {(run.stderr.strip() or 'failed').splitlines()[-1]}")


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


def namespace_possible() -> None:
    """Mount namespaces need root and a kernel that grants them."""
    root_needed("a mount namespace")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise Missing("no mount namespaces here, and its users and paths are compiled in")


def namespace(folder: pathlib.Path, users: dict[str, int], places: tuple[str, ...] = ("/etc/passwd", "/etc/group")) -> list[str]:
    """What to write before a command that must find these users, and `places` of its own, on a machine without them.

    Nobody else on the machine sees it, and it ends with the command.
    """
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    for name, form in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
        shutil.copy(f"/etc/{name}", folder / "etc" / name)
        with (folder / "etc" / name).open("a") as entries:
            entries.writelines(form.format(user, number) for user, number in users.items())
    for place in places:
        if not (folder / place.lstrip("/")).exists():
            (folder / place.lstrip("/")).mkdir(parents=True)
    return ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", str(folder), str(len(places)), *places]


def version(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The first line that names a version."""
    run = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, timeout=30, stdin=subprocess.DEVNULL, env=environment
    )
    lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if re.search(r"\d\.\d", line)]
    return lines[0] if lines else "?"
