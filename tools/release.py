"""Write dist/: what a version is published as, ready for Zenodo, the same bytes for the same commit (`make release`).

    mmvm-<version>-source.tar.gz   the tracked files of HEAD
    mmvm-<version>-book.tar.gz     the pages of _build/html, rendered from the committed outputs
    mmvm-<version>-py3-none-any.whl
    .zenodo.json                   the record's metadata, from CITATION.cff
    SHA256SUMS                     sha256sum --check SHA256SUMS

A tree with changes that are not committed is refused: nobody could make its archive again.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LICENCES = {"MIT": "mit"}  # Zenodo's names
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11 has it from 3.11.4 on


class Refused(Exception):
    """One line that says why there is no release."""


def git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True)
    if done.returncode:
        raise Refused(f"git {words[0]}: {done.stderr.decode().strip().splitlines()[-1] if done.stderr else 'failed'}: "
                      "a release is made in a clone")
    return done.stdout


def require_clean(root: Path) -> None:
    changed = git(root, "status", "--porcelain").decode().splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(f"not committed: {changed[0][3:]}{more}; a release is of a commit: commit or stash first")


def commit_time(root: Path) -> int:
    return int(git(root, "log", "-1", "--format=%ct"))


def pack(files: dict[str, bytes | Path], path: Path, seconds: int) -> None:
    """A tar.gz of names and contents, sorted, all of one time, of nobody."""
    def plain(name: str, size: int, executable: bool) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, seconds, 0o755 if executable else 0o644
        return info

    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=seconds) as packed, tarfile.open(
            fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            content = files[name]
            data = content if isinstance(content, bytes) else content.read_bytes()
            executable = isinstance(content, Path) and os.access(content, os.X_OK)
            tar.addfile(plain(name, len(data), executable), BytesIO(data))


def export(root: Path, folder: Path) -> None:
    """The tracked files of HEAD, as they were committed."""
    with tarfile.open(fileobj=BytesIO(git(root, "archive", "HEAD"))) as tar:
        tar.extractall(folder, **SAFELY)


def inside(folder: Path, prefix: str, unwanted: tuple[str, ...] = ()) -> dict[str, bytes | Path]:
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).as_posix() not in unwanted}


def zenodo(citation: dict, date: str) -> dict:
    """CITATION.cff in the words of Zenodo's deposit metadata."""
    def person(author: dict) -> dict:
        return {"name": author.get("name") or f"{author['family-names']}, {author['given-names']}",
                **({"orcid": author["orcid"].rsplit("/", 1)[-1]} if "orcid" in author else {})}

    paper = citation["preferred-citation"]
    arxiv = [known["value"] for known in paper.get("identifiers", []) if known["value"].startswith("arXiv:")]
    related = [{"identifier": citation["repository-code"], "relation": "isSupplementTo", "resource_type": "software"},
               {"identifier": citation["url"], "relation": "isDocumentedBy"},
               *({"identifier": value, "relation": "isDerivedFrom", "resource_type": "publication-conferencepaper"}
                 for value in arxiv)]
    return {"title": citation["title"], "upload_type": "software", "version": str(citation["version"]),
            "publication_date": date, "creators": [person(author) for author in citation["authors"]],
            "description": f"{citation['abstract'].strip()} {citation['message']}", "access_right": "open",
            "license": LICENCES[citation["license"]], "keywords": citation["keywords"], "related_identifiers": related}


def sums(folder: Path) -> str:
    """As sha256sum writes and checks it."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
                   for path in sorted(folder.iterdir()) if path.is_file() and path.name != "SHA256SUMS")


def wheel(source: Path, target: Path, seconds: int) -> None:
    """Of the committed files alone, with what is installed: nothing is downloaded."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(seconds)}
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                           "--no-build-isolation", "--no-index", "--wheel-dir", str(target), str(source)],
                          capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Refused(f"the wheel was not built: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def assemble(root: Path, html: Path, dist: Path, with_wheel: bool = True) -> list[Path]:
    """All files of the release of HEAD, in place of what is in `dist`."""
    require_clean(root)
    if not (html / "index.html").is_file():
        raise Refused(f"there is no book in {html}: make html")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    if str(citation["version"]) != project["version"]:
        raise Refused(f"CITATION.cff has version {citation['version']}, pyproject.toml {project['version']}: "
                      "make them equal")
    name, seconds = f"{project['name']}-{project['version']}", commit_time(root)
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        export(root, source := Path(folder) / name)
        pack(inside(source, name), dist / f"{name}-source.tar.gz", seconds)
        if with_wheel:
            wheel(source, dist, seconds)
    # what only tells Sphinx what it may keep next time
    pack(inside(html, f"{name}-book", (".buildinfo",)), dist / f"{name}-book.tar.gz", seconds)
    date = str(citation.get("date-released") or datetime.fromtimestamp(seconds, UTC).date())
    record = json.dumps(zenodo(citation, date), indent=2, ensure_ascii=False)
    (dist / ".zenodo.json").write_text(record + "\n", encoding="utf-8")
    (dist / "SHA256SUMS").write_text(sums(dist), encoding="utf-8")
    return sorted(dist.iterdir())


def main() -> int:
    html = ROOT / "_build" / "html"
    try:
        require_clean(ROOT)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit_time(ROOT))}
        if subprocess.run([sys.executable, str(ROOT / "tools" / "book.py")], env=environment).returncode:
            return 1
        for path in assemble(ROOT, html, ROOT / "dist"):
            print(f"dist/{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
