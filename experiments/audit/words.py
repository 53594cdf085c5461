# ruff: noqa: E501, RUF001 - sentences on a line each; Chinese has its own punctuation
"""The words of this audit's page, in English and Chinese."""

from __future__ import annotations

import re

from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    NOISY,
    OBLIVIOUS,
    PADDED,
    PRUNING,
    SECURE,
    SPARSE,
    WEIGHTS_ONLY,
    WITHHELD,
    ZEROS_LEFT_OUT,
)
from secretflow.ml.nn.fl.audit.words import Said

CHINESE = {
    "attack": "攻击",
    "attacker": "攻击者",
    "closed form": "闭式",
    KNOWN: "知道掩码",
    INFERRED: "从零值推断掩码",
    WEIGHTS_ONLY: "有剪枝后的权重、忽略掩码",
    OBLIVIOUS: "有未剪枝的权重、忽略掩码",
    ZEROS_LEFT_OUT: "略去零值",
    "takes zeros for numbers": "把零值当作数值",
    "nothing to know": "无可知之事",
    "gradient": "梯度",
    PADDED: "加掩盖的上传",
    PRUNING: "权重剪枝",
    SPARSE: "梯度稀疏化",
    WITHHELD: "保留不传",
    NOISY: "高斯噪声",
    SECURE: "安全聚合",
    "colour crops": "彩色裁块",
    "mean image": "平均图像",
    "random noise": "随机噪声",
    "images": "图像",
    "view": "视角",
    "defence": "防御",
    "removed or noise": "去除部分或噪声",
    "living": "存活",
    "identified": "被识别",
    "got back": "被还原",
    "labels right": "标签正确",
    "mean test accuracy": "测试准确率平均值",
    "over seeds": "各随机种子",
}


def said(name: str) -> Said:
    """A name of the rows, or a heading."""
    average, update = re.fullmatch(r"aggregate n=(\d+)", name), re.fullmatch(r"update k=(\d+)", name)
    if average:
        return Said(f"average of {average[1]} parties", f"{average[1]} 方的平均")
    if update:
        steps = "step" if update[1] == "1" else "steps"
        return Said(f"update of {update[1]} local {steps}", f"本地 {update[1]} 步的更新")
    return Said(name, CHINESE.get(name, name))


def curves_of(attack: Said, data: Said) -> Said:
    """The caption of the curves of an attack on a data set."""
    return Said(
        f"{attack.en} on {data.en}: images identified and got back, against living weights",
        f"{attack.zh}，{data.zh}：被识别和被还原的图像，横轴为存活权重",
    )


TITLE = Said("Leakage audit: gradients of single images", "泄露审计：单幅图像的梯度")
ANSWER = Said("Answer", "结论")
FIGURES = Said("Figures", "图")
CONTACT_SHEET = Said("True image, reconstruction and absolute difference", "真实图像、还原结果和绝对差")
VIEWS = Said("By view, worst first", "按视角排列，最坏的在前")
ROWS = Said("All rows", "全部数据")
ACCURACY = Said(
    "Accuracy under each defence, and what the best informed attacker comes to through it",
    "各防御下的准确率，以及最知情的攻击者穿过它的结果",
)
LIMITS = Said("What was not measured", "没有测量的内容")
METHOD = Said("How it was measured", "测量方法")

HOW = (
    Said(
        "A party computes a gradient on one image. The attacker looks for an image that has the same gradient; it never sees the true one, and of several random starts the one whose gradient matches best counts. Weights are pruned once, by training's own step, every layer to the same rate.",
        "一方用一幅图像计算梯度。攻击者寻找梯度相同的图像；它从不看到真实图像，多次随机起点中以梯度最吻合者为准。权重用训练自身的步骤剪枝一次，各层比例相同。",
    ),
    Said(
        "An image is identified if what comes back is nearer to it than to all other candidates, of which chance identifies one. It is got back if the mean squared error is below 0.01 on pixels from 0 to 1, fixed beforehand. Only where neither is above chance has an attack failed, and only that attack. Rows of one data set have the same images and starts, and each image has its own net.",
        "还原结果离某图像比离其他所有候选都近，即为被识别；随机猜测从全部候选中识别一个。像素取 0 到 1 时均方误差低于事先定下的 0.01，即为被还原。只有两者都不高于随机，攻击才算失败，而且只是这一种攻击失败。同一数据集的各行使用相同的图像和起点，每幅图像有自己的网络。",
    ),
    Said(
        "Attackers: mask-oblivious has the unpruned weights and matches all coordinates; pruned weights, mask ignored has the pruned weights and matches all coordinates; mask-aware has the pruned weights and matches those that live; mask inferred from zeros has the unpruned weights and takes the zeros of the upload for the mask.",
        "攻击者：忽略掩码者有未剪枝的权重，匹配全部坐标；有剪枝后的权重而忽略掩码者匹配全部坐标；知道掩码者有剪枝后的权重，只匹配存活的坐标；从零值推断掩码者有未剪枝的权重，把上传中的零值当作掩码。",
    ),
)

NOT_MEASURED = (
    Said(
        "Stronger attackers than these: regressions and nets that learn from public images, priors, exact inversion of fully connected layers. They succeed where these fail (docs/results/leakage.md).",
        "更强的攻击者：用公开图像学习的回归和网络、先验、全连接层的精确反演。它们在这里失败之处能够成功（docs/results/leakage.md）。",
    ),
    Said(
        "Averages of nets that begin with a fully connected layer, of which far more comes back from far more parties, and averages under masks that differ.",
        "首层为全连接的网络的平均（从多得多的参与方中能还原多得多的内容），以及掩码不同的平均。",
    ),
    Said(
        "More candidates than those of the table, and whether a person recognises a picture.",
        "比表中更多的候选，以及人能否认出图像。",
    ),
    Said(
        "Trained nets, batches of more than one image a party, the update of an adaptive optimiser. Nets are LeNets with sigmoids, for the closed form a perceptron; weights are uniform from -0.5 to 0.5. Labels of crops are drawn.",
        "训练过的网络、每方多于一幅图像的批次、自适应优化器的更新。网络为使用 sigmoid 的 LeNet，闭式攻击用感知机；权重在 -0.5 到 0.5 之间均匀分布。裁块的标签是抽取的。",
    ),
    Said(
        "Settings chosen on the attacked images: restarts, steps and starts were chosen on others (from number 50 on). Keys of padded uploads are drawn anew in every run.",
        "在被攻击图像上选择的设置：重启次数、步数和起点是在其他图像（第 50 幅起）上选择的。加掩盖的上传每次运行都重新抽取密钥。",
    ),
    Said(
        "Accuracies of the attacked net: those of the table come from a short training of the main job's small net.",
        "被攻击网络的准确率：表中数值来自主任务小网络的短时训练。",
    ),
)
