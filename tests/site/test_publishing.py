"""What a publisher relies on: one setting for the address, the release, sitemap, feed, containers, workflows."""

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import address  # noqa: E402  (tools/ is not a package)
import published  # noqa: E402
import release  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
HEADING = published.sections((ROOT / "CHANGELOG.md").read_text())[0][0]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ATOM = "{http://www.w3.org/2005/Atom}"


# --- the address ---

def test_every_address_in_the_tree_is_the_setting():
    assert not address.check(), "make address"


# not written out below: the test above would find these, too
HOSTS = {"HUB": "https://github.com", "COLAB": "colab.research.google.com", "BINDER": "mybinder.org"}


@pytest.mark.parametrize("text", [
    "git clone HUB/somebody/else && cd else", "see HUB/other/NAME/issues",
    "https://COLAB/github/other/NAME/blob/main/x.ipynb", "https://BINDER/v2/gh/other/NAME/main",
    "https://other.github.io/NAME/book/intro.html"])
def test_another_address_is_found(text):
    ours = address.setting()
    assert address.others(functools.reduce(lambda line, pair: line.replace(*pair), HOSTS.items(), text).replace(
        "NAME", ours.name), ours)


def test_our_own_and_strangers_addresses_are_no_finding():
    ours = address.setting()
    assert not address.others(f"{ours.repository} {ours.repository}.git {ours.pages}/book {ours.colab('x')} "
                              f"{ours.binder()} https://github.com/a/{ours.name}vae https://github.com/a/x", ours)


@pytest.fixture
def tree(tmp_path):
    """A copy of the files that repeat the address, with another setting."""
    for name in ("pyproject.toml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "_config.yml", "book/text/intro.md",
                 "book/intro.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    setting = tmp_path / "pyproject.toml"
    setting.write_text(re.sub(r'(?m)^repository = .*$', 'repository = "https://github.com/Lab-7/shared"',
                              setting.read_text()))
    return tmp_path


def test_one_line_and_one_command_change_all(tree):
    before = address.check(tree)
    assert any(line.startswith("README.md") for line in before) and any("CITATION" in line for line in before)
    address.write(tree)
    assert not address.check(tree)
    assert f"git clone {HOSTS['HUB']}/Lab-7/shared && cd shared" in (tree / "README.md").read_text()
    assert f"git clone {HOSTS['HUB']}/Lab-7/shared && cd shared" in (tree / "book" / "intro.ipynb").read_text()
    assert yaml.safe_load((tree / "CITATION.cff").read_text())["url"] == "https://lab-7.github.io/shared"
    old = address.setting(ROOT)
    left = [path.name for path in address.files(tree) if old.slug in path.read_text() or old.pages in path.read_text()]
    assert not left
    assert not address.write(tree), "a second time changes nothing"


def test_an_address_that_colab_does_not_know_is_one_line():
    with pytest.raises(SystemExit, match="<owner>/<name>"):
        address.make("https://gitlab.com/a/b")


def test_on_actions_the_pages_name_the_repository_that_is_built(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "A-fork/thing")
    assert address.address() == address.Address("https://github.com/A-fork/thing", "https://a-fork.github.io/thing")
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert address.address() == address.setting()


# --- rerun this page ---

def test_the_box_offers_the_profiles_that_there_are():
    assert "-f book/params/polymnist-laptop.yaml" in published.commands("polymnist", "seed: int = 0  # seed")
    few = published.commands("methods", 'profile: str = "laptop"')
    assert few.splitlines()[1:] == ["papermill book/methods.ipynb runs/methods.ipynb"]


def test_the_links_of_the_box_are_made_of_the_address():
    links = published.links("cub", address.make("https://github.com/a/b"))
    # the addresses in two parts, so that the test above does not take them for the project's
    assert links["Open in Colab"] == "https://colab.research.google.com/" + "github/a/b/blob/main/book/cub.ipynb"
    assert links["Open in Binder"] == "https://mybinder.org/" + "v2/gh/a/b/main?urlpath=lab/tree/book/cub.ipynb"


# --- sitemap, feed, picture ---

def test_the_sitemap_lists_the_pages():
    root = ElementTree.fromstring(published.sitemap(["https://a.b/1.html", "https://a.b/2.html"]))
    assert [loc.text for loc in root.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")] == [
        "https://a.b/1.html", "https://a.b/2.html"]


def test_the_feed_has_an_entry_a_section():
    changelog = "# Changes\n\n## 0.2.0 (unreleased)\n\n- new & `x`\n\n## 0.1.0 (2026-12-01)\n\n- first\n"
    feed = ElementTree.fromstring(published.feed(changelog, "https://a.b", datetime(2027, 1, 2, tzinfo=UTC)))
    entries = feed.findall(f"{ATOM}entry")
    assert [entry.find(f"{ATOM}updated").text for entry in entries] == ["2027-01-02T00:00:00Z", "2026-12-01T00:00:00Z"]
    assert feed.find(f"{ATOM}updated").text == "2027-01-02T00:00:00Z"
    assert "<li>new &amp; <code>x</code></li>" in entries[0].find(f"{ATOM}content").text
    assert len({entry.find(f"{ATOM}id").text for entry in entries}) == 2


def test_the_picture_of_a_link_has_the_size_that_is_shown_uncut(tmp_path):
    Image.new("RGB", (900, 300), "orange").save(tmp_path / "figure.png")
    published.card(tmp_path / "figure.png", tmp_path / "out" / "card.png")
    with Image.open(tmp_path / "out" / "card.png") as card:
        assert card.size == (1200, 630) and card.convert("RGB").getpixel((600, 400))[2] < 60
    assert (tmp_path / "out" / "card.png").stat().st_size < 100_000


# --- CITATION.cff and the release ---

def test_the_citation_is_of_this_version():
    assert {"cff-version", "title", "message", "abstract", "version", "authors", "repository-code", "url", "license",
            "keywords", "preferred-citation"} <= set(CITATION)
    versions = {CITATION["version"], *(entry["version"] for entry in CITATION["references"] if "version" in entry)}
    assert versions == {PROJECT["version"]} and HEADING.split()[0] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"] and set(CITATION["keywords"]) <= set(PROJECT["keywords"])
    for author in CITATION["preferred-citation"]["authors"]:
        assert set(author) >= {"family-names", "given-names"}


def test_a_version_has_one_date():
    """None while the changes say `unreleased`; else the same in CHANGELOG.md and CITATION.cff."""
    date = published.DATE.search(HEADING)
    assert ("unreleased" in HEADING) == (date is None)
    assert str(CITATION.get("date-released")) == (date[0] if date else "None")


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path):
    """A small project with a commit, and a book beside it."""
    root, html = tmp_path / "project", tmp_path / "html"
    (root / "package").mkdir(parents=True)
    (html / "book").mkdir(parents=True)
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, root / name)
    (root / "package" / "run").write_text("#!/bin/sh\n")
    (root / "package" / "run").chmod(0o755)
    (root / ".gitignore").write_text("secret\n")
    (html / "index.html").write_text("<p>front")
    (html / "book" / "a.html").write_text("<p>page")
    (html / ".buildinfo").write_text("of one machine")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "all")
    (root / "secret").write_text("stays here")
    return root, html


