from tinybrain.api.logprobs import written
from tinybrain.chat import TokenLogprob


def test_a_token_is_told_with_its_bytes_and_the_likeliest_in_its_place():
    token = TokenLogprob(b" Hi", -0.5, ((b" Hi", -0.5), (b"", -1.5)))
    assert written([token]) == {
        "content": [
            {
                "token": " Hi",
                "logprob": -0.5,
                "bytes": [32, 72, 105],
                "top_logprobs": [
                    {"token": " Hi", "logprob": -0.5, "bytes": [32, 72, 105]},
                    {"token": "", "logprob": -1.5, "bytes": None},
                ],
            }
        ],
        "refusal": None,
    }


def test_a_token_that_ends_inside_a_character_is_known_by_its_bytes():
    (entry,) = written([TokenLogprob("\u65e5".encode()[:2], -1.0)])["content"]
    assert (entry["token"], entry["bytes"]) == ("\ufffd", [0xE6, 0x97])


def test_without_tokens_there_is_nothing_to_tell():
    assert written([]) is None
