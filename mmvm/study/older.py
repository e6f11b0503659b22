"""Parameters by the names that they had before methods, networks and the like became texts with options.

Checkpoints, profiles and lists that were written then are read through `present`.
"""

from collections.abc import Mapping
from typing import Any

from mmvm import options

# earlier name -> (today's parameter, its option); a study adds its own as `older`
SHARED = {
    "bound": ("objective", "bound"), "standard_normal_weight": ("objective", "alpha"),
    "standard_normal_steps": ("objective", "alpha_updates"), "gate": ("objective", "gate"),
    "gate_temperature": ("objective", "temperature"), "gate_temperature_steps": ("objective", "temperature_updates"),
    **{name: ("objective", name) for name in (
        "load_balance", "n_experts", "square_beta", "average", "prior_expert", "unimodal_elbos", "sampling", "kl",
        "kl_per_modality", "private_dim", "learn_private_mean", "n_importance", "estimator")},
    "mvtcae_alpha": ("objective", "alpha"), "max_grad_norm": ("optimizer", "max_grad_norm"),
}
# what meant "left out", where it was a number
LEFT_OUT = {"mvtcae_alpha": lambda value: value < 0, "private_dim": lambda value: value in (1, 16)}


def present(kind: Any, values: Mapping) -> dict:
    """Values by earlier names as those of today's `kind`, a subclass of `Study`. What is named as today stays."""
    fields = {f.name: f for f in kind.ordered()}
    names = {name: place for name, place in {**SHARED, **kind.older}.items() if name not in fields}
    found = {name: value for name, value in values.items() if name not in names}
    given: dict[str, dict] = {}
    for name in names:
        if name in values and not LEFT_OUT.get(name, lambda value: False)(values[name]):
            parameter, option = names[name]
            given.setdefault(parameter, {})[name, option] = values[name]
    for parameter, own in given.items():
        kinds = fields[parameter].metadata["kinds"]()
        choice, chosen = options.parse(found.get(parameter, fields[parameter].default), parameter, kinds)
        known = {option.name for option in kinds[choice]}
        for (name, option), value in own.items():
            if option in known and not (name == "standard_normal_weight" and choice == "mvtcae") \
                    and not (name == "mvtcae_alpha" and choice != "mvtcae"):
                chosen[option] = value
        found[parameter] = options.write(choice, chosen, kinds[choice])
    if found.pop("compile", False):
        found["plan"] = "+".join(word for word in ("compile", found.get("plan", "plain")) if word != "plain")
    return found
