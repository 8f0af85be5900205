"Properties of encoders that need a process to be killed, a file to be damaged, or many random inputs"
import os, random, shutil, signal, subprocess, sys, time, warnings
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from datasets import Dataset
from transformers import BertConfig, BertModel, XLMRobertaConfig
from xlnb.data.tasks import Task
from xlnb.models.encoders import (body, encoder_fingerprint, encoder_revision, layers, load_encoder, load_tokenizer, masked_lm_head,
                                  masked_logits)
from xlnb.models.heads import load_finetuned, save_encoder, with_head
from xlnb.data.kinds.base import featurize
from xlnb.evaluation.predict import cloze_scores
from xlnb.training.pretraining import MaskedLM, pack, pretrain, train_tokenizer
from xlnb.core import XlnbError

WORDS = "cat dog fish mat red sleeps eats the a on under big small katze hund fisch paka mbwa samaki".split()
def sentences(n, seed=0):
    r = random.Random(seed)
    return [' '.join(r.choice(WORDS) for _ in range(r.randint(2, 9))) for _ in range(n)]
TEXTS = dict(en=sentences(300, 1), sw=sentences(60, 2))
RUN = dict(steps=16, batch_size=4, block_size=24, lr=3e-3, save_steps=4, logging_steps=1, progress=False)
def config(): return XLMRobertaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)
def losses(log): return {r['step']: r['loss'] for r in log if 'loss' in r}

@pytest.fixture(scope='module')
def tok(): return train_tokenizer(TEXTS['en'], vocab_size=80)

@pytest.fixture(scope='module')
def run(tok, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')
    return out, pretrain(TEXTS, out, tok, config=config(), **RUN)

@pytest.mark.parametrize('size', [8, 24, 128])
def test_packing_loses_nothing(tok, size):
    texts = sentences(57, 3); flat = pack(texts, tok, size)
    assert flat.shape[1] == size and (flat[:, 0] == tok.cls_token_id).all()
    got = [i for i in flat[:, 1:].reshape(-1) if i != tok.pad_token_id]
    assert got == [i for t in texts for i in tok(t, add_special_tokens=False).input_ids + [tok.sep_token_id]]

def stopped_after(steps, out, tok, monkeypatch):
    "A run that is stopped within a step, as by a power cut"
    done, whole = [], MaskedLM.forward
    def forward(self, model, batch):
        done.append(1)
        if len(done) > steps: raise KeyboardInterrupt
        return whole(self, model, batch)
    monkeypatch.setattr(MaskedLM, 'forward', forward)
    with pytest.raises(KeyboardInterrupt): pretrain(TEXTS, out, tok, config=config(), **RUN)
    monkeypatch.undo()
    return out/'training'/f'checkpoint-{steps // 4 * 4}'

def test_resumed_run_is_the_uninterrupted_one(run, tok, tmp_path, monkeypatch):
    out, log = run
    part = tmp_path/'part'
    assert stopped_after(10, part, tok, monkeypatch).exists()
    again = pretrain(TEXTS, part, tok, config=config(), **RUN)
    assert losses(again) == losses(log)
    a, b = load_encoder(out).state_dict(), load_encoder(part).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_half_written_training_checkpoint_is_passed_over(run, tok, tmp_path, monkeypatch):
    out, log = run
    last = stopped_after(10, tmp_path/'part', tok, monkeypatch)
    (last/'trainer_state.json').unlink()
    with pytest.warns(UserWarning, match='half written'): again = pretrain(TEXTS, tmp_path/'part', tok, config=config(), **RUN)
    assert losses(again) == losses(log)

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from test_encoders import *
torch.set_num_threads(1)
from transformers import PreTrainedTokenizerFast
pretrain(TEXTS, {out!r}, PreTrainedTokenizerFast.from_pretrained({tok!r}), config=config(), **(RUN | dict(steps=16)))
"""
def test_killed_run_goes_on(run, tok, tmp_path):
    out, log = run; part = tmp_path/'killed'
    tok.save_pretrained(tmp_path/'tok') # two trainings of a tokenizer on the same text can differ
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(part), tok=str(tmp_path/'tok'))
    p = subprocess.Popen([sys.executable, '-c', script], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.time() + 120
    while p.poll() is None and time.time() < end and not list((part/'training').glob('checkpoint-*/complete.json')): time.sleep(.02)
    if p.poll() is None: p.send_signal(signal.SIGKILL)
    p.wait()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); again = pretrain(TEXTS, part, tok, config=config(), **RUN)
    assert {k: round(v, 4) for k, v in losses(again).items()} == {k: round(v, 4) for k, v in losses(log).items()}

def test_seed_decides(run, tok, tmp_path):
    out, log = run
    assert losses(pretrain(TEXTS, tmp_path/'other', tok, config=config(), **(RUN | dict(seed=1, steps=4)))) != {k: v for k, v in losses(log).items() if k <= 4}

@pytest.mark.parametrize('kind', ['sentence', 'pair', 'choice', 'span', 'tags'])
def test_head_is_seeded_and_body_is_kept(run, kind):
    task = SimpleNamespace(name='t', kind=kind, labels=('a', 'b', 'c')); out, _ = run
    enc = load_encoder(out); before = {k: v.clone() for k, v in enc.state_dict().items()}
    a, b, c = with_head(out, task, seed=3), with_head(enc, task, seed=3), with_head(enc, task, seed=4)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert any(not torch.equal(v, c.state_dict()[k]) for k, v in a.state_dict().items())
    body = enc.base_model.state_dict()
    assert all(torch.equal(v, a.base_model.state_dict()[k]) for k, v in body.items())
    with torch.no_grad(): [p.add_(1) for p in a.parameters()]
    assert all(torch.equal(v, enc.state_dict()[k]) for k, v in before.items())

def test_new_embeddings_under_an_old_body(tok, tmp_path):
    "While the body is frozen it does not change by a bit; afterwards it does"
    bert = BertModel(BertConfig(vocab_size=len(tok), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64))
    bert.save_pretrained(tmp_path/'bert'); tok.save_pretrained(tmp_path/'bert')
    kw = RUN | dict(steps=6)
    pretrain(TEXTS, tmp_path/'a', tok, init=str(tmp_path/'bert'), freeze_body_steps=6, **kw)
    pretrain(TEXTS, tmp_path/'b', tok, init=str(tmp_path/'bert'), freeze_body_steps=3, **kw)
    old, a, b = bert.encoder.state_dict(), *(load_encoder(tmp_path/x).base_model.encoder.state_dict() for x in 'ab')
    assert all(torch.equal(old[k], a[k]) for k in old)
    assert not any(torch.equal(old[k], b[k]) for k in old if k.endswith('weight'))

@pytest.mark.parametrize('bad', [[], [''], ['fine', '  '], ['fine', None], ['fine', 3], dict(en=['fine'], sw=[])])
def test_bad_text(bad, tok, tmp_path):
    with pytest.raises(XlnbError): pretrain(bad, tmp_path/'x', tok, config=config(), **RUN)

def test_text_files_and_datasets(tok, tmp_path):
    (tmp_path/'a.txt').write_text('\n'.join(TEXTS['en'][:40])); kw = RUN | dict(steps=2)
    a = pretrain(tmp_path/'a.txt', tmp_path/'a', tok, config=config(), **kw)
    b = pretrain(Dataset.from_dict(dict(text=TEXTS['en'][:40])), tmp_path/'b', tok, config=config(), **kw)
    c = pretrain(TEXTS['en'][:40], tmp_path/'c', tok, config=config(), **kw)
    assert losses(a) == losses(b) == losses(c)
    with pytest.raises(XlnbError, match='no such file'): pretrain([tmp_path/'b.txt'], tmp_path/'d', tok, config=config(), **kw)

def test_bad_checkpoints(run, tmp_path, monkeypatch):
    out, _ = run
    with pytest.raises(XlnbError, match='unknown kind'): with_head(out, SimpleNamespace(kind='poem', labels=()))
    for name, size in (('model.safetensors', 1000), ('config.json', 20), ('tokenizer.json', 50)):
        bad = tmp_path/name; shutil.copytree(out, bad, ignore=shutil.ignore_patterns('checkpoints'))
        (bad/name).write_bytes((bad/name).read_bytes()[:size])
        with pytest.raises(XlnbError): load_encoder(bad); load_tokenizer(bad)
    with pytest.raises(XlnbError, match='no such folder'): load_encoder(tmp_path/'none')
    with pytest.raises(XlnbError, match='config.json'): load_encoder(tmp_path)
    with pytest.raises(XlnbError, match='Hub'): load_encoder('no-such-org-xlnb/no-such-model')

def test_weights_that_would_need_unpickling_are_refused(run, tmp_path):
    out, _ = run; bad = tmp_path/'pickled'; shutil.copytree(out, bad, ignore=shutil.ignore_patterns('checkpoints'))
    torch.save(load_encoder(out).state_dict(), bad/'pytorch_model.bin'); (bad/'model.safetensors').unlink()
    with pytest.raises(XlnbError): load_encoder(bad)

def test_fingerprint_follows_content(run, tmp_path):
    out, _ = run; a = tmp_path/'a'; shutil.copytree(out, a, ignore=shutil.ignore_patterns('checkpoints'))
    assert encoder_fingerprint(a) == encoder_fingerprint(out)
    m = load_encoder(a); m.lm_head.bias.data[0] += 1; m.save_pretrained(a)
    assert encoder_fingerprint(a) != encoder_fingerprint(out)

def test_spans_map_back(tok):
    "Whatever the answer, the characters of its tokens contain it"
    r, task, rows = random.Random(0), SimpleNamespace(name='s', kind='span', labels=()), []
    for i in range(60):
        c = ' '.join(r.choice(WORDS) for _ in range(20)); w = c.split(); s = r.randrange(len(w)); e = min(len(w), s + r.randint(1, 3))
        rows.append(dict(id=str(i), question="what", context=c, answers=dict(text=[' '.join(w[s:e])], answer_start=[len(' '.join(w[:s])) + (s > 0)])))
    for f, x in zip(featurize(task, Dataset.from_list(rows), tok, max_length=512), rows):
        a = x['answers']['answer_start'][0]; s, e = f['offsets'][f['start_positions']][0], f['offsets'][f['end_positions']][1]
        assert s <= a and e >= a + len(x['answers']['text'][0]) and x['context'][s:e].strip() == x['answers']['text'][0]

def test_padding_does_not_change_cloze_scores(run, tok):
    out, _ = run; enc = load_encoder(out)
    rows = [dict(id=str(i), text=t, choices=['cat', 'big red dog'], label=0) for i, t in enumerate(["the {mask} sleeps", "a {mask} eats the fish on the big mat"])]
    both = cloze_scores(enc, tok, Dataset.from_list(rows)); one = [cloze_scores(enc, tok, Dataset.from_list([r]))[0] for r in rows]
    assert np.allclose(np.stack(both), np.stack(one), atol=1e-4)

TINY = dict(vocab_size=80, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)

def saved(model, tok, folder):
    model.save_pretrained(folder); tok.save_pretrained(folder)
    return folder

def test_every_recipe_starts_from_the_pooler_of_the_checkpoint(tok, tmp_path):
    "Whether a method has acted before fine-tuning (an encoder in memory, or saved by it) or not (a name)"
    from transformers import BertForPreTraining
    bert = BertForPreTraining(BertConfig(**TINY | dict(vocab_size=len(tok)))); saved(bert, tok, tmp_path/'bert')
    task, want = Task('t', 'pair', ('a', 'b')), bert.bert.pooler.state_dict()
    taught = load_encoder(tmp_path/'bert')
    with torch.no_grad(): taught.base_model.encoder.layer[0].output.dense.weight.add_(1)
    save_encoder(taught, tok, tmp_path/'taught')
    for encoder in (tmp_path/'bert', taught, tmp_path/'taught'):
        got = with_head(encoder, task).bert.pooler
        assert all(torch.equal(v, got.state_dict()[k]) and p.requires_grad for (k, v), p in zip(want.items(), got.parameters()))
    from transformers import AutoModelForMaskedLM
    x = tok('the cat', return_tensors='pt')
    assert torch.equal(AutoModelForMaskedLM.from_pretrained(tmp_path/'bert')(**x).logits, load_encoder(tmp_path/'bert')(**x).logits)

def bodies():
    from transformers import DebertaV2Config, DebertaV2Model, ElectraConfig, ElectraForPreTraining, XLMRobertaModel
    return dict(bert=lambda: BertModel(BertConfig(**TINY)), xlmr=lambda: XLMRobertaModel(XLMRobertaConfig(**TINY | dict(max_position_embeddings=66))),
                deberta=lambda: DebertaV2Model(DebertaV2Config(**TINY, position_buckets=8, relative_attention=True)),
                electra=lambda: ElectraForPreTraining(ElectraConfig(**TINY, embedding_size=32)))

@pytest.mark.parametrize('which', ['bert', 'xlmr', 'deberta', 'electra'])
def test_plain_fine_tuning_needs_the_body_only(which, tok, tmp_path):
    model = bodies()[which]().eval(); folder = saved(model, tok, tmp_path/which)
    encoder = load_encoder(folder)
    body, want = encoder.base_model.state_dict(), model.base_model.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in want.items())
    for task in (Task('t', 'pair', ('a', 'b')), Task('s', 'span'), Task('n', 'tags', ('O', 'B-X'))):
        got = with_head(folder, task).base_model.state_dict()
        assert all(torch.equal(v, got[k]) for k, v in want.items() if k in got)
    for ask in (lambda: load_encoder(folder, 'masked_lm'), lambda: with_head(folder, Task('c', 'cloze')), lambda: masked_lm_head(encoder)):
        with pytest.raises(XlnbError, match='no masked-LM head'): ask()
    again = load_encoder(save_encoder(encoder, tok, tmp_path/'again')).base_model.state_dict()
    assert all(torch.equal(v, again[k]) for k, v in want.items())

def test_a_masked_lm_head_under_the_names_of_deberta(tok, tmp_path):
    "mDeBERTa-v3 calls it lm_predictions, which Transformers reads only where it is told to"
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM
    model = DebertaV2ForMaskedLM(DebertaV2Config(**TINY, legacy=False)).eval(); folder = saved(model, tok, tmp_path/'mdeberta')
    import json
    file = folder/'config.json'; said = json.loads(file.read_text()); said.pop('legacy'); file.write_text(json.dumps(said))
    x = tok('the cat', return_tensors='pt')
    encoder = load_encoder(folder, 'masked_lm')
    assert torch.equal(encoder(**x).logits, model(**x).logits)
    states = encoder.base_model(**x).last_hidden_state[0]
    assert torch.allclose(masked_logits(encoder, states), model(**x).logits[0], atol=1e-6)

@pytest.mark.parametrize('name', ['albert', 'distilbert', 'electra', 'modernbert', 'mpnet', 'bert', 'roberta', 'camembert'])
def test_the_masked_lm_head_at_some_positions_is_that_at_all(name, tok):
    from transformers import AutoConfig, AutoModelForMaskedLM
    names = dict(distilbert=dict(dim=32, hidden_dim=64, n_layers=1, n_heads=2), albert=dict(embedding_size=16), modernbert=dict(num_hidden_layers=2, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2)).get(name, {})
    with torch.random.fork_rng():
        torch.manual_seed(0); model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(name, **TINY | names)).eval()
    x = dict(input_ids=torch.randint(4, 80, (2, 7)), attention_mask=torch.ones(2, 7, dtype=int))
    assert torch.allclose(masked_logits(model, body(model, **x)[:, 3]), model(**x).logits[:, 3], atol=1e-5)
    if name != 'albert': assert len(layers(model)) == model.config.num_hidden_layers  # ALBERT's layers share their weights

def test_the_mean_of_all_pieces_as_a_sentence(tok, tmp_path):
    "By default where the encoder was made for it, kept with the fine-tuned model"
    from transformers import XLMRobertaModel
    import json
    task = Task('t', 'pair', ('a', 'b')); x = tok(['the cat sleeps', 'a dog'], padding=True, return_tensors='pt')
    plain = saved(XLMRobertaModel(XLMRobertaConfig(**TINY | dict(vocab_size=len(tok), max_position_embeddings=66, pad_token_id=1))), tok, tmp_path/'plain')
    e5 = tmp_path/'multilingual-e5-tiny'; shutil.copytree(plain, e5)
    told = tmp_path/'sentences'; shutil.copytree(plain, told); (told/'1_Pooling').mkdir()
    (told/'1_Pooling'/'config.json').write_text(json.dumps(dict(pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)))
    assert 'Mean' not in type(with_head(plain, task)).__name__
    mean = with_head(plain, task, pooling='mean')
    for folder in (e5, told): assert type(with_head(folder, task)) is type(mean)
    assert type(with_head(e5, task, pooling='first')) is type(with_head(plain, task))
    state = body(mean, **x); m = x['attention_mask'][..., None]
    want = mean.classifier(((state * m).sum(1) / m.sum(1))[:, None])
    out = mean(**x, labels=torch.tensor([0, 1]))
    assert torch.allclose(out.logits, want, atol=1e-6) and torch.allclose(out.loss, torch.nn.functional.cross_entropy(want, torch.tensor([0, 1])))
    back = load_finetuned(save_encoder(mean, tok, tmp_path/'tuned'), task)
    assert type(back) is type(mean) and torch.equal(back(**x).logits, mean(**x).logits)
    with pytest.raises(XlnbError, match="choose 'first' or 'mean'"): with_head(plain, task, pooling='max')

@pytest.mark.parametrize('which', ['bert', 'deberta', 'electra'])
def test_the_mean_goes_through_the_head_of_every_architecture(which, tok, tmp_path):
    folder = saved(bodies()[which](), tok, tmp_path/which); task = Task('t', 'sentence', ('a', 'b', 'c'))
    first, mean = with_head(folder, task, pooling='first'), with_head(folder, task, pooling='mean')
    one = dict(input_ids=torch.tensor([[5]]), attention_mask=torch.tensor([[1]]))  # of a single piece first and mean are the same
    assert torch.allclose(first(**one).logits, mean(**one).logits, atol=1e-6)

def test_what_is_no_encoder_says_what_it_is(run, tok, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration
    saved(GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=80)), tok, tmp_path/'gpt')
    saved(T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=80)), tok, tmp_path/'t5')
    with pytest.raises(XlnbError, match='gpt2.*left to right'): load_encoder(tmp_path/'gpt')
    with pytest.raises(XlnbError, match='encoder-decoder'): load_encoder(tmp_path/'t5')

def test_a_tokenizer_that_does_not_fit(run, tok, tmp_path):
    out, _ = run; copy = lambda name: shutil.copytree(out, tmp_path/name, ignore=shutil.ignore_patterns('checkpoints'))
    large = copy('large'); bigger = load_tokenizer(out); bigger.add_tokens(['zebra', 'gnu']); bigger.save_pretrained(large)
    with pytest.raises(XlnbError, match=f'{len(tok) + 2} tokens.*embeddings of {len(tok)}'): load_tokenizer(large)
    bare = copy('bare')
    for f in bare.glob('*token*'): f.unlink()
    with pytest.raises(XlnbError, match='no tokenizer'): load_tokenizer(bare)

def test_only_pickled_weights_name_the_way_out(run, tmp_path, monkeypatch):
    out, _ = run; bad = tmp_path/'pickled'; shutil.copytree(out, bad, ignore=shutil.ignore_patterns('checkpoints'))
    torch.save(load_encoder(out).state_dict(), bad/'pytorch_model.bin'); (bad/'model.safetensors').unlink()
    with pytest.raises(XlnbError, match='pytorch_model.bin.*safetensors'): load_encoder(bad)
    import huggingface_hub, transformers
    talks = [SimpleNamespace(num=3, title='Adding `safetensors` variant of this model'), SimpleNamespace(num=7, title='Fix a typo')]
    monkeypatch.setattr(huggingface_hub.HfApi, 'get_repo_discussions', lambda *a, **k: iter(talks))
    monkeypatch.setattr(transformers.AutoConfig, 'from_pretrained', lambda *a, **k: XLMRobertaConfig())
    def gone(*a, **k): raise OSError("some/model does not appear to have a file named model.safetensors")
    monkeypatch.setattr(transformers.AutoModelForMaskedLM, 'from_pretrained', gone)
    with pytest.raises(XlnbError, match='some/model@refs/pr/3'): load_encoder('some/model')

def test_a_revision_goes_with_the_name(monkeypatch):
    import transformers
    seen = []
    def read(name, **kw): seen.append((name, kw.get('revision'))); raise OSError('no network here')
    for cls in ('AutoConfig', 'AutoTokenizer'): monkeypatch.setattr(getattr(transformers, cls), 'from_pretrained', read)
    for load in (load_encoder, load_tokenizer):
        with pytest.raises(XlnbError, match='Hub'): load('some/model@refs/pr/3')
    assert set(seen) == {('some/model', 'refs/pr/3')}
    assert encoder_revision('lab') is None
    with pytest.raises(XlnbError, match='revision'): load_encoder('lab@main')

def test_only_the_last_part_of_a_path_makes_an_e5(run, tmp_path):
    "And where only the name decides the pooling, the fingerprint tells the two models apart"
    out, _ = run; copy = lambda to: str(shutil.copytree(out, tmp_path/to, ignore=shutil.ignore_patterns('checkpoints')))
    below, e5 = copy('e5-study/xlmr'), copy('multilingual-e5-tiny')
    assert getattr(load_encoder(below).config, 'pooling', None) is None and load_encoder(e5).config.pooling == 'mean'
    assert encoder_fingerprint(below) == encoder_fingerprint(out) != encoder_fingerprint(e5)

def sentence_encoder(name, tok, folder):
    import json
    from transformers import AutoConfig, AutoModel
    more = dict(distilbert=dict(dim=32, hidden_dim=64, n_layers=1, n_heads=2), albert=dict(embedding_size=16),
                modernbert=dict(num_hidden_layers=2, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2))[name]
    saved(AutoModel.from_config(AutoConfig.for_model(name, **TINY | dict(vocab_size=len(tok)) | more)), tok, folder)
    (folder/'1_Pooling').mkdir()
    (folder/'1_Pooling'/'config.json').write_text(json.dumps(dict(pooling_mode_mean_tokens=True)))
    return folder

@pytest.mark.parametrize('name', ['distilbert', 'modernbert', 'albert'])
def test_a_head_that_takes_no_mean_reads_what_it_always_reads(name, tok, tmp_path):
    folder, task = sentence_encoder(name, tok, tmp_path/name), Task('t', 'pair', ('a', 'b'))
    x = tok(['the cat sleeps', 'a dog'], padding=True, return_tensors='pt')
    model, plain = with_head(folder, task), with_head(folder, task, pooling='first')
    assert type(model) is type(plain) and torch.equal(model(**x).logits, plain(**x).logits)
    with pytest.raises(XlnbError, match="can't be given a mean.*pooling='first'"): with_head(folder, task, pooling='mean')

@pytest.mark.parametrize('task', [Task('t', 'pair', ('a', 'b')), Task('c', 'cloze')])
def test_no_new_head_is_advised_for_what_takes_none(task, tok, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration
    gpt = saved(GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=80)), tok, tmp_path/'gpt')
    t5 = saved(T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=80)), tok, tmp_path/'t5')
    for load in (load_finetuned, with_head):
        with pytest.raises(XlnbError, match='gpt2.*left to right'): load(gpt, task)
        with pytest.raises(XlnbError, match='outside of a Study, use load_seq2seq with Seq2SeqScorer'): load(t5, task)


def test_an_encoder_without_a_masked_lm_head_is_loaded_without_a_report(tok, tmp_path, caplog):
    from transformers import BertConfig, BertModel
    from transformers.utils import logging
    folder, shown = saved(BertModel(BertConfig(**TINY | dict(vocab_size=len(tok)))), tok, tmp_path/'body'), logging.get_verbosity()
    logging.enable_propagation()
    try: assert type(load_encoder(folder)).__name__ == 'BertModel'
    finally: logging.disable_propagation()
    assert not caplog.records and logging.get_verbosity() == shown


def test_labels_in_another_order_are_put_in_that_of_the_task(run, tok, tmp_path):
    "A checkpoint of another order of the same labels, in capitals too, answers as it did"
    from dataclasses import replace
    from xlnb.models.heads import load_finetuned, save_finetuned
    from xlnb.data.tasks import get_task
    task = get_task("xnli")
    other = replace(task, name="other", labels=tuple(l.upper() for l in reversed(task.labels)))
    model = with_head(str(run[0]), other, seed=3)
    save_finetuned(model, tok, tmp_path / "nli", other)
    found = load_finetuned(str(tmp_path / "nli"), task)
    ids = torch.tensor([[0, 5, 6, 2]])
    assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits.flip(-1)) and found.config.id2label == dict(enumerate(task.labels))
    with pytest.raises(XlnbError, match="was fine-tuned for the labels"): load_finetuned(str(tmp_path / "nli"), get_task("pawsx"))
    bare = replace(task, labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    save_finetuned(with_head(str(run[0]), bare), tok, tmp_path / "bare", bare)
    with pytest.raises(XlnbError, match="LABEL_0.* if they mean these, write their names into id2label and label2id"):
        load_finetuned(str(tmp_path / "bare"), task)
