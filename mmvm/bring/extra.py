"""Libraries that nothing but one adapter needs."""

import importlib
from types import ModuleType

from mmvm.errors import UserError


def needs(module: str, extra: str) -> ModuleType:
    """The module, imported. Raises `UserError` that names the extra of this project that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"this needs the package {module}, which cannot be imported ({error}): install it with "
                        f"pip install 'mmvm[{extra}]'") from None
