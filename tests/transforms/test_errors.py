from transforms.errors import printable


def test_a_text_is_one_line_without_orders_for_a_terminal():
  assert printable("é 愛 Foo\nBar\x1b[31m\x9b") == "é 愛 Foo\\x0aBar\\x1b[31m\\x9b"
