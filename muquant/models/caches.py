"""Keys and values that decoders of transformers remember, made known to torch's pytree."""

import importlib
from collections.abc import Iterable


def make_known(values: Iterable[object]) -> bool:
    """Let torch's pytree take caches of transformers apart, where `values` have one; return whether they do.

    transformers makes its `DynamicCache` known on request alone. None of it is imported where there is none.
    """
    if not any(_is_cache(value) for value in values):
        return False
    try:
        importlib.import_module(
            "transformers.integrations.executorch"
        ).register_dynamic_cache_export_support()
    except (ImportError, AttributeError):  # a version that does it elsewhere: the class is refused by name
        return False
    return True


def _is_cache(value: object) -> bool:
    return type(value).__module__ == "transformers.cache_utils" and type(value).__name__ == "DynamicCache"
