from pipeline.model.framing import BERT_FRAMING, XLNET_FRAMING


def test_special_tokens_stand_around_a_text():
  vocabulary = ["<cls>", "[SEP]", "<sep>", "a", "[CLS]"]
  assert BERT_FRAMING.around([3, 3], vocabulary) == (4, 3, 3, 1)
  assert XLNET_FRAMING.around([3, 3], vocabulary) == (3, 3, 2, 0)
  assert BERT_FRAMING.around([], vocabulary) == (4, 1) and BERT_FRAMING.size == XLNET_FRAMING.size == 2
  assert BERT_FRAMING.cls_is_first and not XLNET_FRAMING.cls_is_first
