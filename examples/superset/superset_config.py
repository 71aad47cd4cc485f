"""What a Superset needs for docs/superset.md: a dataset's SQL may take what the filters say."""

from __future__ import annotations

FEATURE_FLAGS = {"ENABLE_TEMPLATE_PROCESSING": True}
