"""Which key blocks to keep: whole models in PyTorch on a CUDA device, sparse in every layer, against exact attention.

usage: choose_blocks.py HF_FOLDER OUT.jsonl --texts a.txt,b.txt --lengths 8192,16384 --rules RULE,RULE,... [--minutes M]

A rule is  estimate/sort/queries x keys/segment/select:value[:value...]
  estimate  oracle | e32 (32 even rows) | f32 (16 even, 16 far) ; e64_4, f64_4: every 4th key, turning phase; +0.1: mean + 0.1 max,
            +0.3G: of means over groups of a phase, +1R: of root mean squares. Letters behind: n, the block of key 0 sampled, too; o,
            the own segment, too; z, true normaliser; y, normaliser from a quarter of the sample; t, phase i + i / stride (what ships is
            e128_4ty+0.1/first32/128x64/256/absp0.5)
  sort      none | paper32 (last 32 rows; paper: 128) | first32 (first 32 rows behind the segment) | norm | pc | kmean | meanp8 (mean mass over 8 rows of every later block) | own8 (last 8 rows of the own segment);
            a g before it: one order for the heads that share keys
  select    abs (keep where the score reaches the value; absp0.5: times the root of 8,192 / visible keys) | cum (shortest prefix that reaches the value)
Rows go to OUT.jsonl as they come; what is there already is not run again. KL(exact || sparse) of the next token, on 2,048 rows.
"""
import argparse, json, os, time
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

device = 'cuda' if torch.cuda.is_available() else 'cpu'
torch.backends.cuda.matmul.allow_tf32 = True
rule = None
densities = []


def even(count, of):
    return ((torch.arange(count, device=device) + .5) * of / count).long()


def parse(text):
    estimate, sort, sizes, segment, select = text.split('/')
    select, *values = select.split(':')
    estimate, _, peak = estimate.partition('+')
    over = peak[-1:] if peak[-1:] in 'GR' else ''
    peak = peak.rstrip('GR')
    flags = estimate[len(estimate.rstrip('nzoyt')):] if estimate[0] != 'o' else ''
    estimate = estimate[:len(estimate) - len(flags)]
    kind = estimate[0]
    rows, _, stride = ('0', '', '') if kind == 'o' else estimate[1:].partition('_')
    group = sort.startswith('g')
    queries, keys = sizes.split('x')
    return dict(kind=kind, rows=int(rows), stride=int(stride or 1), peak=float(peak or 0), sort=sort.lstrip('g'), group=group,
                over=over, flags=flags,
                queries=int(queries), keys=int(keys), segment=int(segment), select=select), [float(v) for v in values]


