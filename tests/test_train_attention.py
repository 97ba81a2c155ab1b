"""Packs without a mask: each row attends to itself alone, and what would let rows see each other is noticed."""

import pytest
import torch
from torch.nn.attention import varlen
from transformers import LlamaConfig, LlamaForCausalLM

from tests import training
from train import adapters, attention


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            initializer_range=0.5,
        )
    ).eval()  # fmt: skip
    made.set_attn_implementation("sdpa")
    return made


def by_row(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What the kernel computes, row by row."""
    assert torch.equal(cu_seq_q, cu_seq_k) and window_size == (-1, 0) and max_q == max_k == int(cu_seq_q.diff().max())
    found = []
    for start, end in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        part = [each[start:end].transpose(0, 1)[None] for each in (query, key, value)]
        out = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        found.append(out[0].transpose(0, 1))
    return torch.cat(found)


def across(query, key, value, cu_seq_q, *_, scale, window_size, enable_gqa):
    """A kernel that overlooks the borders."""
    whole = torch.tensor([0, int(cu_seq_q[-1])])
    return by_row(query, key, value, whole, whole, len(query), len(query), scale=scale, window_size=window_size, enable_gqa=enable_gqa)


def test_a_pack_gives_what_its_rows_give_alone(model, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", by_row)
    model.set_attn_implementation(attention.NAME)
    assert attention._works(model, "sdpa")
    assert model.config._attn_implementation == attention.NAME and "varlen" not in str(model.config.to_dict())


def test_rows_that_see_each_other_are_noticed(model, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", across)
    model.set_attn_implementation(attention.NAME)
    assert not attention._works(model, "sdpa")


def test_padding_on_the_right_needs_no_mask(model):
    ids = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    wanted = model(input_ids=ids, attention_mask=mask).logits
    model.set_attn_implementation(attention.NAME)
    found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], wanted[mask.bool()])


@pytest.mark.parametrize("change", [{"attention_dropout": 0.1}, {"head_dim": 512}, {"sliding_window": 8}, {"attn_logit_softcapping": 30.0}])
def test_attention_that_is_more_than_causal_keeps_its_own(model, change):
    assert attention._plain(model)
    for name, value in change.items():
        setattr(model.config, name, value)
    assert not attention._plain(model)


def test_without_a_gpu_nothing_changes(model):
    if not torch.cuda.is_available():
        assert not attention.use(model) and model.config._attn_implementation == "sdpa"


def test_without_casts_not_a_bit_changes_under_autocast(model):
    settings = training.params()
    adapted = adapters.with_adapter(model.to(torch.bfloat16), settings)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero at the start: the adapter would say nothing
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(2))
    ids = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(1))
    found = []
    for _ in range(2):
        adapted.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = adapted(input_ids=ids).logits
        logits.float().square().mean().backward()
        found.append([logits.detach(), *(weight.grad.clone() for weight in adapted.parameters() if weight.requires_grad)])
        adapters.without_casts(adapted, settings)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True)) and found[0][0].abs().max() > 0


def test_the_kernel_takes_what_it_is_given_here_and_has_a_gradient_with_shared_heads():
    query = torch.empty(10, 4, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    key = torch.empty(10, 2, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    borders = torch.empty(3, dtype=torch.int32, device="meta")
    out = varlen.varlen_attn(query, key, key, borders, borders, 6, 6, scale=0.25, window_size=(-1, 0), enable_gqa=True)
    out.sum().backward()
    assert (out.shape, query.grad.shape, key.grad.shape) == (query.shape, query.shape, key.shape)
