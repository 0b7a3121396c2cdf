"""The token is hidden in what a server says, and large answers are not searched for it in vain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns._api.mask import Mask

TOKEN = "sk-live/9f8e7d6c5b4a+32=="


def spelled(mark: str) -> st.SearchStrategy[str]:
    code = f"{ord(mark):04x}"
    ways = [mark, f"\\u{code}", f"\\u{code.upper()}", f"%{code[2:]}", f"%{code[2:].upper()}"]
    return st.sampled_from(ways if mark.isalnum() else [*ways, f"\\{mark}"])


@given(
    st.text("azAZ09-._~+/=", min_size=8, max_size=20).flatmap(
        lambda token: st.tuples(st.just(token), st.tuples(*map(spelled, token)).map("".join))
    ),
    st.binary(max_size=20),
    st.sampled_from([b"", b"50% ", b"%20\\u00e9", b"%" * 11_000]),
)
def test_a_token_is_hidden_however_each_of_its_characters_is_spelled(
    told: tuple[str, str], noise: bytes, more: bytes
) -> None:
    token, spelling = told
    masked = Mask(token).body(noise + more + b"<" + spelling.encode() + b">" + noise)
    assert masked.endswith(b"<[token]>" + noise) or spelling.encode() in noise
    assert Mask(token).text(f"<{spelling}>") == "<[token]>"


@pytest.mark.parametrize("body", [b"50% off " * 1000, b"caf\\u00e9 %20" * 1000, b"%zz\\u" * 1000, b"%"])
def test_an_answer_whose_escapes_are_none_of_the_token_is_not_searched_for_it(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = Mask(TOKEN)
    monkeypatch.setattr(mask, "_bytes", None)  # which takes ten times as long, on the loop
    assert mask.body(body) == body
