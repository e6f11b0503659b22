"""The repository's public address, from one line of pyproject.toml, and what is made of it.

    [tool.mmvm]
    repository = "https://github.com/<owner>/<name>"
    pages = "https://..."          # only where the book is not at https://<owner>.github.io/<name>

The build reads it: buttons, Colab, Binder, canonical links, sources in the API reference, Open Graph, sitemap, feed.
Some files can only repeat it (README.md, CITATION.cff, the page that says how to clone, [project.urls]):

    python tools/address.py           writes it into them, in place of the one that CITATION.cff names
    python tools/address.py --check   lists what differs; status 1 if something does

On GitHub Actions the build takes the address of the repository it runs in, so a fork's pages never name another one.

As long as nobody has published the project the owner is `your--name`. GitHub gives no account two hyphens in a row, so
the address is nobody's and never will be: no reader is sent to a stranger. Until it is replaced, README.md keeps its
badges in a comment, and the pages have no buttons that lead there.
"""

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
FORM = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/([\w.-]+)")
TEXTS = {".md", ".ipynb", ".toml", ".yml", ".yaml", ".cff", ".py", ".rst", ".css", ".js", ".json", ".svg", ".bib",
         ".sh", ""}
BADGES = (("<!-- badges\n", "<!-- badges -->\n"), ("\nbadges -->", "\n<!-- /badges -->"))  # unseen, and seen
SKIPPED = {".git", "_build", "build", "dist", "runs", "node_modules", "__pycache__", "results"}


@dataclass(frozen=True)
class Address:
    repository: str
    pages: str

    def __post_init__(self) -> None:
        if not FORM.fullmatch(self.repository):
            raise SystemExit(f"error: pyproject.toml, [tool.mmvm]: repository is {self.repository!r}; Colab and "
                             "Binder know https://github.com/<owner>/<name>")
        if not self.pages.startswith("https://"):
            raise SystemExit(f"error: pyproject.toml, [tool.mmvm]: pages is {self.pages!r}; it begins with https://")

    @property
    def somebodys(self) -> bool:
        """GitHub's accounts have single hyphens within their names, nowhere else."""
        owner = self.slug.partition("/")[0]
        return "--" not in owner and owner.strip("-") == owner

    @property
    def slug(self) -> str:
        return self.repository.removeprefix("https://github.com/")

    @property
    def name(self) -> str:
        return self.slug.partition("/")[2]

    def source(self, path: str) -> str:
        return f"{self.repository}/blob/{BRANCH}/{path}"

    def colab(self, path: str) -> str:
        return f"https://colab.research.google.com/github/{self.slug}/blob/{BRANCH}/{path}"

    def binder(self, path: str = "") -> str:
        return f"https://mybinder.org/v2/gh/{self.slug}/{BRANCH}" + (f"?urlpath=lab/tree/{path}" if path else "")


def make(repository: str, pages: str = "") -> Address:
    """The address; without `pages` the book's is what GitHub gives the repository."""
    repository = repository.removesuffix("/").removesuffix(".git")
    found = FORM.fullmatch(repository)
    usual = f"https://{found[1].lower()}.github.io/{found[2]}" if found else "https://"
    return Address(repository, (pages or usual).removesuffix("/"))


def setting(root: Path = ROOT) -> Address:
    """What pyproject.toml says."""
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"].get("mmvm", {})
    return make(tool.get("repository", ""), tool.get("pages", ""))


def address(root: Path = ROOT) -> Address:
    """What the build uses: the setting, or on GitHub Actions the repository that is built."""
    stated, slug = setting(root), os.environ.get("GITHUB_REPOSITORY", "")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not slug or slug.lower() == stated.slug.lower():
        return stated
    return make(f"https://github.com/{slug}")


def files(root: Path = ROOT) -> Iterator[Path]:
    """The texts in which an address may stand."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.endswith(".egg-info") and (
            not name.startswith(".") or name in (".github", ".devcontainer", ".ci"))
            and not Path(folder, name, "pyvenv.cfg").exists())
        yield from (Path(folder) / name for name in sorted(names) if Path(name).suffix in TEXTS)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def others(text: str, ours: Address) -> list[str]:
    """The addresses in a text that mean this project and are not ours: of a repository of our name on GitHub, its
    pages, a place that git, Colab or Binder take a repository from."""
    patterns = {rf"https?://github\.com/([\w.-]+/{re.escape(ours.name)})(?![\w-])(?!\.[a-z])": ours.slug,
                r"git clone https?://github\.com/([\w.-]+/[\w-]+)": ours.slug,
                r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)": ours.slug,
                r"mybinder\.org/(?:v2/gh|badge\w*/gh)/([\w.-]+/[\w.-]+)": ours.slug,
                rf"(https?://[\w-]+\.github\.io/{re.escape(ours.name)})(?![\w-])": ours.pages}
    return [found[0] for pattern, right in patterns.items() for found in re.finditer(pattern, text)
            if found[1] != right]


def named(root: Path = ROOT) -> Address:
    """What CITATION.cff names: the address that was written last."""
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    repository, pages = (re.search(rf"(?m)^{key}: *[\"']?([^\"'\s]+)", text) for key in ("repository-code", "url"))
    if not repository or not pages:
        raise SystemExit("error: CITATION.cff has no lines `repository-code:` and `url:`, which repeat the address")
    return make(repository[1], pages[1])


def check(root: Path = ROOT) -> list[str]:
    """What in the tree is not the setting's address, one line each."""
    ours = setting(root)
    found = [f"CITATION.cff: {said} is not {right}" for said, right in (
        (named(root).repository, ours.repository), (named(root).pages, ours.pages)) if said != right]
    urls = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    found += [f"pyproject.toml, [project.urls]: {key} is not {right}" for key, right in (
        ("Repository", ours.repository), ("Book", ours.pages)) if urls.get(key) != right]
    return found + [f"{path.relative_to(root)}: {other} is not of {ours.repository}"
                    for path in files(root) for other in others(read(path), ours)]


def write(root: Path = ROOT) -> list[Path]:
    """The setting's address in place of the one that CITATION.cff names; the files that changed."""
    old, new = named(root), setting(root)
    pairs = [(re.escape(old.pages) + r"(?![\w-])", new.pages),
             (re.escape(old.repository) + r"(?![\w-])", new.repository),
             (rf"(?<=research\.google\.com/github/){re.escape(old.slug)}(?![\w-])", new.slug),
             (rf"(?<=mybinder\.org/v2/gh/){re.escape(old.slug)}(?![\w-])", new.slug),
             (rf"(?<={re.escape(new.repository)} && cd ){re.escape(old.name)}(?![\w-])", new.name)]
    changed = []
    for path in files(root):
        text = after = read(path)
        for pattern, right in pairs:
            after = re.sub(pattern, right, after)
        if path == root / "README.md":
            for unseen, seen in BADGES:
                after = after.replace(unseen, seen) if new.somebodys else after.replace(seen, unseen)
        if after != text:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description="Write [tool.mmvm] repository wherever it is repeated.")
    parser.add_argument("--check", action="store_true", help="only list what differs")
    if not parser.parse_args().check:
        for path in write():
            print(f"{path.relative_to(ROOT)}: {setting().repository}")
    problems = check()
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
