from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(line for line in (here / "bert_theseus" / "__init__.py").read_text().splitlines()
               if line.startswith("__version__")).split('"')[1]

setup(
    name="bert-theseus",
    version=version,
    description="Seven articles of kexue.fm on today's TensorFlow: BERT-of-Theseus, losses for "
                "class imbalance, WoBERT, Performer, path kernel, WGAN, Seq2Seq + prefix tree",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["bert_theseus", "bert_theseus.*"]),
    package_data={"bert_theseus": ["py.typed", "assets/*", "assets/*/*"]},
    python_requires=">=3.10",
    # bert4keras is left out on purpose: its own metadata asks for keras<=2.3.1, which no current
    # TensorFlow can share an environment with. README.md gives the one command that installs it.
    install_requires=[
        "tensorflow>=2.16",
        "tf_keras>=2.16",
        "numpy>=1.26",
        "jieba>=0.42.1",
        "tqdm>=4.60",
        "matplotlib>=3.7",
        "scikit-learn>=1.3",
    ],
    extras_require={
        "wobert": ["rjieba>=0.2", "tokenizers>=0.20", "rouge>=1.0", "nltk>=3.8"],
        "kgclue": ["starlette>=0.40", "uvicorn>=0.30"],
        "wgan": ["POT>=0.9.4", "scipy>=1.10"],
        "export": ["onnxruntime>=1.18", "tf2onnx>=1.16"],
        "test": ["pytest>=8", "hypothesis>=6.100", "marisa-trie>=1.2"],
    },
)
