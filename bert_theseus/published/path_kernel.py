"""SGD ≈ kernel machine, kexue.fm 8009: a derivation; the article gives no experiment, no number."""

NUMBERS = ()
