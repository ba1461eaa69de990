"""WoBERT: a Chinese BERT whose tokens are words (kexue.fm 7758).

    tokenizer = WordTokenizer("vocab.txt")            # jieba's words, bert4keras' ids, fast
    convert_checkpoint("chinese_bert", "wobert")      # characters → words, weights included
    Pretrainer(mlm, records, recipe, …).run()         # masked language model, resumable

One idea a file: ``characters`` and ``tokenizer`` (text → ids), ``segmentation`` (text → words),
``vocabulary`` and ``surgery`` (character model → word model), ``corpus`` and ``records`` (text
→ shards), ``masking``, ``mlm``, ``lean`` (its fast layers), ``optimizer`` and ``pretraining``
(shards → weights).
"""

from bert_theseus.wobert import vocabulary
from bert_theseus.wobert.characters import CharTokenizer
from bert_theseus.wobert.corpus import corpus_files, documents, task_texts
from bert_theseus.wobert.masking import mask_tokens
from bert_theseus.wobert.mlm import MaskedLanguageModel
from bert_theseus.wobert.optimizer import AdamW, LearningRate
from bert_theseus.wobert.pretraining import Pretrainer, Recipe
from bert_theseus.wobert.records import Packing, batches, records_of, write_records
from bert_theseus.wobert.segmentation import Segmenter, read_user_dict
from bert_theseus.wobert.surgery import Coverage, convert_checkpoint, coverage, save_model
from bert_theseus.wobert.tokenizer import WordTokenizer, tokenizer_of
from bert_theseus.wobert.vocabulary import (WordVocab, build_word_vocab, frequent_vocab,
                                            ordinary_ids, read_vocab)

__all__ = ["AdamW", "CharTokenizer", "Coverage", "LearningRate", "MaskedLanguageModel", "Packing",
           "Pretrainer", "Recipe", "Segmenter", "WordTokenizer", "WordVocab", "batches",
           "build_word_vocab", "convert_checkpoint", "corpus_files", "coverage", "documents",
           "frequent_vocab", "mask_tokens", "ordinary_ids", "read_user_dict", "read_vocab",
           "records_of", "save_model", "task_texts", "tokenizer_of", "write_records"]
