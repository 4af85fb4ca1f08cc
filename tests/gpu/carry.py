"""Downloads what a GPU machine without a network lacks, as wheels: `carry.py --probe probe.json --into DIR`.

The folder is what `run.py --wheels` reads. Its size is checked. Without `--probe` everything small is downloaded that
could be missing; `run.py` leaves alone what the machine has.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ground import NEEDED, WHEELS

LIMIT_MB = 60.0
"""Somewhat less than the 64 MB that may travel: the checkout goes along."""

NOT_CARRIED = {
    "torch": "hundreds of megabytes, and its driver's match",
    "transformers": "its tokenizers and torch have to fit it",
    "torchvision": "has to be the one built for the machine's torch",
    "flash-attn": "no small wheel for every torch: packing then runs with torch's own attention",
    "ms-swift": "its own needs are hundreds of packages: what needs it is a section of its own",
}

# typer as coordcore's own pyproject.toml has it.
REQUIREMENTS = {"typer": "typer<0.29"}
PEERS = ("liger-kernel", "cut-cross-entropy")
# What a carried package needs itself, beyond what is named here or never carried.
BEHIND = {
    "typer": ("click", "shellingham", "typing-extensions"),
    "rich": ("markdown-it-py", "mdurl", "pygments"),
    "cattrs": ("typing-extensions",),
    "jinja2": ("markupsafe",),
    "peft": ("accelerate", "psutil", "tqdm", "pyyaml"),
}
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17, 12)]


def wanted(found: dict[str, Any] | None) -> list[str]:
    """The distributions to download, given what `run.py --probe` found."""
    names = [name for name in (*NEEDED, "jinja2", "filelock", "pillow", "peft", *PEERS) if name not in NOT_CARRIED]
    if found is not None:
        names = [name for name in names if found["packages"].get(name) is None]
    behind = [item for name in names for item in BEHIND.get(name, ())]
    return list(dict.fromkeys([*names, *behind]))


def command(names: list[str], python: str, into: Path, pip: list[str]) -> list[str]:
    """`pip download` of wheels for that Python on Linux, without what they depend on."""
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    return [*pip, "download", *options, "-d", str(into), *(REQUIREMENTS.get(name, name) for name in names)]


def megabytes(folder: Path) -> float:
    """Of its wheels."""
    return sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, metavar="FILE", help="what `run.py --probe FILE` wrote on that machine")
    parser.add_argument("--python", default="3.12", help="its Python, without --probe")
    parser.add_argument("--into", type=Path, default=WHEELS, metavar="DIR", help="where the wheels go")
    parser.add_argument("--limit", type=float, default=LIMIT_MB, metavar="MB", help="what they may take together")
    options = parser.parse_args()
    found = json.loads(options.probe.read_text(encoding="utf-8")) if options.probe else None
    names = wanted(found)
    if not names:
        print("nothing that can be carried is missing there")
        return 0
    python = ".".join(found["python"].split(".")[:2]) if found else options.python
    options.into.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command(names, python, options.into, [sys.executable, "-m", "pip"]), check=False)
    if done.returncode:
        return done.returncode
    size = megabytes(options.into)
    print(f"{options.into}: {len(list(options.into.glob('*.whl')))} wheels, {size:.1f} MB; not carried:")
    print("\n".join(f"  {name}: {why}" for name, why in NOT_CARRIED.items()))
    if size > options.limit:
        print(f"that is more than {options.limit:g} MB; remove wheels until it fits", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
