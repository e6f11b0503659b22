"""What ships with the project passes the look at values without a word, with every likelihood that a study has."""

import warnings

import pytest

from mmvm.checks import check_split, check_values, findings
from mmvm.study.registry import STUDIES

SMALL = {"polymnist": [{}], "cub": [dict(n_images=16, captions_per_image=3), dict(pads_counted=True, n_images=16)],
         "hippocampus": [{}, dict(likelihood="poisson")], "mimic-cxr": [dict(n_subjects=40)]}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Folders of the tests' own, where stand-ins are made small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMVM_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("MMVM_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("study, settings", [(name, settings) for name, some in SMALL.items() for settings in some])
def test_what_ships_passes_without_a_word(study, settings, request):
    if study in ("cub", "mimic-cxr"):
        request.getfixturevalue("stand_ins")
    p = STUDIES[study](**settings)
    train, test = p.data("train"), p.data("test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_values(train, p.build_model(train))
        check_split(train, test)
    assert findings(train) == findings(test) == ([], [])


def test_every_study_is_looked_at():
    assert set(SMALL) == set(STUDIES)
