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
import pdf  # noqa: E402
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
    assert "<!-- badges -->\n[![checks]" in (tree / "README.md").read_text(), "seen as soon as they lead somewhere"
    left = [path.name for path in address.files(tree) if old.slug in path.read_text() or old.pages in path.read_text()]
    assert not left
    assert not address.write(tree), "a second time changes nothing"


def test_badges_and_buttons_wait_for_an_address_that_somebody_can_own(tree):
    committed = (ROOT / "README.md").read_text()
    assert address.setting().somebodys == ("<!-- badges -->" in committed)
    address.write(tree)
    setting = tree / "pyproject.toml"
    setting.write_text(setting.read_text().replace("Lab-7/shared", "nobody--here/shared"))
    address.write(tree)
    assert "<!-- badges\n[![checks]" in (tree / "README.md").read_text() and not address.check(tree)
    nobodys = address.setting(tree)
    assert not nobodys.somebodys and set(published.links("cub", nobodys)) == {"Notebook", "Script"}
    said = "".join(node.astext() for node in published.box("cub", "", nobodys))
    assert nobodys.slug not in said and "Colab" not in said


@pytest.mark.parametrize("owner, can", [("a", True), ("a-b-9", True), ("a--b", False), ("-a", False), ("a-", False)])
def test_an_owner_is_one_that_github_allows(owner, can):
    assert address.make(f"{HOSTS['HUB']}/{owner}/x").somebodys == can


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


def test_the_box_says_how_long_it_takes():
    assert published.times("status").startswith("The live part takes seconds, under 1 GB. Times of the committed runs")
    assert published.times("scoreboard").startswith("Times of the committed runs")


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


def test_the_front_page_says_what_is_behind_it(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.html").write_text(
        '<head><meta property="og:image" content="https://a.b/c.png" /><meta name="viewport" content="x" />\n'
        '<link rel="canonical" href="https://a.b/book/intro.html" /></head>')
    published.front(tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert 'url=book/intro.html' in text[:200] and "og:image" in text and "canonical" in text and "viewport" not in text


# --- the PDF ---

def test_the_pdf_has_the_pages_of_the_book_in_its_order():
    assert pdf.pages()[:2] == ["book/intro.html", "book/method.html"] and "book/api.html" in pdf.pages()


def test_pages_become_one_document_whose_places_do_not_clash():
    page = ('<html><head><link rel="stylesheet" href="../_static/a.css"><script src="../_static/b.js"></script></head>'
            '<body><nav>menu</nav><article class="bd-article"><section id="x">'
            '<h1>T<a class="headerlink" href="#x">#</a></h1><details class="rerun">again</details>'
            '<details class="hide above-output"><summary>s</summary>kept</details>'
            '<details class="admonition hide above-input"><pre>long code</pre></details><img src="../_images/i.png">'
            '<a href="#x">here</a> <a href="b.html#x">there</a> <a href="b.html">its top</a> '
            '<a href="../_downloads/d.md">file</a> <a href="https://a.b/#x">outside</a></section></article></body></html>')
    text = pdf.join({"book/a.html": page, "book/b.html": page})
    for gone in ("menu", "again", "long code", "headerlink", "b.js"):
        assert gone not in text
    for kept in ('href="../html/_static/a.css"', 'id="a--x"', 'id="b--x"', 'src="../html/_images/i.png"', "kept"):
        assert kept in text
    links = re.findall(r'<a href="([^"]*)"', text)
    file = f"{address.address().pages}/_downloads/d.md"
    assert links == ["#a--x", "#b--x", "#b", file, "https://a.b/#x", "#b--x", "#b--x", "#b", file, "https://a.b/#x"]
    assert 'id="b"' in text


def test_without_chromium_there_is_one_line(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="^error: no Chromium was found.*apt-get install chromium"):
        pdf.browser()


# --- containers and workflows ---

def targets(text: str) -> list[str]:
    """What a file calls make for."""
    return [word for line in re.findall(r"\bmake ((?:[\w-]+ ?)+)", text) for word in line.split()]


def test_the_image_installs_the_lock_and_renders_the_book():
    lines = [line for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
             if line and not line.startswith("#")]
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert lines[:2] == ["ARG PYTHON=python:3.12-slim", "FROM ${PYTHON}"]
    assert all((ROOT / name).exists() for name in copied)
    assert "requirements.lock" in copied and copied.index("requirements.lock") < copied.index(".")
    assert any("install" in line and "-r requirements.lock" in line for line in lines)
    made = [line.removeprefix("RUN make ") for line in lines if line.startswith("RUN make ")]
    assert made and all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in made)
    assert "ENV MMVM_ENV=current" in lines
    served = json.loads(lines[-1].removeprefix("CMD "))[-1]
    assert served == str(pdf.HTML.relative_to(ROOT)), "where make html puts the pages"


def test_what_git_ignores_is_not_sent_to_docker():
    """Nothing brought or credentialed gets into an image; what is committed does."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    for folder in ("data/cub", "data/mimic_cxr", "data/hippocampus", "_build", "dist", ".venv*"):
        assert folder in ignored
    assert not {"data", "book", "mmvm", "requirements.lock"} & set(ignored)


def test_the_devcontainer_calls_what_there_is():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].endswith(":3.12")
    called = targets(container["postCreateCommand"])
    assert called and all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in called)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_what_there_is(path):
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    called = [target for step in steps for target in targets(step.get("run", ""))]
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in called), called
    used = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    if path.stem == "book":
        assert called == ["book"] and used[-2:] == ["actions/upload-pages-artifact", "actions/deploy-pages"]
    if path.stem == "release":
        assert called == ["release"] and yaml.safe_load(path.read_text())[True]["push"]["tags"] == ["v*"]


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
