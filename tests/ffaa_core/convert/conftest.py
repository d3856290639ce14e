"""A small LLaVA that several tests convert."""

import pytest
from transformers import LlavaForConditionalGeneration

from tests.ffaa_core.convert.published_llava import random_llava


@pytest.fixture(scope="session")
def llava() -> LlavaForConditionalGeneration:
    return random_llava()
