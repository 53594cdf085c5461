import numpy as np
import pytest

from benchmarks.channel_sides import CHANNELS
from benchmarks.channels import message_of, saved


@pytest.mark.slow
@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_brings_the_message_back(channel):
    message = message_of(1000)
    with CHANNELS[channel]() as echo:
        for _ in range(2):
            back = echo(message)
            assert {**back, "body": None} == {**message, "body": None}
            for sent, came in zip(message["body"], back["body"], strict=True):
                assert came.dtype == sent.dtype
                assert np.array_equal(came, sent)


def test_what_is_saved_is_a_part_of_a_round():
    echoes = {"hand_written": 1.0, "multiprocessing": 1.5, "grpc": 0.5}
    assert saved(echoes, round_seconds=10.0) == {"multiprocessing": 0.05, "grpc": -0.05}
