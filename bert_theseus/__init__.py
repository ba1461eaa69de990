"""bert_theseus: seven articles of kexue.fm (科学空间), running on today's TensorFlow.

Importing the package is cheap: it only makes sure that ``keras`` will be Keras 2 (the
``tf_keras`` package) for everybody in this process, and that bert4keras is repaired the moment
anything imports it. TensorFlow itself is loaded by the first room that needs it.

>>> import bert_theseus
>>> from bert4keras.models import build_transformer_model     # repaired, no further step
"""

from bert_theseus import _prepare

__version__ = "0.1.0"

_prepare.install()