def key_order(q, k, r):
    """[heads, length]: position in the sorted order -> key"""
    heads, length, _ = q.shape
    s = r['segment']
    whole = length // s * s
    order = torch.arange(length, device=device).expand(heads, -1).clone()
    if r['sort'] == 'none':
        return order
    if r['sort'].startswith('paper'):
        score = (q[:, -int(r['sort'][5:] or 128):] @ k[:, :whole].transpose(1, 2)).softmax(-1).mean(1)
    elif r['sort'] == 'norm':
        score = k[:, :whole].norm(dim=-1)
    elif r['sort'] == 'kmean':
        score = -(k[:, :whole] @ k.mean(1)[..., None])[..., 0]
    elif r['sort'] == 'pc':
        x = k[:, :whole].view(heads, whole // s, s, -1)
        x = x - x.mean(2, keepdim=True)
        w = torch.linalg.eigh(x.transpose(2, 3) @ x)[1][..., -1:]
        score = (x @ w).reshape(heads, whole)
    elif r['sort'].startswith('first'):
        per = int(r['sort'][5:])
        score = torch.zeros(heads, whole // s, s, device=device)
        logits = q[:, :whole].view(heads, whole // s, s, -1)
        for g in range(whole // s):
            rows = q[:, min((g + 1) * s, length - per):][:, :per]
            score[:, g] = (rows @ k[:, g * s:(g + 1) * s].transpose(1, 2)).softmax(-1).mean(1)
        score = score.view(heads, whole)
    else:
        score = torch.zeros(heads, whole, device=device)
        name, per = r['sort'].rstrip('0123456789'), int(r['sort'].lstrip('abcdefghijklmnopqrstuvwxyz'))
        step = 128 if name == 'meanp' else s
        rows = torch.arange(0, length // step, device=device)[:, None] * step
        rows = (rows + (even(per, 128) if name == 'meanp' else torch.arange(s - per, s, device=device))).flatten()
        for part in rows.split(512):
            n = int(part[-1]) + 1
            logits = q[:, part] @ k[:, :n].transpose(1, 2)
            keys = torch.arange(n, device=device)
            logits.masked_fill_(keys > part[:, None], -torch.inf)
            p = logits.softmax(-1)
            if name == 'meanp':
                p.masked_fill_(keys >= part[:, None] // s * s, 0)
            else:
                p.masked_fill_(keys < part[:, None] // s * s, 0)
            score[:, :n] += p.sum(1)[:, :whole]
    if r['group']:
        g = r['ratio']
        score = score.view(heads // g, g, whole).sum(1, keepdim=True).expand(-1, g, -1).reshape(heads, whole)
    by = score.view(heads, whole // s, s).sort(dim=-1, descending=True, stable=True).indices
    order[:, :whole] = (by + torch.arange(whole // s, device=device)[:, None] * s).view(heads, whole)
    return order


def estimate(a, q, own, sink, r):
    """Score of each key block: a[heads, blocks, rows, keyBlocks, stride], mass by phase of keys."""
    heads, blocks, rows, key_blocks, stride = a.shape
    if r['kind'] == 'o':
        m = a.sum(-1)
        return combine(m, r)
    if r['kind'] == 'e':
        index = even(r['rows'], rows).expand(heads, blocks, -1)
    else:
        first = even(r['rows'] // 2, rows)
        y = q.view(heads, blocks, rows, -1)
        d = torch.cdist(y, y[:, :, first]).amin(-1)
        d[:, :, first] = -1
        index = torch.cat([first.expand(heads, blocks, -1), d.topk(r['rows'] - r['rows'] // 2, -1).indices], -1).sort(-1).values
    a = a.gather(2, index[..., None, None].expand(-1, -1, -1, key_blocks, stride))
    if stride == 1:
        m = a[..., 0]
    else:
        row = torch.arange(r['rows'], device=device)
        phase = (row + ('t' in r['flags']) * (row // stride)) % stride
        sampled = stride * a.gather(4, phase[None, None, :, None, None].expand(heads, blocks, -1, key_blocks, 1))[..., 0]
        exact = own[None].expand(heads, -1, -1)
        if 'n' not in r['flags']: exact = exact | sink[:, None, :]
        if 'o' in r['flags']: exact = sink[:, None, :].expand_as(exact)
        m = torch.where(exact[:, :, None], a.sum(-1), sampled)
        if 'y' in r['flags']:
            # the normaliser from a quarter of the sample: one of four key blocks
            some = (torch.arange(key_blocks, device=device)[None] + phase[:, None] + torch.arange(key_blocks, device=device)[None] // 4) % 4 == 0
            coarse = torch.where(exact[:, :, None], m, m * some * 4)
            m = m / coarse.sum(-1, keepdim=True).clamp(min=1e-20)
        elif 'z' not in r['flags']: m = m / m.sum(-1, keepdim=True).clamp(min=1e-20)
    return combine(m, r)


def combine(m, r):
    if r['over'] == 'R':
        return m.mean(2) + r['peak'] * m.square().mean(2).sqrt()
    if r['over'] == 'G':
        heads, blocks, rows, key_blocks = m.shape
        return m.mean(2) + r['peak'] * m.view(heads, blocks, rows // r['stride'], r['stride'], key_blocks).mean(3).amax(2)
    return m.mean(2) + r['peak'] * m.amax(2)


def sparse(q, k, v, r, value):
    heads, length, dim = q.shape
    qb, kb, s = r['queries'], r['keys'], r['segment']
    order = key_order(q, k, r)
    k, v = (x.gather(1, order[..., None].expand(-1, -1, dim)) for x in (k, v))
    sink = (order == 0).float().argmax(-1) // kb
    out = torch.empty_like(q)
    kept = visible = 0
    chunk = max(s, min(2048, int(2.8e8 / heads / length) // s * s))
    for r0 in range(0, length, chunk):
        r1 = min(length, r0 + chunk)
        n = min(length, -(-r1 // s) * s)
        s0 = r0 // s * s
        p = q[:, r0:r1] @ k[:, :n].transpose(1, 2)
        rows = torch.arange(r0, r1, device=device)
        p[:, :, s0:].masked_fill_(order[:, None, s0:n] > rows[None, :, None], -torch.inf)
        p = p.softmax(-1)
        blocks, key_blocks = (r1 - r0) // qb, n // kb
        first = torch.arange(blocks, device=device) * qb + r0
        starts = torch.arange(key_blocks, device=device) * kb
        own = (starts >= first[:, None] // s * s)
        seen = starts < -(-(first[:, None] + qb) // s) * s
        sinks = torch.zeros(heads, key_blocks, dtype=torch.bool, device=device).scatter(1, sink[:, None], True)
        a = p.view(heads, blocks, qb, key_blocks, kb // r['stride'], r['stride']).sum(-2)
        score = estimate(a, q[:, r0:r1], own, sinks, r)
        forced = own[None] | sinks[:, None]
        if r['select'].startswith('abs'):
            power = float(r['select'][4:] or 0)
            keep = (score >= value * (seen.sum(-1)[None, :, None] * kb / 8192.) ** -power) | forced
        else:
            big = score.masked_fill(forced, torch.inf)
            sorted_, index = big.sort(-1, descending=True)
            val = score.gather(2, index)
            before = (val.cumsum(-1) - val) / val.sum(-1, keepdim=True)
            keep = torch.zeros_like(forced).scatter(2, index, before < value) | forced
        keep = keep & seen
        kept = kept + keep.sum()
        visible = visible + seen.sum() * heads
        p = p.view(heads, blocks, qb, key_blocks, kb) * keep[:, :, None, :, None]
        p = p.view(heads, r1 - r0, n)
        out[:, r0:r1] = (p @ v[:, :n]) / p.sum(-1, keepdim=True)
    densities.append(kept / visible)
    return out


def attention(module, q, k, v, mask, scaling=None, **_):
    ratio = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(ratio, 1) for x in (k, v))
    if rule is None:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    else:
        r, value = rule
        r['ratio'] = ratio
        out = sparse(q[0] * scaling, k[0], v[0], r, value)[None]
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register('choose_blocks', attention)


def main():
    global rule
    p = argparse.ArgumentParser()
    p.add_argument('model'); p.add_argument('out'); p.add_argument('--texts'); p.add_argument('--lengths'); p.add_argument('--rules')
    p.add_argument('--minutes', type=float, default=9)
    a = p.parse_args()
    end = time.time() + 60 * a.minutes
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).to(device).eval()
    model.config._attn_implementation = 'choose_blocks'
    tokenizer = Tokenizer.from_file(f'{a.model}/tokenizer.json')
    done = set()
    if os.path.exists(a.out):
        done = {(x['length'], x['text'], x['rule'], x['value']) for x in map(json.loads, open(a.out))}
    name = os.path.basename(a.model.rstrip('/'))
    for length in map(int, a.lengths.split(',')):
        for text in a.texts.split(','):
            path, _, offset = text.partition('@')
            content = open(path, errors='ignore').read()[int(offset or 0):][:length * 8]
            ids = tokenizer.encode(content, add_special_tokens=False).ids[:length]
            if len(ids) < length:
                print('too short', text, len(ids)); continue
            ids = torch.tensor([ids], device=device)
            rows = torch.linspace(256, length - 2, 2048, device=device).long()
            def run():
                h = model.model(input_ids=ids, use_cache=False).last_hidden_state[0, rows]
                return model.lm_head(h).log_softmax(-1)
            rule = None
            exact = run()
            target = ids[0, rows + 1]
            loss = -exact.gather(1, target[:, None]).mean()
            for spec in a.rules.split(','):
                parsed, values = parse(spec)
                for value in values:
                    label = spec.split(':')[0]
                    if (length, path, label, value) in done or time.time() > end: continue
                    rule = (parsed, value)
                    densities.clear()
                    t = time.time()
                    x = run()
                    kl = (exact.exp() * (exact - x)).sum(-1)
                    row = dict(model=name, length=length, text=path, rule=label, value=value, density=float(sum(densities)) / len(densities),
                               layers=[round(float(d), 4) for d in densities], kl=float(kl.mean()), klMedian=float(kl.median()),
                               top1=float((x.argmax(-1) == exact.argmax(-1)).float().mean()),
                               loss=float(-x.gather(1, target[:, None]).mean() - loss), seconds=round(time.time() - t, 2))
                    with open(a.out, 'a') as f: f.write(json.dumps(row) + '\n')
                    del x, kl
                    print(name, length, os.path.basename(path)[:9], f'{label:40s} {value:<7g} density {row["density"]:.3f} KL {row["kl"]:.4f} top1 {row["top1"]:.3f} {row["seconds"]}s', flush=True)


with torch.no_grad():
    main()
