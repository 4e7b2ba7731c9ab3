"""Options in names are read, and refused with what there is."""

import dataclasses

import pytest

from distacme.environments import name_options


@dataclasses.dataclass(frozen=True)
class Tea:
  sugar: float = 0.5
  milk: bool = False
  cups: int = 1

  def __post_init__(self):
    if self.cups < 1:
      raise ValueError(f'cups must be at least 1, got {self.cups}.')


def test_options_follow_a_question_mark():
  assert name_options.parse('tea', 'Assam', Tea) == ('Assam', Tea())
  assert name_options.parse('tea', 'Assam?sugar=2&milk=true&cups=3', Tea) == (
    'Assam',
    Tea(sugar=2.0, milk=True, cups=3),
  )
  assert name_options.parse('tea', 'Assam?milk=False', Tea)[1] == Tea()


def test_options_are_described_as_they_are_written():
  assert name_options.describe(Tea) == 'sugar=0.5, milk=false, cups=1'


@pytest.mark.parametrize(
  'query, message',
  [
    (
      'sugr=1',
      "'tea:Assam.sugr=1': there is no option 'sugr'. Did you mean 'sugar'. "
      'Known options: sugar=0.5, milk=false, cups=1.',
    ),
    ('sugar=much', "sugar must be a number, got 'much'"),
    ('milk=1', "milk must be true or false, got '1'"),
    ('cups=1.5', "cups must be a whole number, got '1.5'"),
    ('cups', "cups must be a whole number, got ''"),
    ('cups=0', "'tea:Assam.cups=0': cups must be at least 1, got 0"),
  ],
)
def test_an_option_that_cannot_be_is_refused(query, message):
  with pytest.raises(ValueError, match=message):
    name_options.parse('tea', f'Assam?{query}', Tea)


@pytest.mark.parametrize(
  'text, default, value',
  [
    ('true', None, True),
    ('3', None, 3),
    ('0.5', None, 0.5),
    ('1e3', None, 1000.0),
    ('4x4', None, '4x4'),
    ('none', None, None),
    ('none', 'a word', None),
    ('8', 'a word', '8'),
    ('False', True, False),
    ('3', 0.5, 3),
    ('0.5', 3, 0.5),
  ],
)
def test_an_option_is_of_the_kind_of_its_default(text, default, value):
  got = name_options.value_like('tea', 'x', text, default)
  assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize(
  'default, message',
  [(True, 'x must be true or false'), (3, 'x must be a number')],
)
def test_an_option_of_another_kind_than_its_default_is_refused(
  default, message
):
  with pytest.raises(ValueError, match=f"'tea': {message}, got 'much'"):
    name_options.value_like('tea', 'x', 'much', default)
