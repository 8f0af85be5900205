"The packaged checkpoint for real languages is complete, small enough and readable without this package"
import json
from pathlib import Path
import pytest, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from xlnb.encoders import encoder_fingerprint, load_encoder, load_tokenizer

FOLDER = Path(__file__).parent.parent/'checkpoints'/'mini15'
TEXT = dict(ar="القطة تنام على السجادة", bg="Котката спи на килима", de="Die Katze schläft auf der Matte", el="Η γάτα κοιμάται στο χαλί",
            en="The cat sleeps on the mat", es="El gato duerme en la alfombra", fr="Le chat dort sur le tapis", hi="बिल्ली चटाई पर सोती है",
            ru="Кошка спит на коврике", sw="Paka analala juu ya mkeka", th="แมวนอนบนเสื่อ", tr="Kedi paspasın üzerinde uyuyor", ur="بلی چٹائی پر سوتی ہے",
            vi="Con mèo ngủ trên tấm thảm", zh="猫睡在垫子上")

def test_size_and_files():
    files = {f.name: f.stat().st_size for f in FOLDER.iterdir()}
    assert {'README.md', 'config.json', 'model.safetensors', 'tokenizer.json', 'training_log.json', 'starts.json'} <= {*files}
    assert sum(files.values()) <= 36e6
    assert not any(f.endswith(('.bin', '.pt', '.pkl', '.py')) for f in files)

def test_loads_with_and_without_the_package():
    ours, plain = load_encoder(FOLDER), AutoModelForMaskedLM.from_pretrained(FOLDER, use_safetensors=True)
    assert next(ours.parameters()).dtype == torch.float32
    assert all(torch.equal(v.float(), plain.state_dict()[k].float()) for k, v in ours.state_dict().items())
    assert load_tokenizer(FOLDER)("A cat").input_ids == AutoTokenizer.from_pretrained(FOLDER)("A cat").input_ids
    assert len(encoder_fingerprint(FOLDER)) == 16

@pytest.mark.parametrize('lang', TEXT)
def test_every_script_is_covered(lang):
    tok = load_tokenizer(FOLDER); ids = tok(TEXT[lang]).input_ids
    assert tok.unk_token_id not in ids and tok.decode(ids, skip_special_tokens=True) == TEXT[lang].lower()

def test_the_log_is_of_the_whole_run():
    log = json.loads((FOLDER/'training_log.json').read_text()); last = max(r['step'] for r in log)
    assert {r['lang'] for r in log if r['step'] == last and 'lang' in r} == {*TEXT}
    losses = [r['loss'] for r in log if 'loss' in r]; assert losses[-1] < losses[0] - 3

def test_masked_pieces_are_predicted_better_than_by_guessing():
    model, tok, gain = load_encoder(FOLDER), load_tokenizer(FOLDER), []
    for lang, text in TEXT.items():
        ids = tok(text, return_tensors='pt').input_ids[0]; at = torch.arange(1, len(ids) - 1)
        x = ids.repeat(len(at), 1); x[torch.arange(len(at)), at] = tok.mask_token_id   # one piece masked at a time
        with torch.no_grad(): logp = model(input_ids=x).logits[torch.arange(len(at)), at].log_softmax(-1)
        gain.append(logp.gather(1, ids[at][:, None]).mean().item() + torch.tensor(float(len(tok))).log().item())
    assert sum(gain) / len(gain) > 2 and min(gain) > 0, dict(zip(TEXT, gain))
