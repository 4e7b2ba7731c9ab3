"""`distacme evaluate --video`: the first episode as a file that players play."""

import re
import subprocess
import sys

import dm_env
import numpy as np
import pytest

from distacme.environments import families
from distacme.environments import vector
from distacme.programs import cli
from distacme.programs.commands import evaluate
from distacme.programs.view import video
from distacme.testing import environments
from distacme.testing import legal_agent


def run(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['evaluate', *map(str, arguments)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


def read(path):
  """Returns the pictures of a video [N, H, W, 3] and its frames per second."""
  ffmpeg = pytest.importorskip('imageio_ffmpeg').get_ffmpeg_exe()
  raw = ('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-fps_mode', 'passthrough', '-')
  done = subprocess.run([ffmpeg, '-i', path, *raw], capture_output=True)
  said = done.stderr.decode()
  stream = re.search(r'Video: .* (\d+)x(\d+).* ([\d.]+) fps', said)
  assert stream, said
  pictures = np.frombuffer(done.stdout, np.uint8)
  width, height, fps = int(stream[1]), int(stream[2]), float(stream[3])
  return pictures.reshape(-1, height, width, 3), fps


class Painted(environments.Catch):
  """Catch, whose picture says which step it is."""

  shape = (20, 31, 3)

  def __init__(self):
    super().__init__(0)
    self.steps = 0

  def step(self, action):
    self.steps += 1
    return super().step(action)

  def render(self):
    return np.full(self.shape, 20 * self.steps, np.uint8)


@pytest.mark.parametrize('name', ['episode.mp4', 'episode.gif'])
def test_the_first_episode_becomes_a_video(capsys, run_dir, tmp_path, name):
  pytest.importorskip('imageio_ffmpeg')
  path = tmp_path / name
  code, text = run(capsys, run_dir, '--episodes', 3, '--video', path)
  assert code == 0, text
  assert f'video of the first: {path}\n' in text
  pictures, _ = read(path)
  assert len(pictures) == 10  # of 9 steps
  assert len({picture.tobytes() for picture in pictures}) == 10  # it moves


def test_the_video_changes_nothing_of_the_evaluation(run_dir, tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  filmed = evaluate.evaluate(run_dir, 4, video=tmp_path / 'a.gif')
  plain = evaluate.evaluate(run_dir, 4)
  del filmed['seconds'], plain['seconds']
  assert filmed == plain


GAME_AGENT = legal_agent.__name__


def test_a_game_against_an_opponent_becomes_a_video(game_run_dir, tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  path = tmp_path / 'game.gif'
  filmed = evaluate.evaluate(game_run_dir, 4, video=path, agent=GAME_AGENT)
  plain = evaluate.evaluate(game_run_dir, 4, agent=GAME_AGENT)
  del filmed['seconds'], plain['seconds']
  assert filmed == plain
  pictures, _ = read(path)
  assert 6 <= len(pictures) <= 10
  dark = (pictures < 60).all(axis=-1).sum(axis=(1, 2))
  light = (pictures > 200).all(axis=-1).sum(axis=(1, 2))
  # A black stone, then a white one, in turn.
  assert (np.diff(dark)[::2] > 500).all() and (np.diff(light)[1::2] > 500).all()
  assert (np.diff(dark) > -100).all() and (np.diff(light) > -100).all()


def test_rows_of_models_are_filmed_as_such(tmp_path):
  environment = families.make_vector('jax:catch', 2, seed=0, render=True)
  filmed = video.Filmed(environment, tmp_path / 'a.gif', 100)
  assert filmed.model is environment.model
  filmed.close()


def film(environment, path, max_steps):
  """Returns a filmed vector of one environment."""
  return video.Filmed(vector.DrawnRows([environment]), path, max_steps)


@pytest.mark.parametrize('name', ['a.mp4', 'a.gif'])
def test_pictures_keep_order_and_colour(tmp_path, name):
  pytest.importorskip('imageio_ffmpeg')
  environment = film(Painted(), tmp_path / name, 1000)
  timestep = environment.reset()
  while timestep.step_type[0] != dm_env.StepType.LAST:
    timestep = environment.step(np.array([1]))
  environment.step(np.array([1]))  # of another episode
  pictures, fps = read(tmp_path / name)
  assert fps == pytest.approx(30.0, rel=0.15)  # GIFs count hundredths
  height, width, _ = Painted.shape
  seen = pictures[:, :height, :width].mean(axis=(1, 2, 3))
  np.testing.assert_allclose(seen, 20 * np.arange(10), atol=3)


def test_a_video_is_no_longer_than_an_evaluated_episode(tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  environment = film(Painted(), tmp_path / 'a.mp4', 4)
  environment.reset()
  for _ in range(8):  # the episode has nine steps
    environment.step(np.array([1]))
  assert len(read(tmp_path / 'a.mp4')[0]) == 5


def test_an_mp4_of_odd_sides_is_padded(tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  environment = film(Painted(), tmp_path / 'a.mp4', 1000)
  environment.reset()
  environment.close()  # which completes it, too
  assert read(tmp_path / 'a.mp4')[0].shape == (1, 20, 32, 3)


class Timed:
  def control_timestep(self):
    return 0.04


class Fps:
  metadata = {'render_fps': 50}


@pytest.mark.parametrize(
  'environment, fps', [(Fps(), 50.0), (Timed(), 25.0), (Painted(), 30.0)]
)
def test_the_environment_says_how_fast_it_is(environment, fps):
  assert video.frames_per_second(environment) == fps


def test_gymnasium_says_how_fast_it_is():
  pytest.importorskip('pygame')
  from distacme.environments import families

  environment = families.make('gymnasium:CartPole-v1', seed=0, render=True)
  assert video.frames_per_second(environment) == 50.0
  assert video.frames_per_second(vector.DrawnRows([environment])) == 50.0


@pytest.mark.parametrize(
  'name, sentence',
  [
    ('a.avi', "video must be a .mp4 or .gif file, got '{}/a.avi'. Write for"),
    ('a', "instance '{}/a.mp4'"),
    ('nowhere/a.mp4', '{}/nowhere is no directory. Make it, or choose'),
  ],
)
def test_an_impossible_file_is_refused(
  capsys, run_dir, tmp_path, name, sentence
):
  code, text = run(capsys, run_dir, '--video', tmp_path / name)
  assert code == 2
  assert sentence.format(tmp_path) in text


def test_without_ffmpeg_the_message_names_the_extra(
  capsys, run_dir, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
  code, text = run(capsys, run_dir, '--video', tmp_path / 'a.mp4')
  assert code == 2
  assert "Run: pip install 'distacme[video]'" in text


def test_what_cannot_be_rendered_says_so():
  with pytest.raises(ValueError, match='cannot be rendered'):
    families.make_vector(lambda seed: Blind(), 1, 0, render=True)


class Blind(dm_env.Environment):
  """Has no picture, and observes no grid."""

  def reset(self):
    return dm_env.restart(np.zeros(3))

  def step(self, action):
    return dm_env.termination(0.0, np.zeros(3))

  def observation_spec(self):
    return dm_env.specs.Array((3,), np.float64)

  def action_spec(self):
    return dm_env.specs.DiscreteArray(2)


def test_what_ffmpeg_cannot_write_is_said_in_its_words(tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  (tmp_path / 'a.mp4').mkdir()
  writer = video.Writer(tmp_path / 'a.mp4', 30.0)
  with pytest.raises(ValueError, match=r'a\.mp4 could not be written\. ffmpeg'):
    for _ in range(100):
      writer.add(np.zeros((200, 200, 3), np.uint8))
    writer.close()


@pytest.mark.parametrize(
  ('picture', 'what'),
  [
    (None, 'None'),
    (np.zeros((4, 4, 3)), r'float64 of shape \(4, 4, 3\)'),
    (np.zeros((4, 4), np.uint8), r'uint8 of shape \(4, 4\)'),
  ],
)
def test_what_is_no_picture_is_refused(tmp_path, picture, what):
  writer = video.Writer(tmp_path / 'episode.mp4', 30)
  message = rf'render\(\) must return a picture, uint8 \[H, W, 3\], got {what}'
  with pytest.raises(ValueError, match=message):
    writer.add(picture)


def test_pictures_of_two_sizes_are_refused(tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  writer = video.Writer(tmp_path / 'a.mp4', 30.0)
  writer.add(np.zeros((10, 10, 3), np.uint8))
  with pytest.raises(
    ValueError, match=r'\(10, 10, 3\) is followed by \(12, 10'
  ):
    writer.add(np.zeros((12, 10, 3), np.uint8))
  writer.close()


def test_filming_forks_no_process_that_holds_threads(run_dir, tmp_path):
  pytest.importorskip('imageio_ffmpeg')
  code = (
    'import pathlib, warnings\n'
    'warnings.simplefilter("error")\n'
    'import jax\n'
    'jax.devices()\n'
    'import numpy as np\n'
    'from distacme.programs.view import video\n'
    f'writer = video.Writer(pathlib.Path({str(tmp_path / "a.gif")!r}), 30.0)\n'
    'writer.add(np.zeros((10, 10, 3), np.uint8))\n'
    'writer.close()'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr
