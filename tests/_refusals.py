"""What a refusal must be like, wherever one is tested."""

import pytest

from seqdyn.types import ConfigError


def refusal(call, *args, **kwargs):
    """The sentence of the ConfigError that a call must raise."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence
