# ruff: noqa: E501, RUF001 - sentences on a line each; Chinese has its own punctuation
"""All sentences of a report, in English and Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, CHINESE)
_BEFORE_A_NUMBER = re.compile(r"(?<=[一-鿿])(?=\d)")
"""Between a Chinese character and a number, where Chinese is set with a space."""


@dataclass(frozen=True)
class Said:
    """One text in both languages.

    Attributes:
        en: in English.
        zh: in Chinese.
    """

    en: str
    zh: str

    def html(self) -> str:
        """Both, of which the page shows one."""
        return f'<span class="en">{escape(self.en)}</span><span class="zh" lang="zh">{escape(self.zh)}</span>'

    def joined(self, other: Said) -> Said:
        """With another text behind it."""
        return Said(f"{self.en} {other.en}", f"{self.zh}{other.zh}")


def say(key: str, **values: object) -> Said:
    """A text of the report, in both languages.

    Args:
        key: of ``TEXTS``.
        **values: for its places; one that is a text itself is put in by language.
    """
    english = {name: value.en if isinstance(value, Said) else value for name, value in values.items()}
    chinese = {name: value.zh if isinstance(value, Said) else value for name, value in values.items()}
    text = TEXTS[key]
    return Said(text.en.format(**english), _BEFORE_A_NUMBER.sub(" ", text.zh.format(**chinese)))


def count(number: int, images: int, interval: tuple[float, float]) -> Said:
    """A count with its 95 % interval."""
    low, high = (round(100 * end) for end in interval)
    return say("count", number=number, images=images, low=low, high=high)


TEXTS: dict[str, Said] = {
    "title": Said("What does this training leak?", "这次训练会泄露什么？"),
    "private": Said(
        "This report shows private rows. Keep it where they are kept.",
        "本报告显示私有数据行，请与原始数据同等保管。",
    ),
    "answer": Said("Answer", "结论"),
    "evidence": Said("Evidence", "证据"),
    "views": Said("By who sees what, worst first", "按看到的内容排列，最坏的在前"),
    "attackers": Said("All attackers, worst first", "全部攻击者，最坏的在前"),
    "baselines": Said("What guessing comes to", "猜测能得到多少"),
    "missing": Said("What was not measured", "没有测量的内容"),
    "how": Said("How it was measured", "测量方法"),
    "count": Said("{number} of {images} ({low} to {high} %)", "{images} 中 {number}（{low}% 至 {high}%）"),
    "chance": Said("chance {rate}", "随机 {rate}"),
    "none": Said("not taken", "未取"),
    "leaks": Said("leaks", "泄露"),
    "at chance": Said("no better than guessing", "不优于猜测"),
    "undecided": Said("undecided", "无法判定"),
    "view": Said("view", "视角"),
    "seen by": Said("seen by", "谁能看到"),
    "verdict": Said("verdict", "判定"),
    "attack": Said("attacker", "攻击者"),
    "identified": Said("identified", "被识别"),
    "successes": Said("got back", "被还原"),
    "recognised": Said("recognised", "被认出"),
    "rank": Said("median rank", "名次中位数"),
    "error": Said("median error", "误差中位数"),
    "seconds": Said("seconds", "秒"),
    "effort": Said("effort", "工作量"),
    "baseline": Said("guess", "猜测"),
    "column": Said("column", "列"),
    "known": Said("known", "已知"),
    "known blind": Said("right by guessing the mean", "猜平均值即对"),
    "true": Said("true", "真实"),
    "came back": Said("came back", "还原结果"),
    "nothing": Said("nothing", "无"),
    "white": Said("(white where nothing came back)", "（白色表示没有还原出）"),
    "picked": Said("picked by the attacker among the candidates", "攻击者从候选中选出的"),
    "upload": Said("upload of one party, batch of {batch}", "一方的上传（批大小 {batch}）"),
    "average": Said(
        "average of {parties} parties, batches of {batch}", "{parties} 方的平均（批大小 {batch}）"
    ),
    "capture": Said("captured step, {name}, batch of {batch}", "训练中记录的一步（{name}，批大小 {batch}）"),
    "sees upload": Said(
        "the server without secure aggregation; of two parties, the other one",
        "没有安全聚合时的服务器；只有两方时的另一方",
    ),
    "sees average": Said("every party, in spite of secure aggregation", "每一方，即使有安全聚合"),
    "leaks view": Said(
        "Yes: from the {view}, attackers {what}.",
        "会：从{view}，攻击者{what}。",
    ),
    "also leaks": Said(
        "Averaging does not stop it: from the {view}, attackers {what}.",
        "求平均不能阻止：从{view}，攻击者{what}。",
    ),
    "leaks only": Said(
        "From the {view}, attackers {what} all the same.",
        "从{view}，攻击者仍然{what}。",
    ),
    "chance view": Said(
        "From the {view} no attacker that was tried did better than guessing on any of the three scores (they {what}); "
        "that is no proof of safety, see below what was not measured.",
        "从{view}，所试的攻击者在三项得分上都不优于猜测（{what}）；这不是安全的证明，未测量的内容见下文。",
    ),
    "undecided view": Said(
        "About the {view} nothing can be said: attackers {what}, but some score was not taken or its interval is "
        "too wide.",
        "关于{view}无法下结论：攻击者{what}，但有的得分没有取，或者区间太宽。",
    ),
    "no averages": Said(
        "Averages of several parties were not measured.",
        "没有测量多方的平均。",
    ),
    "does identified": Said(
        "pick {count} out of {candidates} candidates",
        "从 {candidates} 个候选中认出 {count}",
    ),
    "does successes": Said("rebuild {count}", "还原 {count}"),
    "does recognised": Said("name the class of {count}", "说对类别 {count}"),
    "did nothing": Said("no attacker could be tried", "没有能尝试的攻击者"),
    "and": Said(", ", "，"),
    "scores": Said(
        "Three scores stand side by side, each with its 95 % interval (Wilson) and beside what guessing comes to. "
        "Identified: what came back is nearer to its own row than to every other candidate, or the attacker picked "
        "the row. Got back: {success}. Recognised: the class was read with the row, or the nearest of the attacker's "
        "own rows have it. A view protects only if all three are no better than guessing; leaks if one is.",
        "三项得分并列，各带 95% 区间（Wilson），旁边是猜测能得到的比例。被识别：还原结果离自己的数据行比离其他所有候选都近，"
        "或者攻击者选中了该行。被还原：{success}。被认出：攻击者读出了类别，或者其自有数据中最近的行属于同一类别。"
        "只有三项都不优于猜测，才算没有泄露；有一项优于猜测，就是泄露。",
    ),
    "success images": Said(
        "mean squared error below 0.01 on pixels from 0 to 1", "像素取 0 到 1 时均方误差低于 0.01"
    ),
    "success table": Said(
        "mean over columns below 0.01, where a number counts its squared error over its range and a wrong category 1",
        "各列平均低于 0.01，数值列取相对其范围的平方误差，类别错则计 1",
    ),
    "success tokens": Said(
        "exactly the tokens of the sequence, in any order", "恰为该序列的全部词元，不论次序"
    ),
    "settings": Said(
        "Net {net}, {weights}; loss {loss}; density {density}; bits {bits}; {steps} local step(s). {attacked} rows "
        "attacked, {candidates} candidates, {public} rows with the attacker; seed {seed}; {doubles} rows left out "
        "because they are the same as another.",
        "网络 {net}，{weights}；损失 {loss}；密度 {density}；比特数 {bits}；本地 {steps} 步。攻击 {attacked} 行，候选 "
        "{candidates} 行，攻击者拥有 {public} 行；随机种子 {seed}；因与其他行相同而略去 {doubles} 行。",
    ),
    "fresh": Said("fresh weights", "初始权重"),
    "given": Said("weights that were given", "给定的权重"),
    "all": Said("all", "全部"),
    "knowledge": Said(
        "Attackers have the net, its weights, its mask, and rows like the private ones. Uploads are made by the "
        "code that trains.",
        "攻击者拥有网络、权重、剪枝掩码，以及与私有数据相似的数据行。上传由训练所用的代码产生。",
    ),
    "more columns": Said("{number} more columns are not shown.", "另有 {number} 列未显示。"),
    # attackers
    "tokens": Said("tokens read off the embedding", "从嵌入层读出词元"),
    "closed form": Said("first layer divided by its bias", "首层权重梯度除以偏置梯度"),
    "rows read off": Said("rows read off one by one", "逐行读出"),
    "exact batch": Said("batch inverted exactly", "整批精确反演"),
    "cocktail party": Said("rows unmixed as independent", "按独立成分拆分出的行"),
    "rows of neurons": Said("rows that two neurons agree on", "两个神经元一致给出的行"),
    "ridge regression": Said("regression on the attacker's rows", "用攻击者的数据做回归"),
    "regression on activations": Said(
        "regression on what fully connected layers were given", "对全连接层所得输入做回归"
    ),
    "candidates": Said("candidate whose gradient explains it best", "梯度最能解释观测的候选"),
    "learned inverter": Said("net trained to invert", "训练出的反演网络"),
    "Gaussian prior": Said("search with a prior of such rows", "带先验的搜索"),
    "Inverting Gradients": Said(
        "search by direction (Inverting Gradients)", "按方向搜索（Inverting Gradients）"
    ),
    "DLG": Said("search by distance (DLG)", "按距离搜索（DLG）"),
    # blind
    "mean": Said("mean row, sees nothing", "平均行，什么也看不到"),
    "random public rows": Said("any of the attacker's rows, sees nothing", "攻击者的任意行，什么也看不到"),
    "noise": Said("noise, sees nothing", "噪声，什么也看不到"),
    "nearest public rows": Said(
        "nearest of the attacker's rows, sees the truth", "攻击者数据中最近的行，看得到真值"
    ),
    "tried": Said("Tried on the {view}: {attackers}.", "对{view}尝试了：{attackers}。"),
    "not tried": Said("  not {attackers}: {why}", "  未试{attackers}：{why}"),
    "nobody": Said("nobody", "无"),
    "lack of time": Said("lack of time", "时间不够"),
    "lack of time, needs": Said(
        "lack of time, takes {minutes} min at least", "时间不够，至少需要 {minutes} 分钟"
    ),
    "for tokens": Said("for tokens", "只用于词元"),
    "for images": Said("for images", "只用于图像"),
    "for images and table": Said("for images and tables", "只用于图像和表格"),
    "for one row alone": Said("for one row alone", "只用于单独一行"),
    "for several rows together": Said("for several rows together", "只用于合在一起的多行"),
    "not run": Said(
        "Not run on the {view} for lack of time: {attacks}. With more minutes the same audit goes on.",
        "因时间不够，对{view}没有运行：{attacks}。增加分钟数，同一审计便接着进行。",
    ),
    "takes": Said("{attack} (at least {minutes} min)", "{attack}（至少 {minutes} 分钟）"),
    # what was not measured
    "no other attackers": Said(
        "Other attackers. Stronger ones than these exist or will; where none got through, only these failed.",
        "其他攻击者。更强的攻击者已经存在或将会出现；没有攻击成功之处，只说明这些攻击者失败了。",
    ),
    "no attack": Said("{attack}, on the {views} ({why}).", "{attack}，视角：{views}（{why}）。"),
    "no training": Said(
        "A trained net: weights were fresh. Give a checkpoint to audit one.",
        "训练过的网络：此处用的是初始权重。给出检查点即可审计。",
    ),
    "no other weights": Said("Other weights than the ones given.", "给定权重以外的权重。"),
    "no optimiser": Said(
        "The update of an adaptive optimiser (Adam and others); uploads here are those of plain gradient descent.",
        "自适应优化器（如 Adam）的更新；此处的上传来自普通梯度下降。",
    ),
    "no weights": Said(
        "Averages under unequal aggregation weights, or of parties with masks of their own.",
        "聚合权重不等的平均，或各方掩码不同的平均。",
    ),
    "no rounds": Said(
        "Several rounds together. Whoever collects them learns more than from one.",
        "多轮合在一起。收集多轮的人比只看一轮的人知道得更多。",
    ),
    "no malice": Said(
        "A server that sends a net made for spying, and parties that break the protocol.",
        "发送专为窥探而改造的网络的服务器，以及违反协议的参与方。",
    ),
    "no noise": Said(
        "Noise for differential privacy, and the accuracy that a defence costs.",
        "差分隐私噪声，以及防御手段对准确率的代价。",
    ),
    "no dropout": Said(
        "Dropout: it was switched off in {names}, which helps the attacker.",
        "Dropout：在 {names} 中被关闭，这有利于攻击者。",
    ),
    "no average of": Said(
        "The average of {parties} parties: there are too few rows.",
        "{parties} 方的平均：数据行太少。",
    ),
    "few candidates": Said(
        "Identification among 10,000 candidates: there were only {candidates}.",
        "在 10,000 个候选中的识别：此处只有 {candidates} 个。",
    ),
    "no classifier": Said(
        "Whether a good classifier recognises the rows: the one used names {rate} of the true rows right, the most "
        "frequent class {frequent}.",
        "好的分类器能否认出数据行：所用分类器只说对 {rate} 的真实行，最常见类别占 {frequent}。",
    ),
    "no bits": Said(
        "Other rounding than this one, which is that of QSGD (stochastic, by array).",
        "其他取整方式；此处为 QSGD（随机取整，按数组）。",
    ),
    "no other public": Said(
        "Attackers whose rows are less like the private ones: theirs come from the same source here, the worst case.",
        "拥有的数据与私有数据不那么相似的攻击者：此处二者同源，是最坏的情形。",
    ),
    "spared rows": Said(
        "More of the attacker's rows for: {attack}, on the {view}. {public} of {of} were used.",
        "{attack}（{view}）用上更多攻击者的数据：此处用了 {of} 行中的 {public} 行。",
    ),
    "spared search": Said(
        "A longer search: {attack}, on the {view}. {observations} of {of} uploads or averages, {steps} steps each.",
        "{attack}（{view}）更久的搜索：此处攻击了 {of} 份上传或平均中的 {observations} 份，每份 {steps} 步。",
    ),
}
"""By key; the names of attackers and baselines are those in the rows."""
