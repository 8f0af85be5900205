"Codes of languages: every form that a benchmark uses ends at one language, and goes back"
import os, subprocess, sys, unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from xlnb.core import XlnbError
from xlnb.languages import (Language, FLORES, NTREX, code_in, language, language_pair, languages,
    register_language, unregister_language)

DATA = os.environ.get('XLNB_DATA')
XNLI = 'ar bg de el en es fr hi ru sw th tr ur vi zh'.split()
TATOEBA = '''afr amh ang ara arq arz ast awa aze bel ben ber bos bre bul cat cbk ceb ces cha cmn cor csb cym dan deu dsb dtp ell epo est eus fao fin fra
fry gla gle glg gsw heb hin hrv hsb hun hye ido ile ina ind isl ita jav jpn kab kat kaz khm kor kur kzj lat lfn lit lvs mal mar max mhr mkd mon nds nld nno
nob nov oci orv pam pes pms pol por ron rus slk slv spa sqi srp swe swg swh tam tat tel tgl tha tuk tur tzl uig ukr urd uzb vie war wuu xho yid yue
zsm'''.split()
TICO = '''ar bn ckb din es-LA fa fr fuv ha hi id km kr ku lg ln mr ms my ne nus om prs ps pt-BR ru rw so sw ta ti ti_ER ti_ET tl ur zh zu'''.split()
CONFIGS = {
    'xnli': XNLI, 'paws-x': 'de en es fr ja ko zh'.split(), 'sib200': FLORES, 'ntrex128': NTREX, 'tico19': [f'en-{o}' for o in TICO],
    'tatoeba': [f'tatoeba.{o}' for o in TATOEBA], 'xcopa': 'et ht id it qu sw ta th tr vi zh'.split(), 'geomlama': 'en fa hi sw zh'.split(),
    'xquad': [f'xquad.{o}' for o in 'ar de el en es hi ro ru th tr vi zh'.split()], 'mlqa': [f'mlqa.{o}.{o}' for o in 'ar de en es hi vi zh'.split()],
    'wikiann': 'ar bg de el en es fr hi ru sw tr ur vi zh'.split(), 'conll': 'en de es nl'.split(), 'pud': 'ar de en es fr hi ru th tr zh'.split(),
    'muse': [f'en-{o}' for o in 'ar bg de el es fr hi ru th tr vi zh'.split()], 'udhr': XNLI, 'common_voice_text': XNLI,
    'tydiqa_goldp': 'en ko sw'.split(), 'word_alignment_gold': 'enfr jaen roen zhen'.split()}
PAIRS = 'tico19', 'muse', 'word_alignment_gold'
ORDERED = set(CONFIGS) - {'sib200', 'ntrex128', 'tatoeba'} # every word order is known here, but for two Nilotic languages


def of_config(benchmark: str, config: str) -> Language:
    "The target language of a config"
    if benchmark not in PAIRS: return language(config)
    a, b = language_pair(config)
    return a if b.code == 'en' else b


@pytest.mark.parametrize('benchmark', CONFIGS)
def test_every_config_is_a_language(benchmark):
    for config in CONFIGS[benchmark]:
        lang = of_config(benchmark, config)
        assert 'unknown' not in (lang.family, lang.branch, lang.script), config
        assert lang.name and 'Unknown' not in lang.name
        if benchmark in ORDERED and lang.code not in ('din', 'nus'): assert lang.order != 'unknown', config


@pytest.mark.skipif(not DATA, reason='XLNB_DATA is not set: the mirror is not at hand')
@pytest.mark.parametrize('benchmark', [o for o in CONFIGS if o != 'conll'])
def test_the_list_is_the_mirror(benchmark):
    root = Path(DATA)/benchmark
    if not root.is_dir(): pytest.skip(f'{benchmark} is not in the mirror')
    assert {o.name for o in root.iterdir() if o.is_dir()} == set(CONFIGS[benchmark])


BLOCKS = {'LATIN': 'Latn', 'ARABIC': 'Arab', 'CYRILLIC': 'Cyrl', 'DEVANAGARI': 'Deva', 'HANGUL': 'Kore', 'THAI': 'Thai', 'GREEK': 'Grek', 'HEBREW': 'Hebr',
          'ETHIOPIC': 'Ethi', 'BENGALI': 'Beng', 'TIBETAN': 'Tibt', 'MYANMAR': 'Mymr', 'KHMER': 'Khmr', 'LAO': 'Laoo', 'TIFINAGH': 'Tfng', 'NKO': 'Nkoo',
          'THAANA': 'Thaa', 'GEORGIAN': 'Geor', 'ARMENIAN': 'Armn', 'TAMIL': 'Taml', 'TELUGU': 'Telu', 'KANNADA': 'Knda', 'MALAYALAM': 'Mlym',
          'GUJARATI': 'Gujr', 'GURMUKHI': 'Guru', 'ORIYA': 'Orya', 'SINHALA': 'Sinh', 'OL': 'Olck'}


@pytest.mark.skipif(not DATA, reason='XLNB_DATA is not set: the mirror is not at hand')
@pytest.mark.parametrize('benchmark,column', [('ntrex128', 'text'), ('sib200', 'text'), ('tatoeba', 'source_sentence')])
def test_the_script_is_the_one_of_the_text(benchmark, column):
    pq = pytest.importorskip('pyarrow.parquet')
    for folder in sorted((Path(DATA)/benchmark).iterdir()):
        if not folder.is_dir() or folder.name in ('tatoeba.srp', 'tatoeba.uzb'): continue # written in two scripts there
        text = pq.read_table(sorted(folder.glob('*.parquet'))[-1], columns=[column])[column].slice(0, 30).to_pylist()
        names = Counter(unicodedata.name(c, '?').split()[0] for o in text for c in o if c.isalpha())
        found, script = names.most_common(1)[0][0], language(folder.name).script
        if found in ('CJK', 'HIRAGANA', 'KATAKANA'): assert script in ('Hans', 'Hant', 'Jpan'), folder.name
        else: assert BLOCKS.get(found) == script, folder.name


def test_no_config_of_one_benchmark_hides_another():
    assert len({language(o).code for o in FLORES}) == len(FLORES) == 205
    twice = [c for c, n in Counter(language(o).code for o in NTREX).items() if n > 1]
    assert sorted(twice) == ['en', 'es', 'fr', 'pt'] # regional texts, and the second Spanish reference


@given(st.sampled_from([*FLORES, *NTREX, *(o.code for o in languages() if o.family != 'Laboratory'), *TATOEBA, *TICO]))
def test_canonicalisation_is_idempotent(code):
    lang = language(code)
    assert language(lang.code) == lang == language(lang)
    assert language(code.upper()) == language(code.replace('-', '_')) == language(f' {code} ') == lang


@given(st.sampled_from(languages()), st.sampled_from(['iso639_1', 'iso639_3', 'flores', 'ntrex']))
def test_a_written_code_reads_back(lang, form):
    try: written = code_in(lang, form)
    except XlnbError as e: assert f"'{lang.code}'" in str(e)
    else: assert language(written).code in (lang.code, lang.code.split('-')[0])


@given(st.text(max_size=12))
def test_any_text_is_a_language_or_one_sentence(text):
    try: lang = language(text)
    except XlnbError as e: assert 'Unknown language' in str(e) and '\n' not in str(e)
    else: assert language(lang.code) == lang


@pytest.mark.parametrize('bad,hint', [('swahilli', "'sw'"), ('germann', "'de'"), ('xx', 'Unknown'), ('qaa', 'register_language'), ('', 'ISO 639'), ('en-Xxxx', 'Unknown')])
def test_unknown_codes_are_explained(bad, hint):
    with pytest.raises(XlnbError, match=hint): language(bad)


@pytest.mark.parametrize('bad', [None, 3, ['sw'], b'sw'])
def test_a_code_is_a_string(bad):
    with pytest.raises(XlnbError, match='string'): language(bad)


def test_registering():
    own = Language('qyy', 'Own', order='OVS')
    try:
        assert register_language(own) is register_language(own) is language('qyy')
        with pytest.raises(XlnbError, match='Own'): register_language(Language('qyy', 'Other'))
        assert register_language(Language('qyy', 'Other'), replace=True).name == 'Other' == language('qyy').name
        assert any(o.code == 'qyy' for o in languages())
    finally: unregister_language('qyy')
    with pytest.raises(XlnbError, match='Swahili'): register_language(Language('sw', 'Mine'))
    for bad in 'Sw', 's w', '', 'swahili', 'a':
        with pytest.raises(XlnbError, match='can not be a language code'): register_language(Language(bad, 'Mine'))


def test_spaces_and_direction():
    assert {o.code for o in languages() if not o.spaces} == {'zh', 'zh-Hant', 'yue', 'wuu', 'ja', 'th', 'lo', 'km', 'my', 'shn', 'bo', 'dz'}
    assert all(language(o).rtl for o in 'ar fa ur he yi dv nqo ps ug'.split()) and not language('ar-Latn').rtl and not language('sw').rtl


def test_pairs():
    assert [o.code for o in language_pair('en-pt-BR')] == ['en', 'pt']
    for bad in 'english', 'en', 'en-qaa':
        with pytest.raises(XlnbError): language_pair(bad)


def test_light_import():
    "Codes are needed before anything heavy is loaded"
    code = "import sys, xlnb.languages as l; l.language('sw'); print([o for o in ('torch', 'transformers', 'datasets', 'pandas') if o in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
