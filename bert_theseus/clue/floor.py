"""The floor under every model: logistic regression on which characters a text holds.

Characters and pairs of neighbouring characters, tf-idf weighted. Of two texts it sees each one's,
and what they share. A model that does not beat this has learned nothing about order.
"""

from collections.abc import Sequence

import numpy as np

from bert_theseus.clue.tasks import Example, Task
from bert_theseus.errors import InputError


class BagOfWords:
    """Logistic regression (scikit-learn) on bags of characters, for single texts and pairs.

    task: not for tagging. strength: scikit-learn's ``C``. Raises InputError for a tagging task.

    >>> from bert_theseus.clue import get_task
    >>> examples = [Example("股票涨了", label="114"), Example("踢足球", label="103")]
    >>> floor = BagOfWords(get_task("tnews"), examples)
    >>> floor.accuracy([Example("买股票", label="114"), Example("足球", label="103")])
    1.0
    """

    def __init__(self, task: Task, examples: Sequence[Example], strength: float = 4.0):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        if task.kind == "tagging":
            raise InputError("no bag of words for a tagging task", task.name)
        self.pair = task.kind == "pair"
        self.bag = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=1, sublinear_tf=True)
        self.bag.fit([example.text for example in examples]
                     + [example.text2 for example in examples if self.pair])
        self.model = LogisticRegression(C=strength, max_iter=300)
        self.model.fit(self._features(examples), [example.label for example in examples])

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Labels [examples]."""
        return self.model.predict(self._features(examples))

    def accuracy(self, examples: Sequence[Example]) -> float:
        """The share of labels it gets right."""
        return float(np.mean(self.predict(examples) == [example.label for example in examples]))

    def _features(self, examples: Sequence[Example]):
        from scipy import sparse

        one = self.bag.transform([example.text for example in examples])
        if not self.pair:
            return one
        two = self.bag.transform([example.text2 for example in examples])
        return sparse.hstack([one, two, one.minimum(two)]).tocsr()
