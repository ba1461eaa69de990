"""WGAN and the Wasserstein distance, kexue.fm 8244: no numbers.

The article reports pictures only (they come from arXiv 2103.01678); it has no table and no number
in its text. What can be measured are its six statements, see ``bert_theseus.wgan.statements``.
"""

NUMBERS = ()
