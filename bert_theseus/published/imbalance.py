"""Class imbalance, kexue.fm 7708, 4733, 7359, 7615: the articles derive and measure nothing.

7615 shows a picture of another paper's table (arXiv 2007.07314, images), 7359 and 4733 speak of
"comparable" and "a slight gain" without a figure. There is no number to set beside ours.
"""

NUMBERS = ()