def test_a_release_is_the_commit_and_the_book_in_the_same_bytes_every_time(clone, tmp_path):
    root, html = clone
    name = f"mmvm-{PROJECT['version']}"
    first = release.assemble(root, html, tmp_path / "one", with_wheel=False)
    assert {path.name for path in first} == {f"{name}-source.tar.gz", f"{name}-book.tar.gz", ".zenodo.json",
                                             "SHA256SUMS"}
    (html / "index.html").touch()
    (html / "book" / "a.html").chmod(0o600)
    second = release.assemble(root, html, tmp_path / "two", with_wheel=False)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    for line in (tmp_path / "one" / "SHA256SUMS").read_text().splitlines():
        digest, file = line.split("  ")
        assert hashlib.sha256((tmp_path / "one" / file).read_bytes()).hexdigest() == digest
    with tarfile.open(first[1] if "book" in first[1].name else first[2]) as book:
        assert book.getnames() == [f"{name}-book/book/a.html", f"{name}-book/index.html"]
    with tarfile.open(tmp_path / "one" / f"{name}-source.tar.gz") as source:
        assert set(source.getnames()) == {f"{name}/{file}" for file in (
            ".gitignore", "CITATION.cff", "package/run", "pyproject.toml")}
        assert source.getmember(f"{name}/package/run").mode == 0o755
        assert {(member.uid, member.uname, member.mtime) for member in source} == {(0, "", release.commit_time(root))}


def test_a_tree_with_changes_is_refused_in_one_line(clone, tmp_path):
    root, html = clone
    (root / "new.txt").write_text("x")
    with pytest.raises(release.Refused, match=r"^not committed: new\.txt; [^\n]*commit or stash first$"):
        release.assemble(root, html, tmp_path / "dist", with_wheel=False)
    assert not (tmp_path / "dist").exists()


def test_two_versions_are_refused(clone, tmp_path):
    root, html = clone
    text = (root / "CITATION.cff").read_text()
    (root / "CITATION.cff").write_text(text.replace(f"version: {PROJECT['version']}", "version: 9.9.9"))
    git(root, "commit", "-q", "-a", "-m", "another version")
    with pytest.raises(release.Refused, match="9.9.9"):
        release.assemble(root, html, tmp_path / "dist", with_wheel=False)


def test_zenodo_gets_what_the_citation_says():
    record = json.loads(json.dumps(release.zenodo(CITATION, "2026-12-01")))
    assert record["title"] == CITATION["title"] and record["version"] == PROJECT["version"]
    assert (record["publication_date"], record["license"], record["upload_type"]) == ("2026-12-01", "mit", "software")
    assert record["creators"] == [{"name": CITATION["authors"][0]["name"]}]
    assert {"identifier": "arXiv:2403.05300", "relation": "isDerivedFrom",
            "resource_type": "publication-conferencepaper"} in record["related_identifiers"]
    person = {"family-names": "Noether", "given-names": "Emmy", "orcid": "https://orcid.org/0000-0000-0000-0001"}
    assert release.zenodo({**CITATION, "authors": [person]}, "")["creators"] == [
        {"name": "Noether, Emmy", "orcid": "0000-0000-0000-0001"}]
