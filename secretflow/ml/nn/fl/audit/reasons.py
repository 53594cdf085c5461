# ruff: noqa: E501, RUF001 - a message on a line each; Chinese has its own punctuation
"""Why an attacker was not tried on a view, in English and Chinese."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from secretflow.ml.nn.fl.audit.words import TEXTS, Said, say

NO_TIME = "lack of time"

_REFUSALS = {
    r"model must be two fully connected layers with bias and a ReLU between them": "网络须为两个带偏置的全连接层，中间为 ReLU",
    r"model must be one that begins with a fully connected layer with bias": "网络须以带偏置的全连接层开头",
    r"model must start with a fully connected layer of (\d+) inputs": "网络须以带偏置、有 {} 个输入的全连接层开头",
    r"model must be one with a fully connected layer with bias": "网络须含带偏置的全连接层",
    r"model must be one with an embedding of tokens": "网络须含词元嵌入层",
    r"model must be one whose embedding has a gradient at the tokens": "嵌入层须只在出现的词元处有梯度",
    r"model must end in a fully connected layer": "网络须以全连接层结尾，才能从梯度读出标签",
    r"model must have a bias in its last layer": "末层须有偏置，或其输入不为负，才能从梯度读出标签",
    r"gradients must be other than zero to read labels": "网络对每一行都已确信，梯度为零，读不出标签",
    r"weights must give a gradient for numbers from 0 to 1": "输入取 0 到 1 时，网络的梯度须为有限数",
    r"batch_size must be at most the number of classes, (\d+)": "合在一起的行数不得超过类别数 {}，才能从梯度读出标签",
    r"batch_size must be below the number of neurons of the first layer, (\d+)": "合在一起的行数须少于首层的神经元数 {}",
    r"batch_size must be below the smaller side of the first layer, (\d+)": "合在一起的行数须少于首层较短一边的长度 {}",
    r"local_steps must be 1 ": "只适用于本地一步",
}
"""How messages of the attackers begin, and what they mean in Chinese."""


def minutes_needed(left_out: Mapping[str, Any]) -> int | None:
    """What a search takes at least that was short of time; None if that is not known, or it was not."""
    seconds = left_out.get("seconds_needed")
    return None if seconds is None else math.ceil(seconds / 60)


def reason(left_out: Mapping[str, Any]) -> Said:
    """Why an attacker was not tried.

    Args:
        left_out: an entry of "not_measured" or "not_for_it" of ``report.json``.
    """
    why, minutes = left_out["why"], minutes_needed(left_out)
    if minutes is not None:
        return say("lack of time, needs", minutes=minutes)
    if why in TEXTS:
        return say(why)
    needed, _, _ = why.partition(", got ")
    for beginning, chinese in _REFUSALS.items():
        found = re.match(beginning, why)
        if found:
            return Said(needed, chinese.format(*found.groups()))
    return Said(needed, f"程序的说明：{needed}")
