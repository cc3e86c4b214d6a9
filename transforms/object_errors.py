"""What an object store's failures mean: which may pass, so that one tries again, and which a person has to mend.

s3fs turns some answers into OSErrors, whose cause is the client's own error with the service's code; others come as
the classes of botocore and aiohttp.
"""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from transforms.errors import SorbusError, StoreError, UsageError

# How long one request is tried again: a minute or two of SlowDown are normal when many workers start at once.
PATIENCE_SECONDS = 120.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 10.0
# A conflict is two conditional requests at once: the service asks for one of them to be sent again.
_PASSING_STATUS = frozenset((408, 409, 429, 500, 502, 503, 504))
_BUSY = ("SlowDown", "InternalError", "RequestTimeout", "Throttling")
_DAMAGED_ON_ITS_WAY = ("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch")
_PASSING_CODES = frozenset((*_BUSY, *_DAMAGED_ON_ITS_WAY))
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them"
GOOGLE_CREDENTIALS = "set GOOGLE_APPLICATION_CREDENTIALS, or run where a role gives them"
_RIGHTS = "it takes s3:GetObject, s3:PutObject and s3:DeleteObject there, and s3:ListBucket on the bucket"
# By code of the service: (what is wrong, what to do about it).
_FOR_THE_CALLER = {
  "NoSuchBucket": ("there is no such bucket", "make it, or correct the name"),
  "InvalidAccessKeyId": ("the service does not know these credentials", _CREDENTIALS),
  "SignatureDoesNotMatch": ("the secret key is wrong", _CREDENTIALS),
  "ExpiredToken": ("the credentials have expired", _CREDENTIALS),
  "InvalidToken": ("the session token is wrong", _CREDENTIALS),
  "AccessDenied": ("these credentials may not do that", _RIGHTS),
  "403": ("these credentials may not do that, or are wrong", _RIGHTS),
  "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it"),
  "PermanentRedirect": ("the bucket is in another region", "set AWS_DEFAULT_REGION"),
  "AuthorizationHeaderMalformed": ("the bucket is in another region", "set AWS_DEFAULT_REGION"),
  "301": ("the bucket is in another region", "set AWS_DEFAULT_REGION"),
}

T = TypeVar("T")


def answer_of(error: BaseException) -> tuple[int, str]:
  """Returns what the service answered, (HTTP status, its code); (0, "") where no answer came."""
  for each in (error, error.__cause__):
    response: Any = getattr(each, "response", None)
    if isinstance(response, dict):
      status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
      return int(status), str(response.get("Error", {}).get("Code", ""))
  return 0, ""


def is_missing(error: BaseException) -> bool:
  """Says whether there is no such object or upload, in a bucket that there is."""
  status, code = answer_of(error)
  return status == 404 and code != "NoSuchBucket"


def is_taken(error: BaseException) -> bool:
  """Says whether a conditional request found that its condition does not hold."""
  return answer_of(error)[0] == 412


def may_pass(error: BaseException) -> bool:
  """Says whether the same request may well succeed a moment later."""
  from aiohttp import ClientError as HttpError
  from botocore import exceptions as botocore

  status, code = answer_of(error)
  if status:
    return status in _PASSING_STATUS or code in _PASSING_CODES
  no_answer = (HttpError, botocore.HTTPClientError, botocore.ConnectionError, botocore.IncompleteReadError)
  damaged = (botocore.FlexibleChecksumError, botocore.ChecksumError)
  return isinstance(error, (*no_answer, *damaged, ConnectionError, TimeoutError))


def persist(
  action: Callable[[], T],
  patience: float,
  sleep: Callable[[float], None] = time.sleep,
  clock: Callable[[], float] = time.monotonic,
) -> T:
  """Returns what `action` returns, called again, ever more slowly, while its failure may pass.

  Args:
    action: a request that may be repeated.
    patience: seconds after which its failure is raised all the same.
    sleep: for tests.
    clock: for tests.
  """
  stop, pause = clock() + patience, _FIRST_PAUSE_SECONDS
  while True:
    try:
      return action()
    except Exception as error:
      if not may_pass(error) or clock() + pause > stop:
        raise
    sleep(pause * random.uniform(0.5, 1.0))  # so that workers who failed together do not come back together
    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def credentials_problem(error: BaseException) -> str | None:
  """Returns what is wrong with the credentials for a place, and how to give others; None for any other failure.

  Args:
    error: of a client of S3 or of Google's, whichever is installed.
  """
  client, why = type(error).__module__.partition(".")[0], _one_line(error)
  if client == "botocore" and isinstance(error, _without_credentials()):
    return f"no credentials for it ({why}); {_CREDENTIALS}"
  if client == "google" or (client == "gcsfs" and getattr(error, "code", None) in (401, "401")):
    return f"no credentials for it ({why}); {GOOGLE_CREDENTIALS}"
  code = answer_of(error)[1]
  wrong, remedy = _FOR_THE_CALLER.get(code, ("", ""))
  return f"{wrong} ({code}); {remedy}" if remedy == _CREDENTIALS else None


def _without_credentials() -> tuple[type[Exception], ...]:
  """The errors of S3's client that was given none, or none that it can use."""
  from botocore import exceptions as botocore

  return (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
    botocore.ProfileNotFound,
  )


def _one_line(error: BaseException) -> str:
  return " ".join(str(error).split()) or type(error).__name__


def explain(error: Exception, root: str, relative: str, done: str) -> SorbusError:
  """Returns what to tell a person of a failed request: one line.

  Args:
    error: of the client.
    root: the dataset.
    relative: the object in it.
    done: what could not be `done` to it, such as 'written'.
  """
  from botocore import exceptions as botocore

  status, code = answer_of(error)
  why = _one_line(error)
  if isinstance(error, _without_credentials()):
    return UsageError(f"{root}: {credentials_problem(error)}")
  if code in _FOR_THE_CALLER or status == 403:
    wrong, remedy = _FOR_THE_CALLER.get(code, _FOR_THE_CALLER["403"])
    return UsageError(f"{root}: {relative or 'it'} cannot be {done}: {wrong} ({code}); {remedy}")
  if isinstance(error, botocore.ParamValidationError | ValueError):
    return UsageError(f"{root}: cannot be asked for ({why}); is the name right, and AWS_ENDPOINT_URL if you set it?")
  hint = ", or correct AWS_ENDPOINT_URL" if isinstance(error, botocore.EndpointConnectionError) else ""
  return StoreError(
    f"{root}/{relative}: cannot be {done} ({why}); run again when the service answers{hint}: what is there is kept"
  )
