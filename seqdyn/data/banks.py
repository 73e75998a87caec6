"""Reviews in other words, made once: synonyms from WordNet, translation to another language and back.

What a compiled step cannot do is done before: a *bank* holds K variants of every example, [n, K, s], and the step
picks one by its key, so that the batch of update n stays a function of (key, n).
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from seqdyn.data.arrays import whole_numbers
from seqdyn.data.cache import cached
from seqdyn.data.extras import needed
from seqdyn.data.text import Examples, Truncate, encode, pad_to, tokenize
from seqdyn.data.wording import content
from seqdyn.types import ConfigError, Pad, real, whole

Translate = Callable[[list[str]], list[str]]
"""Texts in one language → the same texts, in order, in another."""
_PLAIN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def bank(
    variants: Sequence[Sequence[str]],
    labels: Sequence[int] | Int[np.ndarray, " n"],
    vocabulary: Sequence[str],
    *,
    length: int = 80,
    truncate: Truncate = "last",
    pad: Pad = "before",
) -> Examples:
    """Variants of labelled texts, `variants[i]` the K of text i, in the ids of a vocabulary, as `text.labelled_text`
    makes them: xs [n, K, s], lengths [n, K], ys [n].

    ConfigError, naming the text, for one that has no variant, another number than the first, or one without a word.
    """
    index = {word: i for i, word in enumerate(vocabulary)}
    k = len(variants[0]) if len(variants) else 0
    if len(variants) != len(labels) or not k:
        raise ConfigError(
            f"variants are of {len(variants)} texts, {k} of the first, and labels are {len(labels)}, but every text "
            "must have a label and a variant."
        )
    rows = []
    for i, of_one in enumerate(variants):
        if len(of_one) != k:
            raise ConfigError(f"text {i} has {len(of_one)} variants, but must have {k}, as text 0 has.")
        coded = [encode(tokenize(text), index) for text in of_one]
        if min(map(len, coded)) == 1:
            raise ConfigError(f"a variant of text {i} is without a word: {list(of_one)!r:.80}.")
        rows += coded
    ids, lengths = pad_to(rows, length, truncate, pad)
    ys = whole_numbers("labels", labels, 0, 2**31 - 1, "classes, counted from 0")
    return Examples(ids.reshape(-1, k, length), lengths.reshape(-1, k), ys)


# --- synonyms -----------------------------------------------------------------------------------------------


def synonyms(
    texts: Sequence[str],
    variants: int = 4,
    share: float = 0.1,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> list[list[str]]:
    """Synonym replacement (Wei & Zou 2019, EDA, §2): so many variants of each text, in each of which `share` of its
    words, rounded, at least one, are replaced by synonyms; all that can be where there are fewer of those.

    Which words, and by what, is a function of text, seed and the number of the variant. Function words (see
    `wording.content`) stay, and words that begin with a capital, for they may be names; see `wordnet_synonyms` for what
    a synonym is. Capitals of others and all between the words are kept. Cached. ConfigError for wrong settings, and
    without WordNet.
    """
    variants, seed = whole("variants", variants), whole("seed", seed, 0)
    real("share", share, lambda of: 0 <= of <= 1, "from 0 to 1")

    def make() -> list[str]:
        return [new for text in texts for new in _reworded(text, variants, share, seed)]

    found = _cached_texts("synonyms", texts, (variants, share, seed), make, cache_dir)
    return [found[i : i + variants] for i in range(0, len(found), variants)]


def _reworded(text: str, variants: int, share: float, seed: int) -> list[str]:
    """The text so many times, each with `share` of its words replaced."""
    words = list(_PLAIN.finditer(text))
    found = {w: wordnet_synonyms(w[0].lower()) for w in words if w[0].islower() or (len(w[0]) > 1 and w[0].isupper())}
    known = [word for word, others in found.items() if others]
    count = min(len(known), max(1, round(share * len(words)))) if share else 0
    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32).tolist()
    out = []
    for k in range(variants):
        rng = np.random.default_rng([seed, k, *own])
        new, end = [], 0
        for i in np.sort(rng.choice(len(known), count, replace=False)) if count else ():
            word, others = known[i], found[known[i]]
            other = others[rng.integers(len(others))]
            new += [text[end : word.start()], other.upper() if word[0].isupper() else other]
            end = word.end()
        out.append("".join([*new, text[end:]]))
    return out


@cache
def wordnet_synonyms(word: str) -> tuple[str, ...]:
    """The other words (or short phrases) of the sense in which a word is most used, among its senses that have any:
    lemmas of one synset of WordNet (Miller 1995) that holds the word in this very form. Empty for function words.

    'film' → movie, picture, moving picture, …; 'films' → nothing: WordNet has no plurals, and the sentence needs one.
    ConfigError without NLTK or its dictionary.
    """
    if not content((word,))[0]:
        return ()
    best: tuple[int, tuple[str, ...]] = (-1, ())
    for synset in _wordnet().synsets(word):
        lemmas = {lemma.name().replace("_", " "): lemma.count() for lemma in synset.lemmas()}
        others = tuple(name for name in lemmas if name != word)
        if word in lemmas and others:
            best = max(best, (lemmas[word], others), key=lambda sense: sense[0])  # of equals the first
    return best[1]


@cache
def wordnet_antonyms(word: str) -> frozenset[str]:
    """The words that WordNet calls opposites of a word in any of its senses ('good' → bad, evil, ill, …)."""
    senses = [lemma for synset in _wordnet().synsets(word) for lemma in synset.lemmas() if lemma.name() == word]
    return frozenset(opposite.name().replace("_", " ") for lemma in senses for opposite in lemma.antonyms())


@cache
def _wordnet() -> Any:
    wordnet = needed("nltk.corpus", "synonyms").wordnet
    try:
        wordnet.ensure_loaded()  # 4 s
    except LookupError:
        raise ConfigError(
            "synonyms needs WordNet, which NLTK does not find: run nltk.download('wordnet') in Python once, or "
            "set NLTK_DATA to the folder that holds corpora/wordnet."
        ) from None
    return wordnet


# --- translation --------------------------------------------------------------------------------------------


def back_translation(texts: Sequence[str], there: Translate, back: Translate) -> list[str]:
    """Each text in another language and back again (Sennrich, Haddow & Birch 2016; Yu et al. 2018, QANet, §3).

    Any callables will do; both are called once, with all texts. A text that comes back without a word stays as it was.
    `there` and `back` of several languages give a bank several variants. ConfigError for a translator that does not
    return a text for each.
    """
    found = list(texts)
    for translate in (there, back):
        given, found = found, translate(found)
        if len(found) != len(given):
            raise ConfigError(f"translate returned {len(found)} texts for {len(given)}, but must return one for each.")
    return [new if tokenize(new) else old for old, new in zip(texts, found, strict=True)]


def apertium(mode: str, cache_dir: str | Path | None = None) -> Translate:
    """Apertium (Forcada et al. 2011), a translator by rules that needs no network, in a mode such as 'eng-spa';
    'spa-eng' leads back. Its texts are cached.

    All texts go through one process, a paragraph each. Its tagger learns of ambiguities it had not met, so that a text
    depends a little on those before it (one word of a review in ten), and is a function of the whole list. Unknown
    words come through as they are. ConfigError if Apertium or the mode is not installed.
    """

    def translate(texts: list[str]) -> list[str]:
        return _cached_texts("apertium", texts, mode, lambda: _apertium(texts, mode), cache_dir)

    return translate


def _apertium(texts: list[str], mode: str) -> list[str]:
    command = shutil.which("apertium")
    if command is None:
        raise ConfigError("back-translation needs Apertium, which is not installed: apt-get install apertium-eng-spa.")
    modes = subprocess.run([command, "-l"], capture_output=True, text=True).stdout.split()
    if mode not in modes:
        raise ConfigError(
            f"mode is {mode!r}, but must be one that Apertium has here, {', '.join(modes) or 'none'}: apt-get install "
            "apertium-eng-spa brings eng-spa and spa-eng."
        )
    lines = [" ".join(text.replace("<br />", " ").replace("\0", " ").split()) for text in texts]
    given = [line for line in lines if line]
    # A line's end does not end a sentence: words would change places across it. An empty line does.
    done = subprocess.run([command, mode], input="\n\n".join([*given, ""]), capture_output=True, encoding="utf-8")
    found = done.stdout.split("\n\n")[:-1]
    if done.returncode or len(found) != len(given):
        raise ConfigError(
            f"Apertium's {mode} returned {len(found)} texts for {len(given)}, exit code {done.returncode}: "
            f"{' '.join(done.stderr.split())[:200] or 'no message'}."
        )
    translated = iter(found)
    # Marks: * a word it does not know, @ one it cannot translate, # one it cannot inflect.
    return [re.sub(r"[*@#](?=\w)", "", " ".join(next(translated).split())) if line else "" for line in lines]


def _cached_texts(
    name: str, texts: Sequence[str], settings: object, make: Callable[[], list[str]], cache_dir: str | Path | None
) -> list[str]:
    """Texts by `cache.cached`, in one array of bytes, 0 between them."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def arrays() -> dict[str, np.ndarray]:
        return {"texts": np.frombuffer("\0".join(text.replace("\0", " ") for text in make()).encode(), np.uint8)}

    found = cached(name, [digest, len(texts), settings], arrays, cache_dir)["texts"].tobytes().decode()
    return found.split("\0") if texts else []
