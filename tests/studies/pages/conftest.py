"""Rows of a run on digits, as the pages average them."""

import pytest


def rows_of_run(name: str, method: str, probe: float, seed: int = 0, beta: float = 1.0, note: str = "") -> list[dict]:
    base = {"experiment": "polymnist", "profile": "grid", "run": name, "method": method, "beta": beta, "seed": seed,
            "source": "", "updates": 10, "note": note}
    rows = [{**base, "metric": "probe", "target": target, "value": probe + move}
            for target, move in (("m0", 0.1), ("m1", 0.0), ("m2", -0.1), ("mean", 0.0))]
    rows += [{**base, "metric": "imputation", "source": s, "target": t, "value": 100.0 if s == t else 900.0}
             for s in ("m0", "m1", "m2") for t in ("m0", "m1", "m2")]
    return [*rows, *({**base, "metric": metric, "target": target, "value": value} for metric, target, value in (
        ("coherence", "self", 0.8), ("coherence", "cross", 0.2), ("latent_information", "mean", 12.34),
        ("imputation", "cross", 900.0), ("reconstruction", "sum", 400.0), ("probe_curve", "mean", 0.0)))]


@pytest.fixture
def run_of():
    """Rows of one run on translated digits by name, method and probe."""
    return rows_of_run
