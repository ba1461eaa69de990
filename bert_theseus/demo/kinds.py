"""A task that needs what pre-training teaches: which kind of thing a word names.

    书里讲的是骆驼。        →  动物

No word of dev or test is in train. Who has read Chinese knows what a 骆驼 is; a model with random
weights can only guess from characters that words of a kind share.

>>> folder = kinds_task("kinds_demo")
>>> from bert_theseus.clue import get_task
>>> task = get_task(KINDS, folder)
>>> example = task.load(folder, "dev")[0]
>>> any(word in example.text for word in WORDS[example.label])
True
"""

import os
from itertools import product

import numpy as np

from bert_theseus.demo.stories import write_task

KINDS = "kinds"
"""The task's name: ``get_task(KINDS, kinds_task(folder))``."""
WORDS = {kind: words.split() for kind, words in {
    "动物": "老虎 狮子 大象 兔子 狐狸 骆驼 松鼠 猴子 山羊 黄牛 乌龟 青蛙 蝴蝶 蜜蜂 麻雀 燕子 鸽子 孔雀 "
          "鲸鱼 鲨鱼 企鹅 熊猫 蚂蚁 蜘蛛 蟋蟀 公鸡 鸭子 绵羊 野猪 豹子 刺猬 螃蟹 鹦鹉 蚯蚓 鳄鱼 老鼠",
    "食物": "米饭 面条 饺子 包子 馒头 豆腐 鸡蛋 牛奶 面包 蛋糕 苹果 香蕉 西瓜 葡萄 桃子 白菜 萝卜 土豆 "
          "黄瓜 茄子 辣椒 蘑菇 花生 饼干 巧克力 火锅 烧烤 粽子 月饼 汤圆 草莓 樱桃 柠檬 番茄 芹菜 豆浆",
    "地方": "北京 上海 广州 深圳 杭州 南京 武汉 成都 西安 重庆 天津 苏州 郑州 长沙 沈阳 青岛 大连 厦门 "
          "昆明 济南 合肥 福州 南昌 太原 兰州 贵阳 海口 香港 澳门 台北 东京 纽约 伦敦 巴黎 首尔 悉尼",
    "职业": "医生 老师 律师 警察 司机 护士 记者 工人 农民 厨师 演员 导演 歌手 画家 作家 教授 教练 法官 "
          "会计 编辑 翻译 保安 裁缝 木匠 渔民 军人 秘书 经理 邮递员 售货员 理发师 设计师 程序员 消防员 飞行员 魔术师",
    "情绪": "高兴 快乐 悲伤 愤怒 害怕 紧张 焦虑 失望 绝望 孤独 寂寞 感动 惊讶 羞愧 嫉妒 后悔 骄傲 自卑 "
          "兴奋 激动 无聊 烦躁 恐惧 担心 委屈 沮丧 满足 幸福 痛苦 忧郁 喜悦 生气 难过 着急 惭愧 平静",
    "运动": "足球 篮球 排球 网球 乒乓球 羽毛球 游泳 跑步 跳远 跳高 体操 举重 射箭 击剑 拳击 摔跤 柔道 武术 "
          "滑雪 滑冰 冲浪 潜水 划船 登山 攀岩 马拉松 太极拳 瑜伽 骑行 跳绳 跳水 铅球 标枪 马术 棒球 高尔夫",
    "交通": "飞机 火车 汽车 轮船 地铁 公交车 出租车 自行车 摩托车 卡车 高铁 电车 拖拉机 直升机 帆船 游艇 马车 三轮车 "
          "救护车 消防车 轿车 客车 货车 跑车 潜艇 渡轮 缆车 火箭 飞船 热气球 电梯 吉普车 面包车 快艇 滑板车 独木舟",
    "家具": "桌子 椅子 沙发 衣柜 书架 床铺 茶几 凳子 柜台 窗帘 地毯 台灯 镜子 屏风 抽屉 书桌 餐桌 冰箱 "
          "洗衣机 电视机 空调 电风扇 微波炉 吸尘器 热水器 烤箱 花瓶 枕头 被子 毛毯 垃圾桶 衣架 鞋柜 梳妆台 床垫 摇篮",
}.items()}
SENTENCES = ("书里讲的是{}。", "他们一直在谈{}。", "请用{}造一个句子。", "{}这个词怎么写？", "昨天我梦见了{}。",
             "今天的题目是{}。", "你知道什么是{}吗？", "小时候我不懂{}。", "关于{}，他写了一篇文章。",
             "孩子们画了一张{}的画。")
SHARES = {"train": 0.5, "dev": 0.25, "test": 0.25}


def kinds_task(folder: str | os.PathLike, seed: int = 0) -> str:
    """Writes ``folder/kinds/{train,dev,test,labels}.json`` and returns ``folder``.

    Half of the words of each kind, in every sentence, are train; dev and test share the rest. The
    same seed gives the same files to the byte.
    """
    random, rows = np.random.default_rng(seed), {split: [] for split in SHARES}
    for kind, words in WORDS.items():
        words = random.permutation(words)
        ends = np.cumsum([round(share * len(words)) for share in SHARES.values()])
        for split, part in zip(SHARES, np.split(words, ends[:-1])):
            rows[split] += [(sentence.format(word), kind)
                            for word, sentence in product(part.tolist(), SENTENCES)]
    return write_task(folder, KINDS, {split: [found[i] for i in random.permutation(len(found))]
                                      for split, found in rows.items()}, WORDS)
