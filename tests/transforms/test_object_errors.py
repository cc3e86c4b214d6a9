import pytest

from transforms.errors import StoreError, UsageError
from transforms.object_errors import credentials_problem, explain, is_missing, is_taken, may_pass, persist

botocore = pytest.importorskip("botocore.exceptions", reason="needs s3fs, which is not installed")


def answer(status, code, message="m"):
  """A client's error, as s3fs hands it on."""
  response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code, "Message": message}}
  error = OSError(5, message)
  error.__cause__ = botocore.ClientError(response, "PutObject")
  return error


NO_ANSWER = [
  botocore.ConnectTimeoutError(endpoint_url="u"),
  botocore.ReadTimeoutError(endpoint_url="u"),
  botocore.EndpointConnectionError(endpoint_url="u"),
  botocore.ConnectionClosedError(endpoint_url="u"),
  ConnectionResetError("reset"),
  TimeoutError("slow"),
]


@pytest.mark.parametrize(
  ("error", "expected"),
  [
    *((error, True) for error in NO_ANSWER),
    *((answer(status, "X"), True) for status in (408, 409, 429, 500, 502, 503, 504)),
    (answer(400, "RequestTimeout"), True),
    (answer(400, "BadDigest"), True),
    *((answer(status, "X"), False) for status in (301, 400, 403, 404, 412, 416, 501)),
    (botocore.NoCredentialsError(), False),
    (botocore.ParamValidationError(report="r"), False),
    (FileNotFoundError("a"), False),
    (TypeError("a bug"), False),
  ],
)
def test_what_may_pass(error, expected):
  assert may_pass(error) == expected


def test_answers_that_are_no_failures():
  assert is_missing(answer(404, "404")) and is_missing(answer(404, "NoSuchUpload"))
  assert not is_missing(answer(404, "NoSuchBucket")) and not is_missing(answer(403, "AccessDenied"))
  assert is_taken(answer(412, "PreconditionFailed")) and not is_taken(answer(404, "404"))
  assert not is_taken(FileExistsError("a"))


class Time:
  """A clock that only sleeping moves."""

  def __init__(self):
    self.now, self.pauses = 100.0, []

  def sleep(self, seconds):
    self.now += seconds
    self.pauses.append(seconds)


def test_it_is_tried_ever_more_slowly_for_a_bounded_time():
  time, tries = Time(), []

  def action():
    tries.append(time.now)
    raise answer(503, "SlowDown")

  with pytest.raises(OSError, match="m"):
    persist(action, 120.0, time.sleep, lambda: time.now)
  assert 100 < time.now - 100 <= 120
  assert all(a / 4 < b <= 10 for a, b in zip(time.pauses, time.pauses[1:], strict=False)) and time.pauses[0] <= 0.05
  assert 12 < len(tries) < 40


def test_what_passes_is_forgotten_and_what_does_not_is_not_repeated():
  time, failures = Time(), [answer(500, "InternalError")] * 3

  def action():
    if failures:
      raise failures.pop()
    return "done"

  assert persist(action, 1.0, time.sleep, lambda: time.now) == "done" and len(time.pauses) == 3
  failures.append(answer(403, "AccessDenied"))
  with pytest.raises(OSError):
    persist(action, 1.0, time.sleep, lambda: time.now)
  assert len(time.pauses) == 3


class HttpError(Exception):
  """As gcsfs has it."""

  code = 401


HttpError.__module__ = "gcsfs.retry"


@pytest.mark.parametrize(
  ("error", "problem"),
  [
    (botocore.NoCredentialsError(), "no credentials for it (Unable to locate credentials); set AWS_ACCESS_KEY_ID and "),
    (answer(403, "SignatureDoesNotMatch"), "the secret key is wrong (SignatureDoesNotMatch); set AWS_ACCESS_KEY_ID"),
    (HttpError("Anonymous\ncaller"), "no credentials for it (Anonymous caller); set GOOGLE_APPLICATION_CREDENTIALS"),
    (answer(403, "AccessDenied"), None),
    (answer(404, "NoSuchBucket"), None),
    (TimeoutError("slow"), None),
    (FileNotFoundError("a"), None),
  ],
)
def test_what_is_wrong_with_credentials_is_told_from_other_failures(error, problem):
  found = credentials_problem(error)
  assert (found or "").startswith(problem or "") and (found is None) == (problem is None)


@pytest.mark.parametrize(
  ("error", "kind", "line"),
  [
    (
      answer(403, "InvalidAccessKeyId"),
      UsageError,
      "s3://b/ds: a.json cannot be read: the service does not know these credentials (InvalidAccessKeyId); set "
      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them",
    ),
    (
      answer(403, "403", "Forbidden"),
      UsageError,
      "s3://b/ds: a.json cannot be read: these credentials may not do that, or are wrong (403); it takes s3:GetObject, "
      "s3:PutObject and s3:DeleteObject there, and s3:ListBucket on the bucket",
    ),
    (
      answer(301, "PermanentRedirect"),
      UsageError,
      "s3://b/ds: a.json cannot be read: the bucket is in another region (PermanentRedirect); set AWS_DEFAULT_REGION",
    ),
    (
      botocore.ReadTimeoutError(endpoint_url="http://h"),
      StoreError,
      's3://b/ds/a.json: cannot be read (Read timeout on endpoint URL: "http://h"); run again when the service '
      "answers: what is there is kept",
    ),
    (
      answer(507, "QuotaExceeded", "no\nroom"),
      StoreError,
      "s3://b/ds/a.json: cannot be read ([Errno 5] no room); run again when the service answers: what is there is kept",
    ),
  ],
)
def test_what_a_person_is_told(error, kind, line):
  told = explain(error, "s3://b/ds", "a.json", "read")
  assert (type(told), str(told)) == (kind, line)
