"Every option of every method refuses what is no value of it, in its constructor and in a recipe, in one wording"
import dataclasses, typing
import numpy as np, pytest
from xlnb.core import XlnbError
from xlnb.methods.alsace.method import ALSACE
from xlnb.methods.averaging import Averaging
from xlnb.methods.clism.baselines import PointerHead
from xlnb.methods.clism.method import CLISM
from xlnb.methods.finetune import FineTune
from xlnb.methods.mmkd.method import MMKD
from xlnb.methods.salt.method import SALT
from xlnb.study.recipe import METHODS, method
from xlnb.training.schedule import Budget, Schedule

CLASSES = FineTune, Averaging, SALT, ALSACE, MMKD, CLISM, PointerHead
OPTIONS = [(c, f.name) for c in (*CLASSES, Schedule, Budget) for f in dataclasses.fields(c)
           if typing.get_type_hints(c)[f.name] is not typing.Any]

def bad_values(hint):
    "Values that no option of a type takes"
    args, text = typing.get_args(hint), str(hint)
    kinds = {hint, *args}
    bad = [{}, object(), [[1]]]
    if str not in kinds and 'Literal' not in text: bad += ['no']
    if float not in kinds: bad += [1.5]
    if bool not in kinds: bad += [True]
    if not any(typing.get_origin(k) is tuple for k in kinds): bad += [[1]]
    if not {int, float} & kinds: bad += [3]
    return bad

@pytest.mark.parametrize('cls, option', OPTIONS, ids=lambda x: getattr(x, '__name__', x))
def test_bad_values_are_refused(cls, option):
    for value in bad_values(typing.get_type_hints(cls)[option]):
        with pytest.raises(XlnbError, match=f'{getattr(cls, "name", cls.__name__.lower())}: .*{option}'):
            cls(**{option: value})

def test_every_method_is_tried(): assert {c.name for c in CLASSES} <= {*METHODS}

@pytest.mark.parametrize('cls, option', [o for o in OPTIONS if o[0] in CLASSES], ids=lambda x: getattr(x, '__name__', x))
def test_recipes_say_the_same(cls, option):
    with pytest.raises(XlnbError) as built: cls(**{option: {}})
    with pytest.raises(XlnbError) as written: method(cls.name, **{option: {}})
    assert str(built.value) == str(written.value)

@pytest.mark.parametrize('make', [
    lambda: FineTune(select='nonsense'), lambda: FineTune(select='oracle:'), lambda: FineTune(select='last:de'),
    lambda: ALSACE(threshold='foo'), lambda: ALSACE(threshold='top-'), lambda: ALSACE(threshold='top-0'),
    lambda: ALSACE(threshold=float('nan')),
    lambda: CLISM(terms=''), lambda: SALT(langs='de'), lambda: MMKD(without='qal'), lambda: SALT(langs=[1])])
def test_values_out_of_the_known(make):
    with pytest.raises(XlnbError): make()

def test_good_values_are_kept():
    assert FineTune(select='oracle:de').select == 'oracle:de'
    assert FineTune(epochs=2, batch_size=np.int64(8), lr=np.float32(1e-4)).batch_size == 8
    assert ALSACE(threshold='top-3').threshold == 'top-3' and ALSACE(threshold=.4).threshold == .4
    assert SALT(langs=['de']).langs == ('de',) and FineTune(frozen=2).frozen == 2
    assert type(method('finetune', epochs=2).epochs) is float and type(FineTune(epochs=2).epochs) is int
